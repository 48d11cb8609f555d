//! Making a cluster.
//!
//! `initdb` works in `pgdata.partial`; when it is done, the file system is flushed once and the folder renamed to its
//! place. A crash at any moment leaves either no cluster and a partial one, which is removed by the next attempt, or a
//! whole one. This is faster than letting `initdb` sync file by file, and copying a template would not be: two
//! clusters must never share a system identifier.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::tool::{self, MAKERS, end_processes_in, move_into_place};
use super::{Credentials, NodePaths, Owner, PostgresError, diagnose};
use crate::engines::PostgresEngine;

/// From here on the locale comes from PostgreSQL itself, so that an upgrade of the C library cannot break indexes.
const BUILTIN_LOCALE_SINCE: u32 = 17;

/// What is worth saying while a cluster is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitProgress {
    /// An earlier attempt was interrupted; what it left is removed. It never held data.
    RemovingPartial,
    /// Takes about a second.
    Making,
    Syncing,
}

/// What [`init`] found or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitReport {
    /// There was a cluster, of the right major version. It was not touched.
    Existed,
    Made {
        took: Duration,
    },
}

/// Makes the node's cluster unless there is one.
///
/// Cancel safe: dropped half-way, it kills `initdb`, and the next call begins anew.
///
/// # Errors
/// When the cluster is of another major version or belongs to another user, or `initdb` fails.
pub async fn init(
    engine: &PostgresEngine,
    paths: &NodePaths,
    credentials: &Credentials,
    owner: &Owner,
    progress: &(dyn Fn(InitProgress) + Sync),
) -> Result<InitReport, PostgresError> {
    let began = Instant::now();
    prepare_folders(paths, owner)?;
    if paths.has_cluster() {
        check_existing(engine, paths, owner)?;
        return Ok(InitReport::Existed);
    }
    let partial = paths.partial();
    let at_partial = |source| PostgresError::Io { path: partial.clone(), source };
    if partial.exists() {
        progress(InitProgress::RemovingPartial);
        end_processes_in(&partial, MAKERS).await.map_err(at_partial)?;
        fs::remove_dir_all(&partial).map_err(at_partial)?;
    }
    owner.make_folder(&partial, 0o700).map_err(at_partial)?;
    progress(InitProgress::Making);
    initdb(engine, paths, credentials, owner).await?;
    progress(InitProgress::Syncing);
    let (from, to, parent) = (partial.clone(), paths.pgdata(), paths.root().to_owned());
    let moved = tokio::task::spawn_blocking(move || move_into_place(&from, &to, &parent)).await;
    moved.map_err(io::Error::other).and_then(|moved| moved).map_err(at_partial)?;
    Ok(InitReport::Made { took: began.elapsed() })
}

/// As [`init`], of a cluster that has to be there: none is made in its place.
///
/// # Errors
/// When it is not, is of another major version, or belongs to another user.
pub fn take_up(engine: &PostgresEngine, paths: &NodePaths, owner: &Owner) -> Result<(), PostgresError> {
    check_existing(engine, paths, owner)?;
    prepare_folders(paths, owner)
}

pub(super) fn prepare_folders(paths: &NodePaths, owner: &Owner) -> Result<(), PostgresError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| PostgresError::Io { path, source }
    };
    // Ours, and open to pass through; the data directory in it belongs to PostgreSQL's user alone.
    Owner::Ourselves.make_folder(paths.root(), 0o711).map_err(at(paths.root()))?;
    if let Some(folder) = paths.root().parent() {
        // Made by the call before, perhaps with fewer bits than wished for.
        let ours = fs::metadata(folder).is_ok_and(|found| found.uid() == Owner::Ourselves.uid());
        if ours && owner.stopped_by(paths.root()) == Some(folder) {
            Owner::Ourselves.make_folder(folder, 0o711).map_err(at(folder))?;
        }
    }
    owner.make_folder(paths.socket_dir(), 0o711).map_err(at(paths.socket_dir()))
}

/// A cluster is never touched, but what cannot work is said before it is tried.
fn check_existing(engine: &PostgresEngine, paths: &NodePaths, owner: &Owner) -> Result<(), PostgresError> {
    let path = paths.pgdata();
    let at_path = |source| PostgresError::Io { path: path.clone(), source };
    let found = fs::read_to_string(path.join("PG_VERSION")).map_err(at_path)?;
    let data = found.trim().to_owned();
    if data != engine.version.major().to_string() {
        return Err(PostgresError::OtherMajor { path, data, engine: engine.version.to_string() });
    }
    if fs::metadata(&path).map_err(at_path)?.uid() != owner.uid() {
        return Err(PostgresError::WrongOwner { path, user: owner.name(), log: String::new() });
    }
    Ok(())
}

async fn initdb(
    engine: &PostgresEngine,
    paths: &NodePaths,
    credentials: &Credentials,
    owner: &Owner,
) -> Result<(), PostgresError> {
    let password = PasswordFile::write(paths, credentials, owner)?;
    let said = match run_initdb(engine, paths, owner, &password, &preferred_locale(engine)).await? {
        Ok(()) => return Ok(()),
        // A machine without C.UTF-8; C orders text in the same way.
        Err(said) if said.contains("locale") => {
            let partial = paths.partial();
            let cleared = fs::remove_dir_all(&partial).and_then(|()| owner.make_folder(&partial, 0o700));
            cleared.map_err(|source| PostgresError::Io { path: partial, source })?;
            match run_initdb(engine, paths, owner, &password, &["--locale=C"]).await? {
                Ok(()) => return Ok(()),
                Err(said) => said,
            }
        }
        Err(said) => said,
    };
    Err(match diagnose("initdb", &said, &paths.pgdata(), &owner.name()) {
        PostgresError::Permission { path, user, log, .. } => {
            let blocked_by = owner.stopped_by(&path).map(Path::to_owned);
            PostgresError::Permission { path, user, blocked_by, log }
        }
        other => other,
    })
}

fn preferred_locale(engine: &PostgresEngine) -> Vec<&'static str> {
    if engine.version.major() >= BUILTIN_LOCALE_SINCE {
        vec!["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    } else {
        vec!["--locale=C.UTF-8"]
    }
}

/// The inner result: what it said when it failed.
async fn run_initdb(
    engine: &PostgresEngine,
    paths: &NodePaths,
    owner: &Owner,
    password: &PasswordFile,
    locale: &[&str],
) -> Result<Result<(), String>, PostgresError> {
    let partial = paths.partial();
    let mut arguments: Vec<&OsStr> = vec!["--pgdata".as_ref(), partial.as_os_str()];
    // Without syncing and without a word on how to go on, which is ours to say.
    let fixed = ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--data-checksums"];
    let quiet = ["--no-sync", "--no-instructions", "--pwfile"];
    arguments.extend(fixed.iter().chain(locale).chain(&quiet).map(|text| OsStr::new(*text)));
    arguments.push(password.path.as_os_str());
    Ok(tool::run(engine, owner, &partial, "initdb", &arguments).await?.map(drop))
}

/// The superuser's password, in a file for as long as `initdb` runs.
struct PasswordFile {
    path: PathBuf,
}

impl PasswordFile {
    fn write(
        paths: &NodePaths,
        credentials: &Credentials,
        owner: &Owner,
    ) -> Result<PasswordFile, PostgresError> {
        // Its guard exists before it does, so that it is removed whatever fails.
        let file = PasswordFile { path: paths.root().join("initdb.password") };
        let write = || {
            // One left by a crash.
            match fs::remove_file(&file.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut out = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&file.path)?;
            writeln!(out, "{}", credentials.superuser.password)?;
            owner.take(&file.path)
        };
        write().map_err(|source| PostgresError::Io { path: file.path.clone(), source })?;
        Ok(file)
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        // Absent when writing it failed; otherwise the next attempt removes it.
        let _ = fs::remove_file(&self.path);
    }
}

//! Making a cluster.
//!
//! `initdb` works in `pgdata.partial`; when it is done, the file system is flushed once and the folder renamed to its
//! place. A crash at any moment leaves either no cluster and a partial one, which is removed by the next attempt, or a
//! whole one. This is faster than letting `initdb` sync file by file, and copying a template would not be: two
//! clusters must never share a system identifier.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::time::sleep;

use super::{Credentials, NodePaths, Owner, PostgresError, diagnose, processes_in};
use crate::engines::PostgresEngine;

/// From here on the locale comes from PostgreSQL itself, so that an upgrade of the C library cannot break indexes.
const BUILTIN_LOCALE_SINCE: u32 = 17;

/// What an interrupted `initdb` has left running is gone by then.
const LEFTOVER_WAIT: Duration = Duration::from_secs(10);
const LEFTOVER_POLL: Duration = Duration::from_millis(5);

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
        end_processes_in(&partial).await.map_err(at_partial)?;
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

fn prepare_folders(paths: &NodePaths, owner: &Owner) -> Result<(), PostgresError> {
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

/// An `initdb` whose daemon was killed goes on, and one that was killed leaves a `postgres` behind that is still
/// writing. All of them work in the partial directory.
async fn end_processes_in(partial: &Path) -> io::Result<()> {
    let deadline = Instant::now() + LEFTOVER_WAIT;
    loop {
        let mut left = processes_in(partial)?;
        // Not somebody's shell that happens to stand there.
        left.retain(|process| process.title.contains("initdb") || process.title.contains("postgres"));
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(io::Error::other(format!("pid {} still works in it", left[0].pid)));
        }
        for process in &left {
            // One that has just ended needs no ending.
            if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        sleep(LEFTOVER_POLL).await;
    }
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
    let program = engine.program("initdb");
    let mut command = Command::new(&program);
    command
        .arg("--pgdata")
        .arg(paths.partial())
        .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--data-checksums"])
        // Without syncing and without a word on how to go on, which is ours to say.
        .args(["--no-sync", "--no-instructions"])
        .args(locale)
        .arg("--pwfile")
        .arg(&password.path)
        .env_clear()
        .envs(&engine.env)
        // TZ saves it from comparing every time zone there is with the machine's.
        .envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC")])
        // What it starts inherits this, and is found by it should we die: see `end_processes_in`.
        .current_dir(paths.partial())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(user) = owner.identity() {
        command.uid(user.uid).gid(user.gid);
    }
    let output = match command.output().await {
        Ok(output) => output,
        // The working directory is out of the owner's reach: as if initdb had said so.
        Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied && owner.identity().is_some() => {
            return Ok(Err("Permission denied".to_owned()));
        }
        Err(source) => return Err(PostgresError::Io { path: program, source }),
    };
    if output.status.success() {
        return Ok(Ok(()));
    }
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(Err(said))
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

/// One flush of the whole file system, which also covers the files that `initdb` did not sync.
fn move_into_place(partial: &Path, pgdata: &Path, parent: &Path) -> io::Result<()> {
    let folder = fs::File::open(partial)?;
    rustix::fs::syncfs(&folder)?;
    fs::rename(partial, pgdata)?;
    fs::File::open(parent)?.sync_all()
}

//! Copying a running node into a backup, and a backup into a data directory.
//!
//! `pg_basebackup` reads every file and checks its checksums, `backup_manifest` names each with a digest, and
//! `pg_verifybackup` holds what was unpacked against it. Copies are compressed by gzip, which every version from 13 on
//! knows. They hold the log of the time they were made in, so a copy is of use even where the archive is not whole.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use model::Lsn;
use serde::Deserialize;

use super::config::connection_string;
use super::follow::write_passfile;
use super::init::prepare_folders;
use super::tool::{self, end_processes_in};
use super::{Credentials, NodePaths, Owner, PostgresError, diagnose};
use crate::backup::position;
use crate::engines::PostgresEngine;

/// What may be found at work in a folder of a backup, or in one that is unpacked from it.
const AT_WORK: &[&str] = &["pg_basebackup", "tar", "pg_verifybackup"];
const MANIFEST: &str = "backup_manifest";
/// As it stands in `pg_stat_activity` and `pg_stat_replication`.
const NAME: &str = "switchback_backup";

/// What a copy says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    pub timeline: u32,
    pub start: Lsn,
    pub stop: Lsn,
    /// Of all files when they are unpacked.
    pub data_bytes: u64,
}

/// Copies the node into `folder`, which is empty and the owner's.
///
/// Cancel safe: dropped half-way, it kills what it has started. What was written stays.
///
/// # Errors
/// When the node goes away, a page of it is damaged, or the target is full.
pub async fn base_backup(
    engine: &PostgresEngine,
    paths: &NodePaths,
    credentials: &Credentials,
    owner: &Owner,
    folder: &Path,
) -> Result<Copied, PostgresError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| PostgresError::Io { path, source }
    };
    write_passfile(paths, credentials, owner).map_err(at(paths.root()))?;
    let source = connection_string(paths, paths.port(), NAME);
    let fixed = ["--format=tar", "--gzip", "--compress=1", "--wal-method=stream", "--checkpoint=fast"];
    let quiet = ["--no-sync", "--no-password"];
    let mut arguments: Vec<&OsStr> = vec!["--pgdata".as_ref(), folder.as_os_str()];
    arguments.extend(fixed.iter().chain(&quiet).map(OsStr::new));
    arguments.extend([OsStr::new("--dbname"), OsStr::new(&source)]);
    let program = engine.program("pg_basebackup");
    let said = tool::run_gently(engine, owner, folder, &program, &arguments).await?;
    said.map_err(|said| diagnose("pg_basebackup", &said, folder, &owner.name()))?;
    let manifest = folder.join(MANIFEST);
    let described = fs::read(&manifest).and_then(|text| describe(&text));
    described.map_err(at(&manifest))
}

/// Ends what an earlier daemon has begun, and is still at work there: copying, or unpacking.
///
/// # Errors
/// When it does not end.
pub async fn end_backup_work_in(folder: &Path) -> io::Result<()> {
    end_processes_in(folder, AT_WORK).await
}

/// Makes the data directory of `paths` from the copy in `folder`, and holds every file of it against the digest it had.
///
/// Cancel safe: dropped half-way, it kills what it has started.
///
/// # Errors
/// When the copy is damaged, or there is no room.
pub async fn unpack(
    engine: &PostgresEngine,
    paths: &NodePaths,
    owner: &Owner,
    folder: &Path,
) -> Result<(), PostgresError> {
    prepare_folders(paths, owner)?;
    let pgdata = paths.pgdata();
    owner.make_folder(&pgdata, 0o700).map_err(|source| PostgresError::Io { path: pgdata.clone(), source })?;
    let tar = Path::new("tar");
    for (archive, into) in [("base.tar.gz", pgdata.clone()), ("pg_wal.tar.gz", pgdata.join("pg_wal"))] {
        let from = folder.join(archive);
        let arguments: [&OsStr; 4] = ["-xzf".as_ref(), from.as_os_str(), "-C".as_ref(), into.as_os_str()];
        let said = tool::run_gently(engine, owner, &pgdata, tar, &arguments).await?;
        said.map_err(|said| damaged_or(folder, "tar", &said, owner))?;
    }
    let mut manifest = std::ffi::OsString::from("--manifest-path=");
    manifest.push(folder.join(MANIFEST));
    let arguments: [&OsStr; 4] =
        ["--quiet".as_ref(), "--no-parse-wal".as_ref(), manifest.as_os_str(), pgdata.as_os_str()];
    let program = engine.program("pg_verifybackup");
    let said = tool::run_gently(engine, owner, &pgdata, &program, &arguments).await?;
    said.map_err(|said| damaged_or(folder, "pg_verifybackup", &said, owner))?;
    Ok(())
}

/// What does not unpack for another reason than the disk it is unpacked to is damaged.
fn damaged_or(folder: &Path, program: &str, said: &str, owner: &Owner) -> PostgresError {
    match diagnose(program, said, folder, &owner.name()) {
        PostgresError::Failed { log, .. } => PostgresError::BackupDamaged { path: folder.to_owned(), log },
        other => other,
    }
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "Files")]
    files: Vec<ManifestFile>,
    #[serde(rename = "WAL-Ranges")]
    ranges: Vec<ManifestRange>,
}

#[derive(Deserialize)]
struct ManifestFile {
    #[serde(rename = "Size")]
    size: u64,
}

#[derive(Deserialize)]
struct ManifestRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

fn describe(text: &[u8]) -> io::Result<Copied> {
    let manifest: Manifest = serde_json::from_slice(text)?;
    // More than one where it was taken from a standby whose primary changed.
    let (first, last) = (manifest.ranges.first(), manifest.ranges.last());
    let read = || {
        Some(Copied {
            timeline: last?.timeline,
            start: position(&first?.start)?,
            stop: position(&last?.end)?,
            data_bytes: manifest.files.iter().map(|file| file.size).sum(),
        })
    };
    read().ok_or_else(|| io::Error::other("it names no range of the log"))
}

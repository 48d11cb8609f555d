//! `switchback.lock`: which engine the app's data was made with.
//!
//! It stands beside the manifest, belongs under version control, and is written by Switchback. Its use is to keep
//! `up` from taking another PostgreSQL than yesterday because somebody installed one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{EngineError, PgVersion, PostgresEngine, Source};
use crate::user::give_to_owner_of;

/// In the app's folder.
pub const LOCK_FILE: &str = "switchback.lock";

const HEADER: &str = "# Written by switchback: the engines that this app's data was made with. Keep it under version control.\n";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockFile {
    engine: BTreeMap<String, Lock>,
}

/// One engine of the lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lock {
    pub version: PgVersion,
    pub source: Source,
    /// The folder of `postgres`.
    pub path: PathBuf,
    /// SHA-256 of the `postgres` program when it was chosen: for people who compare machines.
    pub digest: String,
}

/// `None` when there is no lock file, or none for PostgreSQL.
pub(super) fn read(folder: &Path) -> Result<Option<Lock>, EngineError> {
    let path = folder.join(LOCK_FILE);
    let unreadable = |reason: String| EngineError::LockUnreadable { path: path.clone(), reason };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(unreadable(cause.to_string())),
    };
    let mut file: LockFile = toml::from_str(&text).map_err(|cause| unreadable(cause.message().to_owned()))?;
    Ok(file.engine.remove("postgres"))
}

/// Records `engine` in `folder`. A lock file that names it already is left alone.
///
/// # Errors
/// When `postgres` cannot be read or the file cannot be written. The old file is whole in every case.
pub fn write_lock(folder: &Path, engine: &PostgresEngine) -> Result<(), EngineError> {
    let path = folder.join(LOCK_FILE);
    write(&path, folder, engine).map_err(|source| EngineError::LockNotWritten { path, source })
}

fn write(path: &Path, folder: &Path, engine: &PostgresEngine) -> io::Result<()> {
    let written = read(folder).ok().flatten();
    let is_same = |lock: &Lock| {
        lock.version == engine.version && lock.source == engine.source && lock.path == engine.bin_dir
    };
    if written.as_ref().is_some_and(is_same) {
        return Ok(());
    }
    let lock = Lock {
        version: engine.version.clone(),
        source: engine.source,
        path: engine.bin_dir.clone(),
        digest: digest(&engine.program("postgres"))?,
    };
    let file = LockFile { engine: BTreeMap::from([("postgres".to_owned(), lock)]) };
    let text = toml::to_string(&file).map_err(io::Error::other)?;
    let partial = folder.join(format!("{LOCK_FILE}.partial"));
    let mut out = fs::File::create(&partial)?;
    give_to_owner_of(folder, &out)?;
    out.write_all(HEADER.as_bytes())?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&partial, path)
}

fn digest(program: &Path) -> io::Result<String> {
    let mut file = fs::File::open(program)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

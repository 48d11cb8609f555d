//! Finding the engines that Switchback runs but does not ship: PostgreSQL.
//!
//! In this order: what `switchback.lock` names; what is installed, the newest first; the distribution's packages,
//! unpacked into a cache without root. Otherwise an error that says what to install. Nothing is compiled, nothing is
//! downloaded from anywhere but the package archive that the machine's owner has configured.
//!
//! Everything here blocks (it runs `postgres --version`, and perhaps `apt-get`): call it from a blocking task.

mod apt;
mod error;
mod installed;
mod lock;
mod packages;
#[cfg(test)]
mod tests;
mod version;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use error::EngineError;
pub use lock::{LOCK_FILE, write_lock};
pub use version::PgVersion;

/// The oldest major that is run: `wal_log_hints`, `max_slot_wal_keep_size` and trusted extensions are all there.
pub const OLDEST_MAJOR: u32 = 13;

/// A PostgreSQL that was seen to work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresEngine {
    /// Holds `postgres`, `initdb` and the other tools.
    pub bin_dir: PathBuf,
    pub version: PgVersion,
    pub source: Source,
    /// What its programs need in their environment: `LD_LIBRARY_PATH` for unpacked packages, nothing when installed.
    pub env: BTreeMap<String, String>,
}

/// Where an engine came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// By the machine's owner; upgraded by them.
    Installed,
    /// The distribution's packages, unpacked into the cache.
    Unpacked,
}

/// What a search says while it is at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Packages are being fetched: the slow case, some tens of megabytes.
    Downloading {
        packages: usize,
    },
    Unpacking {
        package: String,
    },
    /// Something the user should know once.
    Notice(String),
}

impl PostgresEngine {
    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }
}

/// Where to look. [`find_postgres`] fills it in for this machine.
#[derive(Debug, Clone)]
pub struct Search {
    /// The app's folder, where `switchback.lock` stands.
    pub folder: PathBuf,
    /// Where packages are unpacked, such as `~/.cache/switchback`. PostgreSQL's user must be able to read it: as root,
    /// `/var/cache/switchback`.
    pub cache: PathBuf,
    /// Folders that may hold a `postgres`, tried beside those of `path`.
    pub bin_dirs: Vec<PathBuf>,
    /// `PATH`.
    pub path: Option<OsString>,
    pub packages: Packages,
}

/// Whether the distribution's packages may be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packages {
    Fetch,
    Never,
}

/// Finds PostgreSQL for the app in `folder`, on this machine. Reads `PATH`.
///
/// # Errors
/// [`EngineError`] when there is none, when the one the lock file names is gone, or when the lock file does not read.
pub fn find_postgres(
    folder: &Path,
    cache: &Path,
    progress: &dyn Fn(Progress),
) -> Result<PostgresEngine, EngineError> {
    let search = Search {
        folder: folder.to_owned(),
        cache: cache.to_owned(),
        bin_dirs: installed::usual_bin_dirs(),
        path: std::env::var_os("PATH"),
        packages: Packages::Fetch,
    };
    search.find(progress)
}

impl Search {
    /// # Errors
    /// As [`find_postgres`].
    pub fn find(&self, progress: &dyn Fn(Progress)) -> Result<PostgresEngine, EngineError> {
        match lock::read(&self.folder)? {
            Some(lock) => self.find_locked(&lock, progress),
            None => self.find_newest(progress),
        }
    }

    fn find_newest(&self, progress: &dyn Fn(Progress)) -> Result<PostgresEngine, EngineError> {
        let (usable, refused) = installed::all(self);
        if let Some(engine) = usable.into_iter().next() {
            return Ok(engine);
        }
        self.fetch(None, progress).map_err(|why| EngineError::NotFound { refused, packages: why.to_string() })
    }

    /// The data directory belongs to a major version, so another major is no replacement; another minor is.
    fn find_locked(
        &self,
        lock: &lock::Lock,
        progress: &dyn Fn(Progress),
    ) -> Result<PostgresEngine, EngineError> {
        let env = packages::env_of(&lock.path);
        if let Ok(engine) = installed::examine(&lock.path, lock.source, env)
            && engine.version.major() == lock.version.major()
        {
            if engine.version != lock.version {
                let (was, is) = (&lock.version, &engine.version);
                progress(Progress::Notice(format!("PostgreSQL {was} has become {is}")));
            }
            return Ok(engine);
        }
        let major = lock.version.major();
        let (usable, _) = installed::all(self);
        if let Some(engine) = usable.iter().find(|engine| engine.version.major() == major) {
            progress(Progress::Notice(format!(
                "PostgreSQL {} is no longer in {}; using {} in {}",
                lock.version,
                lock.path.display(),
                engine.version,
                engine.bin_dir.display()
            )));
            return Ok(engine.clone());
        }
        self.fetch(Some(major), progress).map_err(|why| EngineError::LockedVersionGone {
            version: lock.version.clone(),
            path: lock.path.clone(),
            available: usable.iter().map(|engine| engine.version.clone()).collect(),
            packages: why.to_string(),
        })
    }

    fn fetch(
        &self,
        major: Option<u32>,
        progress: &dyn Fn(Progress),
    ) -> Result<PostgresEngine, packages::PackagesError> {
        match self.packages {
            Packages::Fetch => packages::fetch(self, major, progress),
            Packages::Never => Err(packages::PackagesError::SwitchedOff),
        }
    }
}

//! Releases: what an instance runs, stored once and never changed.
//!
//! What is promised:
//!
//! - **A release is named by its content**: the first 12 hex digits of the SHA-256 over its files and commands. Equal
//!   content has an equal id, and is stored once.
//! - **A stored release is whole.** It is copied beside its place, flushed, and renamed; a crash leaves something that is
//!   recognised as half a release and removed. A file that changes while it is copied fails the whole.
//! - **Storing and building never fill the disk**: below a floor both are refused ([`DiskFloor`]).
//!
//! ```text
//! releases/<id>/metadata.json   what it is
//! releases/<id>/entries         the paths of all that was stored
//! releases/<id>/tree/           the files, without their write bits
//! releases/<id>/failed.json     why it was taken back, where it was
//! releases/<id>.partial/        being stored, or left by a crash
//! releases/<id>.removing/       being removed, or left by a crash
//! releases/.lock                held by whoever stores or removes
//! ```
//!
//! Everything here blocks but for [`build`]: call it from a blocking task.

mod build;
mod digest;
mod disk;
mod error;
mod prune;
mod store;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use model::ReleaseId;
use serde::{Deserialize, Serialize};

pub use build::{Build, BuildError, Built, build};
pub use disk::{DiskFloor, DiskLow};
pub use error::ReleaseError;
pub use prune::Pruned;
pub use store::{Progress, Snapshot, Source};

/// The file that says that a release was taken back.
const FAILED: &str = "failed.json";

/// The file that lists what was stored.
const ENTRIES: &str = "entries";

/// A tree with more entries is a mistake, such as an ignored folder that is not ignored.
pub const MAX_FILES: usize = 500_000;

/// Where a release's files are, and so where its commands run.
pub fn tree(releases: &Path, id: &ReleaseId) -> PathBuf {
    releases.join(id.as_str()).join("tree")
}

/// What is known of a stored release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    pub id: ReleaseId,
    /// The whole SHA-256 of which the id is the beginning.
    pub digest: String,
    /// When this content was first stored.
    pub created: Timestamp,
    /// Files and symbolic links; folders do not count.
    pub files: u64,
    pub bytes: u64,
    pub run: String,
    pub release_command: Option<String>,
    /// That it did not serve when it was last tried. Kept beside the rest, which never changes.
    #[serde(skip)]
    pub failed: Option<Failed>,
}

/// A release that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub time: Timestamp,
    /// A sentence without its full stop.
    pub because: String,
}

impl Metadata {
    /// As plans name it.
    pub fn release(&self) -> model::Release {
        model::Release {
            id: self.id.clone(),
            run: self.run.clone(),
            release_command: self.release_command.clone(),
        }
    }
}

/// The folder of releases.
#[derive(Debug, Clone)]
pub struct Releases {
    dir: PathBuf,
}

impl Releases {
    /// Touches nothing yet.
    pub fn at(dir: impl Into<PathBuf>) -> Releases {
        Releases { dir: dir.into() }
    }

    /// Where a release's files are.
    pub fn tree(&self, id: &ReleaseId) -> PathBuf {
        tree(&self.dir, id)
    }

    /// What is known of one release; `None` when it is not stored.
    ///
    /// # Errors
    /// When its metadata does not read.
    pub fn get(&self, id: &ReleaseId) -> Result<Option<Metadata>, ReleaseError> {
        let path = self.dir.join(id.as_str()).join("metadata.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ReleaseError::Io { path, source }),
        };
        let metadata: Metadata =
            serde_json::from_slice(&text).map_err(|error| ReleaseError::Io { path, source: error.into() })?;
        // One that does not read says nothing: it is a word of warning.
        let failed = fs::read(self.dir.join(id.as_str()).join(FAILED)).ok();
        let failed = failed.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(Some(Metadata { failed, ..metadata }))
    }

    /// Notes that a release was taken back. One that is not stored is passed over.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn mark_failed(&self, id: &ReleaseId, because: &str) -> Result<(), ReleaseError> {
        let failed = Failed { time: Timestamp::now(), because: because.to_owned() };
        let path = self.dir.join(id.as_str()).join(FAILED);
        let text = serde_json::to_vec(&failed)
            .map_err(|error| ReleaseError::Io { path: path.clone(), source: error.into() })?;
        match fs::write(&path, text) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ReleaseError::Io { path, source: error })
            }
            _ => Ok(()),
        }
    }

    /// Takes [`Releases::mark_failed`] back: it serves.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn mark_serving(&self, id: &ReleaseId) -> Result<(), ReleaseError> {
        let path = self.dir.join(id.as_str()).join(FAILED);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ReleaseError::Io { path, source: error })
            }
            _ => Ok(()),
        }
    }

    /// The paths that were stored, relative to the tree.
    fn entries(&self, id: &ReleaseId) -> Result<BTreeSet<PathBuf>, ReleaseError> {
        use std::os::unix::ffi::OsStrExt;
        let path = self.dir.join(id.as_str()).join(ENTRIES);
        let list = fs::read(&path).map_err(ReleaseError::io(&path))?;
        let paths = list.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        Ok(paths.map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path))).collect())
    }

    /// All stored releases, the newest first. One whose metadata does not read is left out.
    ///
    /// # Errors
    /// When the folder does not read.
    pub fn list(&self) -> Result<Vec<Metadata>, ReleaseError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(ReleaseError::Io { path: self.dir.clone(), source }),
        };
        let ids = entries.flatten().filter_map(|entry| ReleaseId::new(entry.file_name().to_str()?).ok());
        let mut stored: Vec<Metadata> = ids.filter_map(|id| self.get(&id).ok().flatten()).collect();
        stored.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(stored)
    }

    /// Reads the whole release again and compares it with its name.
    ///
    /// # Errors
    /// [`ReleaseError::NotStored`], or [`ReleaseError::Damaged`] when it is not what was stored.
    pub fn verify(&self, id: &ReleaseId) -> Result<Metadata, ReleaseError> {
        let metadata = self.get(id)?.ok_or_else(|| ReleaseError::NotStored { id: id.clone() })?;
        let stored = self.entries(id)?;
        let mut entries = walk::everything(&self.tree(id))?;
        // What the app itself added, such as bytecode beside its modules, changes nothing of what was stored.
        entries.retain(|path, _| stored.contains(path));
        let hashed = digest::hash_all(&self.tree(id), entries, &mut |_| {})?;
        let found = digest::of_release(&hashed, &metadata.run, metadata.release_command.as_deref());
        if found != metadata.digest || !found.starts_with(id.as_str()) {
            return Err(ReleaseError::Damaged { id: id.clone() });
        }
        Ok(metadata)
    }
}

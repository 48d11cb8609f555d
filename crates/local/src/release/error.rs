//! Why a release could not be stored, read or removed.

use std::io;
use std::path::PathBuf;

use model::ReleaseId;

use super::{DiskLow, MAX_FILES};

#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    #[error("{}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the app's files cannot be listed")]
    Walk(#[source] ignore::Error),
    #[error("`{pattern}` of `include` {reason}")]
    Include { pattern: String, reason: String },
    #[error("{} is a {kind}, which cannot be part of a release", .path.display())]
    Special { path: PathBuf, kind: &'static str },
    #[error("the app has more than {MAX_FILES} files")]
    TooManyFiles,
    #[error("{} changed while it was copied", .path.display())]
    Changed { path: PathBuf },
    #[error("there is nothing to release: {} holds no file of an app", .folder.display())]
    Empty { folder: PathBuf },
    #[error("there is nothing to release: every file is ignored")]
    AllIgnored,
    #[error(transparent)]
    DiskLow(#[from] DiskLow),
    #[error("release {id} is not stored")]
    NotStored { id: ReleaseId },
    #[error("release {id} is not what was stored under this name")]
    Damaged { id: ReleaseId },
}

impl ReleaseError {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            ReleaseError::Io { .. } | ReleaseError::Walk(_) => {
                "see that the disk is not full and that the files are yours to read"
            }
            ReleaseError::Include { .. } => {
                "the path must be there when `build` has run: see what the build makes, or correct `include`"
            }
            ReleaseError::Special { .. } => "remove it, or name it in .gitignore or .switchbackignore",
            ReleaseError::TooManyFiles => {
                "name what does not belong to a release in .gitignore or .switchbackignore"
            }
            ReleaseError::Changed { .. } => "run deploy again, when nothing writes into the app's folder",
            ReleaseError::Empty { .. } => {
                "put the app's code beside its manifest, or name the folder that has both with -C"
            }
            ReleaseError::AllIgnored => {
                "name what belongs to a release in `include`, or take it out of .gitignore and .switchbackignore"
            }
            ReleaseError::DiskLow(_) => {
                "free some space; `switchback rollback --list` shows what releases take"
            }
            ReleaseError::NotStored { .. } => "`switchback rollback` lists the releases that are kept",
            ReleaseError::Damaged { .. } => "deploy it again; somebody has changed the state folder",
        }
    }

    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ReleaseError {
        let path = path.into();
        move |source| ReleaseError::Io { path, source }
    }
}

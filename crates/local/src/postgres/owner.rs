//! Whom PostgreSQL runs as, and whom its files belong to. It refuses to run as root.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::user::{Identity, UserError, give_to, running_as_root};

/// The user that packages of PostgreSQL make; then those that are there for what belongs to nobody.
const CANDIDATES: &[&str] = &["postgres", "nobody"];

/// Whom a node runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// As whom the daemon runs.
    Ourselves,
    /// The daemon is root and PostgreSQL is this user.
    Other(Identity),
}

/// The owner for this machine, and a notice for the user when it is a second choice.
///
/// # Errors
/// When the user database cannot be read, or has neither `postgres` nor `nobody`.
pub fn choose_owner() -> Result<(Owner, Option<String>), UserError> {
    if !running_as_root() {
        return Ok((Owner::Ourselves, None));
    }
    let mut last = UserError::Unknown { name: CANDIDATES[0].to_owned() };
    for name in CANDIDATES {
        match Identity::by_name(name) {
            Ok(identity) if identity.is_root() => {}
            Ok(identity) => {
                let notice = (*name != CANDIDATES[0]).then(|| {
                    format!(
                        "there is no user `{}`, so PostgreSQL runs as `{name}`, which other services may share; \
                         `useradd --system {}` gives it one of its own",
                        CANDIDATES[0], CANDIDATES[0]
                    )
                });
                return Ok((Owner::Other(identity), notice));
            }
            Err(unknown @ UserError::Unknown { .. }) => last = unknown,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

impl Owner {
    /// For the supervisor: `None` means as whom it runs.
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Owner::Ourselves => None,
            Owner::Other(identity) => Some(identity),
        }
    }

    pub(super) fn uid(&self) -> u32 {
        match self {
            Owner::Ourselves => rustix::process::geteuid().as_raw(),
            Owner::Other(identity) => identity.uid,
        }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Owner::Ourselves => format!("uid {}", self.uid()),
            Owner::Other(identity) => identity.name.clone(),
        }
    }

    /// Gives a file or folder to the owner.
    pub(crate) fn take(&self, path: &Path) -> io::Result<()> {
        match self {
            Owner::Ourselves => Ok(()),
            Owner::Other(identity) => give_to(path, identity),
        }
    }

    /// Makes a folder of the owner's, or takes over the one that is there.
    pub(crate) fn make_folder(&self, path: &Path, mode: u32) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
        let metadata = fs::symlink_metadata(path)?;
        if !metadata.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if metadata.uid() != self.uid() {
            self.take(path)?;
        }
        if metadata.mode() & 0o777 != mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// The first folder above `path` that the owner may not pass through. Judged by modes, so where access lists grant
    /// more, this is asked only after something has failed.
    pub(crate) fn stopped_by<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        let Owner::Other(identity) = self else {
            return None;
        };
        let may_pass = |folder: &Path| {
            let Ok(metadata) = fs::metadata(folder) else { return true };
            let bit = if metadata.uid() == identity.uid {
                0o100
            } else if metadata.gid() == identity.gid || identity.groups.contains(&metadata.gid()) {
                0o010
            } else {
                0o001
            };
            metadata.mode() & bit != 0
        };
        path.ancestors().skip(1).filter(|folder| !may_pass(folder)).last()
    }
}

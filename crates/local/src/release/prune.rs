//! Removing releases that nobody needs.

use std::collections::BTreeSet;
use std::fs;

use model::ReleaseId;

use super::{DiskFloor, Metadata, ReleaseError, Releases};

/// What [`Releases::prune`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The newest first.
    pub removed: Vec<ReleaseId>,
    pub bytes: u64,
}

impl Releases {
    /// Keeps what is in use and the `keep` newest. While the disk is below the floor, the oldest of those `keep` go
    /// too; what is in use never does. Several services share the folder: name in `in_use` what each may still need.
    ///
    /// # Errors
    /// When something cannot be removed; what was removed before is gone.
    pub fn prune(
        &self,
        keep: usize,
        in_use: &BTreeSet<ReleaseId>,
        floor: DiskFloor,
    ) -> Result<Pruned, ReleaseError> {
        let _lock = self.lock()?;
        self.clean()?;
        let mut unused: Vec<(usize, Metadata)> = self.list()?.into_iter().enumerate().collect();
        unused.retain(|(_, release)| !in_use.contains(&release.id));
        let mut pruned = Pruned::default();
        for (age, release) in unused.into_iter().rev() {
            let needless = age >= keep;
            if !needless && floor.check(&self.dir, 0).map_err(ReleaseError::io(&self.dir))?.is_ok() {
                break;
            }
            self.remove(&release.id)?;
            pruned.bytes += release.bytes;
            pruned.removed.push(release.id);
        }
        pruned.removed.reverse();
        Ok(pruned)
    }

    /// Renamed first: half a release must never look like a whole one.
    fn remove(&self, id: &ReleaseId) -> Result<(), ReleaseError> {
        let path = self.dir.join(id.as_str());
        let removing = self.dir.join(format!("{id}.removing"));
        let removed = fs::rename(&path, &removing).and_then(|()| fs::remove_dir_all(&removing));
        removed.map_err(ReleaseError::io(path))
    }
}

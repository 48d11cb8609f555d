//! Room for what backups write: a copy, and a whole database that is made from one. Nothing of that is worth the space
//! which the database that serves needs: a primary that cannot write its log ends.

use super::blocking;
use crate::backup::{Archive, BaseBackup, Catalog};
use crate::machine::{Machine, StepError};
use crate::postgres::Session;
use crate::release::{DiskFloor, DiskLow};

/// What must stay free beside what is about to be written.
const ROOM: DiskFloor = DiskFloor { percent: 0, bytes: 512 * 1024 * 1024 };
/// Whoever is writing gives up when less than this is left.
const LEAST: DiskFloor = DiskFloor { percent: 0, bytes: 128 * 1024 * 1024 };

impl Machine {
    /// Whether the database that `backup` is of fits beside the app.
    pub(super) fn room_for(&self, backup: &BaseBackup) -> Result<(), StepError> {
        self.room_beside_app(ROOM, backup.data_bytes)
    }

    /// As [`Machine::room_for`], while it is made: how much log it replays is not known before, nor what the app writes
    /// meanwhile.
    pub(super) fn room_is_left(&self) -> Result<(), StepError> {
        self.room_beside_app(LEAST, 0)
    }

    fn room_beside_app(&self, floor: DiskFloor, bytes: u64) -> Result<(), StepError> {
        // A disk that cannot be asked is taken to have space.
        match floor.check(self.inner.setup.state.root(), bytes) {
            Ok(Err(low)) => Err(StepError::new("there is no room for a second copy of the database")
                .hint(format!("{low}; free some space"))),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

/// Whether a copy of the primary behind `session` fits where copies are kept, which may be where the primary is: by the
/// size of the last one, or of the database itself, which a copy stays below.
pub(super) async fn room_for_copy(archive: &Archive, session: &Session) -> Result<(), StepError> {
    let catalog = Catalog::of(archive);
    let last = blocking(move || catalog.list()).await?.pop();
    let bytes = match last {
        Some(last) => last.stored_bytes,
        None => session.databases_bytes().await?,
    };
    match copy_low(ROOM, archive, bytes).await? {
        Some(low) => Err(StepError::new("there is no room for another copy of the database")
            .hint(format!("{low}; free some space there, or keep fewer copies: `backups.keep` under [db]"))),
        None => Ok(()),
    }
}

/// As [`room_for_copy`], while it is made.
pub(super) async fn room_is_left_for_copy(archive: &Archive) -> Result<bool, StepError> {
    Ok(copy_low(LEAST, archive, 0).await?.is_none())
}

async fn copy_low(floor: DiskFloor, archive: &Archive, bytes: u64) -> Result<Option<DiskLow>, StepError> {
    let base = archive.base();
    // A disk that cannot be asked is taken to have space.
    blocking(move || Ok(floor.check(&base, bytes).ok().and_then(Result::err))).await
}

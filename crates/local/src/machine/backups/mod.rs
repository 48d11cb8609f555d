//! Backups of the database clusters: where their log goes, copies of them, proofs, and the way back.
//!
//! PostgreSQL itself hands over its log (see [`crate::backup`]); here is watched whether it can. Copies are taken from the
//! primary: on one machine its disk is the one that is read either way, and a copy of a standby is lost when it takes over.

mod elsewhere;
mod prove;
mod restore;
mod room;
mod schedule;
mod scratch;
mod status;
mod take;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::{ResourceId, Topology};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::timeout;

use super::{Machine, StepError};
use crate::backup::{ArchiveError, BaseBackup};
use crate::chain;
use crate::jobs::node::NodeJob;
use crate::postgres::Archiver;

pub(super) use restore::Serve;
pub use status::{BackupDoing, BackupState, BackupStatus, BackupWork};

/// A restore waits this long for a backup that is being made or proven.
const TURN_LIMIT: Duration = Duration::from_secs(600);

/// What is known of backups beyond what stands in their folders.
#[derive(Default)]
pub(super) struct Backups {
    /// Copies, proofs and restores: one at a time, so that none deletes what another reads.
    turn: Arc<AsyncMutex<()>>,
    seen: Mutex<BTreeMap<ResourceId, Seen>>,
}

/// One cluster's archive, as it was seen last.
#[derive(Debug, Clone, Default)]
struct Seen {
    archiver: Archiver,
    trouble: Option<Trouble>,
    /// Why the last copy or proof that was made by itself failed.
    failed: Option<Trouble>,
    /// The copy that is worked on, and since when.
    under_way: Option<(BackupDoing, u32, Instant)>,
    /// Whoever asks the target for anything hangs.
    hangs: bool,
    /// What was there when it answered last.
    copies: Vec<BaseBackup>,
}

/// What is wrong with backups, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    reason: String,
    hint: String,
}

impl Trouble {
    fn into_error(self) -> StepError {
        StepError::new(self.reason).hint(self.hint)
    }
}

impl Machine {
    /// Looks after backups until cancelled.
    pub async fn keep_backups(&self) {
        tokio::join!(self.watch_archives(), self.make_due_backups());
    }

    /// For a restore: no copy is made, proven or deleted until this is dropped.
    ///
    /// # Errors
    /// When one is being made or proven for too long.
    pub async fn hold_backups(&self) -> Result<OwnedMutexGuard<()>, StepError> {
        let turn = Arc::clone(&self.inner.backups.turn);
        timeout(TURN_LIMIT, turn.lock_owned())
            .await
            .map_err(|_| StepError::new("a backup is being made or proven for too long"))
    }

    /// Whether whoever asks the target of a cluster for anything hangs.
    pub(super) fn backups_hang(&self, id: &ResourceId) -> bool {
        let seen = self.inner.backups.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(id).is_some_and(|seen| seen.hangs)
    }

    /// Lets `status` show what is done to a copy, until what is given here is dropped.
    fn under_way(&self, id: &ResourceId, doing: BackupDoing, backup: u32) -> UnderWay {
        let mut seen = self.inner.backups.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(id.clone()).or_default().under_way = Some((doing, backup, Instant::now()));
        UnderWay { machine: self.clone(), id: id.clone() }
    }

    /// Whether the last copy or proof that was made by itself failed for this reason.
    fn failed_before(&self, id: &ResourceId, reason: &str) -> bool {
        let seen = self.inner.backups.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(id).and_then(|seen| seen.failed.as_ref()).is_some_and(|failed| failed.reason == reason)
    }

    fn note_failed_backup(&self, id: &ResourceId, error: Option<StepError>) {
        let failed = error.map(|error| Trouble {
            reason: error.reason,
            hint: error.hint.unwrap_or_else(|| "it is tried again by itself".to_owned()),
        });
        let mut seen = self.inner.backups.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(id.clone()).or_default().failed = failed;
    }

    /// Makes the folders of a cluster's archive where it is to have one.
    pub(super) fn make_archive(&self, job: &NodeJob) -> Result<(), StepError> {
        let Some(archive) = job.archive().map_err(|error| unknown(job, &error).into_error())? else {
            return Ok(());
        };
        archive.make(&job.owner).map_err(|error| {
            StepError::new(format!("backups cannot be kept there: {}", chain(&error)))
                .hint("name a folder that can be written in `backups.to` under [db], or `backups = \"off\"`")
        })?;
        match job.owner.stopped_by(&archive.wal()) {
            None => Ok(()),
            Some(closed) => {
                let user = job.owner.name();
                Err(StepError::new(format!(
                    "PostgreSQL runs as {user}, who cannot pass through {}, where backups are to be kept",
                    closed.display()
                ))
                .hint(format!("open it with `chmod o+x {}`, or name another folder", closed.display())))
            }
        }
    }

    pub(super) fn configure_backups(&self, id: &ResourceId, next: &Topology) -> Result<(), StepError> {
        self.tell_members(id, next)?;
        let primary = next.primary_of(id).and_then(|node| self.node_kept(&node.id));
        primary.map_or(Ok(()), |job| self.make_archive(&job))
    }
}

/// See [`Machine::under_way`]. Also of work that is given up in the middle.
struct UnderWay {
    machine: Machine,
    id: ResourceId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut seen = self.machine.inner.backups.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(self.id.clone()).or_default().under_way = None;
    }
}

/// A node whose control file cannot be read: of which database it is, and where its backups are, is not known then.
fn unknown(job: &NodeJob, error: &io::Error) -> Trouble {
    let control = job.paths.control_file();
    Trouble {
        reason: format!("{}: {error}; it says which database {} has", control.display(), job.id),
        hint: "see that its disk is there and that the file can be read; if it is lost, `switchback restore` makes the \
               database anew from its backups, and keeps what is left of it aside"
            .to_owned(),
    }
}

/// Work on the folder of backups, which may be on a slow disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, StepError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StepError::new(error.to_string()))?.map_err(|error| {
        StepError::new(chain(&error)).hint("see that the disk that backups are on is there and not full")
    })
}

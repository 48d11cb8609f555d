//! Looking whether the log is stored as it is written. When it is not, the primary keeps it, and its disk fills: that is
//! said, and nothing else is done, because a database that serves is worth more than a backup.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use model::{NodeId, ResourceId, counted};
use rustix::fs::{Access, StatVfs, access, statvfs};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, timeout};

use super::{Trouble, unknown};
use crate::backup::{Archive, BaseBackup, Catalog, SEGMENT_BYTES};
use crate::jobs::node::NodeJob;
use crate::machine::{Machine, StepError};
use crate::postgres::Archiver;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// A primary that is slower than this is looked at the next time.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// A target that takes longer to say what it has does not answer.
const TARGET_LIMIT: Duration = Duration::from_secs(2);
/// Segments that wait before it counts as behind although no attempt failed: a gigabyte of log.
const WAITING_LIMIT: u64 = 64;

/// What a target says, asked off the runtime's threads: its disk may not answer, and whoever asks hangs with it. So there
/// is one who asks at a time of each target.
type Asking = BTreeMap<PathBuf, JoinHandle<Answer>>;

#[derive(Default)]
struct Answer {
    trouble: Option<Trouble>,
    /// `None` where they cannot be read.
    copies: Option<Vec<BaseBackup>>,
}

impl Machine {
    /// Watches the archives until cancelled.
    pub(super) async fn watch_archives(&self) {
        let mut asking = Asking::new();
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.is_running() {
                continue;
            }
            let topology = self.topology();
            for (id, cluster) in &topology.clusters {
                if cluster.backups.is_none() {
                    self.forget_target(id);
                    continue;
                }
                // While there is no primary to ask, what was seen last stands.
                if let Ok(Err(error)) = timeout(LOOK_LIMIT, self.look_at_archive(id, &mut asking)).await {
                    tracing::debug!(cluster = %id, error = error.reason, "its archive could not be looked at");
                }
            }
        }
    }

    /// A node that was restored serves for good now: its log is the cluster's.
    pub(in crate::machine) async fn store_log_of(&self, node: &NodeId) {
        if let Err(error) = self.tell_what_stands(node.resource()).await {
            tracing::warn!(%node, error = error.reason, "its log is not stored yet; trying again");
        }
    }

    /// Nothing is stored there any more, so it holds up nothing, whether it answers or not.
    fn forget_target(&self, id: &ResourceId) {
        let mut seen = self.inner.backups.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.get_mut(id) {
            seen.hangs = false;
            seen.copies.clear();
        }
    }

    async fn look_at_archive(&self, id: &ResourceId, asking: &mut Asking) -> Result<(), StepError> {
        let topology = self.topology();
        let Some(primary) = topology.primary_of(id) else { return Ok(()) };
        let Some(job) = self.node_kept(&primary.id) else { return Ok(()) };
        if !job.is_told() {
            self.tell_what_stands(id).await?;
        }
        let archiver = self.session(&primary.id).await?.archiver().await?;
        let answer = match job.archive() {
            Ok(None) => Some(Answer::default()),
            Ok(Some(archive)) => ask(asking, &job, archive, &archiver).await,
            Err(error) => Some(Answer { trouble: Some(unknown(&job, &error)), copies: None }),
        };
        let hangs = answer.is_none();
        let Answer { trouble, copies } =
            answer.unwrap_or_else(|| Answer { trouble: Some(does_not_answer(&archiver)), copies: None });
        let before = {
            let mut seen = self.inner.backups.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let seen = seen.entry(id.clone()).or_default();
            (seen.archiver, seen.hangs) = (archiver, hangs);
            if let Some(copies) = copies {
                seen.copies = copies;
            }
            std::mem::replace(&mut seen.trouble, trouble.clone())
        };
        match (before, trouble) {
            (before, Some(now)) if before.as_ref().map(|before| &before.reason) != Some(&now.reason) => {
                tracing::error!(cluster = %id, reason = now.reason, hint = now.hint, "the log is not stored");
                self.remember(id.as_str(), "keep the log on the primary: it cannot be stored", now.reason);
            }
            (Some(_), None) => self.remember(id.as_str(), "store the log again", "the target takes it"),
            _ => {}
        }
        Ok(())
    }
}

/// `None` where the target does not answer in time. Its answer is heard the next time, or once it has one.
async fn ask(asking: &mut Asking, job: &NodeJob, archive: Archive, archiver: &Archiver) -> Option<Answer> {
    let target = archive.root().to_owned();
    let asked = asking.entry(target.clone()).or_insert_with(|| {
        let (job, archiver) = (job.clone(), archiver.clone());
        spawn_blocking(move || Answer {
            trouble: trouble(&job, &archive, &archiver),
            copies: Catalog::of(&archive).list().ok(),
        })
    });
    let answered = timeout(TARGET_LIMIT, asked).await.ok()?;
    asking.remove(&target);
    // A panic in it has been printed.
    answered.ok()
}

fn does_not_answer(archiver: &Archiver) -> Trouble {
    Trouble {
        reason: format!("the disk of backups does not answer; {}", kept(archiver)),
        hint: "look at that disk, or the machine that it is on; `dmesg` may say what it waits for".to_owned(),
    }
}

fn kept(archiver: &Archiver) -> String {
    format!("kept on the primary's disk: {} of the log", counted(archiver.waiting as usize, "file"))
}

/// Why the log is not stored, where it is not. PostgreSQL knows only that the command failed.
fn trouble(job: &NodeJob, archive: &Archive, archiver: &Archiver) -> Option<Trouble> {
    let (folder, waiting) = (archive.wal(), archiver.waiting);
    let shown = folder.display();
    let kept = kept(archiver);
    let trouble = |reason: String, hint: String| Some(Trouble { reason: format!("{reason}; {kept}"), hint });
    if !folder.is_dir() {
        let hint = "mount the disk it is on; a folder that is lost for good is made anew by naming another one in \
                    `backups.to` under [db], then `switchback apply`";
        return trouble(format!("{shown} is not there"), hint.to_owned());
    }
    if !archiver.fails() && waiting < WAITING_LIMIT {
        return None;
    }
    if statvfs(&folder).is_ok_and(|disk| free(&disk) < SEGMENT_BYTES) {
        let hint = "free some space there, or keep fewer copies: `backups.keep` under [db]".to_owned();
        return trouble(format!("the disk of {shown} is full"), hint);
    }
    if access(&folder, Access::WRITE_OK).is_err() {
        return trouble(format!("{shown} cannot be written"), "mount it writable".to_owned());
    }
    if let Some(closed) = job.owner.stopped_by(&job.setup.program) {
        let hint = format!("`chmod o+x {}`, or install this program elsewhere", closed.display());
        let user = job.owner.name();
        return trouble(format!("{user} cannot run {}", job.setup.program.display()), hint);
    }
    let said = job.setup.last_lines(&job.id.to_string());
    let why = said.iter().rev().find_map(|line| line.split_once("wal-push: ")).map(|(_, why)| why.to_owned());
    let why = why.unwrap_or_else(|| if archiver.fails() { "it failed".into() } else { "it is slow".into() });
    trouble(format!("storing in {shown}: {why}"), format!("`switchback logs {}` has all it said", job.id))
}

fn free(disk: &StatVfs) -> u64 {
    disk.f_bavail.saturating_mul(disk.f_frsize)
}

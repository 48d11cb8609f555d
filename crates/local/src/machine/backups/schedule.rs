//! Copies by themselves: when one is due it is made, and then proven.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use model::{BackupPolicy, ResourceId};
use tokio::time::{Instant, MissedTickBehavior};

use super::blocking;
use crate::backup::{Catalog, Due, Lineage, WalName, due};
use crate::chain;
use crate::jobs::node::NodeJob;
use crate::machine::apply::{Event, Report};
use crate::machine::{Machine, StepError};

/// Between two looks whether a copy is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A daemon that has just begun leaves the machine to what comes up.
const SETTLE: Duration = Duration::from_secs(60);
/// After an attempt that failed, and twice as long after each that fails again: a proof that fails in its middle has
/// unpacked the whole database.
const RETRY_AFTER: Duration = Duration::from_secs(60);
const RETRY_AT_LATEST: Duration = Duration::from_secs(15 * 60);

impl Machine {
    /// Makes and proves copies when they are due, until cancelled.
    pub(super) async fn make_due_backups(&self) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // How often it failed in a row, and when it is tried again.
        let mut failed: BTreeMap<ResourceId, (u32, Instant)> = BTreeMap::new();
        let settled = Instant::now() + SETTLE;
        loop {
            ticks.tick().await;
            let now = Instant::now();
            if !self.is_running() {
                continue;
            }
            let topology = self.topology();
            for (id, cluster) in &topology.clusters {
                let (failures, not_before) = failed.get(id).copied().unwrap_or((0, settled));
                let Some(policy) = cluster.backups.as_ref().filter(|_| now >= not_before) else { continue };
                if let Err(error) = self.back_up_when_due(id, policy).await {
                    tracing::warn!(cluster = %id, error = error.reason, hint = error.hint, "no backup was made");
                    self.note_failed_backup(id, Some(error));
                    failed.insert(id.clone(), (failures + 1, Instant::now() + patience(failures)));
                    break;
                }
                failed.remove(id);
            }
        }
    }

    async fn timeline_written(&self, job: &NodeJob) -> Result<u32, StepError> {
        let segment = self.session(&job.id).await?.segment_written().await?;
        let name: WalName = segment.parse().map_err(|error| chain(&error))?;
        Ok(name.timeline())
    }

    async fn back_up_when_due(&self, id: &ResourceId, policy: &BackupPolicy) -> Result<(), StepError> {
        let (job, archive) = self.archive_of(id)?;
        let read = archive.clone();
        // While there is no primary to ask, no copy of it could be made either.
        let Ok(written) = self.timeline_written(&job).await else { return Ok(()) };
        let found = blocking(move || {
            let (all, lineage) = (Catalog::of(&read).list()?, Lineage::written(&read, written)?);
            let newest = lineage
                .as_ref()
                .and_then(|lineage| all.iter().rfind(|backup| lineage.continues(backup)).cloned());
            let names = read.names()?;
            let gap = lineage.zip(newest.as_ref()).and_then(|(lineage, newest)| lineage.gap(newest, &names));
            Ok((all, newest, gap))
        });
        let (all, newest, gap) = found.await?;
        let every = Duration::from_millis(policy.every_ms);
        let why = due(&all, newest.as_ref(), gap, every, Timestamp::now());
        // One that was made by hand, or whose proof a daemon did not live to see.
        let unproven = newest.is_some_and(|newest| newest.proof.is_none() && newest.refuted.is_none());
        if why.is_none() && !unproven {
            return Ok(());
        }
        // Somebody makes or proves one by hand.
        let Ok(_turn) = self.backup_turn() else { return Ok(()) };
        let report: Report = Arc::new(|event: Event| {
            if let Event::Note { text } = event {
                tracing::info!("{text}");
            }
        });
        if let Some(Due::Gap(segment)) = why {
            tracing::error!(cluster = %id, %segment, "the stored log has a gap; nothing after it can be restored");
        }
        if let Some(why) = why {
            let backup = self.copy_primary(id, &job, &archive, &report).await?;
            self.remember(id.as_str(), format!("made backup {}", backup.number), why.to_string());
        }
        self.prove_newest(id, &job, &archive, &report).await.map(drop)
    }
}

/// Before the next attempt, after so many that failed before the last.
fn patience(failures: u32) -> Duration {
    RETRY_AFTER.saturating_mul(1 << failures.min(16)).min(RETRY_AT_LATEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_and_again_is_tried_ever_more_rarely() {
        let minutes: Vec<u64> = (0..6).map(|failures| patience(failures).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 15, 15]);
        assert_eq!(patience(u32::MAX), RETRY_AT_LATEST);
    }
}

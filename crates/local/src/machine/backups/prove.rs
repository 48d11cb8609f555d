//! Proving a backup: it is restored beside the app, read from end to end, and held against the primary.

use std::time::Instant;

use jiff::Timestamp;
use model::{DatabaseNode, NodeId, ResourceId, counted};

use super::scratch::Recovery;
use super::{BackupDoing, blocking};
use crate::backup::{Archive, BaseBackup, Catalog, Lineage, Proof};
use crate::jobs::node::NodeJob;
use crate::machine::apply::{Event, Report};
use crate::machine::{Machine, StepError};
use crate::postgres::{Contents, Position, Replay, all_contents, contents_at_rest};

/// The number that no node of a cluster ever has, and the name of its socket.
const DRILL_NUMBER: u32 = 0;
const DRILL_PORT: u16 = 5_431;

impl Machine {
    /// Restores the newest backup beside the app, reads all of it, compares, and removes it again.
    ///
    /// # Errors
    /// When there is none, or something stands in the way. That it does not hold what it should is written down with the
    /// backup, and it is not proven by itself again.
    pub async fn prove_backup(&self, id: &ResourceId, report: &Report) -> Result<BaseBackup, StepError> {
        let _turn = self.backup_turn()?;
        let (job, archive) = self.archive_of(id)?;
        self.prove_newest(id, &job, &archive, report).await
    }

    pub(super) async fn prove_newest(
        &self,
        id: &ResourceId,
        job: &NodeJob,
        archive: &Archive,
        report: &Report,
    ) -> Result<BaseBackup, StepError> {
        let timeline = self.store_log_up_to_now(job, archive).await?;
        let (read, catalog) = (archive.clone(), Catalog::of(archive));
        let found = blocking(move || Ok((Lineage::of(&read, timeline)?, Catalog::of(&read).list()?)));
        let (lineage, backups) = found.await?;
        let Some(mut backup) = backups.iter().rfind(|backup| lineage.continues(backup)).cloned() else {
            return Err(StepError::new("there is no backup to prove").hint("`switchback backup` makes one"));
        };
        let _shown = self.under_way(id, BackupDoing::Proving, backup.number);
        let began = Instant::now();
        let found = self.compare_with_primary(job, archive, &backup, timeline, report).await;
        let outcome = match found {
            Ok((tables, compared, rows)) => {
                let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                backup.proof = Some(Proof { at: Timestamp::now(), took_ms, tables, compared, rows });
                backup.refuted = None;
                self.note_failed_backup(id, None);
                let tables = counted(tables as usize, "table");
                self.remember(
                    id.as_str(),
                    format!("backup {} is proven", backup.number),
                    format!(
                        "restored in {took_ms} ms, {tables} read, {compared} found equal to the primary's"
                    ),
                );
                Ok(backup.clone())
            }
            Err(error) => {
                // Whatever else stood in the way may be gone the next time.
                if error.damaged {
                    backup.refuted = Some(error.reason.clone());
                }
                // It is tried again and again, for as long as there is no room.
                if !self.failed_before(id, &error.reason) {
                    self.remember(
                        id.as_str(),
                        format!("backup {} is not proven", backup.number),
                        error.reason.clone(),
                    );
                }
                Err(error)
            }
        };
        let written = blocking(move || catalog.update(&backup)).await;
        let backup = outcome?;
        written?;
        Ok(backup)
    }

    /// How many tables were read, how many of them were compared, and how many rows there are.
    async fn compare_with_primary(
        &self,
        job: &NodeJob,
        archive: &Archive,
        backup: &BaseBackup,
        timeline: u32,
        report: &Report,
    ) -> Result<(u32, u32, u64), StepError> {
        let node = DatabaseNode {
            id: NodeId::new(job.id.resource().clone(), DRILL_NUMBER),
            port: DRILL_PORT,
            ..self.drilled(job)?
        };
        let scratch = self.scratch(job, self.restored(&node.id), &node)?;
        // What a daemon that was killed has left of the last one takes as much room.
        self.discard(&scratch).await?;
        self.room_for(backup)?;
        // Damage of the primary says nothing about the backup.
        let at_rest = contents_at_rest(&job.paths, &job.credentials)
            .await
            .map_err(|error| StepError { damaged: false, ..error.into() })?;
        let (until, expected) = match at_rest {
            Some((lsn, contents)) => (lsn, contents),
            None => {
                let text =
                    "the primary is never at rest; what is restored is read and not compared".to_owned();
                report(Event::Note { text });
                let Position::Primary(lsn) = self.session(&job.id).await?.position().await? else {
                    return Err(StepError::new(format!("{} is not the primary any more", job.id)));
                };
                (lsn, Contents::new())
            }
        };
        self.store_log_up_to_now(job, archive).await?;
        let from = Recovery { archive, backup, timeline, replay: Replay::PauseAt(until) };
        let process = self.recover(&scratch, &from, report).await?;
        report(Event::Note { text: "reading every table of what was restored".to_owned() });
        let found = all_contents(&scratch.job.paths, &scratch.job.credentials).await;
        self.stop_scratch(&scratch, &process).await;
        self.discard(&scratch).await?;
        let found = found?;
        if let Some((table, _)) = expected.iter().find(|(table, rows)| found.get(*table) != Some(rows)) {
            let reason = format!("{table} is not what it is on {} at the same position of the log", job.id);
            let error =
                StepError::new(reason).hint("keep an earlier backup, and look at the disk they are on");
            return Err(StepError { damaged: true, ..error });
        }
        let count = |of: &Contents| u32::try_from(of.len()).unwrap_or(u32::MAX);
        Ok((count(&found), count(&expected), found.values().map(|(rows, _)| rows).sum()))
    }

    fn drilled(&self, job: &NodeJob) -> Result<DatabaseNode, StepError> {
        let found = self.topology().nodes.get(&job.id).cloned();
        found.ok_or_else(|| StepError::new(format!("{} is gone", job.id)))
    }
}

//! Making a copy of the primary, and deleting what is kept beyond the number that is wished for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use model::ResourceId;
use tokio::time::sleep;

use super::room::{room_for_copy, room_is_left_for_copy};
use super::{BackupDoing, blocking, unknown};
use crate::backup::{Archive, ArchiveError, BaseBackup, Catalog, excess};
use crate::jobs::node::NodeJob;
use crate::machine::apply::{Event, Report};
use crate::machine::nodes::{at, failed};
use crate::machine::{Machine, StepError};
use crate::postgres::{PostgresError, base_backup, end_backup_work_in};

/// Between two looks at how far a copy is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

impl Machine {
    /// Makes a copy now. One at a time: a second call is refused while one is made, proven or restored.
    ///
    /// # Errors
    /// When none is wished for, the target does not take it, or the primary went away meanwhile. What was kept before is
    /// kept still.
    pub async fn take_backup(&self, id: &ResourceId, report: &Report) -> Result<BaseBackup, StepError> {
        let _turn = self.backup_turn()?;
        let (job, archive) = self.archive_of(id)?;
        self.copy_primary(id, &job, &archive, report).await
    }

    pub(super) async fn copy_primary(
        &self,
        id: &ResourceId,
        job: &NodeJob,
        archive: &Archive,
        report: &Report,
    ) -> Result<BaseBackup, StepError> {
        let (catalog, base) = (Catalog::of(archive), archive.base());
        let read = catalog.clone();
        let (number, is_there) = blocking(move || Ok((read.next_number()?, base.is_dir()))).await?;
        let folder = catalog.partial(number);
        self.clear_partial_copies(&catalog, number).await?;
        if !is_there {
            let reason = format!("{} is not there", archive.base().display());
            return Err(StepError::new(reason).hint("mount the disk it is on"));
        }
        let session = self.session(&job.id).await?;
        // First, so that whoever keeps fewer from now on has made room with that.
        self.delete_excess(id, archive, report).await;
        room_for_copy(archive, &session).await?;
        let (owner, path) = (job.owner.clone(), folder.clone());
        let made =
            move || owner.make_folder(&path, 0o700).map_err(|source| ArchiveError::Io { path, source });
        blocking(made).await?;
        let began = Timestamp::now();
        let _shown = self.under_way(id, BackupDoing::Making, number);
        report(Event::Note { text: format!("backup {number}: copying {}", job.id) });
        let engine = job.engine();
        let copying = base_backup(&engine, &job.paths, &job.credentials, &job.owner, &folder);
        tokio::pin!(copying);
        let copied = loop {
            tokio::select! {
                copied = &mut copying => break copied,
                () = sleep(PROGRESS_INTERVAL) => {}
            }
            if !room_is_left_for_copy(archive).await? {
                break Err(PostgresError::NoSpace { log: String::new() });
            }
            if let Ok(Some((done, all))) = session.copy_progress().await {
                let mb = |bytes: u64| bytes / 1_000_000;
                report(Event::Note { text: format!("backup {number}: {} of {} MB", mb(done), mb(all)) });
            }
        };
        let copied = match copied {
            Ok(copied) => copied,
            Err(error) => {
                self.clear_partial_copies(&catalog, number).await?;
                return Err(self.copy_failed(id, job, &folder, &error));
            }
        };
        let measured = folder.clone();
        let stored_bytes = blocking(move || Ok(bytes_in(&measured))).await?;
        let backup = BaseBackup {
            number,
            began,
            ended: Timestamp::now(),
            timeline: copied.timeline,
            start: copied.start,
            stop: copied.stop,
            postgres: engine.version.to_string(),
            data_bytes: copied.data_bytes,
            stored_bytes,
            proof: None,
            refuted: None,
        };
        let (admitted, described) = (catalog.clone(), backup.clone());
        if let Err(error) = blocking(move || admitted.admit(&described)).await {
            self.clear_partial_copies(&catalog, number).await?;
            return Err(error);
        }
        // So that the copy can be brought to the moment at which it ended without waiting for the segment to fill.
        session.hand_over_log().await?;
        self.delete_excess(id, archive, report).await;
        self.note_failed_backup(id, None);
        Ok(backup)
    }

    fn copy_failed(
        &self,
        id: &ResourceId,
        job: &NodeJob,
        folder: &std::path::Path,
        error: &PostgresError,
    ) -> StepError {
        let primary = self.topology().primary_of(id).map(|node| node.id.clone());
        if let PostgresError::NoSpace { .. } = error {
            let reason = format!("the disk of {} is full", folder.display());
            return StepError::new(reason)
                .hint("free some space there, or keep fewer copies: `backups.keep` under [db]");
        }
        if primary.as_ref() != Some(&job.id) {
            let reason = format!("{} was the primary when the copy began, and is no more", job.id);
            return StepError::new(reason).hint("it is tried again by itself, or with `switchback backup`");
        }
        failed(error)
    }

    async fn clear_partial_copies(&self, catalog: &Catalog, number: u32) -> Result<(), StepError> {
        for number in 1.max(number.saturating_sub(1))..=number {
            let folder = catalog.partial(number);
            end_backup_work_in(&folder).await.map_err(|error| at(&folder, &error))?;
        }
        let cleared = catalog.clone();
        blocking(move || cleared.clear_partials()).await
    }

    /// What cannot be deleted costs space and nothing else: it is said, and tried again after the next copy.
    pub(super) async fn delete_excess(&self, id: &ResourceId, archive: &Archive, report: &Report) {
        let keep = self.topology().clusters.get(id).and_then(|cluster| cluster.backups.clone());
        let Some(keep) = keep.map(|policy| policy.keep as usize) else { return };
        let (archive, catalog) = (archive.clone(), Catalog::of(archive));
        let deleted = blocking(move || {
            let excess = excess(&catalog.list()?, keep, &archive.names()?);
            for number in &excess.copies {
                catalog.remove(*number)?;
            }
            for name in &excess.log {
                archive.remove(name)?;
            }
            archive.clear_partials()?;
            Ok(excess)
        });
        let text = match deleted.await {
            Ok(excess) if excess.copies.is_empty() => return,
            Ok(excess) => {
                let numbers: Vec<String> = excess.copies.iter().map(ToString::to_string).collect();
                format!("deleted the oldest backups: {}", numbers.join(", "))
            }
            Err(error) => format!("old backups could not be deleted: {}", error.reason),
        };
        report(Event::Note { text });
    }

    /// Every whole copy, the oldest first: of the cluster itself, or those in the folder `from`.
    ///
    /// # Errors
    /// When none are made, or the folder cannot be read.
    pub async fn backups(&self, id: &ResourceId, from: Option<&Path>) -> Result<Vec<BaseBackup>, StepError> {
        let catalog = Catalog::of(&self.source_of_restore(id, from).await?.archive);
        blocking(move || catalog.list()).await
    }

    /// The primary of a cluster that is backed up, and where to.
    pub(super) fn archive_of(&self, id: &ResourceId) -> Result<(NodeJob, Archive), StepError> {
        let job = self.primary_kept(id)?;
        match job.archive() {
            Ok(Some(archive)) => Ok((job, archive)),
            Ok(None) => Err(no_backups(id)),
            Err(error) => Err(unknown(&job, &error).into_error()),
        }
    }

    /// The same, also where the primary can no longer say which database it has: when that is needed most. Its archive is
    /// known all the same where there is no other one.
    pub(super) fn archive_to_restore_from(&self, id: &ResourceId) -> Result<(NodeJob, Archive), StepError> {
        let job = self.primary_kept(id)?;
        let unreadable = match job.archive() {
            Ok(Some(archive)) => return Ok((job, archive)),
            Ok(None) => return Err(no_backups(id)),
            Err(error) => unknown(&job, &error),
        };
        let folder = self.inner.setup.backups_of(id, &self.topology()).ok_or_else(|| no_backups(id))?;
        match Archive::all_of(id, &folder).as_slice() {
            [only] => Ok((job, only.clone())),
            [] => Err(StepError::new(format!(
                "{}, and there are no backups in {}",
                unreadable.reason,
                folder.display()
            ))
            .hint("mount the disk that backups are on, or bring the folder back")),
            several => {
                let names: Vec<String> =
                    several.iter().map(|archive| archive.root().display().to_string()).collect();
                let reason = format!(
                    "{}, and backups of {id} are of several: {}",
                    unreadable.reason,
                    names.join(", ")
                );
                Err(StepError::new(reason).hint(
                    "move those elsewhere that are of databases before this one; the one written to last is of this one",
                ))
            }
        }
    }

    pub(super) fn primary_kept(&self, id: &ResourceId) -> Result<NodeJob, StepError> {
        let topology = self.topology();
        let primary = topology.primary_of(id).map(|node| node.id.clone());
        let primary = primary.ok_or_else(|| self.no_such_database(id))?;
        self.node_kept(&primary).ok_or_else(|| StepError::new(format!("{primary} does not run")))
    }

    pub(super) fn backup_turn(&self) -> Result<tokio::sync::OwnedMutexGuard<()>, StepError> {
        Arc::clone(&self.inner.backups.turn).try_lock_owned().map_err(|_| {
            StepError::new("a backup is being made or proven")
                .hint("wait for it to end; `switchback status` shows it")
        })
    }
}

fn no_backups(id: &ResourceId) -> StepError {
    StepError::new(format!("no backups are made of {id}"))
        .hint("take `backups = \"off\"` out of [db], then `switchback apply`")
}

fn bytes_in(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

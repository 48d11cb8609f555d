//! The way back: a node made from a backup beside the cluster, which then takes the place of its primary.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use model::{ClusterState, DatabaseNode, DatabaseRole, NodeId, RecoveryTarget, ResourceId, Topology, Zone};
use plan::{Action, Restore};
use tokio::time::{Instant, sleep, timeout};

use super::blocking;
use super::elsewhere::Source;
use super::scratch::{Recovery, Scratch};
use crate::backup::{Archive, Catalog, Lineage, WalName, base_for, base_for_latest};
use crate::chain;
use crate::jobs::node::NodeJob;
use crate::keeper::Begin;
use crate::machine::apply::{Event, Report};
use crate::machine::nodes::{at, move_if_there};
use crate::machine::{Machine, StepError};
use crate::postgres::{self, Owner, Replay};

/// For the log up to now to be stored before a restore begins.
const STORE_LIMIT: Duration = Duration::from_secs(60);
const STORE_POLL: Duration = Duration::from_millis(50);
/// A new primary that is not ready by then is taken back.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// Which of the two serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::machine) enum Serve {
    New,
    Old,
}

impl Machine {
    /// Whether a restore could begin, by what is stored so far. Changes nothing.
    ///
    /// # Errors
    /// As [`Machine::choose_restore`].
    pub async fn check_restore(
        &self,
        id: &ResourceId,
        to: RecoveryTarget,
        from: Option<&Path>,
    ) -> Result<(), StepError> {
        let source = self.source_of_restore(id, from).await?;
        is_past(to)?;
        self.begin_of_restore(&source.archive, None, to).await.map(drop)
    }

    /// Settles what to restore from: the cluster's own archive, for which what was written up to now is stored first where
    /// the primary answers, or the one in the folder `from`.
    ///
    /// # Errors
    /// When the moment is outside of what there is, or the disk has no room. Nothing was changed.
    pub async fn choose_restore(
        &self,
        id: &ResourceId,
        to: RecoveryTarget,
        from: Option<&Path>,
        report: &Report,
    ) -> Result<Restore, StepError> {
        let Source { job, archive, is_elsewhere } = self.source_of_restore(id, from).await?;
        is_past(to)?;
        let written = if is_elsewhere {
            None
        } else {
            match self.session(&job.id).await {
                Ok(_) => Some(self.store_log_up_to_now(&job, &archive).await?),
                Err(error) => {
                    let why = error.reason;
                    let text = format!("{} does not answer ({why}); going by what is stored", job.id);
                    report(Event::Note { text });
                    None
                }
            }
        };
        let (backup, timeline) = self.begin_of_restore(&archive, written, to).await?;
        let from = is_elsewhere.then(|| archive.root().to_owned());
        Ok(Restore { cluster: id.clone(), backup, timeline, to, from })
    }

    /// The number of the copy to begin with and the timeline to arrive on: the one that is `written`, or else the newest
    /// that is stored.
    pub(super) async fn begin_of_restore(
        &self,
        archive: &Archive,
        written: Option<u32>,
        to: RecoveryTarget,
    ) -> Result<(u32, u32), StepError> {
        let read = archive.clone();
        let found = blocking(move || {
            let lineage = match written {
                Some(timeline) => Some(Lineage::of(&read, timeline)?),
                None => Lineage::newest(&read)?,
            };
            Ok((lineage, Catalog::of(&read).list()?, read.names()?))
        });
        let (lineage, backups, names) = found.await?;
        let lineage = lineage.ok_or_else(|| nothing_to_restore(archive))?;
        let base = match to {
            RecoveryTarget::Latest => base_for_latest(&backups, &lineage, &names).map_err(ends_at_gap)?,
            RecoveryTarget::Time { unix_us } => base_for(&backups, &lineage, unix_us / 1_000),
        };
        let Some(backup) = base else {
            let oldest = backups.iter().find(|backup| lineage.continues(backup));
            return Err(oldest.map_or_else(
                || nothing_to_restore(archive),
                |oldest| {
                    let reason = format!("the oldest backup that leads there is of {:.0}", oldest.ended);
                    StepError::new(reason).hint("ask for a moment after that")
                },
            ));
        };
        self.room_for(backup)?;
        Ok((backup.number, lineage.timeline))
    }

    /// Resolves when everything that was written by now is in the archive. Returns the timeline that is being written.
    pub(super) async fn store_log_up_to_now(
        &self,
        job: &NodeJob,
        archive: &Archive,
    ) -> Result<u32, StepError> {
        let segment = self.session(&job.id).await?.hand_over_log().await?;
        let name: WalName = segment.parse().map_err(|error| chain(&error))?;
        let deadline = Instant::now() + STORE_LIMIT;
        loop {
            let stored = archive.clone();
            if blocking(move || Ok(stored.has(&name))).await? {
                return Ok(name.timeline());
            }
            if Instant::now() >= deadline {
                let limit = STORE_LIMIT.as_secs();
                let reason = format!("{segment}, the log up to now, was not stored within {limit} s");
                return Err(StepError::new(reason).hint("`switchback status` shows what is in the way"));
            }
            sleep(STORE_POLL).await;
        }
    }

    /// Who follows now, to be made anew after the restore.
    pub fn followers(&self, id: &ResourceId) -> Vec<(Zone, DatabaseRole)> {
        let topology = self.topology();
        let place = |node: &DatabaseNode| (node.zone.clone(), topology.role_of(&node.id));
        topology.followers_of(id).map(place).collect()
    }

    pub(in crate::machine) async fn prepare_restore(
        &self,
        node: &DatabaseNode,
        number: u32,
        timeline: u32,
        to: RecoveryTarget,
        from: Option<&Path>,
        report: &Report,
    ) -> Result<(), StepError> {
        let Source { job: like, archive, is_elsewhere } =
            self.source_of_restore(node.id.resource(), from).await?;
        let scratch = self.scratch(&like, self.restored(&node.id), node)?;
        let scratch = Scratch { is_elsewhere, ..scratch };
        let catalog = Catalog::of(&archive);
        let backups = blocking(move || catalog.list()).await?;
        let backup = backups.into_iter().find(|backup| backup.number == number);
        let backup = backup.ok_or_else(|| StepError::new(format!("backup {number} is gone")))?;
        // What a daemon that was killed has left of it.
        self.discard(&scratch).await?;
        let replay = Replay::Promote(to);
        let recovery = Recovery { archive: &archive, backup: &backup, timeline, replay };
        let process = self.recover(&scratch, &recovery, report).await?;
        let made_ours =
            if is_elsewhere { self.make_ours(&scratch, &archive, timeline).await } else { Ok(()) };
        // In order: what it has is on the disk, and the next start finds nothing to recover.
        self.stop_scratch(&scratch, &process).await;
        made_ours
    }

    pub(in crate::machine) async fn discard_restored(&self, node: &DatabaseNode) -> Result<(), StepError> {
        let topology = self.topology();
        let primary = topology.primary_of(node.id.resource()).and_then(|node| self.node_kept(&node.id));
        let like = primary.ok_or_else(|| StepError::new(format!("{} has no primary", node.id.resource())))?;
        let scratch = self.scratch(&like, self.restored(&node.id), node)?;
        self.discard(&scratch).await
    }

    /// Lets one of two nodes serve, each of which has all of its data in a folder of its own. Safe to take again: what is
    /// done is not done twice.
    pub(in crate::machine) async fn replace_primary(
        &self,
        action: &Action,
        (old, new): (&DatabaseNode, &DatabaseNode),
        serve: Serve,
        next: &Topology,
        report: &Report,
    ) -> Result<(), StepError> {
        let state = &self.inner.setup.state;
        let (leaves, comes) = if serve == Serve::New { (old, new) } else { (new, old) };
        let aside = |node: &DatabaseNode| {
            if node.id == old.id { self.put_aside(&node.id) } else { self.restored(&node.id) }
        };
        // Before anything is stopped: a daemon before may have given it up.
        if serve == Serve::New && !aside(new).exists() && !state.node(&new.id).exists() {
            return Err(StepError::new(format!("what was restored as {} was given up before", new.id))
                .hint("restore again; the database serves as it was"));
        }
        self.stop_node(&leaves.id).await;
        self.forget_cluster(leaves.id.resource(), &leaves.id);
        for folder in [state.replaced(), state.restored()] {
            Owner::Ourselves.make_folder(&folder, 0o711).map_err(|error| at(&folder, &error))?;
        }
        move_if_there(&state.node(&leaves.id), &aside(leaves))?;
        move_if_there(&aside(comes), &state.node(&comes.id))?;
        if !self.units().nodes.contains_key(&comes.id) {
            let job = self.node_job(comes, next, report).await?;
            if serve == Serve::New {
                job.keep_log();
            }
            // What was restored must come up now or not at all; what served before is kept being started.
            let started = match serve {
                Serve::New => timeout(READY_LIMIT, self.keep_node(job.clone(), comes)).await,
                Serve::Old => timeout(READY_LIMIT, self.begin_node(job.clone(), comes, Begin::Restore)).await,
            };
            started.map_err(|_| StepError::new(format!("{} is not ready", comes.id)))??;
            postgres::provision(&job.paths, &job.credentials).await?;
        }
        match serve {
            // Nobody is told of the new one before it is written down: see [`Machine::show_replacement`].
            Serve::New => Ok(()),
            Serve::Old => {
                let told = async {
                    let told = self.push_proxies().await;
                    if told.is_err() {
                        self.tell_until_taken();
                    }
                    told
                };
                self.ahead_of(action, told).await
            }
        }
    }

    /// Lets clients reach a new primary, once it is written down that it is: what it acknowledges from here on is never
    /// given up for the old one. A proxy that does not answer may have taken it all the same.
    pub(in crate::machine) async fn show_replacement(&self, new: &NodeId) {
        if let Err(error) = self.push_proxies().await {
            tracing::warn!(node = %new, reason = error.reason, "a proxy was not told of it yet; trying again");
            self.tell_until_taken();
        }
        self.store_log_of(new).await;
    }

    /// Whatever told the roles: it goes on until they take it.
    fn tell_until_taken(&self) {
        self.inner.changed.send_modify(|count| *count += 1);
    }

    /// After a failed [`Machine::replace_primary`]: the old one serves again, and for good. What was restored goes before
    /// clients write to it, so that no daemon that finds the plan in the journal goes on to a new primary without that.
    pub(in crate::machine) async fn abandon_replacement(
        &self,
        old: &DatabaseNode,
        new: &DatabaseNode,
        cluster: &ClusterState,
        report: &Report,
    ) {
        self.stop_node(&new.id).await;
        let given_up = self.given_up(&new.id);
        for folder in [self.inner.setup.state.node(&new.id), self.restored(&new.id)] {
            if let Err(error) = move_if_there(&folder, &given_up) {
                tracing::error!(node = %new.id, error = error.reason, "could not be given up");
            }
        }
        let back = Action::BringPrimaryBack { old: old.clone(), new: new.clone(), cluster: cluster.clone() };
        let standing = self.world().topology;
        if let Err(error) = self.replace_primary(&back, (old, new), Serve::Old, &standing, report).await {
            tracing::error!(node = %old.id, error = error.reason, "could not be brought back yet");
        }
        self.forget_what_is_ahead();
        // Also for the space: the disk may be full.
        if let Err(error) = Machine::remove_tree(given_up).await {
            tracing::warn!(node = %new.id, error = error.reason, "what was given up could not be deleted");
        }
    }

    /// What was restored and will not serve: renamed, because deleting takes its time.
    fn given_up(&self, id: &NodeId) -> PathBuf {
        self.inner.setup.state.restored().join(format!("{id}.given-up"))
    }

    /// Where a node is made from a backup before it serves.
    pub(super) fn restored(&self, id: &NodeId) -> PathBuf {
        self.inner.setup.state.restored().join(id.to_string())
    }

    fn put_aside(&self, id: &NodeId) -> PathBuf {
        self.inner.setup.state.replaced().join(id.to_string())
    }

    /// Deletes the data that restores of this cluster have put aside. Returns the nodes it was of.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub async fn forget_replaced(&self, id: &ResourceId) -> Result<Vec<NodeId>, StepError> {
        let nodes = self.inner.setup.state.replaced_of(id);
        for node in &nodes {
            Machine::remove_tree(self.put_aside(node)).await?;
        }
        Ok(nodes)
    }
}

fn is_past(to: RecoveryTarget) -> Result<(), StepError> {
    match to {
        RecoveryTarget::Time { unix_us } if unix_us > Timestamp::now().as_microsecond() => {
            Err(StepError::new("that moment is yet to come").hint("times without a zone are local time"))
        }
        RecoveryTarget::Time { .. } | RecoveryTarget::Latest => Ok(()),
    }
}

/// PostgreSQL would take the gap for the end of the log, and what was written after it for never written.
fn ends_at_gap(segment: WalName) -> StepError {
    let reason = format!("{segment} of the stored log is missing, and nothing after it can be brought back");
    StepError::new(reason)
        .hint("ask for a moment before it, as in `--to TIME`; `switchback backup` makes a copy that leads on from now")
}

fn nothing_to_restore(archive: &Archive) -> StepError {
    StepError::new(format!("there is no backup in {} that could be restored", archive.root().display()))
        .hint("`switchback backup` makes one; `switchback backup list` shows them")
}

//! Adding and removing a node that follows. Clients of the primary notice neither.

use std::time::Duration;

use model::{DatabaseNode, DatabaseRole, NodeId, ResourceId, Topology};
use tokio::time::{Instant, sleep};

use super::{Lag, locked};
use crate::keeper::Phase;
use crate::machine::apply::{Event, Report};
use crate::machine::{Machine, StepError};
use crate::postgres::{Session, member_name};

/// Between two looks at how far a copy is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
const CATCH_UP_POLL: Duration = Duration::from_millis(20);
/// A follower that was copied has only the log of that time to catch up with.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(600);
/// For the others to confirm in the place of one that leaves.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);
/// For a standby that follows to be trusted with commits.
const CONFIRM_LIMIT: Duration = Duration::from_secs(30);
const CONFIRM_POLL: Duration = Duration::from_millis(50);

impl Machine {
    pub(in crate::machine) async fn add_follower(
        &self,
        node: &DatabaseNode,
        next: &Topology,
        report: &Report,
    ) -> Result<(), StepError> {
        let id = node.id.resource();
        let session = self.primary_session(id).await?;
        let names: Vec<String> = next.followers_of(id).map(|node| member_name(&node.id)).collect();
        session.keep_slots(id, &names).await?;
        if !self.units().nodes.contains_key(&node.id) {
            let job = self.node_job(node, next, report).await?;
            self.mark_as_new(&job)?;
            let keeping = self.keep_node(job, node);
            tokio::pin!(keeping);
            loop {
                tokio::select! {
                    kept = &mut keeping => break kept?,
                    () = sleep(PROGRESS_INTERVAL) => {}
                }
                if let Ok(Some((done, all))) = session.copy_progress().await {
                    let mb = |bytes: u64| bytes / 1_000_000;
                    let text = format!("{}: copied {} of {} MB", node.id, mb(done), mb(all));
                    report(Event::Note { text });
                }
            }
        }
        self.caught_up(&node.id).await
    }

    /// Resolves when the primary streams to the node.
    pub(super) async fn caught_up(&self, node: &NodeId) -> Result<(), StepError> {
        let (name, deadline) = (member_name(node), Instant::now() + CATCH_UP_LIMIT);
        while Instant::now() < deadline {
            // The primary may be another one by now.
            let session = self.primary_session(node.resource()).await?;
            if session.followers().await?.iter().any(|follower| follower.name == name && follower.streaming) {
                return Ok(());
            }
            let state = self.units().nodes.get(node).map(|unit| unit.keeper.state());
            match state {
                Some(state) if !matches!(state.phase, Phase::Failed | Phase::Stopped) => {}
                Some(state) => return Err(StepError::of(&node.to_string(), state)),
                None => return Err(StepError::new(format!("{node} was removed"))),
            }
            sleep(CATCH_UP_POLL).await;
        }
        let reason = format!("{node} did not catch up within {} s", CATCH_UP_LIMIT.as_secs());
        Err(StepError::new(reason).hint("`switchback logs` has what it and its primary said"))
    }

    async fn primary_session(&self, id: &ResourceId) -> Result<std::sync::Arc<Session>, StepError> {
        let topology = self.topology();
        let primary =
            topology.primary_of(id).ok_or_else(|| StepError::new(format!("{id} has no primary")))?;
        self.session(&primary.id).await
    }

    /// Removes what half of [`Machine::add_follower`] has made, and nothing that was there before.
    pub(in crate::machine) async fn take_follower_back(&self, node: &DatabaseNode) -> Result<(), StepError> {
        if self.is_new(&node.id) {
            return self.remove_follower(node).await;
        }
        self.stop_node(&node.id).await;
        Ok(())
    }

    /// Stops a node that follows, deletes its data, and keeps no log for it any more.
    pub(in crate::machine) async fn remove_follower(&self, node: &DatabaseNode) -> Result<(), StepError> {
        let id = node.id.resource();
        self.watched(id, |watch| watch.leaving.insert(node.id.clone()));
        let removed = async {
            if self.topology().role_of(&node.id) == DatabaseRole::ReadReplica {
                self.reads_end(&node.id).await?;
            }
            self.no_longer_confirms(&node.id).await?;
            let unit = {
                // From here on no failover can choose it.
                let _turn = self.inner.clusters.turn.lock().await;
                if self.topology().role_of(&node.id) == DatabaseRole::Primary {
                    return Err(StepError::new(format!("{} has become the primary", node.id)));
                }
                locked(&self.inner.clusters.sessions).remove(&node.id);
                self.take_node(&node.id)
            };
            self.delete_taken(&node.id, unit).await?;
            let topology = self.topology();
            let others = topology.followers_of(id).filter(|other| other.id != node.id);
            let names: Vec<String> = others.map(|other| member_name(&other.id)).collect();
            Ok(self.primary_session(id).await?.keep_slots(id, &names).await?)
        };
        let removed = removed.await;
        self.watched(id, |watch| watch.leaving.remove(&node.id));
        self.inner.changed.send_modify(|count| *count += 1);
        removed
    }

    /// Resolves when nothing counts on the node's confirmation any more: the guard sees to that.
    async fn no_longer_confirms(&self, node: &NodeId) -> Result<(), StepError> {
        let deadline = Instant::now() + LEAVE_LIMIT;
        loop {
            let recorded =
                self.topology().clusters.get(node.resource()).is_some_and(|c| c.synchronous.contains(node));
            let configured = self.watched(node.resource(), |watch| watch.confirmed_by.contains(node));
            if !recorded && !configured {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let reason = format!("commits still count on {node}, and no other standby has them all");
                return Err(StepError::new(reason).hint("`switchback status` shows which standby is behind"));
            }
            sleep(CONFIRM_POLL).await;
        }
    }

    /// Waits until every standby could take over and every read replica gets reads, for who has just added one or changed
    /// the primary. One that needs longer is named, and goes on catching up.
    pub async fn followers_settle(&self, report: &Report) {
        let deadline = Instant::now() + CONFIRM_LIMIT;
        loop {
            let topology = self.topology();
            let is_settled = |node: &&NodeId| match topology.role_of(node) {
                DatabaseRole::Primary => true,
                DatabaseRole::Standby => {
                    topology.clusters.get(node.resource()).is_some_and(|c| c.synchronous.contains(*node))
                }
                DatabaseRole::ReadReplica => self.serves_reads(node),
            };
            let Some(behind) = topology.nodes.keys().find(|node| !is_settled(node)) else { return };
            if Instant::now() >= deadline || !self.is_running() {
                let cannot = match topology.role_of(behind) {
                    DatabaseRole::ReadReplica => "gets no reads yet",
                    DatabaseRole::Primary | DatabaseRole::Standby => "cannot take over yet",
                };
                let text = format!("{behind} {cannot}; `switchback status` shows when that changes");
                return report(Event::Note { text });
            }
            sleep(CONFIRM_POLL).await;
        }
    }

    /// How far a follower is behind, as its primary saw it last.
    pub(in crate::machine) fn lag(&self, node: &NodeId) -> Option<Lag> {
        locked(&self.inner.clusters.lags).get(node).copied()
    }
}

//! A planned change of primary: nothing is lost, and nobody has to be rewound.
//!
//! What can be done before anybody waits is done first (see [`super::prepare`]). Then the proxy lets everybody wait who has
//! not begun, and those who have begun finish. The primary is shut down in order, which ends only when its followers have all
//! that it wrote. Then the successor is promoted while the keeper of the old primary waits, and the old one comes back as a
//! follower.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{DatabaseNode, DatabaseRole, NodeId, ResourceId};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::{FAR_BEHIND_MS, locked};
use crate::control::{self, Request};
use crate::keeper::Phase;
use crate::machine::{Machine, StepError};
use crate::postgres::{member_name, shut_down_at};

/// A shutdown in order writes a checkpoint, most of which was written before it began.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(70);
/// For transactions that were open when it began.
const TRANSACTIONS_LIMIT: Duration = Duration::from_secs(5);
const TRANSACTIONS_POLL: Duration = Duration::from_millis(2);
/// For the old primary to follow.
const RETURN_LIMIT: Duration = Duration::from_secs(120);

impl Machine {
    /// Lets `to` take over from the primary of the cluster, and waits until that one follows. Does nothing when `to` is the
    /// primary.
    ///
    /// # Errors
    /// When `to` does not follow, or the change fails; the primary before it then serves again, unless the error says
    /// otherwise.
    pub async fn switch_over(&self, id: &ResourceId, to: &NodeId) -> Result<(), StepError> {
        let topology = self.topology();
        let Some(from) = topology.primary_of(id).map(|node| node.id.clone()) else {
            return Err(StepError::new(format!("{id} has no primary")));
        };
        if from == *to {
            return Ok(());
        }
        self.must_follow(&from, to).await?;
        if self.backups_hang(id) {
            let reason = format!(
                "the disk of the backups of {id} does not answer, and {from} does not shut down before it has stored the \
                 log that it is just storing there"
            );
            return Err(StepError::new(reason).hint("`switchback status` shows when it answers again"));
        }
        self.prepare(&from, to).await?;
        let times_ready = {
            let _turn = self.inner.clusters.turn.lock().await;
            self.change_primary(id, &from, to).await?
        };
        let watched = self.units().nodes.get(&from).map(|unit| unit.keeper.watch());
        let Some(mut watched) = watched else { return Ok(()) };
        match timeout(RETURN_LIMIT, watched.ready_after(times_ready)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(state)) => Err(StepError::of(&from.to_string(), state)),
            Err(_) => Err(StepError::of(&from.to_string(), watched.state())),
        }
    }

    async fn change_primary(&self, id: &ResourceId, from: &NodeId, to: &NodeId) -> Result<u64, StepError> {
        // A failover may have come first.
        self.must_follow(from, to).await?;
        self.keep_log(from);
        locked(&self.inner.clusters.holding).insert(id.clone());
        let changed = self.change_while_held(id, from, to).await;
        // A promotion has done this already.
        if locked(&self.inner.clusters.holding).remove(id) {
            let told = self.push_proxies().await;
            return changed.and_then(|times_ready| told.map(|()| times_ready));
        }
        changed
    }

    async fn must_follow(&self, from: &NodeId, to: &NodeId) -> Result<(), StepError> {
        let name = member_name(to);
        let followers = self.session(from).await?.followers().await?;
        let follower = followers.iter().find(|follower| follower.name == name && follower.streaming);
        let Some(follower) = follower else {
            let reason = format!("{to} does not follow {from} at the moment");
            return Err(StepError::new(reason).hint("`switchback status` shows why"));
        };
        // All of that is replayed before it takes writes, and nobody else takes any meanwhile.
        let lag_ms = self.lag(to).map_or(0, |lag| lag.ms);
        if follower.replay_lag_bytes > 0 && lag_ms > FAR_BEHIND_MS {
            let reason = format!("{to} is {} s behind {from} in replaying its log", lag_ms / 1_000);
            let hint = "try again when it has caught up; `switchback status` shows how far it is";
            return Err(StepError::new(reason).hint(hint));
        }
        Ok(())
    }

    async fn change_while_held(&self, id: &ResourceId, from: &NodeId, to: &NodeId) -> Result<u64, StepError> {
        let (times_ready, decided) = match self.shut_down(id, from).await {
            Ok(down) => down,
            Err(error) => {
                if let Err(error) = self.tell_members(id, &self.topology()) {
                    tracing::warn!(node = %from, error = error.reason, "cannot be told to store its log again");
                }
                return Err(error);
            }
        };
        let changed = self.take_over(id, from, to).await;
        // Whatever it is by now, it starts again, and stores its log.
        self.place_members(id, &self.topology());
        self.begins_again(from).await;
        drop(decided);
        changed.map(|()| times_ready)
    }

    /// How often it was ready before, and what it waits for before it is started again.
    async fn shut_down(
        &self,
        id: &ResourceId,
        primary: &NodeId,
    ) -> Result<(u64, oneshot::Sender<()>), StepError> {
        self.push_proxies().await?;
        self.transactions_end(id, primary).await;
        let unit = self.units().nodes.get(primary).map(|unit| unit.keeper.watch());
        let mut watched = unit.ok_or_else(|| StepError::new(format!("{primary} does not run")))?;
        let (down, is_down) = oneshot::channel();
        locked(&self.inner.clusters.expected).insert(primary.clone(), down);
        // One that has ended before takes no orders. Whoever has heard of that waits for the turn, to fail it over.
        let runs = matches!(self.node_phase(primary), Some(Phase::Ready | Phase::Unresponsive));
        // What is gone from there was heard of since, and is told below.
        if !runs && locked(&self.inner.clusters.expected).remove(primary).is_some() {
            return Err(ended_by_itself(primary));
        }
        let times_ready = watched.ask_to_restart().await;
        match timeout(SHUTDOWN_LIMIT, is_down).await {
            Ok(Ok(decided)) => Ok((times_ready, decided)),
            Ok(Err(_)) => Err(ended_by_itself(primary)),
            Err(_) => {
                locked(&self.inner.clusters.expected).remove(primary);
                let reason = format!("{primary} did not shut down within {} s", SHUTDOWN_LIMIT.as_secs());
                Err(StepError::new(reason))
            }
        }
    }

    /// Resolves when nobody is in a transaction any more, or too late for those who are: they are run again, or fail.
    async fn transactions_end(&self, id: &ResourceId, primary: &NodeId) {
        let controls = self.proxies_of(id);
        let idle = async {
            for control in &controls {
                loop {
                    let status = control::ask(control, &Request::Status).await;
                    let busy = status.ok().and_then(|status| {
                        let status = &status["databases"][id.as_str()];
                        status["servers"].as_u64()?.checked_sub(status["servers_idle"].as_u64()?)
                    });
                    // A proxy that does not answer is not waited for, nor are sessions that keep a connection and rest.
                    if busy.unwrap_or_default() == 0 || self.is_at_rest(primary).await {
                        break;
                    }
                    sleep(TRANSACTIONS_POLL).await;
                }
            }
        };
        let _ = timeout(TRANSACTIONS_LIMIT, idle).await;
    }

    async fn is_at_rest(&self, node: &NodeId) -> bool {
        match self.session(node).await {
            Ok(session) => session.is_at_rest().await.unwrap_or(false),
            Err(_) => false,
        }
    }

    async fn take_over(&self, id: &ResourceId, from: &NodeId, to: &NodeId) -> Result<(), StepError> {
        self.fence(from).await?;
        let followers: Vec<DatabaseNode> = self.topology().followers_of(id).cloned().collect();
        let job = self.node_kept(from).ok_or_else(|| StepError::new(format!("{from} was removed")))?;
        let (engine, waited_for) = (job.engine(), BTreeSet::from([to.clone()]));
        let (received, end) = tokio::join!(
            self.received(&followers, &waited_for),
            // One that had to be killed, or has crashed, may have more than anybody received.
            shut_down_at(&engine, &job.paths, &job.owner),
        );
        let end = end?;
        let timeline = received.get(to).map(|progress| progress.timeline);
        let has = received.get(to).map(|progress| progress.received);
        let has_everything = matches!((has, end), (Some(has), Some(end)) if has > end);
        // What somebody has of a timeline that ended belongs to nobody.
        let others = received.values().filter(|progress| Some(progress.timeline) == timeline);
        if !has_everything || has != others.map(|progress| progress.received).max() {
            let how = if end.is_some() { "has not received everything" } else { "may not have everything" };
            return Err(StepError::new(format!("{to} {how}; {from} starts again as it was")));
        }
        let promoted = self.promote(from, to).await;
        if self.world().topology.role_of(to) != DatabaseRole::Primary {
            return promoted;
        }
        // It is written down, and there is no way back: what is still to be done is done by the looks.
        self.remember(id.as_str(), format!("switch over from {from} to {to}"), "it was asked for");
        promoted.map_err(|error| {
            let reason =
                format!("{to} is the primary from now on, and not ready for that yet: {}", error.reason);
            let hint = "it goes on by itself; `switchback status` shows when everything is whole";
            StepError::new(reason).hint(hint)
        })
    }
}

fn ended_by_itself(primary: &NodeId) -> StepError {
    let reason = format!("{primary} has ended by itself before it was shut down");
    StepError::new(reason).hint("`switchback why` says what became of it")
}

//! Looking at the clusters: does the primary answer, who follows it, who may confirm its commits.

use std::sync::PoisonError;
use std::time::Duration;

use model::{DatabaseNode, DatabaseRole, NodeId, ResourceId, Topology, WithoutStandby, counted};
use plan::failover::{Confirm, Observed, Quorum, Standby};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::proof::Proof;
use super::proxied::Evidence;
use super::writes::DiskState;
use super::{ANSWER_LIMIT, Commits, Lag, Watch, locked};
use crate::jobs::node::NodeDown;
use crate::keeper::Phase;
use crate::machine::{Machine, StepError};
use crate::postgres::{Follower, Position, member_name};
use crate::usage;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A primary that does not answer a kept session within this has missed a look.
pub(super) const LOOK_LIMIT: Duration = Duration::from_millis(250);
/// Misses in a row before a primary counts as hung that does nothing, and of which its followers hear nothing.
const MISSES: u32 = 3;
/// And before one that is busy with something does: on a machine that is short of everything, waiting beats killing.
const MISSES_OF_A_BUSY_ONE: u32 = 20;
/// A follower that has heard of its primary within this is evidence that it only is busy.
const HEARD_WITHIN: Duration = Duration::from_millis(900);
/// What one look may do to settle who confirms.
const CHANGES_A_LOOK: usize = 4;

impl Machine {
    /// Looks after the database clusters until cancelled. To be run once.
    pub async fn guard(&self) {
        let ended = self.inner.clusters.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(ended) = ended else { return };
        tokio::join!(self.answer_nodes(ended), self.look_at_clusters());
    }

    async fn answer_nodes(&self, mut ended: mpsc::Receiver<NodeDown>) {
        // Each on its own: one that waits for its turn must not keep a switchover from hearing of its primary.
        let mut answering = JoinSet::new();
        loop {
            tokio::select! {
                down = ended.recv() => {
                    let Some(down) = down else { return };
                    let machine = self.clone();
                    answering.spawn(async move { machine.node_down(down).await });
                }
                Some(answered) = answering.join_next() => {
                    if let Err(error) = answered {
                        tracing::error!(%error, "a node that is down was not answered");
                    }
                }
            }
        }
    }

    async fn look_at_clusters(&self) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.is_running() {
                continue;
            }
            let topology = self.topology();
            for id in topology.clusters.keys() {
                if topology.followers_of(id).next().is_none() {
                    continue;
                }
                let _turn = self.inner.clusters.turn.lock().await;
                if let Err(error) = self.look(id).await {
                    tracing::debug!(cluster = %id, error = error.reason, "could not be looked at");
                }
            }
        }
    }

    /// One look at a cluster that has followers.
    async fn look(&self, id: &ResourceId) -> Result<(), StepError> {
        let topology = self.topology();
        let Some(primary) = topology.primary_of(id) else { return Ok(()) };
        // One that starts is waited for by its keeper.
        if !matches!(self.node_phase(&primary.id), Some(Phase::Ready | Phase::Unresponsive)) {
            return Ok(());
        }
        self.begin_watch(id, &topology)?;
        self.prove_who_confirms(id, primary).await;
        let asked = async {
            let session = self.session(&primary.id).await?;
            // After the proof: what was acknowledged without a standby is written by now.
            let (position, log, followers) =
                tokio::try_join!(session.position(), session.log(), session.followers())?;
            Ok::<_, StepError>((session, position, log, followers))
        };
        match timeout(LOOK_LIMIT, asked).await {
            Ok(Ok((session, Position::Primary(written), log, followers))) => {
                self.watched(id, |watch| watch.misses = 0);
                self.mind_doors(primary).await;
                self.note_lags(&topology, id, &followers);
                self.note_following(&topology, id, &followers);
                self.mind_disk(id, &topology, primary, &followers);
                if self.mind_writes(&topology, primary, &session, log, &followers).await? == DiskState::Stuck
                {
                    return Ok(());
                }
                self.settle_quorum(id, &topology, written, &followers).await?;
                self.mind_followers(id, &topology, &session, &followers).await
            }
            // Between writing down this primary and promoting it, a daemon was killed or something failed.
            Ok(Ok((session, Position::Follower(_), _, _))) => {
                for node in topology.followers_of(id) {
                    if self.takes_writes(&node.id).await {
                        self.fence(&node.id).await?;
                    }
                }
                self.remember(
                    id.as_str(),
                    format!("promote {}", primary.id),
                    "it is the primary and still follows",
                );
                let promotion = session.promote().await?;
                self.note_promotion(id, topology.clusters[id].epoch, promotion);
                self.push_proxies().await?;
                self.settle_members(id, &session).await
            }
            Ok(Err(error)) => self.missed(primary, &topology, &error.reason).await,
            Err(_) => self.missed(primary, &topology, "it does not answer").await,
        }
    }

    async fn takes_writes(&self, node: &NodeId) -> bool {
        let ask = async { self.session(node).await.ok()?.position().await.ok() };
        matches!(timeout(ANSWER_LIMIT, ask).await, Ok(Some(Position::Primary(_))))
    }

    /// The first look of a daemon at a cluster: PostgreSQL is told what is written down.
    fn begin_watch(&self, id: &ResourceId, topology: &Topology) -> Result<(), StepError> {
        if self.watched(id, |watch| watch.begun) {
            return Ok(());
        }
        let recorded = topology.clusters[id].synchronous.clone();
        self.watched(id, |watch| {
            watch.begin_again();
            watch.quorum = Quorum::configured(recorded.clone());
            watch.confirmed_by = recorded;
        });
        for node in topology.nodes_of(id) {
            if let Some(job) = self.node_kept(&node.id) {
                *locked(&job.told) = None;
            }
        }
        self.tell_members(id, topology)?;
        self.watched(id, |watch| watch.begun = true);
        Ok(())
    }

    pub(super) fn watched<T>(&self, id: &ResourceId, change: impl FnOnce(&mut Watch) -> T) -> T {
        change(locked(&self.inner.clusters.watches).entry(id.clone()).or_default())
    }

    async fn missed(&self, primary: &DatabaseNode, topology: &Topology, why: &str) -> Result<(), StepError> {
        let id = primary.id.resource();
        let Some(process) = self.inner.setup.processes.find(&primary.id.to_string()) else { return Ok(()) };
        let used = usage::of(&process).cpu_us;
        let requests = self.requests(id).await;
        let (misses, does_something, evidence, missed_for) = self.watched(id, |watch| {
            watch.misses += 1;
            let before = std::mem::replace(&mut watch.requests, requests);
            if watch.misses == 1 {
                watch.first_miss = Some(Instant::now());
                watch.used_at_first_miss = used;
                return (1, false, Evidence::Nothing, Duration::ZERO);
            }
            let missed_for = watch.first_miss.map(|first| first.elapsed()).unwrap_or_default();
            (watch.misses, used != watch.used_at_first_miss, Evidence::of(before, requests), missed_for)
        });
        if evidence == Evidence::Answers {
            // It is busy, or it is our own session that hangs.
            locked(&self.inner.clusters.sessions).remove(&primary.id);
            self.watched(id, |watch| watch.misses = 0);
            return Ok(());
        }
        if misses < if does_something { MISSES_OF_A_BUSY_ONE } else { MISSES } {
            return Ok(());
        }
        // Where clients wait as well, what followers have heard before that counts for nothing.
        let within = match evidence {
            Evidence::Waits { .. } => missed_for.min(HEARD_WITHIN),
            Evidence::Nothing | Evidence::Answers => HEARD_WITHIN,
        };
        let hears = topology.followers_of(id).map(|node| {
            let (machine, id) = (self.clone(), node.id.clone());
            async move {
                let ask = async {
                    Ok::<_, StepError>(machine.session(&id).await?.hears_from_its_primary(within).await?)
                };
                matches!(timeout(ANSWER_LIMIT, ask).await, Ok(Ok(true)))
            }
        });
        if any(hears).await {
            return Ok(());
        }
        self.watched(id, |watch| watch.misses = 0);
        let clients = match evidence {
            Evidence::Waits { requests } => {
                format!(", {} of clients wait and none was answered", counted(requests as usize, "request"))
            }
            Evidence::Nothing | Evidence::Answers => String::new(),
        };
        let evidence =
            format!("{misses} looks in a row failed ({why}){clients}, and its followers hear nothing of it");
        self.kill_primary(&primary.id, "kill it: it is hung", evidence);
        Ok(())
    }

    /// Its keeper sees the end, and what follows is as after any crash. Nothing where it has ended already.
    pub(super) fn kill_primary(&self, primary: &NodeId, decision: &str, evidence: String) {
        let name = primary.to_string();
        let Some(process) = self.inner.setup.processes.find(&name) else { return };
        self.remember(&name, decision, evidence);
        process.signal_all(Signal::KILL);
        // It may have left its group by now.
        let _ = process.signal(Signal::KILL);
    }

    fn note_lags(&self, topology: &Topology, id: &ResourceId, followers: &[Follower]) {
        let mut lags = locked(&self.inner.clusters.lags);
        for node in topology.followers_of(id) {
            let name = member_name(&node.id);
            match followers.iter().find(|follower| follower.name == name) {
                Some(follower) => {
                    let ms = self.watched(id, |watch| watch.lag_ms(&node.id, follower));
                    let (streaming, bytes) = (follower.streaming, follower.replay_lag_bytes);
                    lags.insert(node.id.clone(), Lag { streaming, bytes, ms })
                }
                None => lags.remove(&node.id),
            };
        }
        lags.retain(|node, _| topology.nodes.contains_key(node));
    }

    /// Brings who confirms commits nearer to who can.
    async fn settle_quorum(
        &self,
        id: &ResourceId,
        topology: &Topology,
        written: model::Lsn,
        followers: &[Follower],
    ) -> Result<(), StepError> {
        let observed = self.observed(id, topology, written, followers);
        for _ in 0..CHANGES_A_LOOK {
            let Some(cluster) = self.topology().clusters.get(id).cloned() else { return Ok(()) };
            let next = self.watched(id, |watch| watch.quorum.next(&cluster, &observed));
            match next {
                None => break,
                Some(Confirm::Record(nodes)) => {
                    self.record(id, &nodes)?;
                    self.say_who_confirms(id, &nodes.iter().collect::<Vec<_>>());
                }
                Some(Confirm::Configure(nodes)) => {
                    self.watched(id, |watch| {
                        watch.confirmed_by = nodes;
                        watch.proof = Proof::default();
                    });
                    if let Err(error) = self.tell_members(id, &self.topology()) {
                        // What it believes to have told is not so: it begins anew with what is written down.
                        self.watched(id, |watch| watch.begun = false);
                        return Err(error);
                    }
                    // What follows from it is seen at the next look.
                    break;
                }
            }
        }
        self.say_whether_commits_wait(id, topology, &observed);
        Ok(())
    }

    fn observed(
        &self,
        id: &ResourceId,
        topology: &Topology,
        written: model::Lsn,
        followers: &[Follower],
    ) -> Observed {
        let leaving = self.watched(id, |watch| watch.leaving.clone());
        let members = topology.followers_of(id).filter(|node| {
            topology.role_of(&node.id) == DatabaseRole::Standby && !leaving.contains(&node.id)
        });
        let standbys = members.map(|node| {
            let name = member_name(&node.id);
            let seen = followers.iter().find(|follower| follower.name == name);
            let standby = Standby {
                streaming: seen.is_some_and(|follower| follower.streaming),
                confirming: seen.is_some_and(|follower| follower.streaming && follower.synchronous),
                flushed: seen.map(|follower| follower.flushed).unwrap_or_default(),
            };
            (node.id.clone(), standby)
        });
        let now_ms = u64::try_from(self.inner.clusters.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let in_force = self.proved_to_confirm(id, followers);
        Observed { now_ms, in_force, written, standbys: standbys.collect() }
    }

    fn say_who_confirms(&self, id: &ResourceId, nodes: &[&NodeId]) {
        let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        match names.as_slice() {
            [] => self.remember(
                id.as_str(),
                "acknowledge commits by the primary alone",
                "no standby confirms them",
            ),
            names => self.remember(
                id.as_str(),
                format!("let commits wait for one of {}", names.join(", ")),
                "each of them follows, and together they have every commit",
            ),
        }
    }

    fn say_whether_commits_wait(&self, id: &ResourceId, topology: &Topology, observed: &Observed) {
        let waits = topology.clusters[id].without_standby == WithoutStandby::Block;
        let (before, now) = self.watched(id, |watch| {
            let confirmed = observed.standbys.values().any(|standby| standby.streaming);
            let now = if observed.standbys.is_empty() {
                Commits::Confirmed
            } else if watch.confirmed_by.is_empty() {
                Commits::Alone
            } else if !confirmed && waits {
                Commits::Waiting
            } else {
                Commits::Confirmed
            };
            (watch.commits_are(now), now)
        });
        match (before, now) {
            (before, now) if before == Some(now) => {}
            (_, Commits::Waiting) => {
                tracing::warn!(cluster = %id, "commits wait: no standby confirms them");
                self.remember(
                    id.as_str(),
                    "let commits wait",
                    "no standby confirms them, and `db.without_standby` is `block`",
                );
            }
            (Some(Commits::Waiting), Commits::Confirmed) => {
                self.remember(id.as_str(), "commits go on", "a standby is back");
            }
            // That it is decided has been said; while a first standby is added, and after a failover, it is meant to be so.
            (Some(_), Commits::Alone) => {
                tracing::warn!(cluster = %id, "commits are acknowledged by the primary alone");
            }
            (_, Commits::Confirmed | Commits::Alone) => {}
        }
    }
}

/// Whether one of them says so. All are asked at once, so that one that hangs holds up no other.
async fn any(asked: impl Iterator<Item = impl Future<Output = bool> + Send + 'static>) -> bool {
    let mut asked: JoinSet<bool> = asked.collect();
    while let Some(answer) = asked.join_next().await {
        if matches!(answer, Ok(true)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody can write before it is known that the primary is hung.
    #[tokio::test(start_paused = true)]
    async fn followers_that_hang_as_well_are_waited_for_once_and_not_one_after_the_other() {
        let began = Instant::now();
        let hangs = |_| async {
            tokio::time::sleep(ANSWER_LIMIT).await;
            false
        };
        assert!(!any((0..4).map(hangs)).await);
        assert_eq!(began.elapsed(), ANSWER_LIMIT);

        let hears = |number| async move {
            tokio::time::sleep(ANSWER_LIMIT * number).await;
            number == 1
        };
        assert!(any((1..5).map(hears)).await);
        assert_eq!(began.elapsed(), ANSWER_LIMIT * 2, "one is enough");
    }
}

//! Database clusters that live: who is the primary, who confirms its commits, and what happens when one is lost.
//!
//! What is decided stands in [`plan::failover`]; here it is observed and done. A failover is one sequence of steps, each
//! of which leaves a state from which the next daemon goes on:
//!
//! 1. **The primary is down.** Its keeper has seen the process end and has ended all that was left of it. It asks, before it
//!    starts it again (see [`crate::keeper::Job::down`]), and waits.
//! 2. **Fence.** Nobody works in its data directory any more, so nobody can acknowledge a commit. Whoever was killed and
//!    hangs in the kernel over a disk that does not answer does not work: it never returns from there.
//! 3. **Choose** among the followers that can be reached, by what each has received.
//! 4. **Write down** the new primary with the next epoch. From here on a crash of the daemon leads forward.
//! 5. **Promote** it, over a session that is kept open for that, and write down since when transaction ids are its own.
//! 6. **Tell** the proxies, then the other followers.
//! 7. **Let the keeper go on**: the old primary comes back as a follower, rewound.

mod astray;
mod disk;
mod follower;
mod guard;
mod prepare;
mod proof;
mod proxied;
mod replicas;
mod restart;
mod silent;
mod switchover;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{DatabaseNode, DatabaseRole, Lsn, NodeId, Promotion, ResourceId, Topology};
use plan::failover::{Failover, Quorum, Reached, choose};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

pub(super) use disk::free_bytes;
use proxied::Requests;
use silent::Doors;
use writes::Writes;

use super::nodes::failed;
use super::world::Journaling;
use super::{CrashPoint, FailoverMoment, Machine, StepError};
use crate::jobs::node::{NodeDown, NodeJob};
use crate::keeper::{Down, Phase};
use crate::postgres::{
    self, Follower, Membership, Place, Position, Progress, Session, member_name, processes_in,
};
use crate::process::stat::is_killed_in_kernel;

/// To reach a node over its Unix socket and get one answer. A follower that is slower than this does not take part in a
/// failover.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// The same, where no client waits meanwhile: on a full machine a login alone may take seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// For followers that nothing counts on, once all have answered whom commits count on.
const OTHERS_LIMIT: Duration = Duration::from_millis(100);
/// A follower that replays what was written longer ago than this may take as long to be promoted.
const FAR_BEHIND_MS: u64 = 5_000;
/// Children of a primary that was killed notice that within 50 ms, and are killed if they do not.
const FENCE_POLL: Duration = Duration::from_millis(1);
const FENCE_LIMIT: Duration = Duration::from_secs(10);

/// What is known of the clusters beyond what stands in the topology.
pub(super) struct Clusters {
    pub(super) downs: mpsc::Sender<NodeDown>,
    /// Taken by [`Machine::guard`].
    ended: Mutex<Option<mpsc::Receiver<NodeDown>>>,
    /// Failovers, switchovers and looks take turns.
    turn: AsyncMutex<()>,
    sessions: Mutex<BTreeMap<NodeId, Arc<Session>>>,
    watches: Mutex<BTreeMap<ResourceId, Watch>>,
    /// Primaries that are being restarted by a switchover, which decides what they come back as.
    expected: Mutex<BTreeMap<NodeId, oneshot::Sender<oneshot::Sender<()>>>>,
    /// Clusters whose clients wait for the next primary.
    holding: Mutex<BTreeSet<ResourceId>>,
    /// Clusters whose primary was started again in an epoch that had begun before.
    restarted: Mutex<BTreeSet<ResourceId>>,
    /// Of each follower, as its primary saw it last.
    lags: Mutex<BTreeMap<NodeId, Lag>>,
    /// What time is counted from.
    began: Instant,
}

/// How far a follower is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lag {
    pub(super) streaming: bool,
    pub(super) bytes: u64,
    pub(super) ms: u64,
}

/// Who confirms the commits of a database that has standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Commits {
    /// One of its standbys.
    Confirmed,
    /// Nobody: they wait for a standby.
    Waiting,
    /// Nobody but the primary, which acknowledges them alone.
    Alone,
}

/// One cluster over time.
#[derive(Default)]
struct Watch {
    quorum: Quorum,
    /// What the primary was told to wait for.
    confirmed_by: BTreeSet<NodeId>,
    /// Whether it is proved to do so.
    proof: proof::Proof,
    /// That nobody is counted on because the primary is being started.
    start: Option<proof::Start>,
    /// Followers that are about to be removed.
    leaving: BTreeSet<NodeId>,
    /// Read replicas that are about to be restarted.
    resting: BTreeSet<NodeId>,
    /// Read replicas that the primary has seen following at the last look.
    following: BTreeSet<NodeId>,
    /// Of a follower that is behind: what the primary had written at some moment, and that it has not replayed yet.
    behind: BTreeMap<NodeId, (Lsn, Instant)>,
    /// Whether this daemon has told PostgreSQL what is written down.
    begun: bool,
    /// Looks in a row that the primary did not answer.
    misses: u32,
    /// When that began.
    first_miss: Option<Instant>,
    /// The CPU time it had used by then, in microseconds.
    used_at_first_miss: u64,
    /// What the proxies had to say at the last miss.
    requests: Option<Requests>,
    /// Whether it lets anybody in.
    doors: Doors,
    /// How its log reaches its disk.
    writes: Writes,
    /// When the primary was last ended because its disk is full.
    disk_full: Option<Instant>,
    astray: BTreeMap<NodeId, astray::Astray>,
    /// Who confirms commits, and since when; `None` before the first look.
    commits: Option<(Commits, Instant)>,
}

impl Watch {
    /// Forgets what was seen, and keeps who is being worked on.
    fn begin_again(&mut self) {
        let (leaving, resting) = (std::mem::take(&mut self.leaving), std::mem::take(&mut self.resting));
        *self = Watch { leaving, resting, ..Watch::default() };
    }

    /// What was so before; `None` before the first look.
    fn commits_are(&mut self, now: Commits) -> Option<Commits> {
        let before = self.commits.map(|(before, _)| before);
        if before != Some(now) {
            self.commits = Some((now, Instant::now()));
        }
        before
    }

    /// How long ago the newest thing to be seen on a follower was written. PostgreSQL says how long it took the last time
    /// that something was replayed; of one that replays nothing it says no more.
    fn lag_ms(&mut self, node: &NodeId, follower: &Follower) -> u64 {
        if follower.replay_lag_bytes == 0 {
            self.behind.remove(node);
            return 0;
        }
        let written = Lsn(follower.replayed.0.saturating_add(follower.replay_lag_bytes));
        let (mark, since) = self.behind.entry(node.clone()).or_insert((written, Instant::now()));
        if follower.replayed >= *mark {
            (*mark, *since) = (written, Instant::now());
        }
        let waits_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        follower.replay_lag_ms.max(waits_ms)
    }
}

impl Clusters {
    pub(super) fn new(downs: mpsc::Sender<NodeDown>, ended: mpsc::Receiver<NodeDown>) -> Clusters {
        Clusters {
            downs,
            ended: Mutex::new(Some(ended)),
            turn: AsyncMutex::new(()),
            sessions: Mutex::default(),
            watches: Mutex::default(),
            expected: Mutex::default(),
            holding: Mutex::default(),
            restarted: Mutex::default(),
            lags: Mutex::default(),
            began: Instant::now(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// Whether the proxy is to let everybody wait.
    pub(super) fn holds(&self, id: &ResourceId) -> bool {
        locked(&self.inner.clusters.holding).contains(id)
    }

    /// Who confirms the commits of each database that has standbys, and for how long that has been so.
    pub(super) fn commits(&self) -> BTreeMap<ResourceId, (Commits, Duration)> {
        let topology = self.topology();
        let watches = locked(&self.inner.clusters.watches);
        let commits = topology.clusters.keys().filter_map(|id| {
            let is_standby = |node: &DatabaseNode| topology.role_of(&node.id) == DatabaseRole::Standby;
            topology.nodes_of(id).find(|node| is_standby(node))?;
            let (commits, since) = watches.get(id)?.commits?;
            Some((id.clone(), (commits, since.elapsed())))
        });
        commits.collect()
    }

    /// What a node has to be told of the others.
    pub(super) fn membership(&self, id: &NodeId, topology: &Topology) -> Membership {
        let name = member_name(id);
        let primary = topology.primary_of(id.resource());
        let place = match primary {
            Some(primary) if primary.id != *id => Place::Follower { primary_port: primary.port },
            _ => {
                let watches = locked(&self.inner.clusters.watches);
                let recorded = topology.clusters.get(id.resource()).map(|cluster| &cluster.synchronous);
                // Before the first look nothing is known but what is written down.
                let watch = watches.get(id.resource()).filter(|watch| watch.begun);
                let by = watch.map(|watch| &watch.confirmed_by).or(recorded);
                Place::Primary { confirmed_by: by.into_iter().flatten().map(member_name).collect() }
            }
        };
        let backups = self.inner.setup.backups_of(id.resource(), topology);
        Membership { name, place, backups, keeps_log: false }
    }

    /// From now on each node that is started comes up in the place that it has in `topology`.
    fn place_members(&self, cluster: &ResourceId, topology: &Topology) {
        for node in topology.nodes_of(cluster) {
            if let Some(job) = self.node_kept(&node.id) {
                *locked(&job.membership) = self.membership(&node.id, topology);
            }
        }
    }

    /// Writes the configuration of every node of a cluster that is kept and was told something else last, and lets those
    /// that run read it.
    pub(super) fn tell_members(&self, cluster: &ResourceId, topology: &Topology) -> Result<(), StepError> {
        self.place_members(cluster, topology);
        let mut told = Ok(());
        for node in topology.nodes_of(cluster) {
            let Some(job) = self.node_kept(&node.id) else { continue };
            if *locked(&job.told) == Some(job.membership()) {
                continue;
            }
            // It writes it itself before it starts.
            if job.waits_for_disk() {
                continue;
            }
            let configured = job.write_config().map_err(StepError::from).and_then(|()| self.reload(&node.id));
            if let Err(error) = configured {
                *locked(&job.told) = None;
                match job.membership().place {
                    Place::Primary { .. } => told = Err(error),
                    // Its disk may be full. It writes it when it starts, and the others must not wait for that.
                    Place::Follower { .. } => {
                        tracing::warn!(node = %node.id, error = error.reason, "cannot be configured");
                    }
                }
            }
        }
        told
    }

    /// As [`Machine::tell_members`], of what stands: for what could not be told when it came to stand.
    pub(super) async fn tell_what_stands(&self, cluster: &ResourceId) -> Result<(), StepError> {
        // What the quorum is told in between must not be taken back.
        let _turn = self.inner.clusters.turn.lock().await;
        self.tell_members(cluster, &self.world().topology)
    }

    pub(super) fn node_kept(&self, id: &NodeId) -> Option<NodeJob> {
        self.units().nodes.get(id).map(|unit| unit.job.clone())
    }

    fn node_phase(&self, id: &NodeId) -> Option<Phase> {
        self.units().nodes.get(id).map(|unit| unit.keeper.state().phase)
    }

    /// The kept session on a node, or a new one.
    pub(super) async fn session(&self, id: &NodeId) -> Result<Arc<Session>, StepError> {
        let kept = locked(&self.inner.clusters.sessions).get(id).cloned();
        if let Some(session) = kept.filter(|session| !session.is_closed()) {
            return Ok(session);
        }
        let session = Arc::new(self.open_session(id, ANSWER_LIMIT).await?);
        locked(&self.inner.clusters.sessions).insert(id.clone(), Arc::clone(&session));
        Ok(session)
    }

    /// A new session on a node, for what takes long: on the kept one everybody else would wait behind it.
    async fn session_of_its_own(&self, id: &NodeId) -> Result<Session, StepError> {
        self.open_session(id, PATIENCE).await
    }

    async fn open_session(&self, id: &NodeId, limit: Duration) -> Result<Session, StepError> {
        let job = self.node_kept(id).ok_or_else(|| StepError::new(format!("{id} does not run")))?;
        match timeout(limit, Session::open(&job.paths, &job.credentials)).await {
            Ok(opened) => opened.map_err(|error| failed(&error)),
            Err(_) => Err(StepError::new(format!("{id} does not answer"))),
        }
    }

    /// What was known of a cluster is of no use for the one that takes its place.
    pub(super) fn forget_cluster(&self, id: &ResourceId, node: &NodeId) {
        self.watched(id, |watch| *watch = Watch::default());
        locked(&self.inner.clusters.sessions).remove(node);
    }

    /// What each follower that can be reached has received. Those of whom one must have every commit are waited for; a
    /// read replica that hangs must not make a failover last.
    async fn received(
        &self,
        followers: &[DatabaseNode],
        waited_for: &BTreeSet<NodeId>,
    ) -> BTreeMap<NodeId, Progress> {
        let mut asking = tokio::task::JoinSet::new();
        for node in followers {
            let (machine, id) = (self.clone(), node.id.clone());
            asking.spawn(async move {
                let ask = async { machine.session(&id).await.ok()?.position().await.ok() };
                match timeout(ANSWER_LIMIT, ask).await {
                    Ok(Some(Position::Follower(received))) => Some((id, received?)),
                    // One that takes writes already was promoted behind our back: it cannot be compared.
                    Ok(Some(Position::Primary(_)) | None) | Err(_) => None,
                }
            });
        }
        let mut received = BTreeMap::new();
        loop {
            let all_there = !waited_for.is_empty() && waited_for.iter().all(|id| received.contains_key(id));
            let limit = if all_there { OTHERS_LIMIT } else { ANSWER_LIMIT };
            match timeout(limit, asking.join_next()).await {
                Ok(Some(answer)) => received.extend(answer.ok().flatten()),
                Ok(None) | Err(_) => return received,
            }
        }
    }

    /// A node has ended. When it was the primary, another takes over if one has everything.
    async fn node_down(&self, down: NodeDown) {
        let expected = locked(&self.inner.clusters.expected).remove(&down.id);
        // One that has ended by itself is failed over: dropped, the switchover gives up and leaves the turn.
        if let Some(switchover) = expected.filter(|_| down.why == Down::Asked) {
            if let Err(decided) = switchover.send(down.decided) {
                // It has given up meanwhile; the node starts again as what it was.
                self.begins_again(&down.id).await;
                drop(decided);
            }
            return;
        }
        if down.why == Down::Ended && self.is_running() {
            let _turn = self.inner.clusters.turn.lock().await;
            let began = Instant::now();
            self.counts_as_before_the_start(&down.id);
            match self.fail_over(&down.id).await {
                Ok(Some((to, evidence))) => {
                    let took = began.elapsed().as_millis();
                    self.remember(
                        down.id.resource().as_str(),
                        format!("fail over from {} to {to}, in {took} ms", down.id),
                        evidence,
                    );
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(node = %down.id, error = error.reason, "the failover did not succeed yet");
                }
            }
        }
        self.begins_again(&down.id).await;
        drop(down.decided);
    }

    /// A node is about to be started again. That of a primary begins an epoch: the ids that it gave to transactions of
    /// which nothing was written down are given again.
    pub(in crate::machine) async fn begins_again(&self, node: &NodeId) {
        if let Some(job) = self.node_kept(node) {
            let may_start = match self.follow_its_engine(&job).await {
                Ok(()) => self.counts_on_nobody_at_start(&job),
                Err(error) => Err(error),
            };
            job.hold(may_start.err().map(StepError::said));
        }
        if self.world().topology.role_of(node) != DatabaseRole::Primary {
            return;
        }
        let written_down = self.change_world(Journaling::Keep, |world| {
            if let Some(cluster) = world.topology.clusters.get_mut(node.resource()) {
                cluster.begin_again();
            }
            Ok(())
        });
        if let Err(error) = written_down {
            // The disk is full. It starts all the same: the next promotion is then not written down either.
            locked(&self.inner.clusters.restarted).insert(node.resource().clone());
            tracing::warn!(%node, %error, "that it is started again could not be written down");
            return;
        }
        // Before it is there: of an epoch that is told later, connections to it would be cut.
        if !matches!(timeout(ANSWER_LIMIT, self.push_proxies()).await, Ok(Ok(()))) {
            self.inner.changed.send_modify(|count| *count += 1);
        }
    }

    /// `None` where nothing is to be done, or nobody else can take over.
    async fn fail_over(&self, lost: &NodeId) -> Result<Option<(NodeId, String)>, StepError> {
        let topology = self.topology();
        let id = lost.resource();
        if topology.role_of(lost) != DatabaseRole::Primary {
            return Ok(None);
        }
        let followers: Vec<DatabaseNode> = topology.followers_of(id).cloned().collect();
        let Some(cluster) = topology.clusters.get(id).filter(|_| !followers.is_empty()) else {
            return Ok(None);
        };
        let stuck = self.fence(lost).await?;
        let received = self.received(&followers, &cluster.synchronous).await;
        let reached = |(id, progress): (&NodeId, &Progress)| {
            let is_far_behind = self.lag(id).is_some_and(|lag| lag.ms > FAR_BEHIND_MS);
            let Progress { received, timeline, replayed } = *progress;
            (id.clone(), Reached { received, timeline, replayed, is_far_behind })
        };
        match choose(cluster, &received.iter().map(reached).collect()) {
            Failover::Promote(to) => {
                if let Err(error) = self.session(&to).await?.keep_slot_from_here(&member_name(lost)).await {
                    tracing::warn!(node = %lost, %error, "it may have to be copied instead of rewound");
                }
                self.promote(lost, &to).await?;
                let positions: Vec<String> = received
                    .iter()
                    .map(|(node, has)| {
                        format!("{node} has {} bytes of log, of timeline {}", has.received.0, has.timeline)
                    })
                    .collect();
                let left = match stuck {
                    0 => String::new(),
                    _ => format!(" {stuck} processes of it were killed and wait in the kernel for its disk;"),
                };
                Ok(Some((to, format!("{lost} was lost;{left} {}", positions.join(", ")))))
            }
            Failover::Restart { because } => {
                self.remember(id.as_str(), format!("start {lost} again where it was"), because);
                Ok(None)
            }
        }
    }

    /// Waits until no PostgreSQL works in the data directory of a node that is down. How many of its processes were killed
    /// and still wait in the kernel for its disk: they execute nothing any more, so they can acknowledge nothing either,
    /// and nobody starts there before they are gone.
    async fn fence(&self, lost: &NodeId) -> Result<usize, StepError> {
        let Some(job) = self.node_kept(lost) else { return Ok(0) };
        let pgdata = job.paths.pgdata();
        let deadline = Instant::now() + FENCE_LIMIT;
        loop {
            let mut living = processes_in(&pgdata).map_err(|error| StepError::new(error.to_string()))?;
            // Not somebody's shell that happens to stand there.
            living.retain(|process| process.title.contains("postgres"));
            let Some(first) = living.first() else { return Ok(0) };
            if living.iter().all(|process| is_killed_in_kernel(process.pid)) {
                job.waits_for_disk.store(true, Relaxed);
                return Ok(living.len());
            }
            if Instant::now() >= deadline {
                return Err(StepError::new(format!("pid {} of {lost} does not end", first.pid)));
            }
            for process in &living {
                // Also those that are stopped, which hear nothing else.
                if let Some(pid) = i32::try_from(process.pid).ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            sleep(FENCE_POLL).await;
        }
    }

    /// Makes `to` the primary in place of `from`, which is down and fenced.
    async fn promote(&self, from: &NodeId, to: &NodeId) -> Result<(), StepError> {
        let id = from.resource();
        let session = self.session(to).await?;
        self.crash_at(CrashPoint::Failover(FailoverMoment::Chosen));
        let world = self.change_world(Journaling::Keep, |world| {
            world.topology.promote(to);
            world.generation += 1;
            Ok(())
        })?;
        let epoch = world.topology.clusters[id].epoch;
        self.crash_at(CrashPoint::Failover(FailoverMoment::WrittenDown));
        self.watched(id, |watch| {
            watch.begin_again();
            watch.begun = true;
        });
        locked(&self.inner.clusters.sessions).remove(from);
        // Before anything can fail: whatever comes of it, the old primary never starts as one again.
        self.place_members(id, &self.topology());
        let promotion = session.promote().await.map_err(|error| failed(&error))?;
        self.crash_at(CrashPoint::Failover(FailoverMoment::Promoted));
        self.note_promotion(id, epoch, promotion);
        locked(&self.inner.clusters.holding).remove(id);
        let pushed = self.push_proxies().await;
        let settled = self.settle_members(id, &session).await;
        pushed.and(settled)
    }

    /// Writes down, before anybody is told of the new primary, since when transaction ids are its own. Where that is not
    /// known, proxies go by what their own connections were told.
    fn note_promotion(&self, id: &ResourceId, epoch: u64, promotion: Option<Promotion>) {
        let is_known = !locked(&self.inner.clusters.restarted).remove(id);
        let Some(promotion) = promotion.filter(|_| is_known) else {
            tracing::info!(cluster = %id, epoch, "since when transaction ids are the new primary's is not known");
            return;
        };
        let noted = self.change_world(Journaling::Keep, |world| {
            if let Some(cluster) = world.topology.clusters.get_mut(id) {
                cluster.note_promotion(epoch, promotion);
            }
            Ok(())
        });
        if let Err(error) = noted {
            tracing::warn!(cluster = %id, %error, "since when transaction ids are the new primary's is not written down");
        }
    }

    /// After a promotion: the others follow the new primary, which keeps the log for them.
    async fn settle_members(&self, id: &ResourceId, primary: &Session) -> Result<(), StepError> {
        let topology = self.topology();
        let names: Vec<String> = topology.followers_of(id).map(|node| member_name(&node.id)).collect();
        let kept = primary.keep_slots(id, &names).await.map_err(|error| failed(&error));
        self.tell_members(id, &topology).and(kept)
    }
}

impl From<postgres::PostgresError> for StepError {
    fn from(error: postgres::PostgresError) -> StepError {
        failed(&error)
    }
}

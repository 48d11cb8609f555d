//! Random losses, returns, crashes, switchovers and changes of who follows, under simulated time: no acknowledged commit
//! is ever lost.

use model::{DatabaseRole, ResourceId};
use proptest::prelude::*;

use super::*;

fn node(number: u32) -> NodeId {
    NodeId::new(ResourceId::new("db").unwrap(), number)
}

fn cluster(synchronous: &[u32]) -> ClusterState {
    ClusterState {
        primary: node(1),
        epoch: 1,
        promotions: BTreeMap::new(),
        synchronous: synchronous.iter().map(|number| node(*number)).collect(),
        read_replicas: BTreeSet::new(),
        without_standby: WithoutStandby::Block,
        backups: None,
    }
}

/// By number: what was received, all of it replayed.
fn received(of: &[(u32, u64)]) -> BTreeMap<NodeId, Reached> {
    of.iter().map(|(number, lsn)| (node(*number), replayed(*lsn))).collect()
}

fn replayed(lsn: u64) -> Reached {
    Reached { received: Lsn(lsn), timeline: 1, replayed: Lsn(lsn), is_far_behind: false }
}

#[test]
fn the_most_advanced_follower_takes_over_whatever_its_role() {
    let mut cluster = cluster(&[2]);
    cluster.read_replicas.insert(node(3));
    let choice = |of: &[(u32, u64)]| choose(&cluster, &received(of));
    assert_eq!(choice(&[(2, 10), (3, 11)]), Failover::Promote(node(3)));
    assert_eq!(choice(&[(2, 10), (3, 10)]), Failover::Promote(node(2)), "a standby where they are equal");
}

#[test]
fn without_a_standby_that_has_everything_the_primary_is_started_again() {
    assert!(matches!(choose(&cluster(&[]), &received(&[(2, 10)])), Failover::Restart { .. }));
    let unreachable = choose(&cluster(&[2, 3]), &received(&[(2, 10)]));
    assert!(matches!(unreachable, Failover::Restart { because } if because.contains("db.3")));
}

/// Whoever replays for minutes would have everybody wait for as long.
#[test]
fn a_follower_that_is_far_behind_is_passed_over_where_another_has_what_was_acknowledged_or_seen() {
    let mut cluster = cluster(&[2]);
    cluster.read_replicas.insert(node(3));
    let choice = |standby: u64, replica: Reached| {
        choose(&cluster, &BTreeMap::from([(node(2), replayed(standby)), (node(3), replica)]))
    };
    let behind = |received, replayed| Reached {
        received: Lsn(received),
        timeline: 1,
        replayed: Lsn(replayed),
        is_far_behind: true,
    };
    assert_eq!(choice(10, behind(11, 5)), Failover::Promote(node(2)), "nobody has seen what it has more");
    assert_eq!(choice(10, behind(12, 11)), Failover::Promote(node(3)), "its readers have seen more");
}

/// It was too slow for one failover, and nobody has rewound it yet.
#[test]
fn a_follower_that_missed_a_change_of_primary_does_not_take_over_however_much_it_has() {
    let mut cluster = cluster(&[2]);
    cluster.read_replicas.insert(node(3));
    let on = |timeline, lsn| Reached { timeline, ..replayed(lsn) };
    let choice = |of: [Reached; 2]| choose(&cluster, &BTreeMap::from([(node(2), of[0]), (node(3), of[1])]));
    assert_eq!(choice([on(2, 10), on(1, 50)]), Failover::Promote(node(2)));
    assert_eq!(choice([on(2, 10), on(2, 50)]), Failover::Promote(node(3)));
    assert_eq!(choice([on(2, 10), on(3, 50)]), Failover::Promote(node(2)), "nobody knows whose log that is");
}

/// A primary, two standbys and a read replica to begin with, as far as who has which commit goes.
struct World {
    state: ClusterState,
    quorum: Quorum,
    /// What PostgreSQL was told.
    configured: BTreeSet<NodeId>,
    /// Whether commits wait at all: what its checkpointer has read of that, some time later.
    waits: bool,
    /// Whose confirmation counts: what the process that sends the log to each has read, some time later.
    counted: BTreeSet<NodeId>,
    told_ms: u64,
    evidence: Evidence,
    now_ms: u64,
    written: u64,
    acknowledged: u64,
    /// Of every node there is, the primary too.
    flushed: BTreeMap<NodeId, u64>,
    /// Of which timeline that is.
    timelines: BTreeMap<NodeId, u32>,
    /// Where each timeline but the first begins.
    forks: BTreeMap<u32, u64>,
    connected: BTreeSet<NodeId>,
    /// About to be removed, once nothing counts on them.
    leaving: BTreeSet<NodeId>,
}

/// What is taken for a proof that a configuration is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// That it is so.
    Proof,
    /// That it was told a second ago.
    ASecond,
}

#[derive(Debug, Clone)]
enum Happening {
    Write(u64),
    /// To this follower, this much more of the log.
    Replicate(u32, u64),
    Connect(u32),
    Lose(u32),
    /// Some time passes, and the daemon looks.
    Look(u64),
    /// Only these can be reached when the primary is lost. Where a read replica takes over, the one of the others that this
    /// number chooses becomes one in its place. The last ones have replayed nothing.
    Crash(BTreeSet<u32>, usize, BTreeSet<u32>),
    /// A planned change of primary to this follower. With what has arrived there, or all that the primary wrote.
    SwitchOver(u32, Arrived, usize),
    /// This follower is to be removed.
    Leave(u32),
    /// One that has what its primary does not is brought back to where they parted.
    Rewind(u32),
    /// A new follower is copied from the primary.
    Arrive(u32, DatabaseRole),
    /// The daemon was replaced: it knows only what was written down.
    NewDaemon,
    /// PostgreSQL's checkpointer reads what was told.
    CheckpointerReloads,
    /// The process that sends the log to this follower does.
    SenderReloads(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrived {
    Everything,
    WhatHas,
}

const FOLLOWERS: std::ops::RangeInclusive<u32> = 1..=4;

impl World {
    fn new(without_standby: WithoutStandby) -> World {
        let mut state = cluster(&[]);
        state.without_standby = without_standby;
        state.read_replicas.insert(node(4));
        World {
            state,
            quorum: Quorum::default(),
            configured: BTreeSet::new(),
            waits: false,
            counted: BTreeSet::new(),
            told_ms: 0,
            evidence: Evidence::Proof,
            now_ms: 0,
            written: 0,
            acknowledged: 0,
            flushed: FOLLOWERS.map(|number| (node(number), 0)).collect(),
            timelines: FOLLOWERS.map(|number| (node(number), 1)).collect(),
            forks: BTreeMap::new(),
            connected: BTreeSet::new(),
            leaving: BTreeSet::new(),
        }
    }

    /// PostgreSQL acknowledges what one of the configured has flushed, or at once where none is.
    fn acknowledge(&mut self) {
        // One that is gone confirms nothing any more, and is waited for.
        let flushed = |id: &NodeId| self.flushed.get(id).copied().unwrap_or_default();
        let confirmed = match self.waits {
            true => self.counted.iter().map(flushed).max().unwrap_or_default(),
            false => self.written,
        };
        self.acknowledged = self.acknowledged.max(confirmed.min(self.written));
    }

    fn in_force(&self) -> Option<BTreeSet<NodeId>> {
        let is_so = match self.evidence {
            Evidence::Proof => {
                self.waits != self.configured.is_empty() && self.counted.is_subset(&self.configured)
            }
            Evidence::ASecond => self.now_ms >= self.told_ms + 1_000,
        };
        is_so.then(|| self.configured.clone())
    }

    fn look(&mut self) {
        // A few steps at each look, as the daemon takes them.
        for _ in 0..3 {
            let is_standby = |id: &NodeId| {
                *id != self.state.primary
                    && !self.state.read_replicas.contains(id)
                    && !self.leaving.contains(id)
            };
            let standbys = self.flushed.iter().filter(|(id, _)| is_standby(id));
            let standbys = standbys.map(|(id, flushed)| {
                let streaming = self.connected.contains(id);
                let confirming = streaming && self.counted.contains(id);
                (id.clone(), Standby { streaming, confirming, flushed: Lsn(*flushed) })
            });
            let observed = Observed {
                now_ms: self.now_ms,
                in_force: self.in_force(),
                written: Lsn(self.written),
                standbys: standbys.collect(),
            };
            match self.quorum.next(&self.state, &observed) {
                Some(Confirm::Record(record)) => self.state.synchronous = record,
                Some(Confirm::Configure(configured)) => {
                    self.configured = configured;
                    self.told_ms = self.now_ms;
                }
                None => break,
            }
            self.acknowledge();
        }
        self.remove_who_leaves();
    }

    fn remove_who_leaves(&mut self) {
        let counted = |id: &NodeId| self.state.synchronous.contains(id) || self.configured.contains(id);
        for id in self.leaving.clone().iter().filter(|id| !counted(id)) {
            self.flushed.remove(id);
            self.timelines.remove(id);
            self.connected.remove(id);
            self.leaving.remove(id);
            self.state.read_replicas.remove(id);
        }
    }

    fn crash(&mut self, reachable: &BTreeSet<u32>, stand_in: usize, far_behind: &BTreeSet<u32>) {
        let reachable = self
            .flushed
            .iter()
            .filter(|(id, _)| reachable.contains(&id.number()) && **id != self.state.primary);
        let reached: BTreeMap<NodeId, Reached> = reachable
            .map(|(id, flushed)| {
                let one = Reached { timeline: self.timelines[id], ..replayed(*flushed) };
                match far_behind.contains(&id.number()) {
                    true => (id.clone(), Reached { replayed: Lsn(0), is_far_behind: true, ..one }),
                    false => (id.clone(), one),
                }
            })
            .collect();
        let Failover::Promote(to) = choose(&self.state, &reached) else { return };
        let has = self.flushed[&to];
        assert!(has >= self.acknowledged, "{to} has {has} of {} acknowledged", self.acknowledged);
        assert!(
            !self.is_astray(&to),
            "{to} has what its primary never had, and lacks what that acknowledged"
        );
        // Nobody reads on one that does not follow.
        let read = reached.iter().filter(|(id, _)| !self.is_astray(id));
        let seen = read.map(|(_, one)| one.replayed.0).max().unwrap_or_default();
        assert!(has >= seen, "{to} has {has} of {seen} that readers have seen");
        self.promote(&to, stand_in);
    }

    fn switch_over(&mut self, to: &NodeId, arrived: Arrived, stand_in: usize) {
        if !self.connected.contains(to) || *to == self.state.primary {
            return;
        }
        if arrived == Arrived::Everything {
            for id in &self.connected {
                self.flushed.insert(id.clone(), self.written);
            }
        }
        // Otherwise the primary starts again as it was.
        if self.flushed[to] == self.written {
            self.promote(to, stand_in);
        }
    }

    fn promote(&mut self, to: &NodeId, stand_in: usize) {
        let has = self.flushed[to];
        let old = self.state.primary.clone();
        let others: Vec<NodeId> = self
            .flushed
            .keys()
            .filter(|id| *id != to && !self.state.read_replicas.contains(*id))
            .cloned()
            .collect();
        self.state.promote(to, &others[stand_in % others.len()]);
        // It stays, for it takes writes.
        self.leaving.remove(to);
        let written = std::mem::replace(&mut self.written, has);
        self.quorum = Quorum::default();
        // It reads its configuration when it is promoted.
        self.configured.clear();
        self.waits = false;
        self.counted.clear();
        self.connected.clear();
        // Whoever was ahead stays so until it is rewound.
        self.flushed.insert(old, written);
        let timeline = self.timelines[to].max(self.forks.keys().max().copied().unwrap_or(1)) + 1;
        self.forks.insert(timeline, has);
        self.timelines.insert(to.clone(), timeline);
        self.acknowledge();
    }

    /// The position up to which this node's log is that of the primary.
    fn shared(&self, id: &NodeId) -> u64 {
        let later = self.forks.range(self.timelines[id] + 1..);
        later.map(|(_, begins)| *begins).min().unwrap_or(u64::MAX)
    }

    fn is_astray(&self, id: &NodeId) -> bool {
        self.flushed[id] > self.shared(id)
    }

    /// Every process of PostgreSQL reads what was told.
    fn reload(&mut self) {
        self.happen(&Happening::CheckpointerReloads);
        for number in FOLLOWERS {
            self.happen(&Happening::SenderReloads(number));
        }
    }

    fn follows(&self, number: u32) -> bool {
        node(number) != self.state.primary && self.flushed.contains_key(&node(number))
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Write(bytes) => self.written += bytes,
            Happening::Replicate(number, bytes) if self.connected.contains(&node(*number)) => {
                let flushed = self.flushed.get_mut(&node(*number)).unwrap();
                *flushed = (*flushed + bytes).min(self.written);
            }
            Happening::Replicate(..) => {}
            Happening::Connect(number) if self.follows(*number) && !self.is_astray(&node(*number)) => {
                self.connected.insert(node(*number));
                self.timelines.insert(node(*number), self.timelines[&self.state.primary]);
            }
            Happening::Connect(_) => {}
            Happening::Lose(number) => {
                self.connected.remove(&node(*number));
            }
            Happening::Look(ms) => {
                self.now_ms += ms;
                self.look();
            }
            Happening::CheckpointerReloads => self.waits = !self.configured.is_empty(),
            Happening::SenderReloads(number) => {
                let id = node(*number);
                match self.configured.contains(&id) {
                    true => self.counted.insert(id),
                    false => self.counted.remove(&id),
                };
            }
            Happening::Crash(reachable, stand_in, far_behind) => {
                self.crash(reachable, *stand_in, far_behind);
            }
            Happening::SwitchOver(number, arrived, stand_in) => {
                self.switch_over(&node(*number), *arrived, *stand_in);
            }
            Happening::Rewind(number) if self.follows(*number) && self.is_astray(&node(*number)) => {
                let shared = self.shared(&node(*number));
                self.flushed.insert(node(*number), shared);
            }
            Happening::Rewind(_) => {}
            Happening::Leave(number) if self.follows(*number) => {
                self.leaving.insert(node(*number));
            }
            Happening::Leave(_) => {}
            Happening::Arrive(number, role) if !self.flushed.contains_key(&node(*number)) => {
                self.flushed.insert(node(*number), self.written);
                self.timelines.insert(node(*number), self.timelines[&self.state.primary]);
                if *role == DatabaseRole::ReadReplica {
                    self.state.read_replicas.insert(node(*number));
                }
            }
            Happening::Arrive(..) => {}
            Happening::NewDaemon => {
                self.leaving.clear();
                // It tells PostgreSQL what is written down, and goes on from there.
                self.configured.clone_from(&self.state.synchronous);
                self.told_ms = self.now_ms;
                self.quorum = Quorum::configured(self.configured.clone());
            }
        }
        self.acknowledge();
    }
}

fn followers() -> impl Strategy<Value = BTreeSet<u32>> {
    prop::collection::btree_set(FOLLOWERS, 0..=4)
}

fn arrived() -> impl Strategy<Value = Arrived> {
    prop_oneof![Just(Arrived::Everything), Just(Arrived::WhatHas)]
}

fn role() -> impl Strategy<Value = DatabaseRole> {
    prop_oneof![Just(DatabaseRole::Standby), Just(DatabaseRole::ReadReplica)]
}

fn happenings() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (1..5_u64).prop_map(Happening::Write),
        4 => (FOLLOWERS, 1..9_u64).prop_map(|(number, bytes)| Happening::Replicate(number, bytes)),
        2 => FOLLOWERS.prop_map(Happening::Connect),
        2 => FOLLOWERS.prop_map(Happening::Rewind),
        1 => FOLLOWERS.prop_map(Happening::Lose),
        4 => (1..3_000_u64).prop_map(Happening::Look),
        1 => (followers(), 0..4_usize, followers())
            .prop_map(|(reachable, stand_in, behind)| Happening::Crash(reachable, stand_in, behind)),
        1 => (FOLLOWERS, arrived(), 0..4_usize)
            .prop_map(|(number, arrived, stand_in)| Happening::SwitchOver(number, arrived, stand_in)),
        1 => FOLLOWERS.prop_map(Happening::Leave),
        1 => (FOLLOWERS, role()).prop_map(|(number, role)| Happening::Arrive(number, role)),
        1 => Just(Happening::NewDaemon),
        2 => Just(Happening::CheckpointerReloads),
        3 => FOLLOWERS.prop_map(Happening::SenderReloads),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_failover_loses_an_acknowledged_commit(
        degrade in any::<bool>(),
        happenings in prop::collection::vec(happenings(), 1..60),
    ) {
        let policy = if degrade { WithoutStandby::Degrade } else { WithoutStandby::Block };
        let mut world = World::new(policy);
        for happening in &happenings {
            world.happen(happening);
        }
    }

    /// Once all are there and have caught up, they confirm and are written down, and it stays so.
    #[test]
    fn a_cluster_that_is_whole_settles(happenings in prop::collection::vec(happenings(), 0..30)) {
        let mut world = World::new(WithoutStandby::Block);
        for happening in &happenings {
            world.happen(happening);
        }
        world.leaving.clear();
        for number in FOLLOWERS {
            world.happen(&Happening::Rewind(number));
            world.happen(&Happening::Connect(number));
        }
        for _ in 0..10 {
            world.reload();
            for number in FOLLOWERS {
                world.happen(&Happening::Replicate(number, u64::from(u32::MAX)));
            }
            world.happen(&Happening::Look(250));
        }
        let standbys = world.flushed.len() - 1 - world.state.read_replicas.len();
        prop_assert_eq!(world.state.synchronous.len(), standbys);
        prop_assert_eq!(&world.configured, &world.state.synchronous);
        prop_assert_eq!(world.acknowledged, world.written);
    }
}

#[test]
fn a_commit_waits_for_its_standby_or_goes_on_alone_as_the_manifest_says() {
    for (policy, acknowledged) in [(WithoutStandby::Block, 10), (WithoutStandby::Degrade, 20)] {
        let mut world = World::new(policy);
        world.happen(&Happening::Connect(2));
        world.happen(&Happening::Look(0));
        world.reload();
        world.happen(&Happening::Look(250));
        world.happen(&Happening::Write(10));
        world.happen(&Happening::Replicate(2, 10));
        world.happen(&Happening::Lose(2));
        world.happen(&Happening::Write(10));
        world.happen(&Happening::Look(250));
        assert_eq!(world.acknowledged, 10, "{policy:?}: a short absence changes nothing");
        world.happen(&Happening::Look(AWAY_MS));
        world.reload();
        assert_eq!(world.acknowledged, acknowledged, "{policy:?}");
    }
}

/// A standby confirms, and the checkpointer is too busy to have commits wait for it: they are acknowledged by the primary
/// alone, for seconds.
fn crash_while_the_checkpointer_is_busy(evidence: Evidence) -> World {
    let mut world = World::new(WithoutStandby::Block);
    world.evidence = evidence;
    for happening in [
        Happening::Connect(2),
        Happening::Look(0),
        Happening::SenderReloads(2),
        Happening::Look(5_000),
        Happening::Write(10),
        Happening::Crash(BTreeSet::from([2]), 0, BTreeSet::new()),
    ] {
        world.happen(&happening);
    }
    world
}

#[test]
fn a_standby_is_not_recorded_before_commits_are_proved_to_wait_for_it() {
    let world = crash_while_the_checkpointer_is_busy(Evidence::Proof);
    assert_eq!(world.state.synchronous, BTreeSet::new());
    assert_eq!(world.state.primary, node(1), "it was started again, where everything is");
}

/// So the simulation would notice.
#[test]
#[should_panic(expected = "has 0 of 10 acknowledged")]
fn that_a_configuration_was_told_a_second_ago_proves_nothing() {
    crash_while_the_checkpointer_is_busy(Evidence::ASecond);
}

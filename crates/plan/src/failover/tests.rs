//! Random losses, returns and crashes, under simulated time: no acknowledged commit is ever lost.

use model::ResourceId;
use proptest::prelude::*;

use super::*;

fn node(number: u32) -> NodeId {
    NodeId::new(ResourceId::new("db").unwrap(), number)
}

fn cluster(synchronous: &[u32]) -> ClusterState {
    ClusterState {
        primary: node(1),
        epoch: 1,
        synchronous: synchronous.iter().map(|number| node(*number)).collect(),
        read_replicas: BTreeSet::new(),
        without_standby: WithoutStandby::Block,
        backups: None,
    }
}

fn received(of: &[(u32, u64)]) -> BTreeMap<NodeId, Lsn> {
    of.iter().map(|(number, lsn)| (node(*number), Lsn(*lsn))).collect()
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

/// A primary, two standbys and a read replica, as far as who has which commit goes.
struct World {
    state: ClusterState,
    quorum: Quorum,
    /// What PostgreSQL was told.
    configured: BTreeSet<NodeId>,
    /// What its processes go by: what they were told, some time later.
    in_force: BTreeSet<NodeId>,
    told_ms: u64,
    /// How much later.
    lag_ms: u64,
    now_ms: u64,
    written: u64,
    acknowledged: u64,
    flushed: BTreeMap<NodeId, u64>,
    connected: BTreeSet<NodeId>,
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
    /// Only these can be reached when the primary is lost.
    Crash(BTreeSet<u32>),
    /// The daemon was replaced: it knows only what was written down.
    NewDaemon,
    /// From now on PostgreSQL takes this long to go by what it is told.
    Lag(u64),
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
            in_force: BTreeSet::new(),
            told_ms: 0,
            lag_ms: 0,
            now_ms: 0,
            written: 0,
            acknowledged: 0,
            flushed: FOLLOWERS.map(|number| (node(number), 0)).collect(),
            connected: BTreeSet::new(),
        }
    }

    /// PostgreSQL acknowledges what one of the configured has flushed, or at once where none is.
    fn acknowledge(&mut self) {
        if self.now_ms >= self.told_ms + self.lag_ms {
            self.in_force.clone_from(&self.configured);
        }
        let confirmed = match self.in_force.iter().map(|id| self.flushed[id]).max() {
            Some(flushed) => flushed,
            None => self.written,
        };
        self.acknowledged = self.acknowledged.max(confirmed.min(self.written));
    }

    fn look(&mut self) {
        // A few steps at each look, as the daemon takes them.
        for _ in 0..3 {
            let standbys = self
                .flushed
                .iter()
                .filter(|(id, _)| **id != self.state.primary && !self.state.read_replicas.contains(*id));
            let standbys = standbys.map(|(id, flushed)| {
                let streaming = self.connected.contains(id);
                let confirming = streaming && self.configured.contains(id);
                (id.clone(), Standby { streaming, confirming, flushed: Lsn(*flushed) })
            });
            let observed =
                Observed { now_ms: self.now_ms, written: Lsn(self.written), standbys: standbys.collect() };
            match self.quorum.next(&self.state, &observed) {
                Some(Confirm::Record(record)) => self.state.synchronous = record,
                Some(Confirm::Configure(configured)) => {
                    self.configured = configured;
                    self.told_ms = self.now_ms;
                }
                None => return,
            }
            self.acknowledge();
        }
    }

    fn crash(&mut self, reachable: &BTreeSet<u32>) {
        let reachable = self
            .flushed
            .iter()
            .filter(|(id, _)| reachable.contains(&id.number()) && **id != self.state.primary);
        let received = reachable.map(|(id, flushed)| (id.clone(), Lsn(*flushed))).collect();
        let Failover::Promote(to) = choose(&self.state, &received) else { return };
        let has = self.flushed[&to];
        assert!(has >= self.acknowledged, "{to} has {has} of {} acknowledged", self.acknowledged);
        let old = self.state.primary.clone();
        self.state.promote(&to);
        self.written = has;
        self.quorum = Quorum::default();
        // It reads its configuration when it is promoted.
        self.configured.clear();
        self.in_force.clear();
        self.connected.clear();
        // Whoever was ahead is rewound.
        self.flushed.insert(old, has);
        self.flushed.values_mut().for_each(|flushed| *flushed = (*flushed).min(has));
        self.acknowledge();
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Write(bytes) => self.written += bytes,
            Happening::Replicate(number, bytes) if self.connected.contains(&node(*number)) => {
                let flushed = self.flushed.get_mut(&node(*number)).unwrap();
                *flushed = (*flushed + bytes).min(self.written);
            }
            Happening::Replicate(..) => {}
            Happening::Connect(number) if node(*number) != self.state.primary => {
                self.connected.insert(node(*number));
            }
            Happening::Connect(_) => {}
            Happening::Lose(number) => {
                self.connected.remove(&node(*number));
            }
            Happening::Look(ms) => {
                self.now_ms += ms;
                self.look();
            }
            Happening::Lag(ms) => self.lag_ms = *ms,
            Happening::Crash(reachable) => self.crash(reachable),
            Happening::NewDaemon => {
                // It tells PostgreSQL what is written down, and goes on from there.
                self.configured.clone_from(&self.state.synchronous);
                self.told_ms = self.now_ms;
                self.quorum = Quorum::configured(self.configured.clone());
            }
        }
        self.acknowledge();
    }
}

fn happenings() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (1..5_u64).prop_map(Happening::Write),
        4 => (FOLLOWERS, 1..9_u64).prop_map(|(number, bytes)| Happening::Replicate(number, bytes)),
        2 => FOLLOWERS.prop_map(Happening::Connect),
        1 => FOLLOWERS.prop_map(Happening::Lose),
        4 => (1..3_000_u64).prop_map(Happening::Look),
        1 => prop::collection::btree_set(FOLLOWERS, 0..=4).prop_map(Happening::Crash),
        1 => Just(Happening::NewDaemon),
        1 => (0..IN_FORCE_MS).prop_map(Happening::Lag),
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
        for number in FOLLOWERS {
            world.happen(&Happening::Connect(number));
        }
        for _ in 0..10 {
            for number in FOLLOWERS {
                world.happen(&Happening::Replicate(number, u64::from(u32::MAX)));
            }
            world.happen(&Happening::Look(250));
        }
        prop_assert_eq!(world.state.synchronous.len(), 2);
        prop_assert_eq!(&world.configured, &world.state.synchronous);
        prop_assert_eq!(world.acknowledged, world.written);
    }
}

#[test]
fn a_commit_waits_for_its_standby_or_goes_on_alone_as_the_manifest_says() {
    for (policy, acknowledged) in [(WithoutStandby::Block, 10), (WithoutStandby::Degrade, 20)] {
        let mut world = World::new(policy);
        for happening in
            [Happening::Connect(2), Happening::Look(0), Happening::Look(250), Happening::Write(10)]
        {
            world.happen(&happening);
        }
        world.happen(&Happening::Replicate(2, 10));
        world.happen(&Happening::Lose(2));
        world.happen(&Happening::Write(10));
        world.happen(&Happening::Look(250));
        assert_eq!(world.acknowledged, 10, "{policy:?}: a short absence changes nothing");
        world.happen(&Happening::Look(AWAY_MS));
        assert_eq!(world.acknowledged, acknowledged, "{policy:?}");
    }
}

//! What must hold of every plan, over random graphs and over the moves people make.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    AppName, BackupPolicy, ByteSize, CompareGate, DatabaseCluster, DatabaseRole, Engine, HealthProbe,
    LoadBalancer, NodeId, RecoveryTarget, Rehearsal, Release, ReleaseId, Resource, ResourceGraph, ResourceId,
    Service, ServiceProtocol, Size, Topology, WithoutStandby, Zone,
};
use plan::{Action, FoundData, Interruption, Plan, PlanError, Request, Restore, follow_again, plan, restore};
use proptest::prelude::*;

fn id(name: &str) -> ResourceId {
    ResourceId::new(name).unwrap()
}

fn release(number: u8) -> Release {
    Release {
        id: ReleaseId::new(format!("{number:012x}")).unwrap(),
        run: "./serve".into(),
        release_command: Some("./migrate".into()),
    }
}

/// Another policy for each number, and none.
fn backups(number: Option<u16>) -> Option<BackupPolicy> {
    number.map(|number| BackupPolicy { to: None, every_ms: 3_600_000, keep: u32::from(number) })
}

#[derive(Debug, Clone)]
struct Wish {
    stage: u8,
    zones: usize,
    instances: u32,
    database: bool,
    memory_mb: Option<u64>,
    standbys: u32,
    read_replicas: u32,
    release: u8,
    env: u8,
    threads: Option<u16>,
    backups: Option<BackupPolicy>,
    /// Whether the manifest says how the app is rehearsed.
    rehearsed: bool,
}

const STAGE_1: Wish = Wish {
    stage: 1,
    zones: 1,
    instances: 1,
    database: true,
    memory_mb: None,
    standbys: 0,
    read_replicas: 0,
    release: 1,
    env: 0,
    threads: None,
    backups: None,
    rehearsed: false,
};
const STAGE_2: Wish = Wish { stage: 2, zones: 2, instances: 2, standbys: 1, ..STAGE_1 };
const STAGE_3: Wish = Wish { stage: 3, instances: 4, read_replicas: 2, ..STAGE_2 };

impl Wish {
    fn graph(&self) -> ResourceGraph {
        let size =
            Size { cpu: None, memory: self.memory_mb.map(|mb| ByteSize::from_bytes(mb * ByteSize::MB)) };
        let mut resources = BTreeMap::new();
        let service = Service {
            run: "./serve".into(),
            build: None,
            release: Some("./migrate".into()),
            include: Vec::new(),
            instances: self.instances,
            size,
            env: BTreeMap::from([("MODE".to_owned(), self.env.to_string())]),
            protocol: ServiceProtocol::Http1,
            health: HealthProbe { path: None, start_timeout_ms: 60_000 },
            grace_ms: 30_000,
            user: None,
            database: self.database.then(|| id("db")),
            compare: CompareGate { window_ms: 5_000, max_worse_percent: 5, min_answers: 20 },
            keep_releases: 5,
        };
        resources.insert(id("web"), Resource::Service(service));
        if self.database {
            let cluster = DatabaseCluster {
                engine: Engine::Postgres,
                size,
                database: "app".into(),
                standbys: self.standbys,
                read_replicas: self.read_replicas,
                without_standby: WithoutStandby::Block,
                backups: self.backups.clone(),
            };
            resources.insert(id("db"), Resource::DatabaseCluster(cluster));
        }
        let edge = LoadBalancer {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            metrics: None,
            domain: None,
            default_service: id("web"),
            threads: self.threads,
            access_log: true,
            request_timeout_ms: 60_000,
            max_body: ByteSize::from_bytes(100 * ByteSize::MB),
            trusted_proxies: Vec::new(),
        };
        resources.insert(id("edge"), Resource::LoadBalancer(edge));
        let rehearsal = self.rehearsed.then(Rehearsal::default);
        let zones = ["a", "b", "c"][..self.zones].iter().map(|zone| Zone::new(*zone).unwrap()).collect();
        ResourceGraph { app: AppName::new("app").unwrap(), stage: self.stage, zones, resources, rehearsal }
    }
}

const PORTS: std::ops::Range<u16> = 20_000..20_400;

fn plan_to(current: &Topology, wish: &Wish) -> Result<Plan, PlanError> {
    // Leaving the database out of a wish is a wish to destroy it, where there is one.
    let drop_database = !wish.database && current.nodes.keys().any(|node| node.resource() == &id("db"));
    let destroy = if drop_database { BTreeSet::from([id("db")]) } else { BTreeSet::new() };
    plan_destroying(current, wish, &destroy)
}

fn plan_destroying(
    current: &Topology,
    wish: &Wish,
    destroy: &BTreeSet<ResourceId>,
) -> Result<Plan, PlanError> {
    plan_finding(current, wish, destroy, &BTreeMap::new())
}

fn plan_finding(
    current: &Topology,
    wish: &Wish,
    destroy: &BTreeSet<ResourceId>,
    found: &BTreeMap<ResourceId, FoundData>,
) -> Result<Plan, PlanError> {
    let releases = BTreeMap::from([(id("web"), release(wish.release))]);
    let free_ports: Vec<u16> = PORTS.collect();
    let desired = wish.graph();
    plan(&Request {
        current,
        parent: 1,
        desired: &desired,
        releases: &releases,
        free_ports: &free_ports,
        destroy,
        found,
    })
}

fn applied(start: &Topology, plan: &Plan) -> Topology {
    let mut world = start.clone();
    for step in &plan.steps {
        step.action.apply(&mut world).unwrap();
    }
    world
}

fn serving(world: &Topology) -> usize {
    world.instances.values().filter(|instance| instance.in_rotation).count()
}

/// What a rollback restores. Numbers once given stay given, epochs never return, and a release command once run has run.
fn shape(world: &Topology) -> Topology {
    let mut shape = Topology { prepared: BTreeSet::new(), ..world.clone() };
    shape.next_instance.clear();
    shape.next_node.clear();
    shape.clusters.values_mut().for_each(|cluster| cluster.epoch = 0);
    shape
}

/// The primary is lost, and the follower of this number of those there are takes over.
fn failed_over(world: &Topology, follower: usize) -> Topology {
    let followers: Vec<NodeId> = world.followers_of(&id("db")).map(|node| node.id.clone()).collect();
    let mut world = world.clone();
    if let Some(to) = followers.get(follower % followers.len().max(1)) {
        world.promote(to);
    }
    world
}

fn wishes() -> impl Strategy<Value = Wish> {
    (
        1..=3_usize,
        1..=6_u32,
        any::<bool>(),
        prop_oneof![Just(None), (256..2048_u64).prop_map(Some)],
        1..4_u8,
        0..2_u8,
    )
        .prop_flat_map(|(zones, instances, database, memory_mb, release, env)| {
            let threads = prop_oneof![Just(None), (1..4_u16).prop_map(Some)];
            (1..=3_u8, threads, 0..3_u32, 0..3_u32).prop_map(
                move |(stage, threads, standbys, read_replicas)| Wish {
                    stage,
                    zones,
                    instances,
                    database,
                    memory_mb,
                    standbys,
                    read_replicas,
                    release,
                    env,
                    threads,
                    backups: backups(threads),
                    rehearsed: false,
                },
            )
        })
}

proptest! {
    #[test]
    fn planning_what_was_applied_yields_nothing(path in prop::collection::vec(wishes(), 1..5)) {
        let mut world = Topology::default();
        for wish in &path {
            world = applied(&world, &plan_to(&world, wish).unwrap());
            let again = plan_to(&world, wish).unwrap();
            prop_assert!(again.is_empty(), "{wish:?} planned again: {:?}", again.steps);
        }
    }

    #[test]
    fn how_an_app_is_rehearsed_is_no_part_of_any_plan(wish in wishes()) {
        let rehearsed = Wish { rehearsed: true, ..wish.clone() };
        let nothing = Topology::default();
        prop_assert_eq!(plan_to(&nothing, &rehearsed).unwrap().steps, plan_to(&nothing, &wish).unwrap().steps);
        let world = applied(&nothing, &plan_to(&nothing, &wish).unwrap());
        prop_assert!(plan_to(&world, &rehearsed).unwrap().is_empty());
    }

    #[test]
    fn after_a_failover_the_next_plan_leads_to_what_is_wished_for(
        from in wishes(),
        to in wishes(),
        follower in 0..4_usize,
    ) {
        let world = applied(&Topology::default(), &plan_to(&Topology::default(), &from).unwrap());
        let world = failed_over(&world, follower);
        let world = applied(&world, &plan_to(&world, &to).unwrap());
        let again = plan_to(&world, &to).unwrap();
        prop_assert!(again.is_empty(), "planned again: {:?}", words(&again));
    }

    #[test]
    fn standbys_are_spread_over_the_zones_and_there_are_as_many_as_wished_for(
        from in wishes(),
        to in wishes(),
        follower in 0..4_usize,
    ) {
        let to = Wish { database: true, ..to };
        let world = applied(&Topology::default(), &plan_to(&Topology::default(), &from).unwrap());
        let world = failed_over(&world, follower);
        let world = applied(&world, &plan_to(&world, &to).unwrap());
        for (role, wished) in
            [(DatabaseRole::Primary, 1), (DatabaseRole::Standby, to.standbys), (DatabaseRole::ReadReplica, to.read_replicas)]
        {
            let found = world.nodes.keys().filter(|node| world.role_of(node) == role).count();
            prop_assert_eq!(found as u32, wished, "{:?}", role);
        }
        let replica = |node: &NodeId| world.role_of(node) == DatabaseRole::ReadReplica;
        for replicas in [true, false] {
            let mut by_zone: BTreeMap<&Zone, u32> = world.zones.iter().map(|zone| (zone, 0)).collect();
            for node in world.nodes.values().filter(|node| replica(&node.id) == replicas) {
                *by_zone.get_mut(&node.zone).expect("a node outside the zones in use") += 1;
            }
            let (least, most) = (by_zone.values().min().unwrap(), by_zone.values().max().unwrap());
            prop_assert!(most - least <= 1, "{by_zone:?}");
        }
    }

    /// The database is never without a primary for longer than a step, and whoever leaves is followed no more.
    #[test]
    fn a_primary_hands_over_before_it_is_stopped_or_restarted(from in wishes(), to in wishes()) {
        let to = Wish { database: true, standbys: to.standbys.max(1), ..to };
        let mut world = applied(&Topology::default(), &plan_to(&Topology::default(), &from).unwrap());
        let had_database = !world.nodes.is_empty();
        for step in plan_to(&world, &to).unwrap().steps {
            if let Action::ResizeNode { id, restart: true, .. } = &step.action {
                prop_assert_ne!(world.role_of(id), DatabaseRole::Primary);
            }
            step.action.apply(&mut world).unwrap();
            if had_database {
                prop_assert!(world.primary_of(&id("db")).is_some());
            }
        }
    }

    #[test]
    fn no_step_leaves_fewer_endpoints_than_before_or_after(from in wishes(), to in wishes()) {
        let mut world = applied(&Topology::default(), &plan_to(&Topology::default(), &from).unwrap());
        let least = from.instances.min(to.instances) as usize;
        for step in plan_to(&world, &to).unwrap().steps {
            step.action.apply(&mut world).unwrap();
            prop_assert!(serving(&world) >= least, "{} left {}", step.action, serving(&world));
            let most = from.instances.max(to.instances) as usize + 1;
            prop_assert!(world.instances.len() <= most, "{} made {}", step.action, world.instances.len());
        }
    }

    #[test]
    fn zones_are_filled_evenly_and_no_port_is_given_twice(from in wishes(), to in wishes()) {
        let world = applied(&Topology::default(), &plan_to(&Topology::default(), &from).unwrap());
        let world = applied(&world, &plan_to(&world, &to).unwrap());
        let mut by_zone: BTreeMap<&Zone, u32> = world.zones.iter().map(|zone| (zone, 0)).collect();
        for instance in world.instances.values() {
            *by_zone.get_mut(&instance.zone).expect("an instance outside the zones in use") += 1;
        }
        let (least, most) = (by_zone.values().min().unwrap(), by_zone.values().max().unwrap());
        prop_assert!(most - least <= 1, "{by_zone:?}");
        let mut ports: Vec<u16> = world.ports().collect();
        ports.sort_unstable();
        let unique: BTreeSet<u16> = ports.iter().copied().collect();
        prop_assert_eq!(ports.len(), unique.len());
        prop_assert!(!ports.contains(&0));
    }

    #[test]
    fn going_back_from_any_step_restores_what_stood(from in wishes(), to in wishes(), stop in 0..64_usize) {
        let start = applied(&Topology::default(), &plan_to(&Topology::default(), &from).unwrap());
        let plan = plan_to(&start, &to).unwrap();
        let done = &plan.steps[..stop.min(plan.steps.len())];
        let mut world = start.clone();
        for step in done {
            step.action.apply(&mut world).unwrap();
        }
        for step in done.iter().rev() {
            if let Some(inverse) = step.action.inverse() {
                inverse.apply(&mut world).unwrap();
            }
        }
        prop_assert_eq!(shape(&world), shape(&start));
    }

    #[test]
    fn there_are_never_two_primaries(path in prop::collection::vec(wishes(), 1..4)) {
        let mut world = Topology::default();
        for wish in &path {
            for step in plan_to(&world, wish).unwrap().steps {
                step.action.apply(&mut world).unwrap();
                let role = |node: &NodeId| world.role_of(node);
                let primaries = world.nodes.keys().filter(|node| role(node) == DatabaseRole::Primary).count();
                prop_assert_eq!(primaries, world.clusters.len());
            }
        }
    }
}

fn words(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| step.action.to_string()).collect()
}

#[test]
fn the_first_plan_brings_up_what_others_need_first() {
    let plan = plan_to(&Topology::default(), &STAGE_1).unwrap();
    assert_eq!(
        words(&plan),
        [
            "use zone a",
            "create db.1 in zone a",
            "open db on port 20000",
            "open edge on 127.0.0.1:20001",
            "run the release command of 000000000001",
            "start web.1 (000000000001) in zone a",
            "send traffic to web.1",
            "web serves 000000000001",
        ]
    );
}

#[test]
fn the_second_stage_adds_a_standby_and_an_instance_in_the_second_zone_and_touches_nothing_else() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_1).unwrap());
    let plan = plan_to(&world, &STAGE_2).unwrap();
    assert_eq!(
        words(&plan),
        [
            "use zones a, b",
            "add db.2 as a standby in zone b",
            "start web.2 (000000000001) in zone b",
            "send traffic to web.2",
            "stand at stage 2",
        ]
    );
    let world = applied(&world, &plan);
    let back = plan_to(&world, &STAGE_1).unwrap();
    assert_eq!(
        words(&back),
        ["drain web.2", "stop web.2 (000000000001)", "remove db.2 and its copy", "use zone a"]
    );
}

#[test]
fn the_third_stage_adds_a_read_replica_and_an_instance_in_each_zone_and_touches_nothing_else() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_2).unwrap());
    let plan = plan_to(&world, &STAGE_3).unwrap();
    assert_eq!(
        words(&plan),
        [
            "add db.3 as a read replica in zone a",
            "add db.4 as a read replica in zone b",
            "start web.3 (000000000001) in zone a",
            "send traffic to web.3",
            "start web.4 (000000000001) in zone b",
            "send traffic to web.4",
            "stand at stage 3",
        ]
    );
    assert!(plan.steps.iter().all(|step| step.interruption == Interruption::None));
    let world = applied(&world, &plan);
    let back = plan_to(&world, &STAGE_2).unwrap();
    assert_eq!(
        words(&back),
        [
            "drain web.3",
            "stop web.3 (000000000001)",
            "drain web.4",
            "stop web.4 (000000000001)",
            "remove db.3 and its copy",
            "remove db.4 and its copy",
            "stand at stage 2",
        ]
    );
}

/// Otherwise the next change of anything would copy the database to put its nodes where they are missing.
#[test]
fn at_the_third_stage_a_failover_to_any_follower_leaves_nothing_to_plan() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_3).unwrap());
    for first in 0..3 {
        for second in 0..3 {
            let world = failed_over(&failed_over(&world, first), second);
            let plan = plan_to(&world, &STAGE_3).unwrap();
            assert!(plan.is_empty(), "{first}, then {second}: {:?}", words(&plan));
        }
    }
}

#[test]
fn a_new_release_is_compared_before_the_second_old_instance_leaves() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_2).unwrap());
    let plan = plan_to(&world, &Wish { release: 2, ..STAGE_2 }).unwrap();
    assert_eq!(
        words(&plan),
        [
            "run the release command of 000000000002",
            "start web.3 (000000000002) in zone a",
            "send traffic to web.3",
            "compare web.3 with the old release for 5 s",
            "drain web.1",
            "stop web.1 (000000000001)",
            "start web.4 (000000000002) in zone b",
            "send traffic to web.4",
            "drain web.2",
            "stop web.2 (000000000001)",
            "web serves 000000000002",
        ]
    );
}

#[test]
fn a_release_command_is_not_run_again_when_going_back() {
    let mut world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_1).unwrap());
    world = applied(&world, &plan_to(&world, &Wish { release: 2, ..STAGE_1 }).unwrap());
    let back = plan_to(&world, &STAGE_1).unwrap();
    assert!(!back.steps.iter().any(|step| matches!(step.action, Action::RunReleaseCommand { .. })));
}

#[test]
fn more_cpu_is_live_and_more_database_memory_says_what_it_costs() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_1).unwrap());
    let plan = plan_to(&world, &Wish { memory_mb: Some(1024), ..STAGE_1 }).unwrap();
    assert_eq!(
        words(&plan),
        ["restart db.1 to resize it: unlimited to 1GB", "resize web.1 live: unlimited to 1GB"]
    );
    assert!(matches!(plan.steps[0].interruption, Interruption::EstimatedMs(ms) if ms > 0));
    assert_eq!(plan.steps[1].interruption, Interruption::None);
}

#[test]
fn with_a_standby_the_primary_hands_over_before_it_restarts() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_2).unwrap());
    let plan = plan_to(&world, &Wish { memory_mb: Some(1024), ..STAGE_2 }).unwrap();
    assert_eq!(
        words(&plan)[..3],
        [
            "restart db.2 to resize it: unlimited to 1GB",
            "switch over from db.1 to db.2",
            "restart db.1 to resize it: unlimited to 1GB",
        ]
    );
    assert!(matches!(plan.steps[1].interruption, Interruption::EstimatedMs(ms) if ms < 1_000));
    assert_eq!(plan.steps[2].interruption, Interruption::None);
}

#[test]
fn a_primary_in_a_zone_that_leaves_hands_over_first() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_2).unwrap());
    let world = failed_over(&world, 0);
    let back = plan_to(&world, &STAGE_1).unwrap();
    assert_eq!(
        words(&back),
        [
            "drain web.2",
            "stop web.2 (000000000001)",
            "switch over from db.2 to db.1",
            "remove db.2 and its copy",
            "use zone a",
        ]
    );
}

#[test]
fn a_database_that_left_the_manifest_is_kept_unless_it_is_named() {
    let world = applied(&Topology::default(), &plan_to(&Topology::default(), &STAGE_1).unwrap());
    let without = Wish { database: false, ..STAGE_1 };
    let refused = plan_destroying(&world, &without, &BTreeSet::new());
    assert_eq!(refused, Err(PlanError::WouldDestroy(vec![id("db")])));

    let plan = plan_destroying(&world, &without, &BTreeSet::from([id("db")])).unwrap();
    assert!(matches!(plan.steps.last().unwrap().action, Action::DestroyNode { .. }), "{:?}", words(&plan));
    assert_eq!(
        plan_destroying(&world, &STAGE_1, &BTreeSet::from([id("db")])),
        Err(PlanError::NothingToDestroy(id("db")))
    );
}

#[test]
fn data_that_is_there_is_taken_up_and_followers_get_numbers_that_no_folder_bears() {
    let found = BTreeMap::from([(id("db"), FoundData { number: 2, spent: 3 })]);
    let plan = plan_finding(&Topology::default(), &STAGE_2, &BTreeSet::new(), &found).unwrap();
    let steps: Vec<String> = plan.steps.iter().map(|step| step.action.to_string()).collect();
    assert!(steps.iter().any(|step| step == "take up db.2 and its data in zone a"), "{steps:#?}");
    assert!(steps.iter().any(|step| step == "add db.4 as a standby in zone b"), "{steps:#?}");
    assert!(!steps.iter().any(|step| step.starts_with("create db")), "{steps:#?}");
    let mut world = applied(&Topology::default(), &plan);
    assert_eq!(world.primary_of(&id("db")).unwrap().id.number(), 2);
    assert!(plan_to(&world, &STAGE_2).unwrap().is_empty());
    for step in plan.steps.iter().rev() {
        if let Some(inverse) = step.action.inverse() {
            inverse.apply(&mut world).unwrap();
        }
    }
    assert_eq!(shape(&world), shape(&Topology::default()));
}

#[test]
fn a_step_refuses_a_topology_it_was_not_planned_for() {
    let plan = plan_to(&Topology::default(), &STAGE_1).unwrap();
    let mut world = applied(&Topology::default(), &plan);
    let before = world.clone();
    for step in &plan.steps {
        if !matches!(step.action, Action::RunReleaseCommand { .. }) {
            assert!(step.action.apply(&mut world).is_err(), "{} was taken twice", step.action);
        }
    }
    assert_eq!(world, before);
}

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

fn reached(wish: &Wish) -> Topology {
    let nothing = Topology::default();
    applied(&nothing, &plan_to(&nothing, wish).unwrap())
}

#[test]
fn a_restored_primary_takes_the_place_of_the_old_one_and_gets_as_many_followers() {
    let db = id("db");
    let before = failed_over(&reached(&STAGE_2), 0);
    let wished =
        Restore { cluster: db.clone(), backup: 4, timeline: 2, to: RecoveryTarget::Latest, from: None };
    let plan = restore(&shop(), &before, 7, &wished).unwrap();
    assert!(matches!(plan.steps.last().unwrap().action, Action::ReplacePrimary { .. }), "{:?}", words(&plan));
    let after = applied(&before, &plan);
    let primary = after.primary_of(&db).unwrap();
    assert_eq!((primary.id.number(), after.nodes.len()), (3, 1));
    assert_eq!(primary.zone, before.primary_of(&db).unwrap().zone);
    assert!(after.clusters[&db].epoch > before.clusters[&db].epoch);

    let wanted: Vec<_> =
        before.followers_of(&db).map(|node| (node.zone.clone(), before.role_of(&node.id))).collect();
    let again = follow_again(&shop(), &after, 8, &db, &wanted).unwrap();
    let followed = applied(&after, &again);
    let followers: Vec<u32> = followed.followers_of(&db).map(|node| node.id.number()).collect();
    assert_eq!(followers, [4], "numbers are never given twice");
}

#[test]
fn a_restore_that_is_taken_back_leaves_the_old_primary() {
    let db = id("db");
    let before = reached(&STAGE_1);
    let wished =
        Restore { cluster: db.clone(), backup: 4, timeline: 1, to: RecoveryTarget::Latest, from: None };
    let plan = restore(&shop(), &before, 7, &wished).unwrap();
    let mut world = applied(&before, &plan);
    for step in plan.steps.iter().rev() {
        step.action.inverse().unwrap().apply(&mut world).unwrap();
    }
    assert_eq!(world.nodes, before.nodes);
    assert_eq!(world.primary_of(&db), before.primary_of(&db));
}

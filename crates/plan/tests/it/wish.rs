//! What is wished for, what is planned for it, and what the world is then.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    AppName, BackupPolicy, ByteSize, CompareGate, DatabaseCluster, Engine, HealthProbe, LoadBalancer, NodeId,
    PoolPolicy, Rehearsal, Release, ReleaseId, Resource, ResourceGraph, ResourceId, Service, ServiceProtocol,
    Size, Topology, WithoutStandby, Zone,
};
use plan::{FoundData, Plan, PlanError, Request, plan};

pub fn id(name: &str) -> ResourceId {
    ResourceId::new(name).unwrap()
}

pub fn release(number: u8) -> Release {
    Release {
        id: ReleaseId::new(format!("{number:012x}")).unwrap(),
        run: "./serve".into(),
        release_command: Some("./migrate".into()),
    }
}

/// Another policy for each number, and none.
pub fn backups(number: Option<u16>) -> Option<BackupPolicy> {
    number.map(|number| BackupPolicy { to: None, every_ms: 3_600_000, keep: u32::from(number) })
}

#[derive(Debug, Clone)]
pub struct Wish {
    pub stage: u8,
    pub zones: usize,
    pub instances: u32,
    pub database: bool,
    pub memory_mb: Option<u64>,
    pub standbys: u32,
    pub read_replicas: u32,
    pub release: u8,
    pub env: u8,
    pub threads: Option<u16>,
    pub backups: Option<BackupPolicy>,
    pub clients: u32,
    /// Whether the manifest says how the app is rehearsed.
    pub rehearsed: bool,
}

pub const STAGE_1: Wish = Wish {
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
    clients: 1_000,
    rehearsed: false,
};
pub const STAGE_2: Wish = Wish { stage: 2, zones: 2, instances: 2, standbys: 1, ..STAGE_1 };
pub const STAGE_3: Wish = Wish { stage: 3, instances: 4, read_replicas: 2, ..STAGE_2 };

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
                pool: PoolPolicy { clients: self.clients, ..PoolPolicy::default() },
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

pub fn plan_to(current: &Topology, wish: &Wish) -> Result<Plan, PlanError> {
    // Leaving the database out of a wish is a wish to destroy it, where there is one.
    let drop_database = !wish.database && current.nodes.keys().any(|node| node.resource() == &id("db"));
    let destroy = if drop_database { BTreeSet::from([id("db")]) } else { BTreeSet::new() };
    plan_destroying(current, wish, &destroy)
}

pub fn plan_destroying(
    current: &Topology,
    wish: &Wish,
    destroy: &BTreeSet<ResourceId>,
) -> Result<Plan, PlanError> {
    plan_finding(current, wish, destroy, &BTreeMap::new())
}

pub fn plan_finding(
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

pub fn applied(start: &Topology, plan: &Plan) -> Topology {
    let mut world = start.clone();
    for step in &plan.steps {
        step.action.apply(&mut world).unwrap();
    }
    world
}

/// What a rollback restores. Numbers once given stay given, epochs never return, and a release command once run has run.
pub fn shape(world: &Topology) -> Topology {
    let mut shape = Topology { prepared: BTreeSet::new(), ..world.clone() };
    shape.next_instance.clear();
    shape.next_node.clear();
    shape.clusters.values_mut().for_each(|cluster| cluster.epoch = 0);
    shape
}

/// The primary is lost, and the follower of this number of those there are takes over.
pub fn failed_over(world: &Topology, follower: usize) -> Topology {
    let followers: Vec<NodeId> = world.followers_of(&id("db")).map(|node| node.id.clone()).collect();
    let mut world = world.clone();
    if let Some(to) = followers.get(follower % followers.len().max(1)) {
        world.promote(to);
    }
    world
}

pub fn words(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| step.action.to_string()).collect()
}

pub fn reached(wish: &Wish) -> Topology {
    let nothing = Topology::default();
    applied(&nothing, &plan_to(&nothing, wish).unwrap())
}

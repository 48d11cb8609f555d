//! The exact shape: every process that should be running, down to its port, zone, release and number.
//!
//! A topology is what a plan starts from and what it ends in, and it is the one thing that must survive a crash: with
//! it, a new daemon knows what to adopt and what to start again. Credentials never stand in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    DatabaseCluster, HealthProbe, InstanceId, LoadBalancer, NodeId, ReleaseId, ResourceId, ServiceProtocol,
    Size, Zone,
};

/// Empty for an app that was never brought up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// The zones in use, the first being where what exists only once stands.
    pub zones: Vec<Zone>,
    /// The stage the manifest named when this was planned. A label for people.
    pub stage: u8,
    pub edges: BTreeMap<ResourceId, EdgeProcess>,
    pub proxies: BTreeMap<ResourceId, ProxyProcess>,
    pub nodes: BTreeMap<NodeId, DatabaseNode>,
    pub instances: BTreeMap<InstanceId, Instance>,
    /// The release each service serves, and what a new instance starts from.
    pub releases: BTreeMap<ResourceId, Release>,
    /// The release each service served before: where a rollback goes that names none.
    pub previous: BTreeMap<ResourceId, Release>,
    /// Releases whose release command has run against the databases as they stand.
    pub prepared: BTreeSet<ReleaseId>,
    /// By service: the number the next instance gets. Never goes back.
    pub next_instance: BTreeMap<ResourceId, u32>,
}

/// A load balancer with its addresses settled: port 0 of the wish has become a port that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeProcess {
    pub id: ResourceId,
    pub zone: Zone,
    pub front: FrontListener,
    pub front_tls: Option<FrontListener>,
    pub settings: LoadBalancer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontListener {
    pub address: SocketAddr,
}

/// The stable address of one database cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProxyProcess {
    /// The cluster's id.
    pub id: ResourceId,
    pub zone: Zone,
    /// On the loopback address; `DATABASE_URL` names it for the life of the app.
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseNode {
    pub id: NodeId,
    pub zone: Zone,
    /// Names the Unix socket in the run folder; nothing listens on TCP.
    pub port: u16,
    pub role: DatabaseRole,
    pub cluster: DatabaseCluster,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseRole {
    Primary,
}

/// One copy of a service. Never changes but for `size` and `in_rotation`: anything else is a new instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub zone: Zone,
    /// On the loopback address, given to the app as `PORT`.
    pub port: u16,
    pub release: ReleaseId,
    pub run: String,
    pub env: BTreeMap<String, String>,
    pub size: Size,
    pub protocol: ServiceProtocol,
    pub health: HealthProbe,
    pub grace_ms: u64,
    pub user: Option<String>,
    pub database: Option<ResourceId>,
    /// Whether the edge may send it new requests.
    pub in_rotation: bool,
}

/// What a release is started with. The tree itself is stored under its id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    pub id: ReleaseId,
    pub run: String,
    /// Run once, before the release takes traffic.
    pub release_command: Option<String>,
}

impl Topology {
    pub fn instances_of<'a>(&'a self, service: &'a ResourceId) -> impl Iterator<Item = &'a Instance> {
        self.instances.values().filter(move |instance| instance.id.resource() == service)
    }

    pub fn nodes_of<'a>(&'a self, cluster: &'a ResourceId) -> impl Iterator<Item = &'a DatabaseNode> {
        self.nodes.values().filter(move |node| node.id.resource() == cluster)
    }

    /// The node that takes writes. `None` while a cluster has no primary, which only a failover in progress may show.
    pub fn primary_of<'a>(&'a self, cluster: &'a ResourceId) -> Option<&'a DatabaseNode> {
        let mut primaries =
            self.nodes_of(cluster).filter(|node| node.role == DatabaseRole::Primary).peekable();
        let first = primaries.next();
        debug_assert!(primaries.peek().is_none(), "two primaries in {cluster}");
        first
    }

    /// Every port that is taken for the life of what holds it.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        let fronts = self.edges.values().flat_map(|edge| {
            [Some(edge.front.address.port()), edge.front_tls.as_ref().map(|tls| tls.address.port())]
        });
        fronts
            .flatten()
            .chain(self.proxies.values().map(|proxy| proxy.port))
            .chain(self.nodes.values().map(|node| node.port))
            .chain(self.instances.values().map(|instance| instance.port))
    }
}

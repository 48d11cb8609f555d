//! The exact shape: every process that should be running, down to its port, zone, release and number.
//!
//! A topology is what a plan starts from and what it ends in, and it is the one thing that must survive a crash: with
//! it, a new daemon knows what to adopt and what to start again. Credentials never stand in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    BackupPolicy, HealthProbe, InstanceId, LoadBalancer, NodeId, PoolPolicy, ReleaseId, ResourceId,
    ServiceProtocol, Size, WithoutStandby, Zone,
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
    /// By database cluster: which of its nodes takes writes, and who confirms them.
    pub clusters: BTreeMap<ResourceId, ClusterState>,
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
    /// By database cluster: the number the next node gets. Never goes back.
    pub next_node: BTreeMap<ResourceId, u32>,
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
    #[serde(default)]
    pub pool: PoolPolicy,
}

/// One PostgreSQL. What it is at the moment (primary or not) stands in [`ClusterState`]: a failover changes that and
/// nothing here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseNode {
    pub id: NodeId,
    pub zone: Zone,
    /// Names the Unix socket in the run folder; nothing listens on TCP.
    pub port: u16,
    pub size: Size,
    /// The app's database, and the role that owns it.
    pub database: String,
}

/// A position in a write-ahead log, in bytes from its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lsn(pub u64);

/// The moment that a database is brought back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "target", rename_all = "snake_case")]
pub enum RecoveryTarget {
    /// Everything that the log has.
    Latest,
    /// Every commit up to this moment, it included, and none after it. Microseconds of Unix time.
    Time { unix_us: i64 },
}

/// What is known of a standby that became the primary: since when its transaction ids are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// Of the log, from then on.
    pub timeline: u32,
    /// Above the id of every transaction whose end the node had replayed, and at or below every id that it gives itself.
    pub first_xid: u64,
}

/// Promotions that are kept for each cluster. Whoever asks wants to know what became of a commit that is under way.
const MAX_PROMOTIONS: usize = 16;

/// What all nodes of a database cluster must agree on. Written down before it takes effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// The one node that takes writes.
    pub primary: NodeId,
    /// Grows with every change of primary, and each time that the primary is started again; what was begun in an earlier
    /// epoch is never finished in a later one. So the primary gives each transaction id once in an epoch.
    pub epoch: u64,
    /// The promotions of late, by the epoch that each began. One is missing where nobody could watch it to its end.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub promotions: BTreeMap<u64, Promotion>,
    /// The standbys of which one must confirm each commit (`synchronous_standby_names`). A node stands here from the
    /// moment it holds every acknowledged commit until it is written down that it no longer has to: so after a loss of
    /// the primary, the most advanced of them has them all.
    pub synchronous: BTreeSet<NodeId>,
    /// The nodes that follow without ever confirming. A failover to one of them makes another one instead.
    pub read_replicas: BTreeSet<NodeId>,
    pub without_standby: WithoutStandby,
    #[serde(default)]
    pub backups: Option<BackupPolicy>,
}

impl ClusterState {
    /// Makes `to` the primary of the next epoch. Nobody confirms its commits until a follower has proved that it can:
    /// see [`ClusterState::synchronous`]. Where `to` was a read replica, `stand_in` becomes one in its place.
    pub fn promote(&mut self, to: &NodeId, stand_in: &NodeId) {
        self.primary = to.clone();
        if self.read_replicas.remove(to) {
            self.read_replicas.insert(stand_in.clone());
        }
        self.synchronous.clear();
        self.epoch += 1;
    }

    /// The primary is started again where it was: it may have forgotten ids that it gave, and give them again.
    pub fn begin_again(&mut self) {
        self.epoch += 1;
    }

    /// What was seen of the promotion that began an epoch.
    pub fn note_promotion(&mut self, epoch: u64, promotion: Promotion) {
        self.promotions.insert(epoch, promotion);
        while self.promotions.len() > MAX_PROMOTIONS {
            self.promotions.pop_first();
        }
    }
}

/// What a node is in its cluster at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseRole {
    Primary,
    Standby,
    ReadReplica,
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

    /// The node that takes writes. `None` where there is no such cluster.
    pub fn primary_of<'a>(&'a self, cluster: &'a ResourceId) -> Option<&'a DatabaseNode> {
        self.nodes.get(&self.clusters.get(cluster)?.primary)
    }

    /// The nodes that follow the primary, in the order of their numbers.
    pub fn followers_of<'a>(&'a self, cluster: &'a ResourceId) -> impl Iterator<Item = &'a DatabaseNode> {
        self.nodes_of(cluster).filter(|node| self.role_of(&node.id) != DatabaseRole::Primary)
    }

    /// Makes a node the primary of its cluster, see [`ClusterState::promote`]. A read replica is stood in for by the old
    /// primary or a standby of its own zone, so that each kind is spread over the zones as it was. Does nothing where there
    /// is no such cluster.
    pub fn promote(&mut self, to: &NodeId) {
        let zone = |id: &NodeId| self.nodes.get(id).map(|node| &node.zone);
        let is_like = |id: &&NodeId| self.role_of(id) != DatabaseRole::ReadReplica && zone(id) == zone(to);
        let like_it = self.nodes_of(to.resource()).map(|node| &node.id).find(is_like).cloned();
        if let Some(cluster) = self.clusters.get_mut(to.resource()) {
            let stand_in = like_it.unwrap_or_else(|| cluster.primary.clone());
            cluster.promote(to, &stand_in);
        }
    }

    pub fn role_of(&self, node: &NodeId) -> DatabaseRole {
        match self.clusters.get(node.resource()) {
            Some(cluster) if cluster.primary == *node => DatabaseRole::Primary,
            Some(cluster) if cluster.read_replicas.contains(node) => DatabaseRole::ReadReplica,
            _ => DatabaseRole::Standby,
        }
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

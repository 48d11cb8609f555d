//! What one step does: its precondition, its effect on the topology, and its inverse.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use model::{
    BackupPolicy, ClusterState, CompareGate, DatabaseNode, DatabaseRole, EdgeProcess, Instance, InstanceId,
    NodeId, ProxyProcess, RecoveryTarget, Release, ResourceId, Size, Topology, WithoutStandby, Zone,
};
use serde::{Deserialize, Serialize};

/// Everything an executor can be asked to do. Each is safe to carry out again after a crash in the middle of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "plans are short lists that live for one operation")]
pub enum Action {
    /// Names the zones in use, before anything is placed in a new one and after everything left an old one.
    SetZones {
        from: Vec<Zone>,
        to: Vec<Zone>,
        stage_from: u8,
        stage_to: u8,
    },
    /// Makes an empty cluster, starts its first node as the primary, creates the app's role and database.
    CreateNode {
        node: DatabaseNode,
        without_standby: WithoutStandby,
        #[serde(default)]
        backups: Option<BackupPolicy>,
    },
    /// Starts a cluster whose data is there and which nothing knows any more, with this node of it as the primary. No
    /// number up to `spent` is given again: other folders may bear it.
    TakeUpNode {
        node: DatabaseNode,
        spent: u32,
        without_standby: WithoutStandby,
        backups: Option<BackupPolicy>,
    },
    /// Stops the node and sets the data directory aside that the plan has made; one that was taken up stays. Only ever the
    /// inverse of `CreateNode` and `TakeUpNode`.
    RetireNode {
        node: DatabaseNode,
    },
    /// Copies the primary, starts the copy and waits until it has caught up. Clients of the primary notice nothing.
    AddFollower {
        node: DatabaseNode,
        role: DatabaseRole,
    },
    /// Stops a node that follows, and deletes its copy: the primary has everything that it had.
    RemoveFollower {
        node: DatabaseNode,
        /// What it is when this is planned: a failover may change it meanwhile.
        role: DatabaseRole,
    },
    /// Lets `to` take over from `from`, which follows it from then on. No commit is lost.
    SwitchOver {
        id: ResourceId,
        from: NodeId,
        to: NodeId,
    },
    ConfigureCluster {
        id: ResourceId,
        from: WithoutStandby,
        to: WithoutStandby,
    },
    /// From now on the log goes there, or nowhere. What was kept elsewhere stays where it is.
    ConfigureBackups {
        id: ResourceId,
        from: Option<BackupPolicy>,
        to: Option<BackupPolicy>,
    },
    /// Stops the node and sets its data aside, to be deleted when the whole plan was carried out.
    DestroyNode {
        node: DatabaseNode,
        cluster: ClusterState,
    },
    /// Brings the data of a node back that was set aside, and starts it. Only ever the inverse of `DestroyNode`.
    RestoreNode {
        node: DatabaseNode,
        cluster: ClusterState,
    },
    /// Makes a node from a backup, beside the cluster and unknown to it, and replays the log up to a moment. Clients notice
    /// nothing.
    PrepareRestore {
        node: DatabaseNode,
        backup: u32,
        timeline: u32,
        to: RecoveryTarget,
        /// The archive of another cluster, where it is not made from this one's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<PathBuf>,
    },
    /// Deletes what was prepared. Only ever the inverse of `PrepareRestore`.
    DiscardRestored {
        node: DatabaseNode,
    },
    /// Stops the only node of a cluster, keeps its data aside, and lets one that was prepared serve in its place.
    ReplacePrimary {
        old: DatabaseNode,
        new: DatabaseNode,
        cluster: ClusterState,
    },
    /// The way back. Only ever the inverse of `ReplacePrimary`.
    BringPrimaryBack {
        old: DatabaseNode,
        new: DatabaseNode,
        cluster: ClusterState,
    },
    /// With `restart` the node is restarted, because PostgreSQL fixes its shared memory when it starts.
    ResizeNode {
        id: NodeId,
        from: Size,
        to: Size,
        restart: bool,
    },
    StartProxy {
        proxy: ProxyProcess,
    },
    StopProxy {
        proxy: ProxyProcess,
    },
    /// The running process takes it, with its clients connected.
    ConfigureProxy {
        from: ProxyProcess,
        to: ProxyProcess,
    },
    StartEdge {
        edge: EdgeProcess,
    },
    StopEdge {
        edge: EdgeProcess,
    },
    ConfigureEdge {
        from: EdgeProcess,
        to: EdgeProcess,
        change: EdgeChange,
    },
    /// Runs the release command once. What it does to the database cannot be taken back: the command must leave the
    /// old release working (expand, then contract).
    RunReleaseCommand {
        service: ResourceId,
        release: Release,
        like: Box<Instance>,
    },
    /// Starts the instance and waits until it is ready. It gets no traffic yet.
    StartInstance {
        instance: Instance,
    },
    /// TERM, grace, KILL. Only after it has left the rotation.
    StopInstance {
        instance: Instance,
    },
    /// From now on the edge may send it requests.
    AddEndpoint {
        id: InstanceId,
    },
    /// No new request from now on; done when none is in flight any more.
    RemoveEndpoint {
        id: InstanceId,
    },
    ResizeInstance {
        id: InstanceId,
        from: Size,
        to: Size,
    },
    /// Lets `new` serve beside `old` and fails when it answers worse.
    Compare {
        new: InstanceId,
        old: Vec<InstanceId>,
        gate: CompareGate,
    },
    /// What new instances of the service start from.
    SetRelease {
        service: ResourceId,
        from: Option<Release>,
        to: Option<Release>,
        /// What a rollback would go to, before and after.
        previous_from: Option<Release>,
        previous_to: Option<Release>,
    },
}

/// How an edge takes a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgeChange {
    /// The running process takes the new configuration.
    Live,
    /// A new process takes over the listening sockets and the old one drains.
    Replace,
}

/// A step met a topology that it was not planned for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    pub reason: String,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Unmet {}

fn require(holds: bool, reason: impl FnOnce() -> String) -> Result<(), Unmet> {
    if holds { Ok(()) } else { Err(Unmet { reason: reason() }) }
}

impl Action {
    /// # Errors
    /// When `topology` is not one that this step can start from.
    pub fn precondition(&self, topology: &Topology) -> Result<(), Unmet> {
        match self {
            Action::SetZones { from, stage_from, .. } => {
                require(topology.zones == *from && topology.stage == *stage_from, || {
                    "the zones have changed".into()
                })
            }
            Action::CreateNode { node, .. } | Action::TakeUpNode { node, .. } => {
                require(!topology.nodes.contains_key(&node.id), || format!("{} exists already", node.id))?;
                let second = topology.primary_of(node.id.resource()).is_some();
                require(!second, || format!("{} would get a second primary", node.id.resource()))
            }
            Action::RestoreNode { node, .. } => {
                let id = node.id.resource();
                require(topology.primary_of(id).is_none(), || format!("{id} would get a second primary"))
            }
            Action::RetireNode { node } | Action::DestroyNode { node, .. } => {
                require(topology.nodes.get(&node.id) == Some(node), || {
                    format!("{} is not as planned", node.id)
                })?;
                let alone = topology.nodes_of(node.id.resource()).count() == 1;
                require(alone, || format!("{} is still followed", node.id))?;
                let proxied = topology.proxies.contains_key(node.id.resource());
                require(!proxied, || format!("{} is still reachable through its proxy", node.id))
            }
            Action::AddFollower { node, role } => {
                require(!topology.nodes.contains_key(&node.id), || format!("{} exists already", node.id))?;
                let id = node.id.resource();
                require(topology.primary_of(id).is_some(), || format!("{id} has no primary to follow"))?;
                require(*role != DatabaseRole::Primary, || format!("{id} would get a second primary"))
            }
            Action::RemoveFollower { node, .. } => {
                require(topology.nodes.contains_key(&node.id), || format!("{} is gone already", node.id))?;
                let primary = topology.role_of(&node.id) == DatabaseRole::Primary;
                require(!primary, || format!("{} has become the primary", node.id))
            }
            Action::SwitchOver { id, from, to } => {
                // Or taken over already: by this step before a crash, or in a failover since it was planned.
                let primary = topology.primary_of(id).map(|node| &node.id);
                let either = primary == Some(from) || primary == Some(to);
                require(either, || format!("{from} is not the primary of {id}"))?;
                let follows = topology.nodes.contains_key(to) && to.resource() == id && to != from;
                require(follows, || format!("{to} does not follow {from}"))
            }
            Action::ConfigureCluster { id, from, .. } => {
                let standing = topology.clusters.get(id).map(|cluster| cluster.without_standby);
                require(standing == Some(*from), || format!("{id} is not configured as planned"))
            }
            Action::ConfigureBackups { id, from, .. } => {
                let standing = topology.clusters.get(id).map(|cluster| &cluster.backups);
                require(standing == Some(from), || format!("the backups of {id} are not as planned"))
            }
            Action::PrepareRestore { node, .. } => {
                require(!topology.nodes.contains_key(&node.id), || format!("{} exists already", node.id))?;
                let next = topology.next_node.get(node.id.resource()).copied().unwrap_or(1);
                require(node.id.number() >= next, || format!("the number of {} was given before", node.id))?;
                let primary = topology.primary_of(node.id.resource());
                require(primary.is_some(), || format!("{} has no primary", node.id.resource()))
            }
            // Its number is spent, and it is no part of the cluster.
            Action::DiscardRestored { node } => {
                require(!topology.nodes.contains_key(&node.id), || format!("{} serves", node.id))
            }
            Action::ReplacePrimary { old, new, cluster } => {
                require_alone(topology, old)?;
                let id = old.id.resource();
                let same =
                    topology.clusters.get(id).is_some_and(|standing| standing.primary == cluster.primary);
                require(same, || format!("the primary of {id} has changed meanwhile"))?;
                require(old.id != new.id, || format!("{} cannot replace itself", old.id))
            }
            Action::BringPrimaryBack { new, .. } => require_alone(topology, new),
            Action::ResizeNode { id, from, .. } => {
                let size = topology.nodes.get(id).map(|node| node.size);
                require(size == Some(*from), || format!("{id} is not of size {from}"))
            }
            Action::StartProxy { proxy } => {
                require(!topology.proxies.contains_key(&proxy.id), || format!("{} has a proxy", proxy.id))?;
                require(topology.primary_of(&proxy.id).is_some(), || format!("{} has no primary", proxy.id))
            }
            Action::StopProxy { proxy } => {
                require(topology.proxies.get(&proxy.id) == Some(proxy), || {
                    format!("no such proxy of {}", proxy.id)
                })?;
                let used = topology.instances.values().find(|i| i.database.as_ref() == Some(&proxy.id));
                require(used.is_none(), || format!("{} still has clients in the app", proxy.id))
            }
            Action::ConfigureProxy { from, .. } => {
                let standing = topology.proxies.get(&from.id);
                require(standing == Some(from), || format!("the proxy of {} is not as planned", from.id))
            }
            Action::StartEdge { edge } => {
                require(!topology.edges.contains_key(&edge.id), || format!("{} runs already", edge.id))
            }
            Action::StopEdge { edge } | Action::ConfigureEdge { from: edge, .. } => {
                require(topology.edges.get(&edge.id) == Some(edge), || {
                    format!("{} is not as planned", edge.id)
                })
            }
            Action::RunReleaseCommand { release, like, .. } => {
                let reachable = like.database.as_ref().is_none_or(|db| topology.proxies.contains_key(db));
                require(reachable, || format!("the database of release {} is not up", release.id))
            }
            Action::StartInstance { instance } => {
                require(!topology.instances.contains_key(&instance.id), || {
                    format!("{} runs already", instance.id)
                })?;
                require(!instance.in_rotation, || {
                    format!("{} would get traffic before it is ready", instance.id)
                })?;
                let taken = topology.ports().any(|port| port == instance.port);
                require(!taken, || format!("port {} is taken", instance.port))
            }
            Action::StopInstance { instance } => {
                let standing = topology.instances.get(&instance.id);
                require(standing == Some(instance), || format!("{} is not as planned", instance.id))?;
                require(!instance.in_rotation, || format!("{} still gets traffic", instance.id))
            }
            Action::AddEndpoint { id } => {
                let resting = topology.instances.get(id).is_some_and(|i| !i.in_rotation);
                require(resting, || format!("{id} is not waiting to be added"))
            }
            Action::RemoveEndpoint { id } => {
                let serving = topology.instances.get(id).is_some_and(|i| i.in_rotation);
                require(serving, || format!("{id} is not in rotation"))
            }
            Action::ResizeInstance { id, from, .. } => {
                let size = topology.instances.get(id).map(|instance| instance.size);
                require(size == Some(*from), || format!("{id} is not of size {from}"))
            }
            Action::Compare { new, old, .. } => {
                let serving = |id| topology.instances.get(id).is_some_and(|i: &Instance| i.in_rotation);
                require(serving(new) && old.iter().all(serving), || {
                    format!("{new} and the old ones must all serve")
                })
            }
            Action::SetRelease { service, from, .. } => {
                let current = topology.releases.get(service);
                require(current == from.as_ref(), || format!("{service} serves another release"))
            }
        }
    }

    /// The topology after this step.
    ///
    /// # Errors
    /// When the precondition does not hold; `topology` is then unchanged.
    pub fn apply(&self, topology: &mut Topology) -> Result<(), Unmet> {
        self.precondition(topology)?;
        match self {
            Action::SetZones { to, stage_to, .. } => {
                topology.zones.clone_from(to);
                topology.stage = *stage_to;
            }
            Action::CreateNode { node, without_standby, backups } => {
                add_cluster(topology, node, *without_standby, backups);
            }
            Action::TakeUpNode { node, spent, without_standby, backups } => {
                spend_number(topology, &NodeId::new(node.id.resource().clone(), *spent));
                add_cluster(topology, node, *without_standby, backups);
            }
            Action::RestoreNode { node, cluster } => {
                topology.clusters.insert(node.id.resource().clone(), cluster.clone());
                add_node(topology, node);
            }
            Action::RetireNode { node } | Action::DestroyNode { node, .. } => {
                topology.nodes.remove(&node.id);
                topology.clusters.remove(node.id.resource());
            }
            Action::AddFollower { node, role } => {
                add_node(topology, node);
                if let Some(cluster) = topology.clusters.get_mut(node.id.resource())
                    && *role == DatabaseRole::ReadReplica
                {
                    cluster.read_replicas.insert(node.id.clone());
                }
            }
            Action::RemoveFollower { node, .. } => {
                topology.nodes.remove(&node.id);
                if let Some(cluster) = topology.clusters.get_mut(node.id.resource()) {
                    cluster.read_replicas.remove(&node.id);
                    cluster.synchronous.remove(&node.id);
                }
            }
            Action::SwitchOver { id, to, .. } => {
                if topology.clusters.get(id).is_some_and(|cluster| cluster.primary != *to) {
                    topology.promote(to);
                }
            }
            Action::ConfigureCluster { id, to, .. } => {
                if let Some(cluster) = topology.clusters.get_mut(id) {
                    cluster.without_standby = *to;
                }
            }
            Action::ConfigureBackups { id, to, .. } => {
                if let Some(cluster) = topology.clusters.get_mut(id) {
                    cluster.backups.clone_from(to);
                }
            }
            Action::PrepareRestore { node, .. } => spend_number(topology, &node.id),
            Action::DiscardRestored { .. } => {}
            Action::ReplacePrimary { old, new, .. } => {
                topology.nodes.remove(&old.id);
                add_node(topology, new);
                topology.promote(&new.id);
                if let Some(cluster) = topology.clusters.get_mut(new.id.resource()) {
                    cluster.read_replicas.clear();
                }
                // An earlier state of the database may not have seen the release command.
                topology.prepared.clear();
            }
            Action::BringPrimaryBack { old, new, cluster } => {
                topology.nodes.remove(&new.id);
                add_node(topology, old);
                let epoch = topology.clusters.get(old.id.resource()).map_or(cluster.epoch, |now| now.epoch);
                let state = ClusterState { epoch: epoch + 1, ..cluster.clone() };
                topology.clusters.insert(old.id.resource().clone(), state);
            }
            Action::ResizeNode { id, to, .. } => {
                if let Some(node) = topology.nodes.get_mut(id) {
                    node.size = *to;
                }
            }
            Action::StartProxy { proxy } | Action::ConfigureProxy { to: proxy, .. } => {
                topology.proxies.insert(proxy.id.clone(), proxy.clone());
            }
            Action::StopProxy { proxy } => {
                topology.proxies.remove(&proxy.id);
            }
            Action::StartEdge { edge } | Action::ConfigureEdge { to: edge, .. } => {
                topology.edges.insert(edge.id.clone(), edge.clone());
            }
            Action::StopEdge { edge } => {
                topology.edges.remove(&edge.id);
            }
            Action::RunReleaseCommand { release, .. } => {
                topology.prepared.insert(release.id.clone());
            }
            Action::StartInstance { instance } => {
                let next = topology.next_instance.entry(instance.id.resource().clone()).or_insert(1);
                *next = (*next).max(instance.id.number() + 1);
                topology.instances.insert(instance.id.clone(), instance.clone());
            }
            Action::StopInstance { instance } => {
                topology.instances.remove(&instance.id);
            }
            Action::AddEndpoint { id } => set_rotation(topology, id, Rotation::In),
            Action::RemoveEndpoint { id } => set_rotation(topology, id, Rotation::Out),
            Action::ResizeInstance { id, to, .. } => {
                if let Some(instance) = topology.instances.get_mut(id) {
                    instance.size = *to;
                }
            }
            Action::Compare { .. } => {}
            Action::SetRelease { service, to, previous_to, .. } => {
                put(&mut topology.releases, service, to);
                put(&mut topology.previous, service, previous_to);
            }
        }
        Ok(())
    }

    /// The step that takes this one back; `None` where there is nothing to take back or no way to.
    pub fn inverse(&self) -> Option<Action> {
        Some(match self.clone() {
            Action::SetZones { from, to, stage_from, stage_to } => {
                Action::SetZones { from: to, to: from, stage_from: stage_to, stage_to: stage_from }
            }
            Action::CreateNode { node, .. } | Action::TakeUpNode { node, .. } => Action::RetireNode { node },
            Action::AddFollower { node, role } => Action::RemoveFollower { node, role },
            Action::RemoveFollower { node, role } => Action::AddFollower { node, role },
            Action::SwitchOver { id, from, to } => Action::SwitchOver { id, from: to, to: from },
            Action::ConfigureCluster { id, from, to } => Action::ConfigureCluster { id, from: to, to: from },
            Action::ConfigureBackups { id, from, to } => Action::ConfigureBackups { id, from: to, to: from },
            Action::PrepareRestore { node, .. } => Action::DiscardRestored { node },
            Action::ReplacePrimary { old, new, cluster } => Action::BringPrimaryBack { old, new, cluster },
            Action::ResizeNode { id, from, to, restart } => {
                Action::ResizeNode { id, from: to, to: from, restart }
            }
            Action::StartProxy { proxy } => Action::StopProxy { proxy },
            Action::StopProxy { proxy } => Action::StartProxy { proxy },
            Action::ConfigureProxy { from, to } => Action::ConfigureProxy { from: to, to: from },
            Action::StartEdge { edge } => Action::StopEdge { edge },
            Action::StopEdge { edge } => Action::StartEdge { edge },
            Action::ConfigureEdge { from, to, change } => {
                Action::ConfigureEdge { from: to, to: from, change }
            }
            Action::StartInstance { instance } => Action::StopInstance { instance },
            Action::StopInstance { instance } => Action::StartInstance { instance },
            Action::AddEndpoint { id } => Action::RemoveEndpoint { id },
            Action::RemoveEndpoint { id } => Action::AddEndpoint { id },
            Action::ResizeInstance { id, from, to } => Action::ResizeInstance { id, from: to, to: from },
            Action::SetRelease { service, from, to, previous_from, previous_to } => Action::SetRelease {
                service,
                from: to,
                to: from,
                previous_from: previous_to,
                previous_to: previous_from,
            },
            Action::DestroyNode { node, cluster } => Action::RestoreNode { node, cluster },
            Action::RetireNode { .. }
            | Action::DiscardRestored { .. }
            | Action::BringPrimaryBack { .. }
            | Action::RestoreNode { .. }
            | Action::RunReleaseCommand { .. }
            | Action::Compare { .. } => return None,
        })
    }
}

fn add_cluster(
    topology: &mut Topology,
    node: &DatabaseNode,
    without_standby: WithoutStandby,
    backups: &Option<BackupPolicy>,
) {
    let state = ClusterState {
        primary: node.id.clone(),
        epoch: 1,
        promotions: BTreeMap::new(),
        synchronous: BTreeSet::new(),
        read_replicas: BTreeSet::new(),
        without_standby,
        backups: backups.clone(),
    };
    topology.clusters.insert(node.id.resource().clone(), state);
    add_node(topology, node);
    // Another database must see the release command, whatever an earlier one has seen.
    topology.prepared.clear();
}

fn add_node(topology: &mut Topology, node: &DatabaseNode) {
    spend_number(topology, &node.id);
    topology.nodes.insert(node.id.clone(), node.clone());
}

fn spend_number(topology: &mut Topology, id: &NodeId) {
    let next = topology.next_node.entry(id.resource().clone()).or_insert(1);
    *next = (*next).max(id.number() + 1);
}

fn require_alone(topology: &Topology, node: &DatabaseNode) -> Result<(), Unmet> {
    require(topology.nodes.get(&node.id) == Some(node), || format!("{} is not as planned", node.id))?;
    let alone = topology.nodes_of(node.id.resource()).count() == 1;
    require(alone, || format!("{} is still followed", node.id))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rotation {
    In,
    Out,
}

fn put(releases: &mut BTreeMap<ResourceId, Release>, service: &ResourceId, release: &Option<Release>) {
    match release {
        Some(release) => releases.insert(service.clone(), release.clone()),
        None => releases.remove(service),
    };
}

fn set_rotation(topology: &mut Topology, id: &InstanceId, rotation: Rotation) {
    if let Some(instance) = topology.instances.get_mut(id) {
        instance.in_rotation = rotation == Rotation::In;
    }
}

//! Database clusters: which nodes there are, in which zones, and in which order they come, change and go.
//!
//! The primary and its standbys are spread evenly over the zones, and so are the read replicas. What is new comes before
//! what leaves. A primary is never stopped while a standby could serve in its place: it hands over first. So the only
//! pause that clients may see is that of a switchover, or the restart of a primary that has no standby.

use std::collections::{BTreeMap, BTreeSet};

use model::{DatabaseCluster, DatabaseNode, DatabaseRole, NodeId, ProxyProcess, ResourceId, Topology, Zone};

use crate::diff::{Draft, FoundData, PlanError};
use crate::{Action, ChangeKind, Interruption};

/// A restart of a small PostgreSQL, from the last checkpoint to the first query. What is new waits in the proxy.
const NODE_RESTART_MS: u64 = 1_000;
/// From the last write on the old primary to the first on the new one. What is new waits in the proxy.
const SWITCHOVER_MS: u64 = 300;

/// Everything that must stand before the app's instances do. Whoever leaves is decided here and goes in [`shrink`].
pub(crate) fn grow(draft: &mut Draft<'_>) -> Result<Vec<Layout>, PlanError> {
    let mut layouts = Vec::new();
    for (id, wished) in draft.request.desired.databases() {
        match draft.world.primary_of(id) {
            None => create(draft, id, wished),
            Some(primary) if primary.database != wished.database => {
                return Err(PlanError::DatabaseRenamed(id.clone()));
            }
            Some(_) => configure(draft, id, wished),
        }
        reach(draft, id, wished);
        let mut layout = Layout::of(&draft.world, id, wished, &draft.request.desired.zones);
        add_followers(draft, &mut layout, wished);
        resize(draft, &layout, wished);
        layouts.push(layout);
    }
    Ok(layouts)
}

/// What nobody needs any more, once everything new serves.
pub(crate) fn shrink(draft: &mut Draft<'_>, layouts: Vec<Layout>) {
    for Layout { id, members, leaving, .. } in layouts {
        let primary = draft.world.primary_of(&id).map(|node| node.id.clone());
        if let Some(primary) = primary.filter(|primary| leaving.contains(primary))
            && let Some(successor) = members.first()
        {
            let why = format!("{primary} leaves with its zone; {successor} takes over");
            switch_over(draft, &id, primary, successor.clone(), why);
        }
        for node in leaving {
            let role = draft.world.role_of(&node);
            let node = draft.world.nodes[&node].clone();
            let why = format!("{} {} leaves zone {}", named(role), node.id, node.zone);
            draft.note(&id, ChangeKind::Update, why);
            draft.push(Action::RemoveFollower { node, role });
        }
    }
}

/// What was named to be destroyed, its followers first: until the last step, one node has everything.
pub(crate) fn destroy(draft: &mut Draft<'_>) {
    for id in draft.request.destroy {
        draft.note(id, ChangeKind::Delete, "no longer in the manifest; its data is deleted");
        if let Some(proxy) = draft.world.proxies.get(id).cloned() {
            draft.push(Action::StopProxy { proxy });
        }
        let followers: Vec<DatabaseNode> = draft.world.followers_of(id).cloned().collect();
        for node in followers {
            let role = draft.world.role_of(&node.id);
            draft.push(Action::RemoveFollower { node, role });
        }
        let cluster = draft.world.clusters.get(id).cloned();
        if let (Some(node), Some(cluster)) = (draft.world.primary_of(id).cloned(), cluster) {
            draft.push(Action::DestroyNode { node, cluster });
        }
    }
}

fn create(draft: &mut Draft<'_>, id: &ResourceId, wished: &DatabaseCluster) {
    let zone = draft.first_zone();
    let (without_standby, backups) = (wished.without_standby, wished.backups.clone());
    if let Some(FoundData { number, spent }) = draft.request.found.get(id).copied() {
        let node = numbered(number, id, zone, wished);
        draft.note(
            id,
            ChangeKind::Create,
            format!("a PostgreSQL with the data of {}, which is there", node.id),
        );
        draft.push(Action::TakeUpNode { node, spent, without_standby, backups });
        return;
    }
    let node = new_node(&draft.world, id, zone, wished);
    draft.note(id, ChangeKind::Create, "a PostgreSQL, empty");
    draft.push(Action::CreateNode { node, without_standby, backups });
}

fn configure(draft: &mut Draft<'_>, id: &ResourceId, wished: &DatabaseCluster) {
    let (from, to) = (draft.world.clusters[id].without_standby, wished.without_standby);
    if from != to {
        draft.note(id, ChangeKind::Update, "what a commit does without a standby changed");
        draft.push(Action::ConfigureCluster { id: id.clone(), from, to });
    }
    let (from, to) = (draft.world.clusters[id].backups.clone(), wished.backups.clone());
    if from != to {
        draft.note(id, ChangeKind::Update, "how it is backed up changed; what was kept stays where it is");
        draft.push(Action::ConfigureBackups { id: id.clone(), from, to });
    }
}

/// By the proxy.
fn reach(draft: &mut Draft<'_>, id: &ResourceId, wished: &DatabaseCluster) {
    let pool = wished.pool.clone();
    match draft.world.proxies.get(id).cloned() {
        None => {
            let (zone, port) = (draft.first_zone(), draft.port());
            draft.push(Action::StartProxy { proxy: ProxyProcess { id: id.clone(), zone, port, pool } });
        }
        Some(from) if from.pool != pool => {
            draft.note(id, ChangeKind::Update, "how clients share its connections changed");
            let to = ProxyProcess { pool, ..from.clone() };
            draft.push(Action::ConfigureProxy { from, to });
        }
        Some(_) => {}
    }
}

fn add_followers(draft: &mut Draft<'_>, layout: &mut Layout, wished: &DatabaseCluster) {
    for (zone, role) in std::mem::take(&mut layout.arriving) {
        let node = new_node(&draft.world, &layout.id, zone, wished);
        let why = format!("{} {} in zone {}, from a copy of the primary", named(role), node.id, node.zone);
        draft.note(&layout.id, ChangeKind::Update, why);
        if role == DatabaseRole::Standby {
            layout.members.push(node.id.clone());
        }
        draft.push(Action::AddFollower { node, role });
    }
}

/// Followers first; the primary hands over to one of them before it restarts.
fn resize(draft: &mut Draft<'_>, layout: &Layout, wished: &DatabaseCluster) {
    let id = &layout.id;
    let differs = |node: &&DatabaseNode| node.size != wished.size && !layout.leaving.contains(&node.id);
    let mut nodes: Vec<DatabaseNode> = draft.world.nodes_of(id).filter(differs).cloned().collect();
    nodes.sort_by_key(|node| draft.world.role_of(&node.id) == DatabaseRole::Primary);
    for node in nodes {
        let (from, to) = (node.size, wished.size);
        let restart = from.memory != to.memory;
        let primary = draft.world.role_of(&node.id) == DatabaseRole::Primary;
        let standby = layout.members.iter().find(|member| **member != node.id);
        let mut interruption = Interruption::None;
        let why = match (restart, primary, standby) {
            (false, _, _) => format!("{}: size {from} to {to}, live", node.id),
            (true, false, _) => format!("{}: size {from} to {to}; it restarts, nobody waits for it", node.id),
            (true, true, Some(successor)) => {
                let why = format!("{} restarts with another size; {successor} takes over before", node.id);
                switch_over(draft, id, node.id.clone(), successor.clone(), why);
                format!("{}: size {from} to {to}; it restarts as a standby", node.id)
            }
            (true, true, None) => {
                interruption = Interruption::EstimatedMs(NODE_RESTART_MS);
                format!(
                    "size {from} to {to}; shared memory is fixed at start, so PostgreSQL restarts: open connections \
                     are closed, new ones wait"
                )
            }
        };
        draft.note_with(id, ChangeKind::Update, why, interruption);
        let resize = Action::ResizeNode { id: node.id, from, to, restart };
        draft.push_with(resize, interruption);
    }
}

fn switch_over(draft: &mut Draft<'_>, id: &ResourceId, from: NodeId, to: NodeId, why: String) {
    let interruption = Interruption::EstimatedMs(SWITCHOVER_MS);
    draft.note_with(id, ChangeKind::Update, why, interruption);
    draft.push_with(Action::SwitchOver { id: id.clone(), from, to }, interruption);
}

fn new_node(world: &Topology, id: &ResourceId, zone: Zone, wished: &DatabaseCluster) -> DatabaseNode {
    numbered(world.next_node.get(id).copied().unwrap_or(1), id, zone, wished)
}

fn numbered(number: u32, id: &ResourceId, zone: Zone, wished: &DatabaseCluster) -> DatabaseNode {
    DatabaseNode {
        id: NodeId::new(id.clone(), number),
        zone,
        port: node_port(number),
        size: wished.size,
        database: wished.database.clone(),
    }
}

/// Only names the socket in the run folder; PostgreSQL's own default for the first node.
pub(crate) fn node_port(number: u32) -> u16 {
    u16::try_from(5_431 + number).unwrap_or(u16::MAX)
}

fn named(role: DatabaseRole) -> &'static str {
    match role {
        DatabaseRole::Primary => "primary",
        DatabaseRole::Standby => "standby",
        DatabaseRole::ReadReplica => "read replica",
    }
}

/// Who stays, who comes, who goes, of one cluster.
pub(crate) struct Layout {
    id: ResourceId,
    /// The primary and its standbys that stay. The primary first, where it does.
    members: Vec<NodeId>,
    arriving: Vec<(Zone, DatabaseRole)>,
    leaving: BTreeSet<NodeId>,
}

impl Layout {
    fn of(world: &Topology, id: &ResourceId, wished: &DatabaseCluster, zones: &[Zone]) -> Layout {
        let role = |node: &DatabaseNode| world.role_of(&node.id);
        let (replicas, mut members): (Vec<&DatabaseNode>, Vec<&DatabaseNode>) =
            world.nodes_of(id).partition(|node| role(node) == DatabaseRole::ReadReplica);
        members.sort_by_key(|node| (role(node) != DatabaseRole::Primary, node.id.number()));
        let members = Spread::of(&members, wished.standbys as usize + 1, zones);
        let replicas = Spread::of(&replicas, wished.read_replicas as usize, zones);
        let arriving = members.arriving.into_iter().map(|zone| (zone, DatabaseRole::Standby));
        let arriving =
            arriving.chain(replicas.arriving.into_iter().map(|zone| (zone, DatabaseRole::ReadReplica)));
        let staying: BTreeSet<&NodeId> = members.staying.iter().chain(&replicas.staying).collect();
        let leaving = world.nodes_of(id).map(|node| &node.id).filter(|node| !staying.contains(node));
        Layout {
            id: id.clone(),
            arriving: arriving.collect(),
            leaving: leaving.cloned().collect(),
            members: members.staying,
        }
    }
}

/// A number of equal nodes over the zones, none of which gets more than its share.
struct Spread {
    staying: Vec<NodeId>,
    arriving: Vec<Zone>,
}

impl Spread {
    /// `nodes` in the order in which they are to be kept.
    fn of(nodes: &[&DatabaseNode], wanted: usize, zones: &[Zone]) -> Spread {
        let share = wanted.div_ceil(zones.len().max(1));
        let mut used: BTreeMap<&Zone, usize> = zones.iter().map(|zone| (zone, 0)).collect();
        let mut spread = Spread { staying: Vec::new(), arriving: Vec::new() };
        for node in nodes {
            if let Some(used) = used.get_mut(&node.zone)
                && *used < share
                && spread.staying.len() < wanted
            {
                *used += 1;
                spread.staying.push(node.id.clone());
            }
        }
        for _ in spread.staying.len()..wanted {
            let Some(zone) = zones.iter().min_by_key(|zone| used[zone]) else { break };
            *used.entry(zone).or_default() += 1;
            spread.arriving.push(zone.clone());
        }
        spread
    }
}

//! Bringing a database back to an earlier moment: a new primary is made from a backup beside the old one, and takes its
//! place. What the old one has is kept aside.
//!
//! Two plans, because they are not taken back together. Once the new primary serves, a standby that cannot be copied is no
//! reason to give up what clients have written since.

use std::path::PathBuf;

use model::{AppName, DatabaseNode, DatabaseRole, NodeId, RecoveryTarget, ResourceId, Topology, Zone};

use crate::diff::fingerprint;
use crate::{Action, Change, ChangeKind, Interruption, Plan, Step};

/// From the last answer of the old primary to the first of the new one. What is new waits in the proxy.
const REPLACED_MS: u64 = 2_000;

/// What is to be brought back, and from what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    pub cluster: ResourceId,
    /// The number of the copy to begin with.
    pub backup: u32,
    /// The timeline to arrive on.
    pub timeline: u32,
    pub to: RecoveryTarget,
    /// The archive of another cluster, where it is not this one's own.
    pub from: Option<PathBuf>,
}

/// The steps to a new primary. `None` where there is no such cluster.
pub fn restore(app: &AppName, topology: &Topology, parent: u64, wished: &Restore) -> Option<Plan> {
    let id = &wished.cluster;
    let cluster = topology.clusters.get(id)?.clone();
    let old = topology.primary_of(id)?.clone();
    let new = numbered(topology, id, &old, old.zone.clone());
    let mut actions = vec![Action::PrepareRestore {
        node: new.clone(),
        backup: wished.backup,
        timeline: wished.timeline,
        to: wished.to,
        from: wished.from.clone(),
    }];
    for node in topology.followers_of(id) {
        actions.push(Action::RemoveFollower { node: node.clone(), role: topology.role_of(&node.id) });
    }
    actions.push(Action::ReplacePrimary { old, new, cluster });
    let why = format!("brought back from backup {}; what it is now is kept aside", wished.backup);
    Some(finish(app, parent, id, why, actions))
}

/// The steps to as many followers as there were: after [`restore`] there are none. `None` where none are wanted, or there
/// is no such cluster.
pub fn follow_again(
    app: &AppName,
    topology: &Topology,
    parent: u64,
    id: &ResourceId,
    wanted: &[(Zone, DatabaseRole)],
) -> Option<Plan> {
    let mut world = topology.clone();
    let primary = topology.primary_of(id)?.clone();
    let mut actions = Vec::new();
    for (zone, role) in wanted {
        let node = numbered(&world, id, &primary, zone.clone());
        let action = Action::AddFollower { node, role: *role };
        action.apply(&mut world).ok()?;
        actions.push(action);
    }
    let why = "its followers are copied anew from what was brought back".to_owned();
    (!actions.is_empty()).then(|| finish(app, parent, id, why, actions))
}

fn numbered(topology: &Topology, id: &ResourceId, like: &DatabaseNode, zone: Zone) -> DatabaseNode {
    let number = topology.next_node.get(id).copied().unwrap_or(1);
    DatabaseNode {
        id: NodeId::new(id.clone(), number),
        zone,
        port: crate::databases::node_port(number),
        ..like.clone()
    }
}

fn finish(app: &AppName, parent: u64, id: &ResourceId, why: String, actions: Vec<Action>) -> Plan {
    let interruption = |action: &Action| match action {
        Action::ReplacePrimary { .. } => Interruption::EstimatedMs(REPLACED_MS),
        _ => Interruption::None,
    };
    let steps: Vec<Step> =
        actions.into_iter().map(|action| Step { interruption: interruption(&action), action }).collect();
    let longest = steps.iter().map(|step| step.interruption).find(|i| *i != Interruption::None);
    let change = Change {
        resource: id.clone(),
        kind: ChangeKind::Update,
        why,
        interruption: longest.unwrap_or(Interruption::None),
    };
    let plan_id = fingerprint(&(app, parent, &steps));
    Plan { id: plan_id, app: app.clone(), parent, changes: vec![change], steps }
}

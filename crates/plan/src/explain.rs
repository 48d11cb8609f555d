//! Steps in words, as `plan`, the live view and `why` print them.

use std::fmt;

use model::{DatabaseRole, WithoutStandby, counted};

use crate::{Action, EdgeChange};

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::SetZones { from, to, stage_to, .. } if from == to => {
                write!(f, "stand at stage {stage_to}")
            }
            Action::SetZones { to, .. } => {
                let names: Vec<_> = to.iter().map(|zone| zone.as_str()).collect();
                match names.as_slice() {
                    [] => f.write_str("use no zone"),
                    [one] => write!(f, "use zone {one}"),
                    several => write!(f, "use zones {}", several.join(", ")),
                }
            }
            Action::CreateNode { node, .. } => write!(f, "create {} in zone {}", node.id, node.zone),
            Action::TakeUpNode { node, .. } => {
                write!(f, "take up {} and its data in zone {}", node.id, node.zone)
            }
            Action::RetireNode { node } => write!(f, "retire {}, keeping its data aside", node.id),
            Action::DestroyNode { node, .. } => write!(f, "destroy {} and its data", node.id),
            Action::RestoreNode { node, .. } => write!(f, "bring {} and its data back", node.id),
            Action::AddFollower { node, role } => {
                write!(f, "add {} as {} in zone {}", node.id, a(*role), node.zone)
            }
            Action::RemoveFollower { node, .. } => write!(f, "remove {} and its copy", node.id),
            Action::SwitchOver { from, to, .. } => write!(f, "switch over from {from} to {to}"),
            Action::ConfigureCluster { id, to: WithoutStandby::Block, .. } => {
                write!(f, "let commits to {id} wait while no standby confirms them")
            }
            Action::ConfigureCluster { id, to: WithoutStandby::Degrade, .. } => {
                write!(f, "let {id} acknowledge commits alone while it has no standby")
            }
            Action::ConfigureBackups { id, to: Some(policy), .. } => {
                let to = policy.to.as_deref().unwrap_or("the state folder");
                write!(f, "back {id} up to {to}, {}", counted(policy.keep as usize, "copy"))
            }
            Action::ConfigureBackups { id, to: None, .. } => write!(f, "make no backups of {id}"),
            Action::PrepareRestore { node, backup, from, .. } => {
                write!(f, "make {} from backup {backup} and the log after it", node.id)?;
                from.as_ref().map_or(Ok(()), |folder| write!(f, ", in {}", folder.display()))
            }
            Action::DiscardRestored { node } => write!(f, "discard {}", node.id),
            Action::ReplacePrimary { old, new, .. } => {
                write!(f, "let {} serve in the place of {}, whose data is kept aside", new.id, old.id)
            }
            Action::BringPrimaryBack { old, .. } => write!(f, "bring {} and its data back", old.id),
            Action::ResizeNode { id, from, to, restart: true } => {
                write!(f, "restart {id} to resize it: {from} to {to}")
            }
            Action::ResizeNode { id, from, to, restart: false } => {
                write!(f, "resize {id} live: {from} to {to}")
            }
            Action::StartProxy { proxy } => write!(f, "open {} on port {}", proxy.id, proxy.port),
            Action::StopProxy { proxy } => write!(f, "close {} on port {}", proxy.id, proxy.port),
            Action::ConfigureProxy { to, .. } => write!(f, "reconfigure the pool of {} live", to.id),
            Action::StartEdge { edge } => write!(f, "open {} on {}", edge.id, edge.front.address),
            Action::StopEdge { edge } => write!(f, "close {} on {}", edge.id, edge.front.address),
            Action::ConfigureEdge { to, change: EdgeChange::Live, .. } => {
                write!(f, "reconfigure {} live", to.id)
            }
            Action::ConfigureEdge { to, change: EdgeChange::Replace, .. } => {
                write!(f, "hand {} over to a new process", to.id)
            }
            Action::RunReleaseCommand { release, .. } => {
                write!(f, "run the release command of {}", release.id)
            }
            Action::StartInstance { instance } => {
                write!(f, "start {} ({}) in zone {}", instance.id, instance.release, instance.zone)
            }
            Action::StopInstance { instance } => write!(f, "stop {} ({})", instance.id, instance.release),
            Action::AddEndpoint { id } => write!(f, "send traffic to {id}"),
            Action::RemoveEndpoint { id } => write!(f, "drain {id}"),
            Action::ResizeInstance { id, from, to } => write!(f, "resize {id} live: {from} to {to}"),
            Action::Compare { new, gate, .. } => {
                write!(f, "compare {new} with the old release for {} s", gate.window_ms.div_ceil(1000))
            }
            Action::SetRelease { service, to: Some(release), .. } => {
                write!(f, "{service} serves {}", release.id)
            }
            Action::SetRelease { service, to: None, .. } => write!(f, "{service} serves nothing"),
        }
    }
}

fn a(role: DatabaseRole) -> &'static str {
    match role {
        DatabaseRole::Primary => "the primary",
        DatabaseRole::Standby => "a standby",
        DatabaseRole::ReadReplica => "a read replica",
    }
}

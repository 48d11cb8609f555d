//! Every node of a cluster starts anew, as whatever PostgreSQL is installed by now.

use model::{DatabaseRole, NodeId, ResourceId};

use crate::machine::apply::{Event, Report};
use crate::machine::{Machine, StepError};

impl Machine {
    /// Restarts the nodes of a cluster one after the other, each when the one before follows again. A primary that has a
    /// standby hands over first, and so restarts as a follower; one that is alone is waited for by its clients.
    ///
    /// Returns the nodes in the order of their restart.
    ///
    /// # Errors
    /// When there is no such cluster, or a node does not come back; those behind it were not touched then.
    pub async fn restart_nodes(&self, id: &ResourceId, report: &Report) -> Result<Vec<NodeId>, StepError> {
        let nodes: Vec<NodeId> = self.topology().followers_of(id).map(|node| node.id.clone()).collect();
        let mut restarted = Vec::new();
        for node in nodes {
            // The primary may be lost meanwhile, and one of these take over.
            if self.topology().role_of(&node) == DatabaseRole::Primary {
                continue;
            }
            report(Event::Note { text: format!("restarting {node}") });
            self.restart_node(&node).await?;
            self.caught_up(&node).await?;
            self.followers_settle(report).await;
            restarted.push(node);
        }
        let topology = self.topology();
        let primary =
            topology.primary_of(id).ok_or_else(|| StepError::new(format!("{id} has no primary")))?;
        if !restarted.contains(&primary.id) {
            let standby =
                topology.followers_of(id).find(|n| topology.role_of(&n.id) == DatabaseRole::Standby);
            match standby {
                Some(standby) => {
                    report(Event::Note { text: format!("{} takes over from {}", standby.id, primary.id) });
                    self.switch_over(id, &standby.id).await?;
                }
                None => {
                    report(Event::Note { text: format!("restarting {}; its clients wait", primary.id) });
                    self.restart_node(&primary.id).await?;
                }
            }
            restarted.push(primary.id.clone());
        }
        self.followers_settle(report).await;
        Ok(restarted)
    }
}

//! Every node of a cluster starts anew, as whatever PostgreSQL is installed by now.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{DatabaseRole, NodeId, ResourceId};

use crate::engines::PgVersion;
use crate::machine::apply::{Event, Report};
use crate::machine::{Machine, StepError};

impl Machine {
    /// Restarts the nodes of a cluster one after the other, each when the one before follows again, with the PostgreSQL
    /// that is installed by now. A primary that has a standby hands over first, and so restarts as a follower; one that is
    /// alone is waited for by its clients.
    ///
    /// Returns the nodes in the order of their restart, each with the version that it runs by then where that is known.
    ///
    /// # Errors
    /// When there is no such cluster or no PostgreSQL for it, or a node does not come back; those behind it were not touched
    /// then.
    pub async fn restart_nodes(
        &self,
        id: &ResourceId,
        report: &Report,
    ) -> Result<Vec<(NodeId, Option<PgVersion>)>, StepError> {
        self.start_cluster_with_what_is_installed(id, report).await?;
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
        let version = |node: &NodeId| self.node_kept(node).and_then(|job| job.runs());
        Ok(restarted.into_iter().map(|node| (node.clone(), version(&node))).collect())
    }

    async fn start_cluster_with_what_is_installed(
        &self,
        id: &ResourceId,
        report: &Report,
    ) -> Result<(), StepError> {
        let engine = self.find_engine(report).await?;
        let mut ran: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for node in self.topology().nodes_of(id) {
            let Some(job) = self.node_kept(&node.id) else { continue };
            let version = job.runs().map_or_else(|| "an unknown version".to_owned(), |runs| runs.to_string());
            ran.entry(version).or_default().push(node.id.to_string());
            job.start_with(Arc::clone(&engine));
        }
        let ran: Vec<String> =
            ran.into_iter().map(|(version, nodes)| format!("{version} by {}", nodes.join(", "))).collect();
        self.remember(
            id.as_str(),
            format!("restart its nodes with PostgreSQL {} in {}", engine.version, engine.bin_dir.display()),
            format!("it was asked for; until now it was {}", ran.join(" and ")),
        );
        Ok(())
    }
}

//! Read replicas: when the proxy is told of them, so that it sends them reads.
//!
//! How far one is behind, the proxy sees for itself. What it cannot see is whose log a replica has: one that was not
//! reached in a failover may be past the point where the next primary begins, and would show what nobody has committed.
//! So it is told of those that their primary sees following, anew after each change of primary. And of one that is to be
//! stopped it is told no more, before: what is being read there is read to its end.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{DatabaseRole, NodeId, ResourceId, Topology};
use tokio::time::{Instant, sleep};

use crate::machine::{Machine, StepError};
use crate::postgres::{Follower, member_name};

/// For what is being read on a replica that is to be stopped. What reads longer is cut, and read again on the primary.
const READS_LIMIT: Duration = Duration::from_secs(30);
const READS_POLL: Duration = Duration::from_millis(20);
/// Looks in a row that find nobody reading. One is not enough: whoever was given a connection just before begins after it.
const QUIET_LOOKS: u32 = 3;

impl Machine {
    /// Whether the proxy is told of this read replica.
    pub(in crate::machine) fn serves_reads(&self, node: &NodeId) -> bool {
        self.watched(node.resource(), |watch| {
            let stays = !watch.leaving.contains(node) && !watch.resting.contains(node);
            stays && watch.following.contains(node)
        })
    }

    /// Takes note of which read replicas follow, and has the proxy told when others do than before.
    pub(super) fn note_following(&self, topology: &Topology, id: &ResourceId, followers: &[Follower]) {
        let replicas: Vec<&NodeId> = topology
            .followers_of(id)
            .map(|node| &node.id)
            .filter(|node| topology.role_of(node) == DatabaseRole::ReadReplica)
            .collect();
        let follows = |node: &NodeId| {
            let name = member_name(node);
            followers.iter().any(|follower| follower.name == name && follower.streaming)
        };
        let now: BTreeSet<NodeId> = replicas.iter().filter(|node| follows(node)).copied().cloned().collect();
        let before = self.watched(id, |watch| std::mem::replace(&mut watch.following, now.clone()));
        if before == now {
            return;
        }
        for node in replicas {
            match (before.contains(node), now.contains(node)) {
                (false, true) => self.remember(&node.to_string(), "send it reads", "it follows the primary"),
                (true, false) => {
                    self.remember(&node.to_string(), "send it no reads", "it does not follow the primary");
                }
                _ => {}
            }
        }
        self.inner.changed.send_modify(|count| *count += 1);
    }

    /// Resolves when nobody reads on a node that the proxy is told of no more, or too late for those who do.
    pub(in crate::machine) async fn reads_end(&self, node: &NodeId) -> Result<(), StepError> {
        self.push_proxies().await?;
        let Some(job) = self.node_kept(node) else { return Ok(()) };
        let (mut quiet, deadline) = (0, Instant::now() + READS_LIMIT);
        while quiet < QUIET_LOOKS && Instant::now() < deadline {
            // On one that does not answer nobody reads.
            let Ok(session) = self.session(node).await else { return Ok(()) };
            let Ok(busy) = session.busy(&job.credentials.app.role).await else { return Ok(()) };
            quiet = if busy == 0 { quiet + 1 } else { 0 };
            sleep(READS_POLL).await;
        }
        Ok(())
    }

    /// Sends a read replica no reads while `work` is done on it.
    pub(in crate::machine) async fn at_rest<T>(
        &self,
        node: &NodeId,
        work: impl Future<Output = Result<T, StepError>>,
    ) -> Result<T, StepError> {
        self.watched(node.resource(), |watch| watch.resting.insert(node.clone()));
        let _resting = Resting { machine: self, node };
        self.reads_end(node).await?;
        work.await
    }
}

/// Ends the rest when dropped: the work may be given up half done.
struct Resting<'a> {
    machine: &'a Machine,
    node: &'a NodeId,
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.machine.watched(self.node.resource(), |watch| watch.resting.remove(self.node));
        self.machine.inner.changed.send_modify(|count| *count += 1);
    }
}

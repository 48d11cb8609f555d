//! A primary whose disk is full, while that of a standby is not.
//!
//! PostgreSQL answers writes with an error as long as its tables cannot grow, and ends when it cannot write its log or a
//! checkpoint. So it cannot be shut down in order, either. Where each node has a disk of its own, another one can do
//! better: then the primary is ended, and what follows is as after any crash. Nodes on one disk are all as full as each
//! other, and nothing is done.

use std::path::Path;
use std::time::Duration;

use model::{ByteSize, DatabaseNode, NodeId, ResourceId, Topology};
use tokio::time::Instant;

use crate::machine::Machine;
use crate::postgres::{Follower, member_name};

/// Two segments of the log: with less, the next one may not fit.
const FULL_BYTES: u64 = 32 * ByteSize::MB;
/// Whoever takes over must not be full itself in a moment.
const ROOM_BYTES: u64 = 256 * ByteSize::MB;
/// Between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

impl Machine {
    /// Ends a primary that has no space left, when it is certain that a standby with space takes over.
    pub(super) fn mind_disk(
        &self,
        id: &ResourceId,
        topology: &Topology,
        primary: &DatabaseNode,
        followers: &[Follower],
    ) {
        let free = |node: &NodeId| free_bytes(&self.inner.setup.state.node(node));
        let Some(left) = free(&primary.id).filter(|left| *left < FULL_BYTES) else { return };
        let Some(recorded) = topology.clusters.get(id).map(|cluster| &cluster.synchronous) else { return };
        let is_ready = |node: &NodeId| {
            let name = member_name(node);
            let follows = followers.iter().any(|follower| follower.name == name && follower.streaming);
            follows && free(node).is_some_and(|bytes| bytes >= ROOM_BYTES)
        };
        if recorded.is_empty() || !recorded.iter().all(is_ready) {
            return;
        }
        let is_due = self.watched(id, |watch| {
            let is_due = watch.disk_full.is_none_or(|since| since.elapsed() >= RETRY_INTERVAL);
            if is_due {
                watch.disk_full = Some(Instant::now());
            }
            is_due
        });
        if !is_due {
            return;
        }
        let evidence = format!("{} MB of its disk are free, and a standby has space", left / ByteSize::MB);
        self.kill_primary(&primary.id, "end it: its disk is full", evidence);
    }
}

/// `None` where it cannot be asked.
pub(in crate::machine) fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

//! What a planned change of primary does before anybody waits, so that less of it is left for when they do.
//!
//! A primary whose log is stored ends the segment that it writes when it is shut down: what is free of it is written as
//! zeros, and sent, and confirmed. And it goes on in the next segment, which both nodes have to make where it is not there
//! yet. So the segment is filled while everybody works. A checkpoint makes the next one when most of a segment is used, and
//! leaves little to write to the one that belongs to the shutdown.
//!
//! Nothing of this is needed for the change to be right: a primary that writes a lot meanwhile makes it longer.

use std::time::Duration;

use model::NodeId;
use tokio::time::{Instant, sleep, timeout};

use super::ANSWER_LIMIT;
use crate::backup::SEGMENT_BYTES;
use crate::machine::{Machine, StepError};
use crate::postgres::{RELOAD_SIGNAL, Session, member_name, warm_up};

/// A checkpoint makes the next segment when three quarters of one are used.
const FILLED_BEFORE_CHECKPOINT: u64 = SEGMENT_BYTES / 16 * 13;
/// What is written between then and the shutdown must find room: at the beginning of a segment all of it would be free.
const FILLED: u64 = SEGMENT_BYTES / 16 * 14;
/// In pieces, each of which the successor has before the next is written: commits that come between must not wait long.
const FILL_LIMIT: Duration = Duration::from_secs(5);
/// For one of them. Where nobody commits, PostgreSQL lets it lie for longer than this, and nobody waits.
const PIECE_LIMIT: Duration = Duration::from_millis(50);
const PIECE_POLL: Duration = Duration::from_millis(2);

impl Machine {
    /// # Errors
    /// When one of the two cannot write its checkpoint, or does not answer.
    pub(super) async fn prepare(&self, from: &NodeId, to: &NodeId) -> Result<(), StepError> {
        let (primary, successor) = (self.session(from).await?, self.session(to).await?);
        fill(&primary, to, FILLED_BEFORE_CHECKPOINT).await?;
        primary.checkpoint().await?;
        successor.checkpoint().await?;
        if let Some(job) = self.node_kept(to) {
            // Without it the first clients wait a little longer.
            let _ = timeout(ANSWER_LIMIT, warm_up(&job.paths, &job.credentials)).await;
        }
        fill(&primary, to, FILLED).await
    }

    /// Until it is told otherwise: a shutdown would wait until the log is stored. The node stores it when it is back, and
    /// its successor has it, too.
    pub(super) fn keep_log(&self, node: &NodeId) {
        let Some(job) = self.node_kept(node) else { return };
        job.keep_log();
        if let Err(error) = job.write_config() {
            tracing::warn!(%node, error, "cannot be told to keep its log; its shutdown waits until that is stored");
            return;
        }
        if let Some(process) = self.inner.setup.processes.find(&node.to_string()) {
            // One that has just ended has no log to store.
            let _ = process.signal(RELOAD_SIGNAL);
        }
    }
}

async fn fill(primary: &Session, successor: &NodeId, until: u64) -> Result<(), StepError> {
    let (name, deadline) = (member_name(successor), Instant::now() + FILL_LIMIT);
    while Instant::now() < deadline
        && let Some(end) = primary.fill_segment(until).await?
    {
        let arrives = async {
            while !primary.followers().await?.iter().any(|one| one.name == name && one.flushed >= end) {
                sleep(PIECE_POLL).await;
            }
            Ok::<_, StepError>(())
        };
        if let Ok(arrived) = timeout(PIECE_LIMIT, arrives).await {
            arrived?;
        }
    }
    Ok(())
}

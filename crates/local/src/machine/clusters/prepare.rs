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

use crate::backup::SEGMENT_BYTES;
use crate::machine::{Machine, StepError};
use crate::postgres::{Session, member_name, warm_up};

/// A checkpoint makes the next segment when three quarters of one are used.
const FILLED_BEFORE_CHECKPOINT: u64 = SEGMENT_BYTES / 16 * 13;
/// What is written between then and the shutdown must find room: at the beginning of a segment all of it would be free.
const FILLED: u64 = SEGMENT_BYTES / 16 * 14;
/// For all of that.
const FILL_LIMIT: Duration = Duration::from_secs(5);
/// It is filled in pieces, and the successor has this long to confirm one before the next is written: commits that come
/// between must not wait long. Where nobody commits, PostgreSQL lets a piece lie for longer.
const PIECE_LIMIT: Duration = Duration::from_millis(50);
/// For each of the preparations.
const SPARE_LIMIT: Duration = Duration::from_secs(15);
const PIECE_POLL: Duration = Duration::from_millis(2);

impl Machine {
    /// # Errors
    /// When the primary cannot write its checkpoint, or does not answer. Of all else only a longer wait comes.
    pub(super) async fn prepare(&self, from: &NodeId, to: &NodeId) -> Result<(), StepError> {
        // The looks would wait behind a checkpoint on the kept one, and take the primary for hung.
        let primary = self.session_of_its_own(from).await?;
        spare("the log", fill(&primary, to, FILLED_BEFORE_CHECKPOINT)).await;
        primary.checkpoint().await?;
        spare("a checkpoint of the successor", async {
            Ok(self.session_of_its_own(to).await?.checkpoint().await?)
        })
        .await;
        if let Some(job) = self.node_kept(to) {
            spare("the catalogues", async { Ok(warm_up(&job.paths, &job.credentials).await?) }).await;
        }
        spare("the log", fill(&primary, to, FILLED)).await;
        Ok(())
    }

    /// Until it is told otherwise: a shutdown would wait until the log is stored. The node stores it when it is back, and
    /// its successor has it, too.
    pub(super) fn keep_log(&self, node: &NodeId) {
        let Some(job) = self.node_kept(node) else { return };
        job.keep_log();
        let told = job.write_config().map_err(StepError::from).and_then(|()| self.reload(node));
        if let Err(StepError { reason, .. }) = told {
            tracing::warn!(%node, reason, "cannot be told to keep its log; its shutdown waits until that is stored");
        }
    }
}

/// Goes on without it when it fails, or takes too long.
async fn spare(what: &str, prepared: impl Future<Output = Result<(), StepError>>) {
    let cause = match timeout(SPARE_LIMIT, prepared).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.reason,
        Err(_) => format!("it takes longer than {} s", SPARE_LIMIT.as_secs()),
    };
    tracing::warn!(
        what,
        cause,
        "a planned change of primary is not prepared, and makes clients wait for longer"
    );
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

//! Requests that wait because every endpoint is full or none can be tried.
//!
//! The queue is bounded ([`crate::config::Upstream::queue_length`]) and holds no requests, only the right to wait. A
//! freed place wakes the one that waited longest. A request that arrives in that moment may take the place first; the
//! woken one then waits on, at most until its own time limit. Handing places over in strict order would cost every
//! request a lock to be fair only under overload.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Cluster, Endpoint, Lease, Pick};

/// Some endpoints become available by the mere passing of time (an ejection ends), which wakes nobody; waiting
/// requests look again this often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: AtomicU32,
    freed: Notify,
}

impl Queue {
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// After a place became free.
    pub(super) fn wake_one(&self) {
        if self.waiting() != 0 {
            self.freed.notify_one();
        }
    }

    /// After many may have: an endpoint came back, or the configuration changed.
    pub(super) fn wake_all(&self) {
        if self.waiting() != 0 {
            self.freed.notify_waiters();
        }
    }
}

/// A place in the queue of a cluster, given back on drop.
#[derive(Debug)]
pub struct QueueGuard {
    cluster: Arc<Cluster>,
}

impl QueueGuard {
    pub(super) fn enter(cluster: &Arc<Cluster>, limit: u32) -> Option<QueueGuard> {
        let queue = cluster.queue();
        let enter = |waiting| (waiting < limit).then_some(waiting + 1);
        queue.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).ok()?;
        Some(QueueGuard { cluster: Arc::clone(cluster) })
    }

    /// Waits for an endpoint that is free. The caller sets the time limit ([`crate::config::Upstream::queue_timeout_ms`]).
    ///
    /// Endpoints of `tried` are left out, unless the upstream has no others: then the request may go back to one that
    /// failed it, once that can be tried again. This is what carries a request over the restart of a single instance.
    /// Cancel safe.
    pub async fn pick(&self, tried: &[Arc<Endpoint>]) -> Lease {
        let queue = self.cluster.queue();
        loop {
            let mut freed = pin!(queue.freed.notified());
            // Registered before looking, so that a place freed in between is not missed.
            freed.as_mut().enable();
            let now = tokio::time::Instant::now().into_std();
            let picked = if self.cluster.has_others(tried) {
                self.cluster.pick(now, tried)
            } else {
                self.cluster.pick(now, &[])
            };
            if let Pick::Endpoint(lease) = picked {
                return lease;
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, freed).await;
        }
    }
}

impl Drop for QueueGuard {
    fn drop(&mut self) {
        self.cluster.queue().waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

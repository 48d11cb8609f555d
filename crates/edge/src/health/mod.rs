//! Active health checks: one task per endpoint, on one runtime of the edge.
//!
//! A check is a TCP connect, or a `GET` with a small client of its own: checks must not depend on the pools and the
//! relay whose trouble they shall show. Endpoints of h2c upstreams are asked in HTTP/2. Draining endpoints are checked
//! too, for they may be needed as a last resort.
//!
//! Besides the rhythm of `interval_ms` there is a faster one: as soon as a connect failed, in traffic or here, the
//! endpoint is looked at every [`RECOVERY_INTERVAL`], so that requests that wait for a restarting instance wait
//! little longer than it takes.

mod probe;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::balance::{CheckFailure, Cluster, Endpoint};

/// How often an endpoint that cannot be connected to is tried, unless `interval_ms` is shorter.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(50);

/// An interval of nothing would be a busy loop.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// Checks every endpoint of the clusters until `shutdown`, or until the sender is gone. Send the same or new clusters
/// after every configuration: endpoints that came are checked from then on, endpoints that left no longer.
///
/// Owns its tasks and returns when all have ended. Run it once, on one runtime.
pub async fn run(mut clusters: watch::Receiver<Vec<Arc<Cluster>>>, shutdown: CancellationToken) {
    let mut checks = Checks::default();
    loop {
        let current = clusters.borrow_and_update().clone();
        checks.follow(&current);
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = clusters.changed() => if changed.is_err() { break },
            Some(ended) = checks.tasks.join_next() => {
                // Tasks are ended by us, by aborting; anything else is a bug that must not silence the others.
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a health check panicked");
                    checks.forget_ended();
                }
            }
        }
    }
    checks.tasks.shutdown().await;
}

/// The tasks by what they check. Two endpoints with one id are told apart by their place in memory, which their task
/// keeps alive.
#[derive(Default)]
struct Checks {
    tasks: JoinSet<()>,
    running: HashMap<usize, AbortHandle>,
}

impl Checks {
    fn follow(&mut self, clusters: &[Arc<Cluster>]) {
        let mut wanted = HashMap::new();
        for cluster in clusters {
            for endpoint in cluster.endpoints() {
                if !endpoint.is_removed() {
                    wanted.insert(Arc::as_ptr(&endpoint).addr(), (Arc::clone(cluster), endpoint));
                }
            }
        }
        self.running.retain(|endpoint, task| {
            let stays = wanted.contains_key(endpoint);
            if !stays {
                task.abort();
            }
            stays
        });
        for (key, (cluster, endpoint)) in wanted {
            let tasks = &mut self.tasks;
            self.running.entry(key).or_insert_with(|| tasks.spawn(watch(cluster, endpoint)));
        }
    }

    fn forget_ended(&mut self) {
        self.running.retain(|_, task| !task.is_finished());
    }
}

/// Checks one endpoint for ever. Reads the cluster's configuration anew each time.
async fn watch(cluster: Arc<Cluster>, endpoint: Arc<Endpoint>) {
    // Spread over the first interval, so that the checks of many endpoints do not come at once.
    let mut pause = interval(&cluster).mul_f64(fastrand::f64());
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            // Traffic found nobody there: look soon. After a moment, because right now the answer is known.
            () = endpoint.unreachable() => sleep(pause.min(RECOVERY_INTERVAL)).await,
        }
        let config = cluster.config();
        let limit = Duration::from_millis(config.health.timeout_ms).max(SHORTEST_INTERVAL);
        let result = timeout(limit, probe::probe(&config, endpoint.address())).await;
        let now = Instant::now().into_std();
        match result.unwrap_or(Err(CheckFailure::Failing)) {
            Ok(()) => cluster.check_passed(&endpoint, now),
            Err(failure) => cluster.check_failed(&endpoint, failure, now),
        }
        // A little off the beat, so that checks that fell together drift apart.
        pause = interval(&cluster).mul_f64(0.9 + 0.2 * fastrand::f64());
    }
}

fn interval(cluster: &Cluster) -> Duration {
    Duration::from_millis(cluster.config().health.interval_ms).max(SHORTEST_INTERVAL)
}

#[cfg(test)]
mod tests;

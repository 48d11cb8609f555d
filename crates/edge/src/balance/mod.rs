//! Which endpoint takes the next request: balancing, passive health and the retry budget, without any I/O.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config;
use crate::status::EndpointStatus;

/// The endpoints of one upstream and what is known of them. Shared by all threads of the edge.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    config: Arc<config::Upstream>,
}

/// The answer to [`Cluster::pick`].
#[derive(Debug)]
pub enum Pick {
    /// Send the request there.
    Endpoint(Lease),
    /// Every endpoint that serves has `max_in_flight` requests: queue.
    Full,
    /// No endpoint can be tried now: queue, one may come back.
    None,
}

/// How a request sent to an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    ConnectFailed,
    Lost,
    TimedOut,
    ClientGone,
    Cancelled,
}

impl Cluster {
    pub fn new(name: &str, config: &config::Upstream, _zone: Option<&str>, _now: Instant) -> Arc<Cluster> {
        Arc::new(Cluster { name: name.to_owned(), config: Arc::new(config.clone()) })
    }
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Endpoints with the same id and address keep their state.
    pub fn reconfigure(&self, _config: &config::Upstream, _zone: Option<&str>, _now: Instant) {}
    /// Never an endpoint of `tried`.
    pub fn pick(&self, _now: Instant, _tried: &[Arc<Endpoint>]) -> Pick {
        Pick::None
    }
    /// A place in the queue, or `None` when `queue_length` requests wait already.
    pub fn enqueue(self: &Arc<Self>) -> Option<QueueGuard> {
        None
    }
    pub fn queued(&self) -> u32 {
        0
    }
    /// Counts a request (not a retry) for the retry budget.
    pub fn request_started(&self, _now: Instant) {}
    /// Takes one retry from the budget; false when it is spent.
    pub fn retry_allowed(&self, _now: Instant) -> bool {
        false
    }
    /// Those configured, and removed ones that still have requests in flight.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        Vec::new()
    }
    pub fn config(&self) -> Arc<config::Upstream> {
        Arc::clone(&self.config)
    }
}

/// A place in the queue of a cluster, given back on drop.
#[derive(Debug)]
pub struct QueueGuard {}

impl QueueGuard {
    /// Waits for an endpoint that is free. The caller sets the time limit (`queue_timeout_ms`). Endpoints of `tried`
    /// are left out unless there are no others. Cancel safe.
    pub async fn pick(&self, _tried: &[Arc<Endpoint>]) -> Lease {
        std::future::pending().await
    }
}

/// One request in flight to an endpoint. Dropping it without [`Lease::finish`] counts as [`Outcome::Cancelled`].
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
}

impl Lease {
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
    /// Ends the request. `latency` is from the first byte sent to the last received.
    pub fn finish(self, _outcome: Outcome, _latency: Duration, _now: Instant) {}
}

/// One instance of an upstream.
#[derive(Debug)]
pub struct Endpoint {
    id: String,
    address: SocketAddr,
}

impl Endpoint {
    pub fn id(&self) -> &str {
        &self.id
    }
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// The label of [`config::Endpoint::release`].
    pub fn release(&self) -> Option<Arc<str>> {
        None
    }
    pub fn in_flight(&self) -> u64 {
        0
    }
    /// Resolves when the endpoint is unhealthy, ejected or closed. A draining endpoint is down only when closed.
    pub async fn down(&self) {
        std::future::pending().await
    }
    /// Resolves when no request is in flight. After a removal (or while draining with other endpoints serving) no
    /// request starts after it has resolved.
    pub async fn idle(&self) {}
    /// Cuts what is in flight: [`Endpoint::closed`] and [`Endpoint::down`] resolve.
    pub fn close(&self) {}
    pub async fn closed(&self) {
        std::future::pending().await
    }
    pub fn is_removed(&self) -> bool {
        false
    }
    pub fn status(&self, _now: Instant) -> EndpointStatus {
        EndpointStatus::default()
    }
}

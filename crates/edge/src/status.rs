//! What the edge says of itself: a snapshot for supervisors and people. Metrics carry the same and more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A consistent-enough snapshot: each figure is exact at some instant during the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the configuration in force on every thread.
    pub generation: u64,
    pub phase: Phase,
    /// Open client connections.
    pub connections: u64,
    /// Requests in flight, upgraded connections included.
    pub in_flight: u64,
    /// Of those that were routed, how many wait for a free or healthy endpoint.
    #[serde(default)]
    pub queued: u64,
    /// Requests that were routed and have ended.
    #[serde(default)]
    pub requests_total: u64,
    /// Sum of the times from the head of a request to the end of its answer.
    #[serde(default)]
    pub request_us_total: u64,
    /// Of those, the ones answered with a status of 500 and above.
    #[serde(default)]
    pub failed_total: u64,
    /// Of those, the ones that the edge refused because the queue was full or the wait too long.
    #[serde(default)]
    pub shed_total: u64,
    /// By endpoint id. Endpoints that left the configuration stay until their last request has ended.
    pub endpoints: BTreeMap<String, EndpointStatus>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Serving,
    /// Accepts nothing new; answers what is in flight with `Connection: close` and GOAWAY.
    Draining,
    Stopped,
}

/// Counters only grow for the life of the edge process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    pub upstream: String,
    pub health: Health,
    pub draining: bool,
    pub in_flight: u64,
    /// Requests that ended, retries and failures to connect included.
    pub requests_total: u64,
    /// Answers by class: 2xx, 3xx, 4xx, 5xx as the instance gave them.
    pub responses_2xx_total: u64,
    pub responses_3xx_total: u64,
    pub responses_4xx_total: u64,
    pub responses_5xx_total: u64,
    /// Failed connects, connections lost before or within an answer, timeouts.
    pub failures_total: u64,
    /// Sum of the times from first byte sent to last byte received, for means over an interval.
    pub latency_us_total: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    #[default]
    Healthy,
    /// Failed its active checks.
    Unhealthy,
    /// Left out for a while for what traffic showed.
    Ejected,
}

//! What the edge is told: listeners, routes, upstreams, limits.
//!
//! The edge knows nothing of manifests, plans or stages. Whoever runs it hands it one [`Config`] at start and further
//! ones while it serves ([`crate::Handle::configure`]); each replaces the one before as a whole. State that must
//! outlive a change (health, in-flight counts, ejections, slow start) is keyed by [`Endpoint::id`], so an endpoint
//! that stands in both configurations keeps it. Durations are milliseconds on the wire, spelled in the field names.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything the edge needs to serve. Immutable once given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Counts configurations; a configuration with a lower generation than the one in force is refused.
    pub generation: u64,
    /// The front listeners by name. Sockets are handed over by the caller under the same names; a name without a
    /// socket is an error, a socket without a name is closed.
    pub listeners: BTreeMap<String, Listener>,
    /// Tried in order; the first that matches takes the request. No match answers 404.
    pub routes: Vec<Route>,
    /// By the name that routes use.
    pub upstreams: BTreeMap<String, Upstream>,
    #[serde(default)]
    pub timeouts: Timeouts,
    #[serde(default)]
    pub limits: Limits,
    /// `None` writes no access log.
    #[serde(default)]
    pub access_log: Option<AccessLog>,
    /// Peers whose `X-Forwarded-*`, `Forwarded`, `X-Request-Id` and `traceparent` are believed (as CIDR blocks); from
    /// everyone else these are replaced. Default: nobody.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// Files of marks (see the crate `freshness`) by the name of the database, one for each that the app uses. With any,
    /// a client that has seen its write acknowledged finds it with its next request, whichever connection and replica
    /// that is served by: it is given a cookie `switchback-fresh` and a field `Switchback-Fresh`, and brings back either.
    /// Opened anew with each configuration. Default: none.
    #[serde(default)]
    pub freshness: BTreeMap<String, PathBuf>,
    /// The zone this edge stands in. With `Some`, endpoints of the same zone are preferred while they have room;
    /// with `None` (one front door for all zones) zones do not weigh.
    #[serde(default)]
    pub zone: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// For messages and `status`; the socket itself comes from the caller.
    pub address: SocketAddr,
    #[serde(default)]
    pub tls: Option<Tls>,
}

/// Certificates are read when a configuration with other files, or another revision of them, is applied; a
/// configuration whose files do not parse is refused as a whole and the one in force stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM, leaf first.
    pub certificate_chain: PathBuf,
    /// PEM, PKCS#8, PKCS#1 or SEC1.
    pub private_key: PathBuf,
    /// Any number that is another one when what the files hold is. Default 0.
    #[serde(default)]
    pub revision: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Exact host (no port, lower case), or `None` for every host.
    #[serde(default)]
    pub host: Option<String>,
    /// Matches whole path segments: `/api` takes `/api` and `/api/x`, not `/apix`. `/` takes all.
    pub path_prefix: String,
    pub upstream: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    pub protocol: UpstreamProtocol,
    pub endpoints: Vec<Endpoint>,
    #[serde(default)]
    pub health: HealthCheck,
    #[serde(default)]
    pub outlier: OutlierDetection,
    #[serde(default)]
    pub retry: RetryBudget,
    /// A new or recovered endpoint's share grows from 10 % to full over this time. 0 switches slow start off; it is
    /// also skipped when no other endpoint is ready.
    #[serde(default = "defaults::slow_start_ms")]
    pub slow_start_ms: u64,
    /// Requests in flight to one endpoint; above it the endpoint is not picked. With every endpoint full a request
    /// waits in a queue bounded by [`Upstream::queue_length`]. Upgraded connections, and streams of events that a GET is
    /// answered with, stay for as long as their clients do and are not counted: [`Limits::max_connections`] bounds them, over
    /// HTTP/2 with [`Limits::h2_concurrent_streams`] on each.
    #[serde(default = "defaults::max_in_flight")]
    pub max_in_flight: u32,
    /// Requests that may wait for a free or healthy endpoint. Above it: 503 with `Retry-After`.
    #[serde(default = "defaults::queue_length")]
    pub queue_length: u32,
    /// Longest wait in that queue before 503.
    #[serde(default = "defaults::queue_timeout_ms")]
    pub queue_timeout_ms: u64,
    /// Bytes of a request body kept in memory so that the request can be sent again. A longer body is not replayed.
    #[serde(default = "defaults::replay_body_bytes")]
    pub replay_body_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    /// HTTP/1.1, one request at a time per connection.
    Http1,
    /// HTTP/2 with prior knowledge (no TLS), many requests per connection: gRPC.
    H2c,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Unique within the edge, stable for the life of the instance behind it.
    pub id: String,
    pub address: SocketAddr,
    #[serde(default)]
    pub zone: Option<String>,
    /// A label that `status` and metrics group by, so that two releases can be compared.
    #[serde(default)]
    pub release: Option<String>,
    /// Draining endpoints get no new request; those in flight finish. They are still picked when nothing else is
    /// left that serves: a draining instance beats a 503.
    #[serde(default)]
    pub draining: bool,
    /// 1 to 1000; relative to the others. Default 100.
    #[serde(default = "defaults::weight")]
    pub weight: u16,
}

/// Active checks. An endpoint starts as healthy: whoever adds it has seen it ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// `None`: a TCP connect is the check.
    pub path: Option<String>,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    /// Consecutive failures before the endpoint leaves the rotation.
    pub unhealthy_threshold: u32,
    /// Consecutive passes before it returns.
    pub healthy_threshold: u32,
}

/// Passive checks: what traffic itself tells. Ejects for `base_ejection_ms` times the number of ejections in a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierDetection {
    /// Failed connects or connections lost before a response, in a row, that eject at once.
    pub consecutive_failures: u32,
    /// Share of 5xx within the window, as a percentage above the share of the other endpoints together.
    pub error_percent_above_others: u8,
    /// Fewer answers than this in a window never eject by share.
    pub minimum_volume: u32,
    pub window_ms: u64,
    pub base_ejection_ms: u64,
    pub max_ejection_ms: u64,
    /// Of all endpoints of the upstream; rounded down, and never the last one.
    pub max_ejected_percent: u8,
}

/// Retries are taken from a budget, so that they cannot multiply an overload. Only requests that were never sent, or
/// idempotent ones (RFC 9110, 9.2.2) of which no response byte came, are retried, never on the same endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryBudget {
    /// Retries as a percentage of the requests of the last ten seconds.
    pub percent: u8,
    /// Retries per second that are always allowed.
    pub min_per_second: u32,
    /// Attempts of one request, the first included.
    pub max_attempts: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    pub tls_handshake_ms: u64,
    /// From the first byte of a request (or the accept) to the end of its head. Answers 408.
    pub request_head_ms: u64,
    /// An idle keep-alive connection is closed after this.
    pub keep_alive_ms: u64,
    /// Longest pause between two reads of a request body. Answers 408.
    pub request_body_idle_ms: u64,
    pub connect_ms: u64,
    /// From the end of the request to the head of the response. Answers 504.
    pub response_head_ms: u64,
    /// Longest pause between two reads of a response body. 0: none (server-sent events may be silent for long; the
    /// default is generous instead).
    pub response_body_idle_ms: u64,
    /// A client that takes no byte for this long is cut off.
    pub write_idle_ms: u64,
    /// WebSocket and other upgraded connections with no byte either way.
    pub tunnel_idle_ms: u64,
    /// An idle pooled upstream connection is closed after this. Shorter than what servers use (Node: 5 s).
    pub upstream_idle_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections of the whole edge. Above it, new ones are closed at once and counted.
    pub max_connections: u32,
    /// Answers 431.
    pub request_head_bytes: usize,
    /// Answers 431.
    pub request_header_count: usize,
    /// Answers 414.
    pub request_target_bytes: usize,
    /// Answers 413. 0: no limit.
    pub request_body_bytes: u64,
    /// Answers 502.
    pub response_head_bytes: usize,
    /// Requests on one keep-alive connection before it is closed; spreads clients over edges. 0: no limit.
    pub requests_per_connection: u64,
    /// HTTP/2 streams open at once on one client connection.
    pub h2_concurrent_streams: u32,
    /// HTTP/2 resets by the client on one connection within ten seconds before it is closed as abuse (CVE-2023-44487).
    pub h2_max_resets: usize,
    /// Idle connections kept per endpoint and thread.
    pub upstream_idle_connections: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// One JSON object a line. Created if absent, appended to otherwise.
    pub path: PathBuf,
    /// The file is renamed to `<path>.1` (replacing it) and begun anew at this size.
    pub rotate_bytes: u64,
}

mod defaults {
    pub(super) fn slow_start_ms() -> u64 {
        5_000
    }
    pub(super) fn max_in_flight() -> u32 {
        1_024
    }
    pub(super) fn queue_length() -> u32 {
        1_024
    }
    pub(super) fn queue_timeout_ms() -> u64 {
        10_000
    }
    pub(super) fn replay_body_bytes() -> usize {
        64 * 1024
    }
    pub(super) fn weight() -> u16 {
        100
    }
}

impl Upstream {
    /// An upstream without endpoints, everything else by default.
    pub fn of(protocol: UpstreamProtocol) -> Upstream {
        Upstream {
            protocol,
            endpoints: Vec::new(),
            health: HealthCheck::default(),
            outlier: OutlierDetection::default(),
            retry: RetryBudget::default(),
            slow_start_ms: defaults::slow_start_ms(),
            max_in_flight: defaults::max_in_flight(),
            queue_length: defaults::queue_length(),
            queue_timeout_ms: defaults::queue_timeout_ms(),
            replay_body_bytes: defaults::replay_body_bytes(),
        }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheck {
            path: None,
            interval_ms: 2_000,
            timeout_ms: 2_000,
            unhealthy_threshold: 3,
            healthy_threshold: 2,
        }
    }
}

impl Default for OutlierDetection {
    fn default() -> Self {
        OutlierDetection {
            consecutive_failures: 5,
            error_percent_above_others: 30,
            minimum_volume: 50,
            window_ms: 10_000,
            base_ejection_ms: 5_000,
            max_ejection_ms: 60_000,
            max_ejected_percent: 50,
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { percent: 20, min_per_second: 10, max_attempts: 3 }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            tls_handshake_ms: 10_000,
            request_head_ms: 10_000,
            keep_alive_ms: 75_000,
            request_body_idle_ms: 30_000,
            connect_ms: 2_000,
            response_head_ms: 60_000,
            response_body_idle_ms: 300_000,
            write_idle_ms: 30_000,
            tunnel_idle_ms: 3_600_000,
            upstream_idle_ms: 4_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: 50_000,
            request_head_bytes: 32 * 1024,
            request_header_count: 100,
            request_target_bytes: 8 * 1024,
            request_body_bytes: 100 * 1024 * 1024,
            response_head_bytes: 64 * 1024,
            requests_per_connection: 0,
            h2_concurrent_streams: 128,
            h2_max_resets: 200,
            upstream_idle_connections: 128,
        }
    }
}

//! What the edge counts, per thread without sharing, summed when somebody asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::balance::Cluster;

/// All recorders of one edge.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    pub fn new() -> Arc<Metrics> {
        Arc::default()
    }
    /// One per thread; keep it for the life of the thread.
    pub fn recorder(&self) -> Arc<Recorder> {
        Arc::default()
    }
    /// The Prometheus text format. Blocks only shortly; call it from the control runtime.
    pub fn expose(&self, _clusters: &[Arc<Cluster>], _access_log_dropped: u64, _now: Instant) -> String {
        String::new()
    }
}

/// The counters of one thread.
#[derive(Debug, Default)]
pub struct Recorder {}

impl Recorder {
    /// The counters of one upstream on this thread: look it up at each configuration, not at each request.
    pub fn upstream(&self, _name: &str) -> Arc<UpstreamRecorder> {
        Arc::default()
    }
    pub fn connection_accepted(&self) {}
    /// Of one that was accepted, not rejected.
    pub fn connection_closed(&self) {}
    pub fn connection_rejected(&self, _reason: ConnectionReject) {}
    /// An answer the edge gave by itself.
    pub fn rejected(&self, _reason: Reject) {}
    pub fn tls_handshake(&self) {}
    pub fn tls_failed(&self) {}
    /// On client connections, heads included.
    pub fn received(&self, _bytes: u64) {}
    pub fn sent(&self, _bytes: u64) {}
    /// Upgraded connections now open.
    pub fn tunnel_opened(&self) {}
    pub fn tunnel_closed(&self) {}
}

/// The counters of one upstream on one thread.
#[derive(Debug, Default)]
pub struct UpstreamRecorder {}

impl UpstreamRecorder {
    /// When a request was routed here; [`UpstreamRecorder::request_ended`] must follow.
    pub fn request_started(&self) {}
    /// `status` as the client got it (0: none), `duration` from the request head to the end of the answer.
    pub fn request_ended(&self, _method: &[u8], _status: u16, _duration: Duration) {}
    pub fn retried(&self) {}
    /// The request found the queue full, or waited there too long.
    pub fn shed(&self) {}
}

/// Why a connection was closed before it was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionReject {
    Limit,
    Draining,
}

/// Why the edge answered by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// 400
    BadRequest,
    /// 404
    NoRoute,
    /// 405
    MethodNotAllowed,
    /// 408
    RequestTimeout,
    /// 413
    BodyTooLarge,
    /// 414
    TargetTooLong,
    /// 417
    ExpectationFailed,
    /// 421
    Misdirected,
    /// 431
    HeadTooLarge,
    /// 501
    NotImplemented,
    /// 502
    BadGateway,
    /// 503
    Unavailable,
    /// 504
    GatewayTimeout,
    /// 505
    VersionNotSupported,
}

impl Reject {
    /// The label, also in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Reject::BadRequest => "bad_request",
            Reject::NoRoute => "no_route",
            Reject::MethodNotAllowed => "method_not_allowed",
            Reject::RequestTimeout => "request_timeout",
            Reject::BodyTooLarge => "body_too_large",
            Reject::TargetTooLong => "target_too_long",
            Reject::ExpectationFailed => "expectation_failed",
            Reject::Misdirected => "misdirected",
            Reject::HeadTooLarge => "head_too_large",
            Reject::NotImplemented => "not_implemented",
            Reject::BadGateway => "bad_gateway",
            Reject::Unavailable => "unavailable",
            Reject::GatewayTimeout => "gateway_timeout",
            Reject::VersionNotSupported => "version_not_supported",
        }
    }
}

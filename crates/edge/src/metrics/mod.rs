//! What the edge counts, per thread without sharing, summed when somebody asks.
//!
//! Each thread writes only its own [`Recorder`], so that counting is a load and a store. The set of series is bounded
//! by the configuration: labels are upstream and endpoint names and the fixed words below, never anything a client
//! sent.

mod exposition;
mod words;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use telemetry::metrics::{Bounds, Counter, Gauge, Histogram};

pub use words::{ConnectionReject, Reject};
use words::{Method, StatusClass};

/// Buckets of request durations, in microseconds: three for each power of ten, from a cache hit to a long poll.
const DURATION_BOUNDS: Bounds = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// All recorders of one edge.
#[derive(Debug, Default)]
pub struct Metrics {
    recorders: Mutex<Vec<Arc<Recorder>>>,
}

impl Metrics {
    pub fn new() -> Arc<Metrics> {
        Arc::default()
    }

    /// One per thread, kept for the life of the edge: what a thread counted stays counted.
    pub fn recorder(&self) -> Arc<Recorder> {
        let recorder = Arc::new(Recorder::default());
        self.recorders().push(Arc::clone(&recorder));
        recorder
    }

    /// Of all threads and upstreams together.
    pub fn requests(&self) -> Requests {
        let mut sum = Requests::default();
        for recorder in self.recorders().iter() {
            for of_thread in recorder.upstreams().values() {
                let by_class = |class: StatusClass| -> u64 {
                    of_thread.requests.iter().map(|of_method| of_method[class as usize].value()).sum()
                };
                sum.ended += StatusClass::ALL.iter().map(|class| by_class(*class)).sum::<u64>();
                sum.failed += by_class(StatusClass::ServerError);
                sum.took_us += of_thread.durations.totals().sum_us();
                sum.shed += of_thread.shed.value();
            }
        }
        sum
    }

    fn recorders(&self) -> MutexGuard<'_, Vec<Arc<Recorder>>> {
        self.recorders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has been asked of the edge so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    pub ended: u64,
    /// Of those, with a status of 500 and above.
    pub failed: u64,
    pub took_us: u64,
    pub shed: u64,
}

/// The counters of one thread; only that thread may write. On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Recorder {
    accepted: Counter,
    open: Gauge,
    tunnels: Gauge,
    connection_rejects: [Counter; ConnectionReject::ALL.len()],
    rejects: [Counter; Reject::ALL.len()],
    tls_handshakes: Counter,
    tls_failures: Counter,
    received: Counter,
    sent: Counter,
    upstreams: Mutex<BTreeMap<String, Arc<UpstreamRecorder>>>,
}

impl Recorder {
    /// The counters of one upstream on this thread: look it up at each configuration, not at each request. A name that
    /// left the configuration keeps its series, for counters must not go back.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamRecorder> {
        Arc::clone(self.upstreams().entry(name.to_owned()).or_default())
    }

    pub fn connection_accepted(&self) {
        self.accepted.add_alone(1);
        self.open.add(1);
    }

    /// Of one that was accepted, not rejected.
    pub fn connection_closed(&self) {
        self.open.add(-1);
    }

    pub fn connection_rejected(&self, reason: ConnectionReject) {
        self.connection_rejects[reason as usize].add_alone(1);
    }

    /// An answer the edge gave by itself.
    pub fn rejected(&self, reason: Reject) {
        self.rejects[reason as usize].add_alone(1);
    }

    pub fn tls_handshake(&self) {
        self.tls_handshakes.add_alone(1);
    }

    pub fn tls_failed(&self) {
        self.tls_failures.add_alone(1);
    }

    /// On client connections, heads included, TLS records not.
    pub fn received(&self, bytes: u64) {
        self.received.add_alone(bytes);
    }

    /// As [`Recorder::received`].
    pub fn sent(&self, bytes: u64) {
        self.sent.add_alone(bytes);
    }

    /// An upgraded connection.
    pub fn tunnel_opened(&self) {
        self.tunnels.add(1);
    }

    pub fn tunnel_closed(&self) {
        self.tunnels.add(-1);
    }

    fn upstreams(&self) -> MutexGuard<'_, BTreeMap<String, Arc<UpstreamRecorder>>> {
        self.upstreams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counters of one upstream on one thread.
#[derive(Debug)]
#[repr(align(128))]
pub struct UpstreamRecorder {
    requests: [[Counter; StatusClass::ALL.len()]; Method::ALL.len()],
    durations: Histogram,
    in_flight: Gauge,
    retries: Counter,
    shed: Counter,
}

impl Default for UpstreamRecorder {
    fn default() -> Self {
        UpstreamRecorder {
            requests: Default::default(),
            durations: Histogram::new(DURATION_BOUNDS),
            in_flight: Gauge::default(),
            retries: Counter::default(),
            shed: Counter::default(),
        }
    }
}

impl UpstreamRecorder {
    /// When a request was routed here; [`UpstreamRecorder::request_ended`] must follow.
    pub fn request_started(&self) {
        self.in_flight.add(1);
    }

    /// `status` as the client got it (0: none was sent), `duration` from the request head to the end of the answer.
    pub fn request_ended(&self, method: &[u8], status: u16, duration: Duration) {
        self.in_flight.add(-1);
        self.requests[Method::of(method) as usize][StatusClass::of(status) as usize].add_alone(1);
        self.durations.record_alone(duration);
    }

    pub fn retried(&self) {
        self.retries.add_alone(1);
    }

    /// The request found the queue full, or waited there too long.
    pub fn shed(&self) {
        self.shed.add_alone(1);
    }
}

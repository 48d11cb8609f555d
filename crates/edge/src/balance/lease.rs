//! One request at one endpoint, from the pick to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Endpoint;
use super::outlier::Sign;

/// One request in flight. Dropped without [`Lease::finish`] it counts as [`Outcome::Cancelled`].
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    /// [`Endpoint::downs`] at the pick.
    downs: u32,
}

/// See [`Lease::lasts`].
#[derive(Debug)]
pub struct Lasting<'a>(&'a Endpoint);

impl Drop for Lasting<'_> {
    fn drop(&mut self) {
        self.0.end_lasting();
    }
}

/// How a request sent to an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer.
    Status(u16),
    /// No connection: nothing was sent.
    ConnectFailed,
    /// The connection broke before or within the answer.
    Lost,
    /// No answer, or no more of it, in time.
    TimedOut,
    /// The client went away; says nothing of the endpoint.
    ClientGone,
    /// It was not sent after all; not counted as a request.
    Cancelled,
}

impl Lease {
    /// The caller has counted the request in flight.
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Lease {
        let downs = endpoint.downs();
        Lease { endpoint, downs }
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Resolves when the endpoint became unhealthy, was ejected or closed after this pick. What was known before does
    /// not count: a request that is sent to an unhealthy endpoint because nothing else is left shall have its chance.
    /// While the endpoint drains only [`Endpoint::close`] counts. Cancel safe.
    pub async fn down(&self) {
        self.endpoint.down_since(self.downs).await;
    }

    /// From here to the drop of the guard the request stays open and is hardly any work: it is in flight, and neither takes a
    /// place of `max_in_flight` nor counts as load.
    pub fn lasts(&self) -> Lasting<'_> {
        self.endpoint.begin_lasting();
        Lasting(&self.endpoint)
    }

    /// Ends the request. `latency` is from the first byte sent to the last one received.
    pub fn finish(self, outcome: Outcome, latency: Duration, now: Instant) {
        if outcome == Outcome::Cancelled {
            return;
        }
        let endpoint = &*self.endpoint;
        count(endpoint, outcome, latency);
        let sign = match outcome {
            Outcome::Status(status) if status < 500 => Sign::Success,
            Outcome::Status(_) => Sign::Error,
            Outcome::ConnectFailed | Outcome::Lost | Outcome::TimedOut => Sign::Failure,
            Outcome::ClientGone | Outcome::Cancelled => return,
        };
        // Gone only when the upstream left the configuration: then nobody asks any more.
        if let Some(cluster) = endpoint.cluster.upgrade() {
            cluster.learn(endpoint, outcome, sign, endpoint.clock.at(now));
        }
    }
}

fn count(endpoint: &Endpoint, outcome: Outcome, latency: Duration) {
    let counters = &endpoint.counters;
    add(&counters.requests, 1);
    add(&counters.latency_us, u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    match outcome {
        Outcome::Status(200..=299) => add(&counters.responses_2xx, 1),
        Outcome::Status(300..=399) => add(&counters.responses_3xx, 1),
        Outcome::Status(400..=499) => add(&counters.responses_4xx, 1),
        Outcome::Status(500..=599) => add(&counters.responses_5xx, 1),
        Outcome::ConnectFailed | Outcome::Lost | Outcome::TimedOut => add(&counters.failures, 1),
        Outcome::Status(_) | Outcome::ClientGone | Outcome::Cancelled => {}
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.leave();
    }
}

//! What a rehearsal measured: what is written, compared, diagnosed and drawn.
//!
//! Times are microseconds, and count from the moment that a request was meant to be sent, not from when it was: an app that
//! holds up the generator cannot hide behind that ("coordinated omission").

pub mod json;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Of this form. A record of another is refused.
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub app: String,
    /// What the app was then, such as `stage 2, 2 web, 1 primary, 1 standby`.
    pub shape: String,
    /// Where it was asked, such as `http://127.0.0.1:8080`.
    pub target: String,
    pub profile: String,
    pub seed: u64,
    pub began: Timestamp,
    /// Why it ended before its time. `None`: it did not.
    pub cut_short: Option<String>,
    pub validity: Validity,
    /// Which requests failed: the first [`MOST_FAILED`] kinds of them.
    #[serde(default)]
    pub failed: Vec<FailedRequests>,
    /// What a search found. `None`: it was none, or was broken off before it could.
    #[serde(default)]
    pub found: Option<Found>,
    /// One for each second, without gaps.
    pub seconds: Vec<Second>,
    /// What the tiers measured of themselves meanwhile.
    pub tiers: Vec<Tier>,
    /// What happened meanwhile, such as a failover, an instance that came, a new stage.
    pub events: Vec<Event>,
}

impl Record {
    /// Whether what it says is the app's doing, and all of it: it is valid, and was not cut short.
    pub fn is_proof(&self) -> bool {
        self.validity.faults.is_empty() && self.cut_short.is_none()
    }
}

/// What a search is called, as a profile.
pub const SEARCH: &str = "find";

/// What an app can serve, in requests per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Up to which the objective was kept. 0: it was at no rate that was tried.
    pub kept: f64,
    /// At which the app gave way. `None`: at none that was tried.
    pub gave_way: Option<f64>,
}

/// Kinds of failed requests that are told apart. Of more there is their number by class and second.
pub const MOST_FAILED: usize = 20;

/// Requests that failed in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRequests {
    pub path: String,
    pub outcome: Outcome,
    /// Of an answer that had one.
    pub status: Option<u16>,
    /// At least: who counts them keeps no more than [`MOST_FAILED`] kinds.
    pub count: u64,
}

/// Adds to those of the same kind, or where there is room for another.
pub fn add_failed(all: &mut Vec<FailedRequests>, more: FailedRequests) {
    let is_same = |one: &&mut FailedRequests| {
        one.path == more.path && one.outcome == more.outcome && one.status == more.status
    };
    let has_room = all.len() < MOST_FAILED;
    match all.iter_mut().find(is_same) {
        Some(one) => one.count += more.count,
        None if has_room => all.push(more),
        None => {}
    }
}

/// Whether the generator did what it was told, so that what it saw is the app's doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Validity {
    /// Between the intended moment and that at which the request was handed to the kernel or to a wait for a connection.
    pub schedule_error_p99_us: u64,
    /// Processor time of the generator, per request.
    pub cpu_us_per_request: f64,
    /// Of the whole machine's processor time, from 0 to 1.
    pub cpu_share: f64,
    /// Of the machine's processor time taken by other guests of its host, from 0 to 1.
    pub stolen: f64,
    /// Requests not sent because a limit of the generator was reached.
    pub not_offered: u64,
    /// What makes it invalid, in words. Empty: it is valid.
    pub faults: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Whole seconds since it began. A request belongs to the second in which it was meant to be sent.
    pub at: u32,
    /// The phase that it began in.
    pub phase: String,
    /// Visits that were to begin by the load, per second.
    pub wished_visits: f64,
    /// Visits that began.
    pub visits: u32,
    /// Visits under way at its end, those who read included.
    pub visitors: u32,
    pub connections: u32,
    pub classes: BTreeMap<String, ClassSecond>,
}

/// Requests of one class that were meant to be sent in one second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassSecond {
    /// All of them. Those without an outcome yet are what `outcomes` is short of.
    pub sent: u32,
    /// By [`Outcome`].
    pub outcomes: BTreeMap<Outcome, u32>,
    /// Of those that were answered in full, whatever the status: latency from the intended moment, as pairs of a bucket's
    /// upper bound in µs and a count. Buckets are those of `hdrhistogram` with two significant digits.
    pub latency: Vec<(u64, u32)>,
    /// As `latency`, from the moment that it was really sent.
    pub service: Vec<(u64, u32)>,
    /// Of `latency`, what is of answers that were not as they should be, by [`Outcome`]: who is turned away at once has not been
    /// served fast. Records of before this was told apart have none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub latency_not_ok: BTreeMap<Outcome, Vec<(u64, u32)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok,
    /// 429, or 503 with `Retry-After`: the app said that it does not want more.
    Shed,
    /// Any other status than was expected.
    Status,
    /// Could not connect.
    Refused,
    /// The connection ended within the answer, or the answer was not HTTP.
    Broken,
    /// No whole answer within the visitor's patience.
    GaveUp,
    /// More redirects, or a larger body, than a visitor takes.
    TooMuch,
}

/// A part of the app that requests go through, such as `edge`, `web`, `pgproxy`, `primary`, `replicas`, or the `machine`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tier {
    pub name: String,
    /// One for each second that was looked at.
    pub seconds: Vec<TierSecond>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TierSecond {
    pub at: u32,
    /// Processes of it that were ready.
    pub members: u32,
    /// Processor time, in cores: 1.5 is one and a half.
    pub cpu: f64,
    /// What it may use, in cores.
    pub cpu_allowed: f64,
    /// Of the second, how long it was held back by its control group, from 0 to 1.
    pub throttled: f64,
    /// Work under way in it.
    pub in_flight: f64,
    /// Work that waits in front of it.
    pub waiting: f64,
    /// Finished in this second.
    pub done: f64,
    pub errors: f64,
    /// Anything else that this tier measures, by name, such as `lag_ms` of replicas or `pool_wait_us` of the proxy.
    pub more: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since it began.
    pub at_ms: u64,
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_alike_is_counted_and_of_too_many_kinds_the_first_are_kept() {
        let one = |n: usize| FailedRequests {
            path: format!("/{n}"),
            outcome: Outcome::Status,
            status: Some(404),
            count: 2,
        };
        let mut all = Vec::new();
        (0..MOST_FAILED + 5).chain([0]).for_each(|n| add_failed(&mut all, one(n)));
        assert_eq!((all.len(), all[0].count, all[1].count), (MOST_FAILED, 4, 2));
        add_failed(&mut all, FailedRequests { status: Some(500), ..one(0) });
        assert_eq!(all[0].count, 4);
    }
}

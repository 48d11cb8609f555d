//! What came of a load.

use std::collections::BTreeMap;
use std::time::Duration;

/// Failures that are kept in words; more are only counted.
const FAILURES_KEPT: usize = 20;

/// The end of a load.
#[derive(Debug, Clone)]
pub struct LoadReport {
    /// Answered and failed together.
    pub requests: u64,
    pub failed: u64,
    /// The first ones of each worker in words, 20 at most.
    pub failures: Vec<String>,
    /// From before the connect to the last byte of the answer.
    pub longest_ms: u64,
    pub by_status: BTreeMap<u16, u64>,
    pub seconds: f64,
}

impl LoadReport {
    /// # Panics
    /// When a request failed, or fewer than `at_least` were made, which would prove little.
    pub fn assert_nothing_failed(&self, at_least: u64) {
        assert!(self.failed == 0 && self.requests >= at_least, "wanted {at_least} and no failure: {self:#?}");
    }
}

/// How one request ended.
pub(super) enum Outcome {
    Answered(u16),
    /// In words.
    Failed(String),
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    requests: u64,
    failed: u64,
    failures: Vec<String>,
    longest: Duration,
    by_status: BTreeMap<u16, u64>,
    pub(super) seconds: f64,
}

impl Tally {
    pub(super) fn note(&mut self, outcome: Outcome, took: Duration) {
        self.requests += 1;
        self.longest = self.longest.max(took);
        match outcome {
            Outcome::Answered(status) => {
                *self.by_status.entry(status).or_default() += 1;
                if !(200..400).contains(&status) {
                    self.fail(format!("status {status} after {took:.1?}"));
                }
            }
            Outcome::Failed(why) => self.fail(format!("{why} after {took:.1?}")),
        }
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(why);
        }
    }

    pub(super) fn add(&mut self, other: Tally) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.longest = self.longest.max(other.longest);
        self.failures.extend(other.failures);
        self.failures.truncate(FAILURES_KEPT);
        for (status, count) in other.by_status {
            *self.by_status.entry(status).or_default() += count;
        }
    }

    pub(super) fn into_report(self) -> LoadReport {
        LoadReport {
            requests: self.requests,
            failed: self.failed,
            failures: self.failures,
            longest_ms: u64::try_from(self.longest.as_millis()).unwrap_or(u64::MAX),
            by_status: self.by_status,
            seconds: self.seconds,
        }
    }
}

//! Requests of many seconds or classes, taken together.

use std::collections::BTreeMap;

use crate::record::{ClassSecond, Outcome, Second};

/// Of a thousand.
pub const P50: u64 = 500;
pub const P90: u64 = 900;
pub const P99: u64 = 990;

#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub sent: u64,
    pub outcomes: BTreeMap<Outcome, u64>,
    pub latency: Spread,
    pub service: Spread,
}

impl Tally {
    pub fn add(&mut self, class: &ClassSecond) {
        self.sent += u64::from(class.sent);
        for (outcome, n) in &class.outcomes {
            *self.outcomes.entry(*outcome).or_default() += u64::from(*n);
        }
        self.latency.add(&class.latency);
        self.service.add(&class.service);
    }

    pub fn join(&mut self, other: &Tally) {
        self.sent += other.sent;
        for (outcome, n) in &other.outcomes {
            *self.outcomes.entry(*outcome).or_default() += n;
        }
        self.latency.join(&other.latency);
        self.service.join(&other.service);
    }

    /// Every class of every second.
    pub fn of_all<'a>(seconds: impl IntoIterator<Item = &'a Second>) -> Tally {
        let mut tally = Tally::default();
        for class in seconds.into_iter().flat_map(|second| second.classes.values()) {
            tally.add(class);
        }
        tally
    }

    pub fn with(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(&outcome).copied().unwrap_or(0)
    }

    pub fn ok(&self) -> u64 {
        self.with(Outcome::Ok)
    }

    pub fn shed(&self) -> u64 {
        self.with(Outcome::Shed)
    }

    pub fn failed(&self) -> u64 {
        let failures = self.outcomes.iter().filter(|(outcome, _)| is_failure(**outcome));
        failures.map(|(_, n)| n).sum()
    }

    /// Sent, and nothing known of the end.
    pub fn unfinished(&self) -> u64 {
        self.sent.saturating_sub(self.outcomes.values().sum())
    }
}

/// What was announced, by shedding, is none.
pub fn is_failure(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::Ok | Outcome::Shed)
}

pub fn name_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Shed => "shed",
        Outcome::Status => "wrong status",
        Outcome::Refused => "no connection",
        Outcome::Broken => "broken off",
        Outcome::GaveUp => "gave up waiting",
        Outcome::TooMuch => "too large, or sent in circles",
    }
}

/// Times in µs, by the upper bounds of their buckets.
#[derive(Debug, Clone, Default)]
pub struct Spread {
    buckets: BTreeMap<u64, u64>,
    count: u64,
}

impl Spread {
    pub fn add(&mut self, buckets: &[(u64, u32)]) {
        for &(bound, n) in buckets.iter().filter(|(_, n)| *n > 0) {
            *self.buckets.entry(bound).or_default() += u64::from(n);
            self.count += u64::from(n);
        }
    }

    fn join(&mut self, other: &Spread) {
        for (bound, n) in other.buckets() {
            *self.buckets.entry(bound).or_default() += n;
        }
        self.count += other.count;
    }

    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().map(|(bound, n)| (*bound, *n))
    }

    /// The smallest bound that `per_mille` of a thousand do not exceed. `None`: there is nothing.
    pub fn quantile(&self, per_mille: u64) -> Option<u64> {
        let rank = (u128::from(self.count) * u128::from(per_mille)).div_ceil(1_000).max(1);
        let mut seen = 0;
        self.buckets().find_map(|(bound, n)| {
            seen += u128::from(n);
            (seen >= rank).then_some(bound)
        })
    }

    pub fn max(&self) -> Option<u64> {
        self.buckets.last_key_value().map(|(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_bound_that_so_many_do_not_exceed() {
        let mut spread = Spread::default();
        assert_eq!(spread.quantile(P50), None);
        spread.add(&[(10, 50), (20, 40), (30, 0)]);
        spread.add(&[(30, 9), (400, 1)]);
        let quantiles = [0, P50, 501, P90, P99, 1_000].map(|per_mille| spread.quantile(per_mille));
        assert_eq!(quantiles, [10, 10, 20, 20, 30, 400].map(Some));
        assert_eq!((spread.count, spread.max()), (100, Some(400)));
    }

    #[test]
    fn what_was_shed_did_not_fail_and_what_has_no_outcome_is_unfinished() {
        let outcomes = [(Outcome::Ok, 5), (Outcome::Shed, 3), (Outcome::GaveUp, 1), (Outcome::Status, 1)];
        let class = ClassSecond { sent: 12, outcomes: outcomes.into(), ..ClassSecond::default() };
        let mut tally = Tally::default();
        tally.add(&class);
        tally.add(&class);
        assert_eq!((tally.ok(), tally.shed(), tally.failed(), tally.unfinished()), (10, 6, 4, 4));
    }
}

//! The retry budget: retries stay a small share of the requests, so that they cannot multiply an overload.
//!
//! Requests and retries are counted per second in two rings. A retry is allowed while the retries of the last ten
//! seconds are fewer than `percent` of the requests of those seconds, or while fewer than `min_per_second` were made
//! in this second. The second rule is what lets a quiet service retry at all.

use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::Tick;
use crate::config;

/// Seconds that the share is taken over.
const SECONDS: u64 = 10;

#[derive(Debug, Default)]
pub(super) struct Budget {
    requests: PerSecond,
    retries: PerSecond,
}

impl Budget {
    pub(super) fn request(&self, now: Tick) {
        self.requests.add(now.second());
    }

    /// Takes one retry, or says no. Two threads may both take the last one: the budget bounds load, it is no quota.
    pub(super) fn take(&self, limits: &config::RetryBudget, now: Tick) -> bool {
        let second = now.second();
        let share = self.requests.last(SECONDS, second) * u64::from(limits.percent) / 100;
        let allowed = self.retries.last(SECONDS, second) < share
            || self.retries.last(1, second) < u64::from(limits.min_per_second);
        if allowed {
            self.retries.add(second);
        }
        allowed
    }
}

/// Counts per second, for the last [`SLOTS`] seconds. Each slot packs the second it belongs to (upper half) with the
/// count (lower half), so that taking over a slot of an old second is one compare-and-swap.
#[derive(Debug, Default)]
struct PerSecond {
    slots: [AtomicU64; SLOTS],
}

const SLOTS: usize = 16;

impl PerSecond {
    fn add(&self, second: u64) {
        let slot = &self.slots[(second as usize) % SLOTS];
        let mut seen = slot.load(Ordering::Relaxed);
        loop {
            let next = if stamp(seen) == second as u32 {
                // 2^32 requests in one second do not happen; should they, the count stands still.
                if count(seen) == u32::MAX { seen } else { seen + 1 }
            } else {
                pack(second as u32, 1)
            };
            match slot.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => seen = changed,
            }
        }
    }

    /// The sum of the last `seconds`, the current one included.
    fn last(&self, seconds: u64, now: u64) -> u64 {
        (now.saturating_sub(seconds - 1)..=now)
            .map(|second| {
                let seen = self.slots[(second as usize) % SLOTS].load(Ordering::Relaxed);
                if stamp(seen) == second as u32 { u64::from(count(seen)) } else { 0 }
            })
            .sum()
    }
}

fn pack(stamp: u32, count: u32) -> u64 {
    u64::from(stamp) << 32 | u64::from(count)
}

fn stamp(packed: u64) -> u32 {
    (packed >> 32) as u32
}

fn count(packed: u64) -> u32 {
    packed as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(percent: u8, min_per_second: u32) -> config::RetryBudget {
        config::RetryBudget { percent, min_per_second, max_attempts: 3 }
    }

    fn at_second(second: u64) -> Tick {
        Tick(second * 1_000_000)
    }

    #[test]
    fn a_quiet_service_may_retry_the_minimum_each_second() {
        let budget = Budget::default();
        for second in 1..40 {
            let taken = (0..20).filter(|_| budget.take(&limits(20, 3), at_second(second))).count();
            assert_eq!(taken, 3, "in second {second}");
        }
    }

    #[test]
    fn retries_are_a_share_of_the_requests_of_the_last_ten_seconds() {
        let budget = Budget::default();
        for request in 0..1_000 {
            budget.request(at_second(1 + request / 100));
        }
        let taken = (0..1_000).filter(|_| budget.take(&limits(20, 0), at_second(10))).count();
        assert_eq!(taken, 200);
    }

    #[test]
    fn requests_older_than_ten_seconds_no_longer_pay_for_retries() {
        let budget = Budget::default();
        for _ in 0..1_000 {
            budget.request(at_second(1));
        }
        assert!(!budget.take(&limits(20, 0), at_second(11)));
        // The ring has fewer slots than seconds have passed: what is read must still be of the right second.
        assert!(!budget.take(&limits(20, 0), at_second(1 + SLOTS as u64)));
    }

    #[test]
    fn a_budget_of_nothing_allows_nothing() {
        let budget = Budget::default();
        budget.request(at_second(1));
        assert!(!budget.take(&limits(0, 0), at_second(1)));
    }
}

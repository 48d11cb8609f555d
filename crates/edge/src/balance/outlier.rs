//! What traffic tells of one endpoint: failures in a row, and the share of errors within a window.
//!
//! Only the evidence is kept here. Whether it is enough to eject depends on the other endpoints and is decided by the
//! cluster.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::clock::Tick;

/// Answers and errors of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    failures_in_a_row: AtomicU32,
    window: AtomicU64,
}

/// What a window counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) answers: u64,
    pub(super) errors: u64,
}

impl Tally {
    pub(super) fn plus(self, other: Tally) -> Tally {
        Tally { answers: self.answers + other.answers, errors: self.errors + other.errors }
    }

    /// Whether errors are at least `margin` percentage points more frequent here than in `others`. Nothing to compare
    /// with is no evidence.
    pub(super) fn is_worse_than(self, others: Tally, margin: u8) -> bool {
        if self.answers == 0 || others.answers == 0 {
            return false;
        }
        let here = self.errors * 100 * others.answers;
        let there = others.errors * 100 * self.answers;
        here >= there + u64::from(margin) * self.answers * others.answers
    }
}

/// One answer, as far as outliers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Success,
    /// An answer, but a 5xx: the connection works.
    Error,
    /// No answer.
    Failure,
}

impl Evidence {
    pub(super) fn record(&self, sign: Sign, now: Tick, window: Duration) {
        match sign {
            Sign::Failure => {
                self.failures_in_a_row.fetch_add(1, Ordering::Relaxed);
            }
            // The load spares a healthy endpoint the contended write.
            Sign::Success | Sign::Error => {
                if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
                    self.failures_in_a_row.store(0, Ordering::Relaxed);
                }
            }
        }
        let index = window_index(now, window);
        let error = u32::from(sign != Sign::Success);
        let mut seen = self.window.load(Ordering::Relaxed);
        loop {
            let packed = Packed::from(seen).add(index, error);
            match self.window.compare_exchange_weak(seen, packed, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => seen = changed,
            }
        }
    }

    pub(super) fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row.load(Ordering::Relaxed)
    }

    /// Of the window that `now` falls in.
    pub(super) fn tally(&self, now: Tick, window: Duration) -> Tally {
        let packed = Packed::from(self.window.load(Ordering::Relaxed));
        if packed.index != window_index(now, window) {
            return Tally::default();
        }
        Tally { answers: u64::from(packed.answers), errors: u64::from(packed.errors) }
    }

    /// An ejected endpoint comes back with a clean slate.
    pub(super) fn forget(&self) {
        self.failures_in_a_row.store(0, Ordering::Relaxed);
        self.window.store(0, Ordering::Relaxed);
    }
}

/// A window in one word, so that counting needs no lock: 16 bits say which window, 24 bits each count answers and
/// errors. At 16 million answers a window counts no further, which leaves its share right.
struct Packed {
    index: u16,
    answers: u32,
    errors: u32,
}

const COUNT_BITS: u32 = 24;
const COUNT_MAX: u32 = (1 << COUNT_BITS) - 1;

impl Packed {
    fn add(self, index: u16, error: u32) -> u64 {
        let (answers, errors) = if self.index == index { (self.answers, self.errors) } else { (0, 0) };
        if answers == COUNT_MAX {
            return pack(index, answers, errors);
        }
        pack(index, answers + 1, errors + error)
    }
}

fn pack(index: u16, answers: u32, errors: u32) -> u64 {
    u64::from(index) << (2 * COUNT_BITS) | u64::from(answers) << COUNT_BITS | u64::from(errors)
}

impl From<u64> for Packed {
    fn from(word: u64) -> Packed {
        Packed {
            index: (word >> (2 * COUNT_BITS)) as u16,
            answers: (word >> COUNT_BITS) as u32 & COUNT_MAX,
            errors: word as u32 & COUNT_MAX,
        }
    }
}

fn window_index(now: Tick, window: Duration) -> u16 {
    let window = window.as_micros().max(1);
    // Sixteen bits: a window is mistaken for another only after 65,536 windows without an answer between them.
    (u128::from(now.0) / window) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn failures_in_a_row_end_with_any_answer() {
        let evidence = Evidence::default();
        evidence.record(Sign::Failure, Tick(1), WINDOW);
        evidence.record(Sign::Failure, Tick(2), WINDOW);
        assert_eq!(evidence.failures_in_a_row(), 2);
        evidence.record(Sign::Error, Tick(3), WINDOW);
        assert_eq!(evidence.failures_in_a_row(), 0);
    }

    #[test]
    fn a_window_forgets_the_one_before() {
        let evidence = Evidence::default();
        for _ in 0..7 {
            evidence.record(Sign::Error, Tick(5), WINDOW);
        }
        let next = Tick(5).after(WINDOW);
        assert_eq!(evidence.tally(next, WINDOW), Tally::default());
        evidence.record(Sign::Success, next, WINDOW);
        assert_eq!(evidence.tally(next, WINDOW), Tally { answers: 1, errors: 0 });
    }

    #[test]
    fn an_endpoint_is_worse_only_by_the_margin() {
        let others = Tally { answers: 1_000, errors: 100 };
        let at = |errors| Tally { answers: 100, errors };
        assert!(!at(39).is_worse_than(others, 30));
        assert!(at(40).is_worse_than(others, 30));
    }

    #[test]
    fn without_others_nobody_is_worse() {
        let bad = Tally { answers: 100, errors: 100 };
        assert!(!bad.is_worse_than(Tally::default(), 30));
    }
}

//! How many visits began when, over as long a time as there is, in bounded memory.

use serde::Serialize;

/// Counts of visits in equal stretches of time. The stretches double when there would be too many.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rates {
    /// Unix time of the first stretch.
    begin_s: i64,
    /// Of one stretch.
    width_s: i64,
    counts: Vec<u32>,
}

/// Four and a half hours by the second, then by two seconds, and so on.
const MAX_STRETCHES: usize = 16_384;

impl Rates {
    /// Nothing yet.
    pub fn new() -> Rates {
        Rates { begin_s: 0, width_s: 1, counts: Vec::new() }
    }

    /// One visit that began then. What is before the first counts as with it: lines of a log are out of order by some
    /// milliseconds.
    pub fn count(&mut self, unix_s: i64) {
        if self.counts.is_empty() {
            self.begin_s = unix_s;
        }
        let since = unix_s.saturating_sub(self.begin_s).max(0);
        while since / self.width_s >= MAX_STRETCHES as i64 {
            self.widen();
        }
        let at = usize::try_from(since / self.width_s).unwrap_or_default();
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] = self.counts[at].saturating_add(1);
    }

    fn widen(&mut self) {
        self.counts = self
            .counts
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |sum: u32, c| sum.saturating_add(*c)))
            .collect();
        self.width_s *= 2;
    }

    /// Seconds that one count is over.
    pub fn width_s(&self) -> u64 {
        self.width_s.unsigned_abs()
    }

    pub fn visits(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// From the first visit to the last.
    pub fn seconds(&self) -> u64 {
        self.counts.len() as u64 * self.width_s()
    }

    /// Visits per second on the whole. `None` without a visit.
    pub fn mean(&self) -> Option<f64> {
        (!self.counts.is_empty()).then(|| self.visits() as f64 / self.seconds() as f64)
    }

    /// The counts of the stretch of so many seconds, or of all that there is, in which most visits began.
    pub fn busiest(&self, seconds: u64) -> &[u32] {
        let wanted = usize::try_from(seconds.div_ceil(self.width_s())).unwrap_or(usize::MAX).max(1);
        if wanted >= self.counts.len() {
            return &self.counts;
        }
        let sum = |counts: &[u32]| counts.iter().map(|count| u64::from(*count)).sum::<u64>();
        let mut current = sum(&self.counts[..wanted]);
        let (mut most, mut best) = (current, 0);
        for at in wanted..self.counts.len() {
            current = current + u64::from(self.counts[at]) - u64::from(self.counts[at - wanted]);
            if current > most {
                (most, best) = (current, at + 1 - wanted);
            }
        }
        &self.counts[best..best + wanted]
    }
}

impl Default for Rates {
    fn default() -> Rates {
        Rates::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_are_counted_by_the_second() {
        let mut rates = Rates::new();
        for at in [100, 100, 103, 102, 99] {
            rates.count(at);
        }
        assert_eq!((rates.counts.clone(), rates.visits(), rates.seconds()), (vec![3, 0, 1, 1], 5, 4));
        assert_eq!(rates.mean(), Some(1.25));
        assert_eq!(Rates::new().mean(), None);
    }

    #[test]
    fn however_long_a_log_is_its_memory_is_bounded_and_no_visit_is_lost() {
        let mut rates = Rates::new();
        for at in (0..1_000_000).step_by(100) {
            rates.count(at);
        }
        assert!(rates.counts.len() <= MAX_STRETCHES && rates.width_s() == 64);
        assert_eq!(rates.visits(), 10_000);
        // A clock that is far off costs precision, not memory.
        rates.count(i64::MAX);
        assert!(rates.counts.len() <= MAX_STRETCHES);
        assert_eq!(rates.visits(), 10_001);
    }

    #[test]
    fn the_busiest_stretch_is_found() {
        let mut rates = Rates::new();
        for (at, visits) in [(0, 3), (1, 1), (5, 2), (6, 4), (7, 2), (20, 5)] {
            (0..visits).for_each(|_| rates.count(at));
        }
        assert_eq!(rates.busiest(3), [2, 4, 2]);
        assert_eq!(rates.busiest(1), [5]);
        assert_eq!(rates.busiest(1_000), rates.counts);
        assert!(Rates::new().busiest(3).is_empty());
    }
}

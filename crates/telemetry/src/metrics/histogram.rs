//! Durations in fixed buckets.

use std::time::Duration;

use super::Counter;

/// Upper bounds of the buckets, in microseconds, rising; one more bucket without a bound follows.
pub type Bounds = &'static [u64];

/// Durations seen. Give each thread its own and add up [`HistogramTotals`], or share one.
#[derive(Debug)]
pub struct Histogram {
    bounds: Bounds,
    buckets: Box<[Counter]>,
    sum_us: Counter,
}

/// The counts of one or more histograms with the same bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramTotals {
    pub(super) bounds: Bounds,
    /// Per bucket, not cumulated; the last is the one without a bound.
    pub(super) buckets: Vec<u64>,
    pub(super) sum_us: u64,
}

impl Histogram {
    pub fn new(bounds: Bounds) -> Histogram {
        Histogram {
            bounds,
            buckets: (0..=bounds.len()).map(|_| Counter::default()).collect(),
            sum_us: Counter::default(),
        }
    }

    /// From any thread. A value on a bound belongs to the bucket below it, as Prometheus' `le` says.
    pub fn record(&self, duration: Duration) {
        let us = micros(duration);
        self.bucket(us).add(1);
        self.sum_us.add(us);
    }

    /// Cheaper, and exact as long as all records come from one thread.
    pub fn record_alone(&self, duration: Duration) {
        let us = micros(duration);
        self.bucket(us).add_alone(1);
        self.sum_us.add_alone(us);
    }

    fn bucket(&self, us: u64) -> &Counter {
        &self.buckets[self.bounds.partition_point(|bound| *bound < us)]
    }

    pub fn totals(&self) -> HistogramTotals {
        HistogramTotals {
            bounds: self.bounds,
            buckets: self.buckets.iter().map(Counter::value).collect(),
            sum_us: self.sum_us.value(),
        }
    }
}

impl HistogramTotals {
    pub fn none(bounds: Bounds) -> HistogramTotals {
        HistogramTotals { bounds, buckets: vec![0; bounds.len() + 1], sum_us: 0 }
    }

    /// Adds the counts of another thread.
    ///
    /// # Panics
    /// When the bounds differ: these are not parts of one histogram.
    pub fn add(&mut self, other: &HistogramTotals) {
        assert_eq!(self.bounds, other.bounds, "histograms with different bounds");
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.sum_us += other.sum_us;
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Of all values, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_belongs_below_it() {
        let histogram = Histogram::new(&[100, 1_000]);
        for us in [0, 100, 101, 1_000, 1_001] {
            histogram.record(Duration::from_micros(us));
        }
        let totals = histogram.totals();
        assert_eq!(totals.buckets, [2, 2, 1]);
        assert_eq!(totals.count(), 5);
        assert_eq!(totals.sum_us, 2_202);
    }

    #[test]
    fn totals_of_threads_add_up() {
        let (one, two) = (Histogram::new(&[10]), Histogram::new(&[10]));
        one.record_alone(Duration::from_micros(5));
        two.record_alone(Duration::from_micros(50));
        let mut totals = HistogramTotals::none(&[10]);
        totals.add(&one.totals());
        totals.add(&two.totals());
        assert_eq!(totals.buckets, [1, 1]);
        assert_eq!(totals.sum_us, 55);
    }
}

//! Counts of latencies in buckets whose width grows with the latency.
//!
//! `hdrhistogram` with two significant digits: a value is known to within one percent, whether it is a microsecond or a minute.

/// What is longer is counted as this long. No visitor waits so long ([`crate::load::Limits::patience_ms`]).
const LONGEST_US: u64 = 3_600_000_000;
const DIGITS: u8 = 2;

#[derive(Debug, Clone)]
pub struct Histogram(hdrhistogram::Histogram<u32>);

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    /// Grows with what is recorded: one of fast answers takes a kilobyte or two.
    ///
    pub fn new() -> Histogram {
        Histogram(hdrhistogram::Histogram::new(DIGITS).expect("two digits are within its bounds"))
    }

    pub fn record(&mut self, micros: u64) {
        self.0.record(micros.min(LONGEST_US)).expect("it grows with what it is given");
    }

    pub fn add(&mut self, other: &Histogram) {
        self.0.add(&other.0).expect("it grows with what it is given");
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that so much of all, from 0 to 1, does not exceed. 0 when empty.
    pub fn quantile(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share)
    }

    /// Upper bounds of buckets in µs, and how many are in each.
    pub fn pairs(&self) -> Vec<(u64, u32)> {
        let recorded = self.0.iter_recorded();
        recorded.map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_known_to_a_percent() {
        for micros in [1, 99, 150, 12_345, 8_000_000, 600_000_000] {
            let mut histogram = Histogram::new();
            histogram.record(micros);
            let [(bound, 1)] = histogram.pairs()[..] else { panic!("one bucket") };
            assert!(bound >= micros && bound as f64 <= micros as f64 * 1.01 + 1.0, "{micros}: {bound}");
        }
    }

    #[test]
    fn what_threads_counted_adds_up() {
        let (mut one, mut other) = (Histogram::new(), Histogram::new());
        (0..1_000).for_each(|micros| one.record(micros));
        (0..500).for_each(|_| other.record(5_000_000));
        one.add(&other);
        let pairs = one.pairs();
        assert_eq!(pairs.iter().map(|(_, count)| *count).sum::<u32>(), 1_500);
        assert_eq!(pairs.last().unwrap().1, 500);
        assert!(one.quantile(0.5) < 1_000 && one.quantile(0.99) >= 5_000_000);
    }

    #[test]
    fn what_is_absurdly_long_is_counted_all_the_same() {
        let mut histogram = Histogram::new();
        histogram.record(u64::MAX);
        assert_eq!(histogram.pairs().len(), 1);
    }
}

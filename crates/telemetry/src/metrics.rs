//! Counters, gauges and histograms, and the text in which Prometheus reads them.
//!
//! There is no registry: an owner keeps its metrics as fields with names of their own, and lists them when asked. The
//! set of series is therefore visible in one place of each crate, and bounded by its configuration.

mod exposition;
mod histogram;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

pub use exposition::{Exposition, Family, Kind, Labels};
pub use histogram::{Bounds, Histogram, HistogramTotals};

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// From any thread.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Cheaper, and exact as long as all additions come from one thread. Anyone may read.
    pub fn add_alone(&self, amount: u64) {
        let value = self.0.load(Ordering::Relaxed);
        self.0.store(value.wrapping_add(amount), Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes up and down. Shards of one gauge may be negative by themselves: what one thread opened another may close.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

//! What the model is made of: chance, processors, queues, sums.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

/// Deterministic, good enough for arrivals (SplitMix64).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// From 0 to below 1.
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    pub fn is(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// About 1, off by a few hundredths: no measurement is exact.
    pub fn about_one(&mut self) -> f64 {
        1.0 + 0.04 * (self.unit() + self.unit() - 1.0)
    }
}

/// Of a request.
pub type Id = usize;

/// A process whose requests share its processors evenly. Virtual time is work done for each.
#[derive(Debug, Default)]
pub struct Processors {
    pub limit: f64,
    pub threads: f64,
    pub virtual_time: f64,
    pub rate: f64,
    pub jobs: BinaryHeap<Reverse<(Ordered, Id)>>,
    pub used: f64,
    pub held_back: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ordered(pub f64);
impl Eq for Ordered {}
impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Ordered) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Ordered {
    fn cmp(&self, other: &Ordered) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Processors {
    pub fn new(limit: f64, threads: Option<usize>) -> Processors {
        Processors {
            limit,
            threads: threads.map_or(f64::INFINITY, |count| count as f64),
            ..Processors::default()
        }
    }

    pub fn runnable(&self) -> f64 {
        (self.jobs.len() as f64).min(self.threads)
    }

    pub fn wants(&self) -> f64 {
        self.runnable().min(self.limit)
    }
}

/// A queue with servers.
#[derive(Debug)]
pub struct Queue {
    pub free: usize,
    pub waiting: VecDeque<Id>,
}

impl Queue {
    pub fn new(servers: usize) -> Queue {
        Queue { free: servers, waiting: VecDeque::new() }
    }

    pub fn enter(&mut self, id: Id) -> bool {
        if self.free == 0 {
            self.waiting.push_back(id);
            return false;
        }
        self.free -= 1;
        true
    }

    /// Who is next.
    pub fn leave(&mut self) -> Option<Id> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.free += 1;
        }
        next
    }
}

/// Means of one second, summed over time.
#[derive(Debug, Default)]
pub struct Sums {
    pub values: BTreeMap<(&'static str, &'static str), f64>,
}

impl Sums {
    pub fn add(&mut self, tier: &'static str, name: &'static str, value: f64) {
        *self.values.entry((tier, name)).or_default() += value;
    }
}

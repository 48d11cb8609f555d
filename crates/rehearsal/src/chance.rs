//! What is drawn at random, from a seed.
//!
//! Few lines each, by the textbooks' methods; a library of distributions would bring a second source of randomness along.

use std::f64::consts::TAU;
use std::hash::{BuildHasher, RandomState};

/// Of the logarithm of a think time. Half of all visitors read for less than the median, one in a hundred for more than six
/// times as long.
const THINK_SIGMA: f64 = 0.8;
/// Nobody reads longer than so many medians: a visit has an end.
const LONGEST_THINK: f64 = 10.0;

/// A seed for one of many streams of the same run: neighbouring seeds and streams have nothing in common.
pub fn stream(seed: u64, stream: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(mix(seed ^ mix(stream.wrapping_add(0x9e37_79b9_7f4a_7c15))))
}

/// The finalizer of SplitMix64.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// From 0, which is left out, to 1.
fn above_zero(random: &mut fastrand::Rng) -> f64 {
    1.0 - random.f64()
}

/// Exponential, with mean 1.
pub fn exponential(random: &mut fastrand::Rng) -> f64 {
    -above_zero(random).ln()
}

/// Normal, with mean 0 and variance 1 (Box and Muller).
pub fn normal(random: &mut fastrand::Rng) -> f64 {
    (-2.0 * above_zero(random).ln()).sqrt() * (TAU * random.f64()).cos()
}

/// Gamma with mean 1 and the given coefficient of variation (Marsaglia and Tsang). 1 where that is not above 0.
pub fn gamma(random: &mut fastrand::Rng, variation: f64) -> f64 {
    if variation <= 0.0 {
        return 1.0;
    }
    let shape = 1.0 / (variation * variation);
    // Their method wants a shape of at least 1; below, it is that of the next shape, scaled down.
    let (raised, boost) =
        if shape < 1.0 { (shape + 1.0, above_zero(random).powf(1.0 / shape)) } else { (shape, 1.0) };
    let d = raised - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(random);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && above_zero(random).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v * boost / shape;
        }
    }
}

/// How long somebody reads: lognormal about a median.
pub fn think_ns(random: &mut fastrand::Rng, median_ms: u64) -> u64 {
    let median = median_ms as f64 * 1e6;
    (median * (THINK_SIGMA * normal(random)).exp()).min(median * LONGEST_THINK) as u64
}

/// A seed that no other run has: the system's own entropy, not that of a load.
pub fn unforeseen() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// A word that no other visit has, of this run or of another, as far as twelve letters go.
pub fn word(random: &mut fastrand::Rng) -> String {
    (0..12).map(|_| random.lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 200_000;

    fn moments(mut draw: impl FnMut(&mut fastrand::Rng) -> f64) -> (f64, f64) {
        let mut random = stream(7, 1);
        let drawn: Vec<f64> = (0..DRAWS).map(|_| draw(&mut random)).collect();
        let mean = drawn.iter().sum::<f64>() / DRAWS as f64;
        let variance = drawn.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / DRAWS as f64;
        (mean, variance.sqrt())
    }

    fn close(found: (f64, f64), mean: f64, deviation: f64) {
        assert!((found.0 - mean).abs() < 0.02 && (found.1 - deviation).abs() < 0.03, "{found:?}");
    }

    #[test]
    fn means_and_deviations_are_those_of_the_distributions() {
        close(moments(exponential), 1.0, 1.0);
        close(moments(normal), 0.0, 1.0);
        close(moments(|random| gamma(random, 0.3)), 1.0, 0.3);
        close(moments(|random| gamma(random, 1.5)), 1.0, 1.5);
        assert_eq!(gamma(&mut stream(1, 1), 0.0), 1.0);
    }

    #[test]
    fn half_of_the_visitors_read_for_less_than_the_median_and_nobody_for_ever() {
        let mut random = stream(3, 1);
        let times: Vec<u64> = (0..DRAWS).map(|_| think_ns(&mut random, 100)).collect();
        let shorter = times.iter().filter(|time| **time < 100_000_000).count() as f64 / DRAWS as f64;
        assert!((shorter - 0.5).abs() < 0.01, "{shorter}");
        assert!(times.iter().all(|time| *time <= 1_000_000_000));
    }

    #[test]
    fn what_is_unforeseen_does_not_repeat() {
        assert_ne!(unforeseen(), unforeseen());
    }

    #[test]
    fn streams_of_a_seed_differ_and_repeat() {
        assert_eq!(stream(1, 2).u64(..), stream(1, 2).u64(..));
        assert_ne!(stream(1, 2).u64(..), stream(2, 1).u64(..));
        assert_ne!(stream(1, 2).u64(..), stream(1, 3).u64(..));
    }
}

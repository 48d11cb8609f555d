//! When visits begin: a Poisson process whose rate changes over time.
//!
//! The rate moves evenly within each phase, and is multiplied by a factor of its own in each second (gamma, mean 1), because
//! crowds are burstier than Poisson. Arrivals are found by inversion: with exponential steps along the integral of the rate,
//! the moment at which the integral reaches each of them. So no rate is too high or too steep, and none is thinned away.

use crate::chance;
use crate::load::{Load, Phase};

const NS: f64 = 1e9;
/// The factors of the seconds are the same in every thread; this stream of the seed is theirs.
const NOISE: u64 = u64::MAX;

/// Visits that a load begins, as its seed has it: for who counts whether a generator has left one out.
pub fn scheduled(load: &Load) -> usize {
    let threads = load.limits.threads;
    let of_thread = |number: u64| {
        Arrivals::new(Rate::new(&load.phases, load.noise, load.seed), load.seed, number, threads).count()
    };
    (0..threads.into()).map(of_thread).sum()
}

/// The rate of visits over time, in pieces within which it moves evenly. No piece crosses the end of a second.
#[derive(Debug, Clone)]
pub struct Rate<'a> {
    phases: &'a [Phase],
    noise: f64,
    random: fastrand::Rng,
    /// The factor of the second that the last piece was in.
    factor: (u64, f64),
    phase: usize,
    /// Since the phase began.
    into_ns: u64,
    /// When the phase began.
    phase_at_ns: u64,
}

/// A stretch of time within which the rate moves evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Piece {
    pub at_ns: u64,
    pub lasts_ns: u64,
    pub phase: usize,
    /// Visits per second, at its beginning and at its end.
    pub from: f64,
    pub to: f64,
}

impl Piece {
    /// Visits that are expected within it.
    pub fn visits(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.lasts_ns as f64 / NS
    }

    /// How long after its beginning so many visits are expected to have begun. It is not reached if that is more than
    /// [`Piece::visits`].
    fn reaches(&self, visits: f64) -> u64 {
        let length = self.lasts_ns as f64 / NS;
        let slope = (self.to - self.from) / length;
        // The root of from*x + slope*x²/2 = visits, in the form that loses no digits where the slope is small.
        let root = (self.from * self.from + 2.0 * slope * visits).max(0.0).sqrt();
        let seconds = if self.from + root > 0.0 { 2.0 * visits / (self.from + root) } else { 0.0 };
        ((seconds * NS) as u64).min(self.lasts_ns)
    }
}

impl<'a> Rate<'a> {
    pub fn new(phases: &'a [Phase], noise: f64, seed: u64) -> Rate<'a> {
        let random = chance::stream(seed, NOISE);
        Rate { phases, noise, random, factor: (u64::MAX, 1.0), phase: 0, into_ns: 0, phase_at_ns: 0 }
    }
}

impl Iterator for Rate<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let phase = loop {
            let phase = self.phases.get(self.phase)?;
            let lasts = phase.lasts_ms * 1_000_000;
            if self.into_ns < lasts {
                break phase;
            }
            self.phase += 1;
            self.phase_at_ns += lasts;
            self.into_ns = 0;
        };
        let lasts = phase.lasts_ms * 1_000_000;
        let at_ns = self.phase_at_ns + self.into_ns;
        let second = at_ns / 1_000_000_000;
        let lasts_ns = ((second + 1) * 1_000_000_000 - at_ns).min(lasts - self.into_ns);
        if self.factor.0 != second {
            self.factor = (second, chance::gamma(&mut self.random, self.noise));
        }
        let rate_at =
            |ns: u64| (phase.from + (phase.to - phase.from) * ns as f64 / lasts as f64) * self.factor.1;
        let (from, to) = (rate_at(self.into_ns), rate_at(self.into_ns + lasts_ns));
        self.into_ns += lasts_ns;
        Some(Piece { at_ns, lasts_ns, phase: self.phase, from, to })
    }
}

/// The moments at which one thread of `of` begins visits, in nanoseconds since the run began.
#[derive(Debug, Clone)]
pub struct Arrivals<'a> {
    pieces: Rate<'a>,
    piece: Option<Piece>,
    random: fastrand::Rng,
    of: f64,
    /// Visits of all threads until the next arrival, counted from the beginning of `piece`.
    next: f64,
}

impl<'a> Arrivals<'a> {
    pub fn new(rate: Rate<'a>, seed: u64, thread: u64, of: u32) -> Arrivals<'a> {
        let mut arrivals = Arrivals {
            pieces: rate,
            piece: None,
            random: chance::stream(seed, thread),
            of: f64::from(of),
            next: 0.0,
        };
        arrivals.piece = arrivals.pieces.next();
        arrivals.step();
        arrivals
    }

    fn step(&mut self) {
        self.next += chance::exponential(&mut self.random) * self.of;
    }
}

impl Iterator for Arrivals<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            let piece = self.piece?;
            let visits = piece.visits();
            if self.next <= visits {
                let at = piece.at_ns + piece.reaches(self.next);
                self.step();
                return Some(at);
            }
            self.next -= visits;
            self.piece = self.pieces.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(lasts_ms: u64, from: f64, to: f64) -> Phase {
        Phase { name: "a".to_owned(), lasts_ms, from, to }
    }

    fn arrivals(phases: &[Phase], noise: f64, seed: u64) -> Vec<u64> {
        Arrivals::new(Rate::new(phases, noise, seed), seed, 0, 1).collect()
    }

    /// Within four standard deviations of a Poisson count.
    fn about(found: usize, expected: f64) {
        let off = (found as f64 - expected).abs();
        assert!(off < 4.0 * expected.sqrt().max(1.0), "{found} instead of about {expected}");
    }

    #[test]
    fn as_many_visits_begin_as_the_rate_integrates_to() {
        let phases = [phase(2_000, 0.0, 4_000.0), phase(500, 4_000.0, 4_000.0), phase(1_500, 4_000.0, 0.0)];
        let found = arrivals(&phases, 0.0, 11);
        about(found.len(), 4_000.0 + 2_000.0 + 3_000.0);
        let before = |ns: u64| found.iter().filter(|at| **at < ns).count();
        // A quarter of a ramp's visits begin in the first half of it.
        about(before(1_000_000_000), 1_000.0);
        about(before(2_000_000_000), 4_000.0);
        about(before(2_500_000_000), 6_000.0);
        assert!(found.is_sorted() && found.iter().all(|at| *at < 4_000_000_000));
    }

    #[test]
    fn the_time_between_visits_is_exponential() {
        let found = arrivals(&[phase(20_000, 1_000.0, 1_000.0)], 0.0, 5);
        let gaps: Vec<f64> = found.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1.0).abs() < 0.03 && (variance.sqrt() - 1.0).abs() < 0.05, "{mean} {variance}");
    }

    #[test]
    fn threads_share_the_rate_and_have_arrivals_of_their_own() {
        let phases = [phase(10_000, 1_000.0, 1_000.0)];
        let of = |thread| -> Vec<u64> { Arrivals::new(Rate::new(&phases, 0.0, 9), 9, thread, 4).collect() };
        about(of(0).len(), 2_500.0);
        about((0..4).map(|thread| of(thread).len()).sum(), 10_000.0);
        assert_ne!(of(0), of(1));
    }

    #[test]
    fn noise_varies_the_seconds_about_the_same_mean() {
        let phases = [phase(2_000_000, 1_000.0, 1_000.0)];
        let seconds: Vec<f64> = Rate::new(&phases, 0.3, 4).map(|piece| piece.visits()).collect();
        let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
        let variance = seconds.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / seconds.len() as f64;
        assert!((mean / 1_000.0 - 1.0).abs() < 0.03, "{mean}");
        assert!((variance.sqrt() / mean - 0.3).abs() < 0.03, "{variance}");
        // Threads see the same factors, or a burst would be evened out between them.
        let again: Vec<f64> = Rate::new(&phases, 0.3, 4).map(|piece| piece.visits()).collect();
        assert_eq!(seconds, again);
    }

    #[test]
    fn the_seed_decides() {
        let phases = [phase(1_000, 100.0, 200.0)];
        assert_eq!(arrivals(&phases, 0.5, 1), arrivals(&phases, 0.5, 1));
        assert_ne!(arrivals(&phases, 0.5, 1), arrivals(&phases, 0.5, 2));
    }

    #[test]
    fn nothing_arrives_where_the_rate_is_zero() {
        assert!(arrivals(&[phase(60_000, 0.0, 0.0)], 0.0, 1).is_empty());
        assert!(arrivals(&[], 0.0, 1).is_empty());
        let found = arrivals(&[phase(1_500, 0.0, 0.0), phase(1_000, 500.0, 500.0)], 0.0, 1);
        about(found.len(), 500.0);
        assert!(found.iter().all(|at| *at >= 1_500_000_000));
    }
}

//! The universal scalability law: how throughput X grows with the work N that is in the app at once.
//!
//! ```text
//!                 gamma N
//! X(N) = ---------------------------------
//!        1 + sigma (N - 1) + kappa N (N - 1)
//! ```
//!
//! `gamma` is what one request at a time gives, `sigma` is what must be done one after the other, `kappa` what each has
//! to ask of every other. With `kappa` there is a peak, beyond which more work at once gives less.
//!
//! All three are fitted (Gunther's form for when X(1) is not known). Divided through, N / X is linear in three numbers,
//! none of which may be negative: the best of the few ways to leave some of them out is the exact solution. Errors are
//! relative, so that the first steps of a staircase count as much as the last. How sure that is comes from fitting again
//! and again to the curve with its own errors dealt out anew.

use std::fmt;

use model::Metric;
use serde::Serialize;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Requests in the app at once, on average.
    pub in_flight: f64,
    /// Requests per second.
    pub throughput: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Usl {
    /// Requests per second.
    pub gamma: Estimate,
    pub sigma: Estimate,
    pub kappa: Estimate,
    /// Where more at once begins to give less. `None`: nowhere within reach of what was measured.
    pub peak: Option<Peak>,
    /// Of the throughputs, root mean square, relative.
    pub error: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Peak {
    pub in_flight: Estimate,
    /// Requests per second.
    pub throughput: Estimate,
}

/// A number and the interval in which nine of ten resamples have it. An end that is infinite, `null` in JSON, is open.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// Why nothing can be said by this law.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Unfit {
    #[error("the scalability law needs {LEAST_POINTS} steps, and there are {points}")]
    TooFew { points: usize },
    #[error(
        "the work in the app hardly differs between the steps, {least:.2} to {most:.2} requests at once: the scalability law cannot be fitted"
    )]
    TooNarrow { least: f64, most: f64 },
    #[error("the steps do not follow the scalability law: it is {:.0}% off", error * 100.0)]
    Poor { error: f64 },
}

pub const LEAST_POINTS: usize = 5;

/// From the least to the most work at once.
const LEAST_SPREAD: f64 = 3.0;

/// A fit that is further off describes something else.
const MOST_ERROR: f64 = 0.1;

const RESAMPLES: usize = 200;

/// A peak at so many times the most work that was measured is a guess.
const REACH: f64 = 2.0;

/// N / X as `terms[0] + terms[1] (N - 1) + terms[2] N (N - 1)`.
#[derive(Debug, Clone, Copy)]
struct Curve {
    terms: [f64; 3],
}

/// Fits the law. `seed` is of the resamples.
///
/// # Errors
/// When there are too few points, or too alike, or they do not follow the law.
pub fn fit(points: &[Point], seed: u64) -> Result<Usl, Unfit> {
    let points: Vec<Point> = points.iter().copied().filter(Point::is_usable).collect();
    if points.len() < LEAST_POINTS {
        return Err(Unfit::TooFew { points: points.len() });
    }
    let in_flight = points.iter().map(|point| point.in_flight);
    let (least, most) = in_flight.fold((f64::MAX, 0.0_f64), |(least, most), n| (least.min(n), most.max(n)));
    if most < least * LEAST_SPREAD {
        return Err(Unfit::TooNarrow { least, most });
    }
    let best = Curve::through(&points).ok_or(Unfit::TooFew { points: points.len() })?;
    let error = best.error(&points);
    if error.is_nan() || error > MOST_ERROR {
        return Err(Unfit::Poor { error });
    }
    let resampled = resample(&best, &points, seed);
    let estimate = |of: fn(&Curve) -> f64| Estimate::of(of(&best), resampled.iter().map(of).collect());
    let within_reach = best.peak().is_some_and(|peak| peak <= most * REACH);
    // A resample without a peak has it beyond any border.
    let peak_of: fn(&Curve) -> f64 = |curve| curve.peak().unwrap_or(f64::INFINITY);
    let peak = within_reach.then(|| Peak {
        in_flight: estimate(peak_of),
        throughput: estimate(|curve| curve.throughput(curve.peak().unwrap_or(1e9))),
    });
    Ok(Usl {
        gamma: estimate(Curve::gamma),
        sigma: estimate(Curve::sigma),
        kappa: estimate(Curve::kappa),
        peak,
        error,
    })
}

impl Point {
    fn is_usable(&self) -> bool {
        self.in_flight.is_finite()
            && self.throughput.is_finite()
            && self.in_flight > 0.0
            && self.throughput > 0.0
    }
}

impl Usl {
    /// What the law expects of so many requests at once, per second.
    pub fn throughput(&self, in_flight: f64) -> f64 {
        let [gamma, sigma, kappa] = [self.gamma, self.sigma, self.kappa].map(|estimate| estimate.value);
        let slowed = 1.0 + sigma * (in_flight - 1.0) + kappa * in_flight * (in_flight - 1.0);
        gamma * in_flight / slowed
    }
}

impl fmt::Display for Usl {
    /// As a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = |value| Metric::Rate.amount(value);
        write!(
            f,
            "By the scalability law, {:.0}% off the steps, one request at a time gives {}",
            self.error * 100.0,
            per_second(self.gamma.value)
        )?;
        match &self.peak {
            None => f.write_str(", and more at once give no less within reach of what was measured."),
            Some(Peak { in_flight, throughput }) => write!(
                f,
                ", and the most is {} ({} to {}) with {:.0} at once, beyond which it is less.",
                per_second(throughput.value),
                per_second(throughput.low),
                per_second(throughput.high),
                in_flight.value
            ),
        }
    }
}

impl Curve {
    /// The best one without a negative term.
    fn through(points: &[Point]) -> Option<Curve> {
        // Contention and coherency may each be left out; time itself may not.
        const CHOICES: [&[usize]; 4] = [&[0, 1, 2], &[0, 1], &[0, 2], &[0]];
        let curves = CHOICES.iter().filter_map(|chosen| Curve::with_terms(points, chosen));
        curves
            .map(|curve| (curve.error(points), curve))
            .min_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, c)| c)
    }

    /// The best one with these terms alone. `None` when it has a negative one.
    fn with_terms(points: &[Point], chosen: &[usize]) -> Option<Curve> {
        let mut scales = [0.0_f64; 3];
        for point in points {
            let row = row(point);
            for (scale, term) in scales.iter_mut().zip(row) {
                *scale = scale.max(term.abs());
            }
        }
        let size = chosen.len();
        let mut system = vec![vec![0.0; size + 1]; size];
        for point in points {
            let row = row(point);
            let scaled: Vec<f64> = chosen.iter().map(|term| row[*term] / scales[*term]).collect();
            for (equation, left) in system.iter_mut().zip(&scaled) {
                for (sum, right) in equation.iter_mut().zip(scaled.iter().chain(&[1.0])) {
                    *sum += left * right;
                }
            }
        }
        let solution = solve(system)?;
        let mut terms = [0.0; 3];
        for (term, value) in chosen.iter().zip(solution) {
            terms[*term] = value / scales[*term];
        }
        let is_possible = terms[0] > 0.0 && terms.iter().all(|term| term.is_finite() && *term >= 0.0);
        is_possible.then_some(Curve { terms })
    }

    fn time(&self, in_flight: f64) -> f64 {
        let others = in_flight - 1.0;
        self.terms[0] + self.terms[1] * others + self.terms[2] * in_flight * others
    }

    fn throughput(&self, in_flight: f64) -> f64 {
        in_flight / self.time(in_flight)
    }

    /// Root mean square of the relative errors of the throughputs.
    fn error(&self, points: &[Point]) -> f64 {
        let squares =
            points.iter().map(|point| (self.throughput(point.in_flight) / point.throughput - 1.0).powi(2));
        (squares.sum::<f64>() / points.len() as f64).sqrt()
    }

    fn gamma(&self) -> f64 {
        1.0 / self.terms[0]
    }

    fn sigma(&self) -> f64 {
        self.terms[1] / self.terms[0]
    }

    fn kappa(&self) -> f64 {
        self.terms[2] / self.terms[0]
    }

    fn peak(&self) -> Option<f64> {
        let (sigma, kappa) = (self.sigma(), self.kappa());
        (kappa > 0.0 && sigma < 1.0).then(|| ((1.0 - sigma) / kappa).sqrt())
    }
}

/// What each term is multiplied by, so that the sum should be 1: the terms of N / X, divided by what that is.
fn row(point: &Point) -> [f64; 3] {
    let time = point.in_flight / point.throughput;
    let others = point.in_flight - 1.0;
    [1.0 / time, others / time, point.in_flight * others / time]
}

/// Gaussian elimination; the last column is the right side. `None` when the equations say too little.
fn solve(mut system: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let size = system.len();
    for column in 0..size {
        let pivot =
            (column..size).max_by(|a, b| system[*a][column].abs().total_cmp(&system[*b][column].abs()))?;
        if system[pivot][column].abs() < 1e-12 {
            return None;
        }
        system.swap(column, pivot);
        let chosen = system[column].clone();
        for (_, equation) in system.iter_mut().enumerate().filter(|(at, _)| *at != column) {
            let factor = equation[column] / chosen[column];
            for (value, subtracted) in equation.iter_mut().zip(&chosen) {
                *value -= factor * subtracted;
            }
        }
    }
    Some((0..size).map(|at| system[at][size] / system[at][at]).collect())
}

/// Fits to the curve with its own errors, each put at a point drawn at random.
fn resample(best: &Curve, points: &[Point], seed: u64) -> Vec<Curve> {
    let used = best.terms.iter().filter(|term| **term > 0.0).count();
    // What the fit has taken away from the errors by bending to them.
    let spread = (points.len() as f64 / (points.len() - used) as f64).sqrt();
    let errors: Vec<f64> = points
        .iter()
        .map(|point| spread * (point.throughput / best.throughput(point.in_flight)).ln())
        .collect();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut curves = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let made: Vec<Point> = points
            .iter()
            .map(|point| {
                let error = errors[random.usize(..errors.len())];
                Point { throughput: best.throughput(point.in_flight) * error.exp(), ..*point }
            })
            .collect();
        curves.extend(Curve::through(&made));
    }
    curves
}

impl Estimate {
    /// `value` with the interval of nine tenths of `resampled`.
    fn of(value: f64, mut resampled: Vec<f64>) -> Estimate {
        resampled.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * resampled.len().saturating_sub(1) as f64).round() as usize;
            resampled.get(rank).copied().unwrap_or(value)
        };
        Estimate { value, low: at(0.05).min(value), high: at(0.95).max(value) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORK: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 12.0, 18.0, 26.0, 36.0, 50.0, 70.0];

    fn law(gamma: f64, sigma: f64, kappa: f64, noise: f64) -> Vec<Point> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut point = |in_flight: f64| {
            let slowed = 1.0 + sigma * (in_flight - 1.0) + kappa * in_flight * (in_flight - 1.0);
            let off = 1.0 + noise * (random.f64() - 0.5);
            Point { in_flight, throughput: off * gamma * in_flight / slowed }
        };
        WORK.iter().map(|in_flight| point(*in_flight)).collect()
    }

    fn close(found: f64, real: f64, within: f64) -> bool {
        (found / real - 1.0).abs() < within
    }

    #[test]
    fn a_law_without_noise_is_found_again() {
        let found = fit(&law(100.0, 0.05, 0.0005, 0.0), 1).unwrap();
        assert!(close(found.gamma.value, 100.0, 1e-6), "{found:?}");
        assert!(close(found.sigma.value, 0.05, 1e-6), "{found:?}");
        assert!(close(found.kappa.value, 0.0005, 1e-6), "{found:?}");
        let peak = found.peak.unwrap();
        assert!(close(peak.in_flight.value, (0.95_f64 / 0.0005).sqrt(), 1e-6), "{found:?}");
        assert!(close(peak.throughput.value, found.throughput(peak.in_flight.value), 1e-9));
        assert!(found.error < 1e-9);
    }

    #[test]
    fn with_noise_the_interval_holds_the_truth() {
        let found = fit(&law(100.0, 0.05, 0.0005, 0.06), 1).unwrap();
        for (estimate, real) in [(found.gamma, 100.0), (found.sigma, 0.05), (found.kappa, 0.0005)] {
            assert!(estimate.low <= real && real <= estimate.high, "{real} in {estimate:?}");
            assert!(estimate.low < estimate.high);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let points = law(100.0, 0.05, 0.0005, 0.06);
        assert_eq!(fit(&points, 3), fit(&points, 3));
        assert_ne!(fit(&points, 3), fit(&points, 4));
    }

    #[test]
    fn what_only_levels_off_has_no_peak() {
        let found = fit(&law(100.0, 0.2, 0.0, 0.0), 1).unwrap();
        assert!(close(found.sigma.value, 0.2, 1e-6) && found.kappa.value < 1e-9, "{found:?}");
        assert_eq!(found.peak, None);
    }

    #[test]
    fn a_peak_far_beyond_what_was_measured_is_not_claimed() {
        assert_eq!(fit(&law(100.0, 0.01, 0.000_001, 0.0), 1).unwrap().peak, None);
    }

    #[test]
    fn what_follows_another_law_is_said_to() {
        let mut broken = law(100.0, 0.05, 0.0, 0.0);
        for (at, point) in broken.iter_mut().enumerate() {
            point.throughput *= if at % 2 == 0 { 0.6 } else { 1.4 };
        }
        assert!(matches!(fit(&broken, 1), Err(Unfit::Poor { error }) if error > 0.1));
    }

    #[test]
    fn too_little_is_no_fit() {
        let points = law(100.0, 0.05, 0.0005, 0.0);
        assert_eq!(fit(&points[..4], 1), Err(Unfit::TooFew { points: 4 }));
        let alike = [Point { in_flight: 2.0, throughput: 10.0 }; 9];
        assert!(matches!(fit(&alike, 1), Err(Unfit::TooNarrow { .. })));
        let nothing = [Point { in_flight: f64::NAN, throughput: 0.0 }; 9];
        assert_eq!(fit(&nothing, 1), Err(Unfit::TooFew { points: 0 }));
    }

    proptest! {
        #[test]
        fn any_points_give_a_fit_that_could_be_or_a_reason(
            points in prop::collection::vec((0.0..1e6_f64, 0.0..1e6_f64), 0..20),
        ) {
            let points: Vec<Point> =
                points.into_iter().map(|(in_flight, throughput)| Point { in_flight, throughput }).collect();
            if let Ok(found) = fit(&points, 1) {
                prop_assert!(found.gamma.value > 0.0 && found.sigma.value >= 0.0 && found.kappa.value >= 0.0);
                prop_assert!(found.error <= 0.1);
                for estimate in [found.gamma, found.sigma, found.kappa] {
                    prop_assert!(estimate.low <= estimate.value && estimate.value <= estimate.high);
                }
            }
        }
    }
}

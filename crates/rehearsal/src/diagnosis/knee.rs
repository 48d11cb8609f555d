//! Where it gives way: the first step that does not do what is asked.

use super::{Step, say};

/// Of what a step asks more, at least so much must come.
const LEAST_SLOPE: f64 = 0.5;
/// What a step is short of by so much may be chance.
const CHANCE: f64 = 0.03;

pub(super) enum Found<'a> {
    /// All steps keep the objective.
    None,
    /// Not even the first does.
    AtOnce,
    Knee(Knee<'a>),
}

pub(super) struct Knee<'a> {
    /// The last that keeps the objective.
    pub(super) last_good: &'a Step,
    /// Where to look for what is full: the first step from there on that does not get done what it is asked for, or the one
    /// that misses the objective where all get it done.
    pub(super) full: &'a Step,
    /// The one nearest to half of what the last good one offers.
    pub(super) half: &'a Step,
    /// In words, what the first bad one missed.
    pub(super) missed: String,
}

/// A step that is missed between two that are met is chance: two in a row miss, or the last does.
pub(super) fn find(steps: &[Step]) -> Found<'_> {
    let missed = |at: usize| missed(&steps[at], at.checked_sub(1).map(|before| &steps[before]));
    let is_last = |at: usize| at + 1 == steps.len();
    let first = (0..steps.len())
        .filter(|&at| is_last(at) || missed(at + 1).is_some())
        .find_map(|at| Some((at, missed(at)?)));
    let Some((at, missed)) = first else { return Found::None };
    if at == 0 {
        return Found::AtOnce;
    }
    let last_good = &steps[at - 1];
    let distance = |step: &Step| (step.offered - last_good.offered / 2.0).abs();
    let half = steps[..at].iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(last_good);
    let full = steps[at..].iter().find(|step| is_short(step)).unwrap_or(&steps[at]);
    Found::Knee(Knee { last_good, full, half, missed })
}

fn missed(step: &Step, before: Option<&Step>) -> Option<String> {
    if !step.missed.is_empty() {
        return Some(step.missed.join(", "));
    }
    let before = before?;
    let more = step.offered - before.offered;
    let came = step.achieved - before.achieved;
    (more > 0.0 && is_short(step) && came < LEAST_SLOPE * more)
        .then(|| format!("{}/s answered of {}/s", say::figure(step.achieved), say::figure(step.offered)))
}

fn is_short(step: &Step) -> bool {
    step.achieved < step.offered * (1.0 - CHANCE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const KEPT: &[&str] = &[];
    const MISSED: &[&str] = &["p99 of 400 ms"];

    fn step(offered: f64, achieved: f64, missed: &[&str]) -> Step {
        let missed = missed.iter().map(ToString::to_string).collect();
        let (p50_us, p99_us, failed, shed) = (1_000, 20_000, 0.0, 0.0);
        Step { offered, achieved, p50_us, p99_us, failed, shed, missed, tiers: BTreeMap::new() }
    }

    /// What the last good step offers; 0 where there is none, infinity where all are good.
    fn check(steps: &[Step]) -> f64 {
        match find(steps) {
            Found::None => f64::INFINITY,
            Found::AtOnce => 0.0,
            Found::Knee(knee) => knee.last_good.offered,
        }
    }

    #[test]
    fn the_knee_is_where_the_objective_or_throughput_is_first_missed() {
        let good = [step(10.0, 10.0, KEPT), step(20.0, 20.0, KEPT)];
        assert_eq!(check(&good), f64::INFINITY);
        let with = |bad: Step| [good.to_vec(), vec![bad]].concat();
        assert_eq!(check(&with(step(30.0, 30.0, MISSED))), 20.0);
        assert_eq!(check(&with(step(30.0, 23.0, KEPT))), 20.0);
        assert_eq!(check(&[step(10.0, 10.0, MISSED)]), 0.0);
    }

    #[test]
    fn a_single_bad_step_between_good_ones_is_chance() {
        let steps = [step(10.0, 10.0, KEPT), step(20.0, 20.0, MISSED), step(30.0, 30.0, KEPT)];
        assert_eq!(check(&steps), f64::INFINITY);
    }

    #[test]
    fn what_is_full_is_looked_for_where_it_falls_behind() {
        let steps = [step(10.0, 10.0, KEPT), step(20.0, 20.0, MISSED), step(30.0, 22.0, MISSED)];
        let Found::Knee(knee) = find(&steps) else { panic!("there is a knee") };
        assert_eq!((knee.last_good.offered, knee.full.offered), (10.0, 30.0));
    }
}

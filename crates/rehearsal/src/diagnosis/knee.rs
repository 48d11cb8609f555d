//! Where to look for what gave way: the steps around the knee ([`giving_way`]).

use super::{Step, say};
use crate::giving_way::{self, Reached};

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
    /// In words, what the first bad one missed, and at which rate.
    pub(super) missed: String,
}

impl Knee<'_> {
    /// Those that a diagnosis rests on.
    pub(super) fn steps(&self) -> [&Step; 3] {
        [self.half, self.last_good, self.full]
    }
}

pub(super) fn find(steps: &[Step]) -> Found<'_> {
    let Some(at) = gave_way(steps) else { return Found::None };
    let Some(before) = at.checked_sub(1) else { return Found::AtOnce };
    let last_good = &steps[before];
    let distance = |step: &Step| (step.offered - last_good.offered / 2.0).abs();
    let half = steps[..at].iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(last_good);
    // What was measured of a step with faults may be another's doing.
    let is_full = |step: &&Step| reached(step).is_short() && step.faults.is_empty();
    let full = steps[at..].iter().find(is_full).unwrap_or(&steps[at]);
    Found::Knee(Knee { last_good, full, half, missed: missed(&steps[at]) })
}

/// The first step that was too much. `None`: none was.
pub(super) fn gave_way(steps: &[Step]) -> Option<usize> {
    giving_way::gave_way(&steps.iter().map(reached).collect::<Vec<_>>())
}

fn reached(step: &Step) -> Reached {
    Reached { offered: step.offered, achieved: step.achieved, is_kept: step.missed.is_empty() }
}

/// In words, what a bad step missed, and at which rate.
pub(super) fn missed(step: &Step) -> String {
    if step.missed.is_empty() {
        return format!("{}/s answered of {}/s", say::figure(step.achieved), say::figure(step.offered));
    }
    format!("{} at {}/s", step.missed.join(", "), say::figure(step.offered))
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
        Step {
            offered,
            achieved,
            p50_us,
            p99_us,
            failed,
            shed,
            missed,
            tiers: BTreeMap::new(),
            faults: Vec::new(),
            unseen: 0.0,
        }
    }

    #[test]
    fn the_steps_around_the_knee_are_the_last_good_one_and_that_at_half_of_it() {
        let steps = [10.0, 20.0, 30.0, 40.0].map(|rate| step(rate, rate, KEPT)).to_vec();
        assert!(matches!(find(&steps), Found::None));
        assert!(matches!(find(&[step(10.0, 10.0, MISSED)]), Found::AtOnce));
        let steps = [steps, vec![step(50.0, 50.0, MISSED)]].concat();
        let Found::Knee(knee) = find(&steps) else { panic!("there is a knee") };
        assert_eq!((knee.half.offered, knee.last_good.offered, knee.full.offered), (20.0, 40.0, 50.0));
        assert_eq!(knee.missed, "p99 of 400 ms at 50/s");
    }

    #[test]
    fn what_is_full_is_looked_for_where_it_falls_behind() {
        let steps = [step(10.0, 10.0, KEPT), step(20.0, 20.0, MISSED), step(30.0, 22.0, MISSED)];
        let Found::Knee(knee) = find(&steps) else { panic!("there is a knee") };
        assert_eq!((knee.last_good.offered, knee.full.offered), (10.0, 30.0));
        assert_eq!(knee.missed, "p99 of 400 ms at 20/s", "where it was missed first");

        let mut spoilt = steps;
        spoilt[2].faults.push("requests were late".to_owned());
        let Found::Knee(knee) = find(&spoilt) else { panic!("there is a knee") };
        assert_eq!(knee.full.offered, 20.0);
    }
}

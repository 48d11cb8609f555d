//! Where an app gives way on a staircase of rates: one rule, for what it can serve ([`crate::capacity`]) and for what was full
//! there ([`crate::diagnosis`]).

/// Of what is offered in addition, at least so much is to be finished in addition.
const LEAST_GAIN: f64 = 0.5;

/// Of what is offered, what is not finished by so much may be chance.
const CHANCE: f64 = 0.03;

/// What counts of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached {
    /// Requests per second that were sent.
    pub(crate) offered: f64,
    /// And finished as they should be.
    pub(crate) achieved: f64,
    /// Whether the objective was.
    pub(crate) is_kept: bool,
}

impl Reached {
    /// Whether it does not get done what it is asked for.
    pub(crate) fn is_short(&self) -> bool {
        self.achieved < self.offered * (1.0 - CHANCE)
    }

    /// Whether throughput grows no longer. Where visits end at their first failure, more of them may even send less.
    fn is_flat_after(&self, before: &Reached) -> bool {
        let (more, gain) = (self.offered - before.offered, self.achieved - before.achieved);
        self.is_short() && gain <= (more * LEAST_GAIN).max(0.0)
    }
}

/// By growing rates: the first step from which on each was too much, by the objective or because throughput grew no longer. One
/// such step with a good one after it was chance. `None`: the last was not.
pub(crate) fn gave_way(steps: &[Reached]) -> Option<usize> {
    let is_over = |at: usize| {
        let before = at.checked_sub(1).map(|before| &steps[before]);
        !steps[at].is_kept || before.is_some_and(|before| steps[at].is_flat_after(before))
    };
    let over = (0..steps.len()).rev().take_while(|at| is_over(*at)).count();
    (over > 0).then(|| steps.len() - over)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(steps: &[(f64, f64, bool)], expected: Option<usize>) {
        let reached =
            |&(offered, achieved, is_kept): &(f64, f64, bool)| Reached { offered, achieved, is_kept };
        let steps: Vec<Reached> = steps.iter().map(reached).collect();
        assert_eq!(gave_way(&steps), expected, "{steps:?}");
    }

    const GOOD: [(f64, f64, bool); 2] = [(10.0, 10.0, true), (20.0, 20.0, true)];

    fn then(more: &[(f64, f64, bool)]) -> Vec<(f64, f64, bool)> {
        [&GOOD[..], more].concat()
    }

    #[test]
    fn it_gives_way_where_the_objective_or_throughput_is_first_missed() {
        check(&GOOD, None);
        check(&then(&[(30.0, 30.0, false)]), Some(2));
        check(&then(&[(30.0, 23.0, true)]), Some(2));
        check(&then(&[(30.0, 30.0, false), (40.0, 30.0, true)]), Some(2));
        check(&[(10.0, 10.0, false)], Some(0));
        check(&[], None);
    }

    #[test]
    fn a_bad_step_with_a_good_one_after_it_is_chance() {
        check(&[(10.0, 10.0, true), (20.0, 20.0, false), (30.0, 30.0, true)], None);
        check(&then(&[(30.0, 30.0, false), (40.0, 40.0, true), (50.0, 41.0, false)]), Some(4));
    }

    #[test]
    fn throughput_that_keeps_up_is_not_flat_however_little_is_offered_in_addition() {
        check(&then(&[(21.0, 20.4, true)]), None);
    }

    /// Visits end at their first failure: twice as many send less than before.
    #[test]
    fn more_visits_that_send_less_and_get_less_are_too_much() {
        check(&then(&[(18.0, 12.0, true)]), Some(2));
    }
}

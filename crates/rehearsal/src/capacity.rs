//! What an app can serve: found by a staircase of rates, up to where it gives way and one step beyond.
//!
//! [`Staircase`] says which rate is to be tried next, from what the ones before gave: first a probe that doubles until the
//! app is in trouble, to guess where that begins, then even steps from a tenth of the guess upwards, each long enough to
//! be judged, and at last some between the last that was kept and the first that was not. [`Capacity`] says what the steps
//! mean.
//!
//! Throughput is what is *finished* within a step, not what was sent in it and answered later: an app that cannot keep up
//! answers everything for a while, only later and later. When an answer was finished is known from the second in which
//! its request was meant to be sent, and its latency.

use std::fmt;
use std::ops::Range;

use model::{Metric, Threshold};
use serde::Serialize;

use crate::giving_way::{self, Reached};
use crate::load::Phase;
use crate::record::{Found, Outcome, Second};
use crate::summary::Summary;
use crate::threshold;
use crate::usl::{self, Unfit, Usl};

/// What a step of the staircase, or a probe before it, gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// By which it is judged, without those in which it settled.
    pub seconds: f64,
    /// Visits per second that were wished for.
    pub visits: f64,
    /// Visits per second that began. Far fewer: the generator could not keep up.
    pub begun: f64,
    /// Requests per second that were sent.
    pub offered: f64,
    /// Requests per second whose answer, as it should be, was finished.
    pub achieved: f64,
    /// In µs, of all that were answered as they should be.
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    /// Share of the requests, from 0 to 1. What never ended is among the failed.
    pub failed: f64,
    pub shed: f64,
    /// Requests under way at once, on average.
    pub in_flight: f64,
    /// Whether the objective was kept.
    pub kept: bool,
    /// What of the objective was not, in words.
    pub broken: Vec<String>,
}

/// Of a step's seconds: by then connections are open and what a rate fills is filled.
const SETTLING: f64 = 0.2;

/// What breaks an objective that says nothing of it: an app that fails or refuses has no room left.
const IMPLIED: [&str; 2] = ["errors <= 0.1%", "shed <= 0.1%"];

/// Of the visits wished for.
const MOST_MISSING: f64 = 0.1;

impl Step {
    /// What the seconds of one step, from its first to its last, mean by the objective. They should be those of a step that
    /// is over: whose requests have been answered or given up. `None` without a second to judge by.
    pub fn of(seconds: &[Second], objective: &[Threshold]) -> Option<Step> {
        let settled = settled(seconds);
        let Range { start, end } = window(seconds);
        let length = f64::from(end.checked_sub(start).filter(|length| *length > 0)?);
        let window = (f64::from(start), f64::from(end));
        let finished: Finished = seconds.iter().map(|second| Finished::within(second, window)).sum();
        let summary = Summary::of(settled);
        let judged = threshold::judge(objective, &IMPLIED, settled);
        let broken: Vec<String> =
            judged.iter().filter(|judgement| !judgement.kept).map(ToString::to_string).collect();
        Some(Step {
            seconds: length,
            visits: settled.iter().map(|second| second.wished_visits).sum::<f64>() / length,
            begun: settled.iter().map(|second| f64::from(second.visits)).sum::<f64>() / length,
            offered: summary.sent as f64 / length,
            achieved: finished.ok / length,
            p50_us: summary.latency_ok.quantile(0.5),
            p99_us: summary.latency_ok.quantile(0.99),
            failed: summary.failed_share().unwrap_or(0.0),
            shed: summary.shed_share().unwrap_or(0.0),
            in_flight: finished.under_way / length,
            kept: broken.is_empty(),
            broken,
        })
    }

    /// Whether the app did not do all that it was asked for, and not by chance.
    pub fn falls_short(&self) -> bool {
        self.reached().is_short()
    }

    fn reached(&self) -> Reached {
        Reached { offered: self.offered, achieved: self.achieved, is_kept: self.kept }
    }

    /// Whether the generator, and not the app, gave way: far fewer visits began, and not by chance.
    fn is_not_offered(&self) -> bool {
        let (wished, missing) = (self.visits * self.seconds, (self.visits - self.begun) * self.seconds);
        missing > wished * MOST_MISSING && missing > 3.0 * wished.sqrt()
    }

    fn point(&self) -> usl::Point {
        usl::Point { in_flight: self.in_flight, throughput: self.achieved }
    }
}

/// The seconds by which a step is judged, as they are numbered: what the tiers did in them is what they did at its load.
pub fn window(seconds: &[Second]) -> Range<u32> {
    let settled = settled(seconds);
    match (settled.first(), settled.last()) {
        (Some(first), Some(last)) => first.at..last.at + 1,
        _ => 0..0,
    }
}

/// Those by which a step is judged. Of a single second that one.
fn settled(seconds: &[Second]) -> &[Second] {
    let settling = (seconds.len() as f64 * SETTLING).ceil() as usize;
    match seconds.get(settling..) {
        Some(settled) if !settled.is_empty() => settled,
        _ => seconds,
    }
}

/// What was finished within a window of time, and what was under way in it.
#[derive(Debug, Clone, Copy, Default)]
struct Finished {
    /// Requests.
    ok: f64,
    /// Request-seconds.
    under_way: f64,
}

impl Finished {
    /// Of requests that were meant to be sent evenly over a second.
    fn within(second: &Second, window: (f64, f64)) -> Finished {
        let begins = f64::from(second.at);
        // Of what begins evenly over the second and lasts, the share that is over by `time`.
        let over_by = |time: f64, lasts: f64| (time - begins - lasts).clamp(0.0, 1.0);
        let middle = begins + 0.5;
        let overlap = |lasts: f64| ((middle + lasts).min(window.1) - middle.max(window.0)).max(0.0);
        let mut finished = Finished::default();
        for class in second.classes.values() {
            let answered: u32 = class.latency.iter().map(|(_, count)| count).sum();
            let ok = class.outcomes.get(&Outcome::Ok).copied().unwrap_or_default();
            let share_ok = if answered == 0 { 0.0 } else { (f64::from(ok) / f64::from(answered)).min(1.0) };
            for (us, count) in &class.latency {
                let (lasts, count) = (*us as f64 / 1e6, f64::from(*count));
                finished.ok += count * share_ok * (over_by(window.1, lasts) - over_by(window.0, lasts));
                finished.under_way += count * overlap(lasts);
            }
            // Who gave up had waited, and who is without an outcome still does.
            let ended: u32 = class.outcomes.values().sum();
            let gave_up = class.outcomes.get(&Outcome::GaveUp).copied().unwrap_or_default();
            let waits = f64::from(class.sent.saturating_sub(ended) + gave_up);
            finished.under_way += waits * overlap(f64::MAX);
        }
        finished
    }
}

impl std::iter::Sum for Finished {
    fn sum<I: Iterator<Item = Finished>>(all: I) -> Finished {
        all.fold(Finished::default(), |sum, one| Finished {
            ok: sum.ok + one.ok,
            under_way: sum.under_way + one.under_way,
        })
    }
}

/// Which rate is tried next.
#[derive(Debug, Clone, PartialEq)]
pub struct Staircase {
    /// Visits per second of the first probe.
    pub start: f64,
    /// Visits per second that are never exceeded.
    pub ceiling: f64,
    /// Requests for each visit, to know how long a step must last.
    pub requests_per_visit: f64,
    pub effort: Effort,
}

/// How closely it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Steps of 15 % of the guess, ten seconds and more each, then finer ones.
    Full,
    /// Steps of 20 % from 40 % on, four seconds and more each: within a minute, and rougher.
    Quick,
}

impl Effort {
    /// The first step, and what each next one adds, of the guess.
    fn steps(self) -> (f64, f64) {
        match self {
            Effort::Full => (0.10, 0.15),
            Effort::Quick => (0.40, 0.20),
        }
    }

    /// How close the last that is kept comes to the first that is not, as a share of it, and in how many steps at most.
    fn fine(self) -> (f64, usize) {
        match self {
            Effort::Full => (0.05, 3),
            Effort::Quick => (0.12, 2),
        }
    }

    fn probe_ms(self) -> std::ops::RangeInclusive<u64> {
        match self {
            Effort::Full => 4_000..=15_000,
            Effort::Quick => 2_000..=6_000,
        }
    }

    fn step_ms(self) -> std::ops::RangeInclusive<u64> {
        match self {
            Effort::Full => 10_000..=30_000,
            Effort::Quick => 4_000..=6_000,
        }
    }
}

/// Of the guess. By then an app has given way, unless the guess was too low.
const LAST_STEP: f64 = 1.30;

/// From a tenth of the guess to two and a half times it.
const MOST_STEPS: usize = 17;

/// Steps after the one that gave way: they tell it from chance, and show what becomes of the throughput.
const BEYOND: usize = 1;

/// Doublings of one visit a second: a billion.
const MOST_PROBES: usize = 30;

/// What a probe finishes of what it is offered, or it is in trouble.
const PROBE_KEEPS_UP: f64 = 0.85;

const PROBE_REQUESTS: f64 = 200.0;

/// Enough for ten of them to be beyond the 99th percentile.
const STEP_REQUESTS: f64 = 1_000.0;

impl Staircase {
    /// What is to be played after all that is `done`, in the order in which it was. `None`: no more.
    pub fn next(&self, done: &[Step]) -> Option<Phase> {
        if done.last().is_some_and(Step::is_not_offered) {
            return None;
        }
        let (probes, steps) = done.split_at(self.probes(done)?);
        let Some(guess) = self.guess(probes) else {
            let rate = self.start * f64::powi(2.0, i32::try_from(probes.len()).unwrap_or(i32::MAX));
            return Some(self.phase("probe", rate.min(self.ceiling), PROBE_REQUESTS, self.effort.probe_ms()));
        };
        let rate = match Self::is_beyond(steps) {
            true => self.between(steps)?,
            false => self.above(steps, guess)?,
        };
        Some(self.phase("step", rate, STEP_REQUESTS, self.effort.step_ms()))
    }

    fn is_beyond(steps: &[Step]) -> bool {
        let rising = rising(steps);
        gave_way(rising).is_some_and(|at| rising.len() - at > BEYOND)
    }

    /// The next even step upwards. `None`: that was the last.
    fn above(&self, steps: &[Step], guess: f64) -> Option<f64> {
        let (first, more) = self.effort.steps();
        let is_at_ceiling = steps.last().is_some_and(|step| self.is_ceiling(step.visits));
        let is_over = guess == 0.0 || is_at_ceiling || steps.len() == MOST_STEPS;
        (!is_over).then(|| (guess * (first + more * steps.len() as f64)).min(self.ceiling))
    }

    /// In the middle between the last that was kept and the first that was not. `None`: they are close enough.
    fn between(&self, steps: &[Step]) -> Option<f64> {
        let (close, most) = self.effort.fine();
        let mut by_rate = steps.to_vec();
        by_rate.sort_by(|a, b| a.visits.total_cmp(&b.visits));
        let at = gave_way(&by_rate)?;
        let (kept, broken) = (by_rate[at.checked_sub(1)?].visits, by_rate[at].visits);
        let is_over = broken - kept <= kept * close || steps.len() - rising(steps).len() == most;
        (!is_over).then_some(f64::midpoint(kept, broken))
    }

    /// How many of `done` were probes. `None`: so many that there will be no end.
    pub fn probes(&self, done: &[Step]) -> Option<usize> {
        (1..=MOST_PROBES)
            .find(|count| done.len() < *count || self.guess(&done[..*count]).is_some())
            .map(|count| count.min(done.len()))
    }

    /// Visits per second that the app serves, by the probes. `None`: none of them was too much.
    fn guess(&self, probes: &[Step]) -> Option<f64> {
        let last = probes.last()?;
        let gave_way = last.achieved < last.offered * PROBE_KEEPS_UP
            // What is slow once may only have been cold.
            || matches!(probes, [.., before, last] if !before.kept && !last.kept);
        if !gave_way {
            // The highest step is then the ceiling.
            return self.is_ceiling(last.visits).then_some(self.ceiling / LAST_STEP);
        }
        let served =
            |probe: &Step| probe.visits * (probe.achieved / probe.offered.max(f64::MIN_POSITIVE)).min(1.0);
        Some(probes.iter().map(served).fold(0.0, f64::max))
    }

    fn is_ceiling(&self, visits: f64) -> bool {
        visits >= self.ceiling * 0.999
    }

    fn phase(&self, name: &str, rate: f64, requests: f64, lasts: std::ops::RangeInclusive<u64>) -> Phase {
        let wanted = requests / (rate * self.requests_per_visit).max(f64::MIN_POSITIVE) * 1_000.0;
        // Whole seconds, as they are what is recorded.
        let lasts_ms = (wanted.min(1e9) as u64).next_multiple_of(1_000).clamp(*lasts.start(), *lasts.end());
        Phase { name: name.to_owned(), lasts_ms, from: rate, to: rate }
    }
}

/// Those before the first between two others.
fn rising(steps: &[Step]) -> &[Step] {
    let rises = steps.windows(2).take_while(|pair| pair[0].visits < pair[1].visits).count();
    &steps[..steps.len().min(rises + 1)]
}

/// What the steps of a staircase mean.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Capacity {
    /// By their rates, the lowest first.
    pub steps: Vec<Step>,
    /// The highest step at which the objective was kept, before it gave way.
    pub at_objective: Option<Rate>,
    /// The last step before the app gave way. `None`: it did not, or from the first.
    pub knee: Option<Rate>,
    /// Where it gave way, and by what. `None`: it did not.
    pub gave_way: Option<GaveWay>,
    /// The most requests per second that were finished in any step.
    pub most: f64,
    /// The generator could not send more. What is beyond is not known.
    pub limited_by_generator: bool,
    #[serde(serialize_with = "or_reason")]
    pub usl: Result<Usl, Unfit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    pub visits_per_second: f64,
    pub requests_per_second: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GaveWay {
    pub rate: Rate,
    /// What of the objective was not kept. Empty: only the throughput grew no longer.
    pub broken: Vec<String>,
}

impl Capacity {
    /// Judges the steps of a staircase, without its probes. `seed` is of the resamples.
    pub fn of(mut steps: Vec<Step>, seed: u64) -> Capacity {
        steps.sort_by(|a, b| a.visits.total_cmp(&b.visits));
        let offered = steps.iter().take_while(|step| !step.is_not_offered()).count();
        let judged = &steps[..offered];
        let at = gave_way(judged);
        let points: Vec<usl::Point> = judged.iter().map(Step::point).collect();
        Capacity {
            at_objective: judged[..at.unwrap_or(judged.len())]
                .iter()
                .rev()
                .find(|step| step.kept)
                .map(Rate::of),
            knee: at.and_then(|at| at.checked_sub(1)).and_then(|before| judged.get(before)).map(Rate::of),
            gave_way: at
                .and_then(|at| judged.get(at))
                .map(|step| GaveWay { rate: Rate::of(step), broken: step.broken.clone() }),
            most: judged.iter().map(|step| step.achieved).fold(0.0, f64::max),
            limited_by_generator: offered < steps.len(),
            usl: usl::fit(&points, seed),
            steps,
        }
    }
}

impl Capacity {
    /// What the scalability law says of it, or why it says nothing, as a sentence.
    pub fn law(&self) -> String {
        self.usl.as_ref().map_or_else(|unfit| format!("Scalability: {unfit}."), ToString::to_string)
    }

    /// For a record. `None`: no step was over.
    pub fn found(&self) -> Option<Found> {
        (!self.steps.is_empty()).then(|| Found {
            kept: self.at_objective.map_or(0.0, |rate| rate.requests_per_second),
            gave_way: self.gave_way.as_ref().map(|gave_way| gave_way.rate.requests_per_second),
        })
    }
}

impl Rate {
    fn of(step: &Step) -> Rate {
        Rate { visits_per_second: step.visits, requests_per_second: step.offered }
    }
}

/// Of steps by growing rates, the first from which on each was too much. `None`: the last was not.
pub fn gave_way(steps: &[Step]) -> Option<usize> {
    giving_way::gave_way(&steps.iter().map(Step::reached).collect::<Vec<_>>())
}

fn or_reason<S: serde::Serializer>(usl: &Result<Usl, Unfit>, serializer: S) -> Result<S::Ok, S::Error> {
    match usl {
        Ok(usl) => usl.serialize(serializer),
        Err(unfit) => unfit.serialize(serializer),
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let visits = Metric::Rate.amount(self.visits_per_second);
        write!(f, "{} ({visits} visits)", Metric::Rate.amount(self.requests_per_second))
    }
}

impl fmt::Display for Capacity {
    /// In a sentence or two.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at_objective {
            Some(rate) => write!(f, "The objective is kept up to {rate}.")?,
            None if self.steps.is_empty() => return f.write_str("No rate was tried to the end of its step."),
            None => write!(f, "The objective is not kept at any rate that was tried.")?,
        }
        match &self.gave_way {
            Some(GaveWay { rate, broken }) if broken.is_empty() => {
                write!(
                    f,
                    " At {rate} the throughput grows no longer; the most was {}.",
                    Metric::Rate.amount(self.most)
                )
            }
            Some(GaveWay { rate, broken }) => write!(f, " It gives way at {rate}: {}.", broken.join("; ")),
            None if self.limited_by_generator => f.write_str(" More could not be sent from here."),
            None => f.write_str(" It did not give way."),
        }
    }
}

#[cfg(test)]
mod tests;

//! What gave way, and what to do about it: a function of what was measured.
//!
//! Each step of a staircase is looked at by the operational laws, which hold whatever the distributions are. A tier that
//! used `U` of what it has at a rate of `X` can do `X / U` and no more (utilisation law); a request spends in a tier what is
//! under way there divided by the rate (Little's law). So the tier that is full first is found by division, and what a
//! change would gain by dividing again, with more of that tier.
//!
//! 1. A run that does not say anything about the app is refused ([`Verdict::Invalid`]).
//! 2. The knee is the first step that misses the objective, or brings less than half of what it asks more ([`knee`]). Without
//!    one there is no bottleneck up to there.
//! 3. Each resource is scored at the knee by how full it is, how much of the latency that came since half the load waits for
//!    it, and what says that it is held up ([`candidates`]). What is held without working (workers of the app, connections)
//!    counts only as far as nothing behind it is full: it is held because that is.
//! 4. What was found is a row of the table of evidence ([`Kind`]), and the row says what can be done. The next stage that
//!    has more of it is tried first, by the same law ([`law`]).
//! 5. An [`intervention`] proves it, or does not.
//!
//! Deliberately without: anything learned. Each number in a sentence was measured, or is a quotient of such.

mod candidates;
pub mod evidence;
pub mod intervention;
mod knee;
mod law;
mod others;
mod recommend;
mod say;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::capacity;
use crate::record::Tier;
use candidates::Candidate;
use evidence::{Window, tier};
use knee::Found;
pub use law::Bound;
use others::Taken;
pub use others::disturbed;
pub use recommend::{Change, Prediction, Recommendation};

/// A winner has at least this score.
const ENOUGH: f64 = 0.6;
/// And leads by this much.
const LEAD: f64 = 0.15;
/// What is this near to being as full is as good a candidate: relieving one of the two gains no more than this.
const AS_FULL: f64 = 0.88;
/// Of the machine's cores: from here on processes wait for each other.
const MACHINE_FULL: f64 = 0.88;
/// Of the requests of the lowest step.
const MOST_FAILING: f64 = 0.05;
/// Of the seconds of a step: with so many in which nobody looked, the means of the others are of something else.
const MOST_UNSEEN: f64 = 0.5;
/// Steps without which there is no curve.
const LEAST_STEPS: usize = 3;
/// Steps without which one that is missed may be chance. Where the first of these is, there is no curve to be looked at.
const LEAST_MISSED: usize = 2;

/// What is diagnosed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Staircase {
    /// By growing `offered`.
    pub steps: Vec<Step>,
    pub shape: Shape,
    /// Why none of it says anything of the app. Empty: it does.
    pub faults: Vec<String>,
    /// The text of the statement of [`evidence::more::TOP_IN_FLIGHT`], its literals folded, where that is known.
    #[serde(default)]
    pub top_statement: Option<String>,
}

/// One load, for some seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Requests per second that were meant to be sent.
    pub offered: f64,
    /// Requests per second that were answered as expected.
    pub achieved: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    /// Of the requests, from 0 to 1; those that were shed left out.
    pub failed: f64,
    /// Of the requests, from 0 to 1.
    pub shed: f64,
    /// What of the objective was missed, in words. Empty: it was kept.
    pub missed: Vec<String>,
    /// By the names in [`evidence::tier`], without the seconds in which the load was not yet what it was to be.
    pub tiers: BTreeMap<String, Window>,
    /// Why what the generator saw of it is not the app's doing. Empty: it is.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Of these seconds, from 0 to 1, those in which nobody saw what the tiers did.
    #[serde(default)]
    pub unseen: f64,
}

/// What the app consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    pub stage: u8,
    pub machine_cores: f64,
    pub web_instances: u32,
    /// Of each. `None`: all that the machine has.
    pub web_cores: Option<f64>,
    /// Requests that an instance works on at once, where that is known.
    pub web_workers: Option<u32>,
    /// Of each PostgreSQL. `None`: all that the machine has.
    pub database_cores: Option<f64>,
    pub standbys: u32,
    pub read_replicas: u32,
    /// Whether sizes are more than wishes.
    pub limits_enforced: bool,
    /// The stages above this one, the nearest first.
    pub next: Vec<Rung>,
}

/// What a stage has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    pub stage: u8,
    pub web_instances: u32,
    pub standbys: u32,
    pub read_replicas: u32,
}

/// What gave way, why that is believed, and what would help.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    pub verdict: Verdict,
    /// The most likely first. One of a bottleneck, two of two candidates; of what is none, what is fullest.
    pub causes: Vec<Cause>,
    /// Requests per second up to which the objective was kept; 0 where it never was.
    pub capacity: f64,
    /// For people, with the figures that matter most.
    pub sentence: String,
    pub evidence: Vec<Line>,
    pub recommendation: Option<Recommendation>,
    /// What else was thought of, and what it would gain.
    pub alternatives: Vec<Recommendation>,
    pub confidence: Confidence,
    /// Why it is not higher.
    pub doubts: Vec<String>,
    /// What would show that this is wrong.
    pub falsified_by: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Bottleneck,
    /// Both are nearly full, or neither stands out.
    TwoCandidates,
    /// The objective was kept in all steps.
    NoBottleneckUpTo,
    /// It gave way, and by what is not known: nothing that is measured was full, or a test contradicts what was.
    Unexplained,
    /// The run says nothing about the app.
    Invalid,
}

/// One resource that may be what gave way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// A name in [`evidence::tier`].
    pub tier: String,
    pub kind: Kind,
    /// From 0 to 1.
    pub score: f64,
    /// How full it was at the knee, from 0 to 1.
    pub utilisation: f64,
}

/// A row of the table of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The app's own work fills the processors it may use.
    WebCpu,
    /// Each instance fills one core and may use more: its work is done by one thread.
    WebThread,
    /// The app waits, and neither for processors nor for the database: for a worker or thread of its own, or for something
    /// outside.
    WebWorkers,
    EdgeCpu,
    /// The processors of the database's proxy.
    ProxyCpu,
    /// Connections to the primary are all taken while it is not full.
    Pool,
    /// The primary's processors, mostly by statements that only read.
    PrimaryReads,
    /// The primary's processors, mostly by one statement that goes through many rows.
    MissingIndex,
    /// The primary's processors, by writes.
    PrimaryWrites,
    /// The primary's processors, by reads that no replica was fresh enough for.
    ReplicaLag,
    ReplicaCpu,
    /// Sessions of the primary wait for each other.
    Locks,
    /// Sessions of the primary wait for data to come from disk.
    DataDisk,
    /// Sessions of the primary wait for their commits to be safe.
    LogDisk,
    /// Requests are refused while nothing is full.
    LimitTooLow,
}

impl fmt::Display for Kind {
    /// What is full, such as `the app's processors`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(say::named(*self))
    }
}

/// A figure, at half the load and where it gave way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub tier: String,
    pub measure: String,
    pub at_half: f64,
    pub at_knee: f64,
    pub unit: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { tier, measure, at_half, at_knee, unit } = self;
        write!(f, "{tier}: {measure} {} -> {}{unit}", say::figure(*at_half), say::figure(*at_knee))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    Low,
    /// What was seen says so.
    Fair,
    /// And what was done proves it.
    Good,
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Confidence::Low => "low",
            Confidence::Fair => "fair, by what was seen",
            Confidence::Good => "good, by a test",
        })
    }
}

impl Step {
    /// What a step gave, and what the tiers did in these seconds of it.
    pub fn of(measured: &capacity::Step, tiers: &[Tier], seconds: Range<u32>) -> Step {
        let window = |tier: &Tier| Some((tier.name.clone(), Window::of(tier, seconds.start, seconds.end)?));
        let seen = |tier: &Tier| tier.seconds.iter().filter(|second| seconds.contains(&second.at)).count();
        let seen = tiers.iter().map(seen).max().unwrap_or(0);
        Step {
            offered: measured.offered,
            achieved: measured.achieved,
            p50_us: measured.p50_us.unwrap_or(0),
            p99_us: measured.p99_us.unwrap_or(0),
            failed: measured.failed,
            shed: measured.shed,
            missed: measured.broken.clone(),
            tiers: tiers.iter().filter_map(window).collect(),
            faults: Vec::new(),
            unseen: 1.0 - (seen as f64 / seconds.len().max(1) as f64).min(1.0),
        }
    }

    /// Of a tier that does not exist, all is 0.
    pub(crate) fn tier(&self, name: &str) -> Window {
        self.tiers.get(name).cloned().unwrap_or_default()
    }

    /// Requests per second that went through, whatever became of them.
    pub(crate) fn rate(&self) -> f64 {
        let done = self.tier(tier::EDGE).done;
        if done > 0.0 { done } else { self.achieved }
    }
}

/// Says what gave way. Takes no time and asks nobody.
pub fn diagnose(staircase: &Staircase) -> Diagnosis {
    let faults = faults(staircase);
    if !faults.is_empty() {
        return say::invalid(&faults);
    }
    let found = match knee::find(&staircase.steps) {
        Found::None => return say::none_up_to(staircase),
        Found::AtOnce => return say::too_slow_at_once(staircase),
        Found::Knee(found) => found,
    };
    if found.steps().into_iter().any(|step| step.unseen >= MOST_UNSEEN) {
        return say::unseen(&found);
    }
    let mut all = candidates::score_all(staircase, &found);
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    let (verdict, causes) = judge(&all);
    match verdict {
        Verdict::Unexplained => say::unexplained(staircase, &found, &all),
        verdict => say::explained(staircase, &found, verdict, causes),
    }
}

/// Who of the candidates it is, the likeliest first.
fn judge(all: &[Candidate]) -> (Verdict, &[Candidate]) {
    let Some(first) = all.first().filter(|first| first.score >= ENOUGH) else {
        return (Verdict::Unexplained, &all[..0]);
    };
    let is_rival = |second: &&Candidate| {
        let as_full =
            second.is_working && first.is_working && second.utilisation >= AS_FULL * first.utilisation;
        second.score > first.score - LEAD || as_full && second.score >= ENOUGH
    };
    match all.get(1).filter(is_rival) {
        Some(_) => (Verdict::TwoCandidates, &all[..2]),
        None => (Verdict::Bottleneck, &all[..1]),
    }
}

/// What makes it say nothing about the app. What is beyond the first step that was too much counts for nothing here: a machine
/// that is that full may well hold up the generator, too.
pub fn faults(staircase: &Staircase) -> Vec<String> {
    let mut faults = staircase.faults.clone();
    let steps = &staircase.steps;
    let least = if knee::gave_way(steps) == Some(0) { LEAST_MISSED } else { LEAST_STEPS };
    if steps.is_empty() {
        faults.push("no rate was found that the app serves".to_owned());
    } else if steps.len() < least {
        let count = model::counted(steps.len(), "step");
        faults.push(format!("of {count} nothing can be said, {least} are needed"));
    }
    let cores = staircase.shape.machine_cores;
    for step in knee::gave_way(steps).map_or(&steps[..], |at| &steps[..=at]) {
        let at = say::figure(step.offered);
        faults.extend(step.faults.first().map(|fault| format!("at {at}/s {fault}")));
        let taken = Taken::of(&step.tier(tier::MACHINE), cores);
        faults.extend(taken.map(|taken| format!("at {at}/s {taken}")));
    }
    if let Some(first) = steps.first()
        && first.failed + first.shed > MOST_FAILING
    {
        faults.push(format!(
            "{} of the requests fail at the lowest load already: what fails is to be mended first",
            say::percent(first.failed + first.shed)
        ));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::evidence::more;
    use super::*;

    fn shape() -> Shape {
        Shape {
            stage: 1,
            machine_cores: 2.0,
            web_instances: 1,
            web_cores: Some(0.5),
            web_workers: None,
            database_cores: None,
            standbys: 0,
            read_replicas: 0,
            limits_enforced: true,
            next: Vec::new(),
        }
    }

    /// Steps of ten requests more each, of which the last two are too much.
    fn staircase() -> Staircase {
        let step = |rate: f64| Step {
            offered: rate,
            achieved: rate.min(40.0),
            p50_us: 1_000,
            p99_us: 20_000,
            failed: 0.0,
            shed: 0.0,
            missed: if rate > 40.0 { vec!["p99 of 400 ms".to_owned()] } else { Vec::new() },
            tiers: BTreeMap::new(),
            faults: Vec::new(),
            unseen: 0.0,
        };
        let steps = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0].map(step).to_vec();
        Staircase { steps, shape: shape(), faults: Vec::new(), top_statement: None }
    }

    /// Whether a generator that was late at step `at` makes all of it say nothing.
    fn check(at: usize, is_invalid: bool) {
        let mut staircase = staircase();
        staircase.steps[at].faults.push("requests were late".to_owned());
        assert_eq!(diagnose(&staircase).verdict == Verdict::Invalid, is_invalid, "{at}");
        assert_eq!(!faults(&staircase).is_empty(), is_invalid, "{at}");
    }

    #[test]
    fn a_fault_beyond_the_step_that_was_too_much_spoils_nothing() {
        check(0, true);
        check(3, true);
        // Whether the app or the generator was slow here is not known.
        check(4, true);
        check(5, false);
    }

    #[test]
    fn what_others_used_beyond_it_spoils_nothing_either() {
        for (at, is_invalid) in [(3, true), (5, false)] {
            let mut staircase = staircase();
            let more = [(more::FOREIGN_CPU.to_owned(), 1.0)].into();
            let machine = Window { cpu: 2.0, more, ..Window::default() };
            staircase.steps[at].tiers.insert(tier::MACHINE.to_owned(), machine);
            assert_eq!(!faults(&staircase).is_empty(), is_invalid, "{at}");
        }
    }

    #[test]
    fn two_steps_say_something_only_where_the_objective_is_missed_in_both() {
        let mut staircase = staircase();
        staircase.steps.truncate(2);
        assert_eq!(diagnose(&staircase).verdict, Verdict::Invalid);
        // That the first was missed may be chance.
        staircase.steps[0].missed = vec!["p99 < 250ms: is 400ms, not kept".to_owned()];
        assert_eq!(diagnose(&staircase).verdict, Verdict::Invalid);
        staircase.steps[1].missed = staircase.steps[0].missed.clone();
        let said = diagnose(&staircase);
        assert_eq!((said.verdict, faults(&staircase)), (Verdict::Unexplained, Vec::new()));
        let begins =
            "the objective is missed at the lowest load already (p99 < 250ms: is 400ms, not kept at 10/s)";
        assert!(said.sentence.starts_with(begins), "{}", said.sentence);
        staircase.steps.truncate(1);
        assert_eq!(faults(&staircase), ["of 1 step nothing can be said, 2 are needed"]);
    }

    #[test]
    fn where_nobody_saw_the_tiers_nothing_is_named() {
        let mut staircase = staircase();
        staircase.steps[4].unseen = 0.6;
        let said = diagnose(&staircase);
        assert_eq!((said.verdict, said.causes.len()), (Verdict::Unexplained, 0));
        assert_eq!(said.capacity, 40.0);
        assert!(said.sentence.contains("in 60 % of the time at 50/s"), "{}", said.sentence);
    }

    #[test]
    fn a_gap_in_what_was_seen_is_a_doubt() {
        let mut staircase = staircase();
        staircase.steps[3].unseen = 0.25;
        let doubts = diagnose(&staircase).doubts;
        assert!(doubts.iter().any(|doubt| doubt.contains("in 25 % of the time at 40/s")), "{doubts:?}");
    }

    #[test]
    fn seconds_that_nobody_saw_are_counted() {
        let second = |at| crate::record::TierSecond { at, ..Default::default() };
        let seconds = vec![second(3), second(4), second(7), second(12)];
        let tiers = [Tier { name: tier::MACHINE.to_owned(), seconds }];
        let measured = capacity::Step {
            seconds: 8.0,
            visits: 1.0,
            begun: 1.0,
            offered: 10.0,
            achieved: 10.0,
            p50_us: None,
            p99_us: None,
            failed: 0.0,
            shed: 0.0,
            in_flight: 0.0,
            kept: true,
            broken: Vec::new(),
        };
        assert_eq!(Step::of(&measured, &tiers, 2..10).unseen, 0.625);
        assert_eq!(Step::of(&measured, &[], 2..10).unseen, 1.0);
    }
}

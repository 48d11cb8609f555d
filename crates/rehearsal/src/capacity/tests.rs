use std::collections::BTreeMap;

use super::*;
use crate::diagnosis::{self, Shape, Verdict, diagnose};
use crate::record::ClassSecond;

const REQUESTS_PER_VISIT: f64 = 10.0;

/// An app that finishes so many requests a second, one after the other, behind a queue without an end.
struct App {
    capacity: f64,
    /// Of one request alone.
    service_ms: f64,
}

const PATIENCE_S: f64 = 8.0;

impl App {
    /// What a generator sees that plays the phase on an app with nothing to do.
    fn play(&self, phase: &Phase) -> Vec<Second> {
        let seconds = u32::try_from(phase.lasts_ms / 1_000).unwrap();
        let rate = phase.from * REQUESTS_PER_VISIT;
        let mut queued = 0.0;
        (0..seconds).map(|at| self.second(at, phase, rate, &mut queued)).collect()
    }

    fn second(&self, at: u32, phase: &Phase, rate: f64, queued: &mut f64) -> Second {
        const PARTS: u32 = 100;
        let mut class = ClassSecond::default();
        let mut owed = 0.0;
        for _ in 0..PARTS {
            let waits = *queued / self.capacity;
            owed += rate / f64::from(PARTS);
            let count = owed.floor();
            owed -= count;
            let outcome = if waits > PATIENCE_S { Outcome::GaveUp } else { Outcome::Ok };
            *class.outcomes.entry(outcome).or_default() += count as u32;
            class.sent += count as u32;
            if outcome == Outcome::Ok {
                let us = (waits * 1e6 + self.service_ms * 1e3) as u64;
                class.latency.push((us, count as u32));
                *queued += count;
            }
            *queued = (*queued - self.capacity / f64::from(PARTS)).max(0.0);
        }
        class.service = class.latency.clone();
        let begun_by = |second: u32| (phase.from * f64::from(second)) as u32;
        Second {
            at,
            phase: phase.name.clone(),
            wished_visits: phase.from,
            visits: begun_by(at + 1) - begun_by(at),
            visitors: 0,
            connections: 0,
            classes: BTreeMap::from([("page".to_owned(), class)]),
        }
    }
}

fn objective() -> Vec<Threshold> {
    vec!["p99 < 250ms".parse().unwrap()]
}

fn staircase() -> Staircase {
    Staircase { start: 1.0, ceiling: 10_000.0, requests_per_visit: REQUESTS_PER_VISIT, effort: Effort::Full }
}

/// Plays until there is nothing more to play.
fn climb(staircase: &Staircase, app: &App) -> (Vec<Phase>, Vec<Step>) {
    let (mut phases, mut steps) = (Vec::new(), Vec::new());
    while let Some(phase) = staircase.next(&steps) {
        steps.push(Step::of(&app.play(&phase), &objective()).unwrap());
        phases.push(phase);
        assert!(phases.len() < 60, "there is no end to it");
    }
    (phases, steps)
}

fn found(staircase: &Staircase, app: &App) -> Capacity {
    let (_, steps) = climb(staircase, app);
    let probes = staircase.probes(&steps).unwrap();
    Capacity::of(steps[probes..].to_vec(), 1)
}

#[test]
fn the_staircase_finds_what_an_app_can_serve() {
    for capacity in [50.0, 430.0, 2_000.0, 17_000.0] {
        let found = found(&staircase(), &App { capacity, service_ms: 5.0 });
        let kept = found.at_objective.unwrap().requests_per_second;
        let broken = found.gave_way.as_ref().unwrap().rate.requests_per_second;
        assert!(kept <= capacity * 1.03 && capacity < broken * 1.03, "{capacity}: {kept} to {broken}");
        assert!(broken - kept < capacity * 0.06, "{capacity}: between {kept} and {broken}");
        assert!((found.most / capacity - 1.0).abs() < 0.05, "{capacity}: at most {}", found.most);
        assert_eq!(found.knee, found.at_objective);
    }
}

#[test]
fn it_probes_by_doubling_and_then_climbs_evenly_to_one_step_beyond() {
    let staircase = staircase();
    let (phases, steps) = climb(&staircase, &App { capacity: 430.0, service_ms: 5.0 });
    let probes = staircase.probes(&steps).unwrap();
    let rates = |phases: &[Phase]| phases.iter().map(|phase| phase.from).collect::<Vec<f64>>();
    assert_eq!(rates(&phases[..probes]), [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
    assert!(phases[..probes].iter().all(|phase| phase.name == "probe"));
    let stairs = rates(&phases[probes..]);
    let rises = stairs.windows(2).take_while(|pair| pair[0] < pair[1]).count() + 1;
    assert!((7..=10).contains(&rises), "{stairs:?}");
    let (first, more) = Effort::Full.steps();
    let even = (stairs[0] / first) * more;
    for pair in stairs[..rises].windows(2) {
        assert!((pair[1] - pair[0] - even).abs() < 1e-9, "{stairs:?}");
    }
    let kept: Vec<bool> = steps[probes..][..rises].iter().map(|step| step.kept).collect();
    assert_eq!(kept.iter().filter(|kept| !**kept).count(), 2, "{kept:?}");
    assert!(kept.is_sorted_by(|a, b| a >= b), "{kept:?}");
}

#[test]
fn at_last_it_looks_between_what_was_kept_and_what_was_not() {
    for (effort, most, close) in [(Effort::Full, 3, 0.05), (Effort::Quick, 2, 0.12)] {
        let staircase = Staircase { effort, ..staircase() };
        let (phases, steps) = climb(&staircase, &App { capacity: 430.0, service_ms: 5.0 });
        let probes = staircase.probes(&steps).unwrap();
        let rates: Vec<f64> = phases[probes..].iter().map(|phase| phase.from).collect();
        let rises = rates.windows(2).take_while(|pair| pair[0] < pair[1]).count() + 1;
        assert!((1..=most).contains(&(rates.len() - rises)), "{rates:?}");
        let capacity = Capacity::of(steps[probes..].to_vec(), 1);
        let kept = capacity.at_objective.unwrap().visits_per_second;
        let broken = capacity.gave_way.unwrap().rate.visits_per_second;
        assert!((broken - kept) / kept <= close, "{effort:?}: {rates:?}");
    }
}

#[test]
fn steps_are_long_enough_to_be_judged() {
    let staircase = staircase();
    let (phases, _) = climb(&staircase, &App { capacity: 430.0, service_ms: 5.0 });
    for phase in phases.iter().filter(|phase| phase.name == "step") {
        let requests = phase.from * REQUESTS_PER_VISIT * phase.lasts_ms as f64 / 1e3;
        assert!(requests >= 1_000.0 || phase.lasts_ms == 30_000, "{phase:?}");
        assert!(phase.lasts_ms.is_multiple_of(1_000) && phase.lasts_ms >= 10_000);
    }
}

#[test]
fn an_app_that_never_gives_way_is_climbed_to_the_ceiling_and_no_further() {
    let staircase = Staircase { ceiling: 100.0, ..staircase() };
    let app = App { capacity: 1e6, service_ms: 5.0 };
    let (phases, _) = climb(&staircase, &app);
    assert_eq!(phases.iter().map(|phase| phase.from).fold(0.0, f64::max), 100.0);
    let found = found(&staircase, &app);
    assert_eq!((found.knee, &found.gave_way), (None, &None));
    assert!(found.to_string().ends_with("It did not give way."), "{found}");
}

/// Nothing is said of an app that was hardly asked.
#[test]
fn a_search_that_was_broken_off_before_its_first_step_says_so() {
    assert_eq!(Capacity::of(Vec::new(), 1).to_string(), "No rate was tried to the end of its step.");
}

#[test]
fn an_app_that_answers_nothing_is_not_climbed() {
    let dead = |phase: &Phase| {
        let mut seconds = App { capacity: 1e6, service_ms: 1.0 }.play(phase);
        for class in seconds.iter_mut().flat_map(|second| second.classes.values_mut()) {
            *class = ClassSecond {
                sent: class.sent,
                outcomes: BTreeMap::from([(Outcome::Refused, class.sent)]),
                ..ClassSecond::default()
            };
        }
        seconds
    };
    let staircase = staircase();
    let first = staircase.next(&[]).unwrap();
    let step = Step::of(&dead(&first), &objective()).unwrap();
    assert_eq!((step.achieved, step.failed, step.p99_us), (0.0, 1.0, None));
    assert_eq!(staircase.next(&[step]), None);
}

/// Its search is over after two steps, as there is nothing below to climb from: that says enough.
#[test]
fn an_app_that_is_slow_at_any_load_is_said_to_be_and_not_a_run_that_says_nothing() {
    let staircase = staircase();
    let (_, steps) = climb(&staircase, &App { capacity: 1e4, service_ms: 400.0 });
    let stairs = steps[staircase.probes(&steps).unwrap()..].to_vec();
    assert!(stairs.len() == 2 && stairs.iter().all(|step| !step.kept), "{stairs:?}");
    let shape = Shape {
        stage: 1,
        machine_cores: 2.0,
        web_instances: 1,
        web_cores: None,
        web_workers: None,
        database_cores: None,
        standbys: 0,
        read_replicas: 0,
        limits_enforced: true,
        next: Vec::new(),
    };
    let steps = stairs.iter().map(|step| diagnosis::Step::of(step, &[], 0..8)).collect();
    let found = diagnose(&diagnosis::Staircase { steps, shape, faults: Vec::new(), top_statement: None });
    assert_eq!(found.verdict, Verdict::Unexplained, "{}", found.sentence);
    assert!(
        found.sentence.starts_with("the objective is missed at the lowest load already"),
        "{}",
        found.sentence
    );
    assert_eq!(Capacity::of(stairs, 1).at_objective, None);
}

#[test]
fn what_is_answered_later_and_later_is_not_what_is_finished() {
    // More than half as much again as it can serve: all is answered in the end, within the patience of visitors.
    let phase = Phase { name: "step".to_owned(), lasts_ms: 10_000, from: 64.0, to: 64.0 };
    let step = Step::of(&App { capacity: 400.0, service_ms: 5.0 }.play(&phase), &objective()).unwrap();
    assert_eq!((step.offered, step.failed), (640.0, 0.0));
    assert!((step.achieved / 400.0 - 1.0).abs() < 0.03, "{step:?}");
    // From 480 to 2,400 wait, as the seconds pass in which it is judged.
    assert!((1_380.0..1_500.0).contains(&step.in_flight), "{step:?}");
    assert!(!step.kept && step.broken[0].starts_with("p99 < 250ms: is 5."), "{step:?}");
}

#[test]
fn failures_break_an_objective_that_says_nothing_of_them() {
    let phase = Phase { name: "step".to_owned(), lasts_ms: 10_000, from: 50.0, to: 50.0 };
    let mut seconds = App { capacity: 1e4, service_ms: 5.0 }.play(&phase);
    let class = seconds[5].classes.get_mut("page").unwrap();
    class.outcomes = BTreeMap::from([(Outcome::Ok, 484), (Outcome::Shed, 8), (Outcome::Status, 8)]);
    let of = |objective: &[&str]| {
        let objective: Vec<Threshold> = objective.iter().map(|text| text.parse().unwrap()).collect();
        Step::of(&seconds, &objective).unwrap().broken
    };
    assert_eq!(
        of(&["p99 < 1s"]),
        ["errors <= 0.1% (implied): is 0.2%, not kept", "shed <= 0.1% (implied): is 0.2%, not kept"]
    );
    assert_eq!(of(&["errors < 1%", "shed < 1%"]), Vec::<String>::new());
}

#[test]
fn one_bad_step_among_good_ones_is_chance() {
    let app = App { capacity: 430.0, service_ms: 5.0 };
    let staircase = staircase();
    let (_, steps) = climb(&staircase, &app);
    let mut stairs = steps[staircase.probes(&steps).unwrap()..].to_vec();
    let undisturbed = Capacity::of(stairs.clone(), 1);
    stairs[2].kept = false;
    let disturbed = Capacity::of(stairs, 1);
    assert_eq!((disturbed.knee, disturbed.gave_way), (undisturbed.knee, undisturbed.gave_way));
}

#[test]
fn a_generator_that_cannot_keep_up_ends_the_staircase() {
    let app = App { capacity: 1e6, service_ms: 5.0 };
    let staircase = staircase();
    let mut steps = Vec::new();
    while let Some(phase) = staircase.next(&steps) {
        let mut step = Step::of(&app.play(&phase), &objective()).unwrap();
        if phase.from > 500.0 {
            step.begun = 400.0;
        }
        steps.push(step);
    }
    assert_eq!(steps.last().unwrap().visits, 512.0);
    let found = Capacity::of(steps, 1);
    assert!(found.limited_by_generator && found.gave_way.is_none());
    assert_eq!(found.at_objective.unwrap().visits_per_second, 256.0);
}

#[test]
fn the_scalability_law_is_fitted_to_the_steps_or_why_not_is_said() {
    // One request at a time takes 10 ms; a twentieth of the work is done one after the other, and each disturbs the others.
    let (gamma, sigma, kappa) = (100.0, 0.05, 0.001);
    let step = |in_flight: f64| {
        let achieved =
            gamma * in_flight / (1.0 + sigma * (in_flight - 1.0) + kappa * in_flight * (in_flight - 1.0));
        let visits = achieved / REQUESTS_PER_VISIT;
        let phase = Phase { name: "step".to_owned(), lasts_ms: 10_000, from: visits, to: visits };
        let played = App { capacity: 1e6, service_ms: 5.0 }.play(&phase);
        Step { in_flight, achieved, ..Step::of(&played, &objective()).unwrap() }
    };
    let steps: Vec<Step> = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 24.0].map(step).to_vec();
    let few = Capacity::of(steps[..3].to_vec(), 1);
    let found = Capacity::of(steps, 1);
    let usl = found.usl.unwrap();
    assert!((usl.gamma.value / gamma - 1.0).abs() < 0.01, "{usl:?}");
    assert!((usl.sigma.value / sigma - 1.0).abs() < 0.05, "{usl:?}");
    let peak = usl.peak.unwrap();
    assert!((peak.in_flight.value - ((1.0 - sigma) / kappa).sqrt()).abs() < 1.0, "{peak:?}");
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["usl"]["gamma"]["value"], usl.gamma.value);
    let law = found.law();
    assert!(
        law.contains("one request at a time gives 100/s, and the most is ") && law.contains(" 31 at once"),
        "{law}"
    );
    assert_eq!(few.law(), "Scalability: the scalability law needs 5 steps, and there are 3.");
    assert_eq!(serde_json::to_value(&few).unwrap()["usl"]["reason"], "too_few");
}

#[test]
fn a_search_is_a_table_with_a_row_for_each_rate_and_whether_the_objective_was_kept() {
    let found = found(&staircase(), &App { capacity: 430.0, service_ms: 5.0 });
    let table = crate::report::staircase::table(&found).unwrap();
    assert_eq!(table.rows.len(), found.steps.len());
    assert!(table.rows.iter().all(|row| row.len() == table.head.len()));
    let (first, last) = (table.rows.first().unwrap(), table.rows.last().unwrap());
    assert_eq!(first.last().unwrap(), "kept");
    assert!(last.last().unwrap().starts_with("p99 < 250ms: is "), "{last:?}");
    assert_eq!(crate::report::staircase::table(&Capacity::of(Vec::new(), 1)), None);
}

#[test]
fn a_step_without_seconds_is_none() {
    assert_eq!(Step::of(&[], &objective()), None);
}

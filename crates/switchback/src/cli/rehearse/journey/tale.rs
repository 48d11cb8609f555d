//! A journey as one report: what each stage serves, why the next was taken and what that gained, and why it ended.

use std::path::Path;

use rehearsal::diagnosis::Verdict as Found;
use rehearsal::report::journey::{Leg, gain, moves, table};
use rehearsal::report::{Document, Part, Passed, Verdict};
use serde_json::{Value, json};

use super::advice::predicted;
use super::trip::{End, Move, SIZE, Stage, Travelled};
use crate::cli::connect::App;
use crate::cli::rehearse::climb::Climb;
use crate::cli::rehearse::tell;
use crate::cli::say::{self, Problem};
use crate::rehearse::shape;

/// Writes the report into the folder of `app` and says it.
///
/// # Errors
/// What ended the journey, the exit code where requests failed or it is no proof, or why it cannot be written.
pub fn tell(app: &App, travelled: Travelled, out: Option<&Path>, as_json: bool) -> Result<(), Problem> {
    let Travelled { stages, end } = travelled;
    let legs = legs(&stages);
    let told: Vec<Value> = (0..stages.len()).map(|at| as_value(&stages, &legs, at)).collect();
    let document = document(stages, &legs, &end);
    let written = tell::written(app, out, &document)?;
    if as_json {
        say::json(&json!({
            "verdict": document.verdict,
            "ended_early": match &end {
                End::Early { why, .. } => Some(why),
                End::Whole | End::AsAdvised(_) => None,
            },
            "stages": told,
            "evidence": document.evidence,
            "page": written.page,
            "record": written.json,
        }))?;
    } else {
        tell::text(&document, &written)?;
    }
    match end {
        End::Early { problem: Some(problem), .. } => Err(problem),
        End::Early { problem: None, .. } => Err(Problem::Said(1)),
        End::Whole | End::AsAdvised(_) => tell::outcome(&document),
    }
}

fn document(stages: Vec<Stage>, legs: &[Leg], end: &End) -> Document {
    let app = stages.first().map_or_else(String::new, |stage| stage.record.app.clone());
    let failed: u64 = stages.iter().map(Stage::failed).sum();
    let mut verdict = Verdict { passed: Passed::NotAsked, sentence: sentence(&stages, failed, end) };
    let mut evidence = Vec::new();
    for (below, stage) in std::iter::once(None).chain(stages.iter().map(Some)).zip(&stages) {
        evidence.extend(below.map(|below| taken(below, stage)));
        evidence.extend(found(stage));
    }
    evidence.extend(moves(legs));
    let parts = stages.into_iter().map(part).collect();
    let tables = vec![table(legs)];
    let document =
        Document { title: format!("{app}: journey"), verdict: verdict.clone(), evidence, tables, parts };
    if tell::is_sound(&document) && !matches!(end, End::Early { .. }) {
        verdict.passed = if failed == 0 { Passed::Yes } else { Passed::No };
    }
    Document { verdict, ..document }
}

fn sentence(stages: &[Stage], failed: u64, end: &End) -> String {
    let mut how = match end {
        End::Whole => String::new(),
        End::AsAdvised(instead) => format!("The diagnosis asks for no further stage: {instead}. "),
        End::Early { why, .. } => {
            let at = stages.last().map_or(0, |stage| stage.graph.stage);
            format!("The journey ended early, at stage {at}: {why}. ")
        }
    };
    for stage in stages {
        if let Some(fault) = stage.record.validity.faults.first() {
            how.push_str(&format!("What is said of stage {} is no proof: {fault}. ", stage.graph.stage));
        }
    }
    let mut serves: Vec<String> = stages.iter().filter_map(served).collect();
    let Some(last) = serves.pop() else {
        return format!("{how}What the app serves was not measured.");
    };
    let and = if serves.is_empty() { "" } else { " and " };
    let failures = match failed {
        0 => "no request failed on the way".to_owned(),
        1 => "1 request failed on the way".to_owned(),
        failed => format!("{failed} requests failed on the way"),
    };
    let shed: u64 = stages.iter().filter_map(|stage| stage.moved.as_ref()).map(|moved| moved.shed).sum();
    let refusals = match shed {
        0 => String::new(),
        shed => format!(", and {shed} were shed while a stage was taken"),
    };
    format!(
        "{how}The app serves {}{and}{last}, each instance having {:.2} cores; {failures}{refusals}.",
        serves.join(", "),
        shape::cores() * SIZE,
    )
}

/// `None`: it was not measured.
fn served(stage: &Stage) -> Option<String> {
    let capacity = &stage.climb.as_ref().filter(|climb| !climb.capacity.steps.is_empty())?.capacity;
    let at = stage.graph.stage;
    let Some(rate) = capacity.at_objective else {
        return Some(format!("none within its objective at stage {at}"));
    };
    let least = if stage.is_at_least() { "at least " } else { "" };
    Some(format!("{least}{:.0} requests/s at stage {at}", rate.requests_per_second))
}

fn taken(below: &Stage, stage: &Stage) -> String {
    let because = stage.because.words(below.graph.stage);
    match &stage.moved {
        Some(moved) => {
            format!("Stage {} was taken {}, because {because}.", stage.graph.stage, how(moved))
        }
        None => {
            format!("Stage {} was to be taken, because {because}; it was not reached.", stage.graph.stage)
        }
    }
}

fn how(moved: &Move) -> String {
    let Move { took, visits_per_second, sent, failed, shed, .. } = moved;
    let shed = if *shed == 0 { String::new() } else { format!(" and {shed} were shed") };
    format!(
        "within {:.1} s while {visits_per_second:.0} visitors a second came, and {failed} of their {sent} requests failed{shed}",
        took.as_secs_f64()
    )
}

fn found(stage: &Stage) -> Vec<String> {
    let Some(Climb { diagnosis, was_out_of_time, .. }) = &stage.climb else { return Vec::new() };
    let mut found = vec![format!("{}: {}.", stage.record.shape, diagnosis.sentence)];
    if *was_out_of_time {
        found.push(format!(
            "The search at stage {} was cut by the journey's time: it says less than a longer one would.",
            stage.graph.stage
        ));
    }
    found
}

fn legs(stages: &[Stage]) -> Vec<Leg> {
    let below = std::iter::once(None).chain(stages.iter().map(Some));
    below.zip(stages).map(|(below, stage)| leg(below, stage)).collect()
}

fn leg(below: Option<&Stage>, stage: &Stage) -> Leg {
    let climb = stage.climb.as_ref();
    let at = climb.and_then(|climb| climb.capacity.at_objective);
    let step = climb.and_then(|climb| {
        climb.capacity.steps.iter().find(|step| at.is_some_and(|at| step.visits == at.visits_per_second))
    });
    let diagnosed = below.and_then(|below| below.climb.as_ref()).map(|climb| &climb.diagnosis);
    Leg {
        stage: stage.graph.stage.to_string(),
        shape: stage.record.shape.clone(),
        capacity: at.map(|at| at.requests_per_second),
        is_at_least: stage.is_at_least(),
        p99_us: step.and_then(|step| step.p99_us),
        gave_way: climb.map_or_else(|| Some("not measured".to_owned()), gave_way),
        predicted_gain: diagnosed.and_then(|found| predicted(found, stage.graph.stage)),
        failed: stage.failed(),
        cost: None,
    }
}

fn gave_way(climb: &Climb) -> Option<String> {
    let found = &climb.diagnosis;
    match found.verdict {
        Found::NoBottleneckUpTo => None,
        Found::Invalid | Found::Unexplained => Some("not known".to_owned()),
        Found::Bottleneck | Found::TwoCandidates => {
            Some(found.causes.iter().map(|cause| cause.kind.to_string()).collect::<Vec<_>>().join(", or "))
        }
    }
}

fn part(stage: Stage) -> Part {
    let mut findings = Vec::new();
    if let Some(climb) = &stage.climb {
        findings.push(climb.capacity.to_string());
        findings.push(climb.diagnosis.sentence.clone());
        findings.extend(climb.diagnosis.evidence.iter().map(ToString::to_string));
        findings.extend(climb.diagnosis.doubts.iter().map(|doubt| format!("Doubt: {doubt}.")));
    }
    Part {
        search: stage
            .climb
            .as_ref()
            .map(|climb| json!({ "capacity": climb.capacity, "diagnosis": climb.diagnosis })),
        title: stage.record.shape.clone(),
        change: stage
            .moved
            .as_ref()
            .map(|moved| format!("{}. Taken {}", moved.changes.join("; "), how(moved))),
        findings,
        record: stage.record,
    }
}

fn as_value(stages: &[Stage], legs: &[Leg], at: usize) -> Value {
    let (stage, leg) = (&stages[at], &legs[at]);
    let below = at.checked_sub(1);
    json!({
        "stage": stage.graph.stage,
        "shape": leg.shape,
        "requests_per_second": leg.capacity,
        "is_at_least": leg.is_at_least,
        "was_out_of_time": stage.climb.as_ref().map(|climb| climb.was_out_of_time),
        "p99_us": leg.p99_us,
        "gave_way": leg.gave_way,
        "diagnosis": stage.climb.as_ref().map(|climb| &climb.diagnosis),
        "taken_because": below.map(|below| stage.because.words(stages[below].graph.stage)),
        "changes": stage.moved.as_ref().map(|moved| &moved.changes),
        "taken_within_s": stage.moved.as_ref().map(|moved| moved.took.as_secs_f64()),
        "shed_while_taken": stage.moved.as_ref().map(|moved| moved.shed),
        "gain_predicted": leg.predicted_gain,
        "gain_measured": below.and_then(|below| gain(&legs[below], leg)),
        "failed": leg.failed,
    })
}

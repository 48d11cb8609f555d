//! `rehearse` and `journey`: the crowd before it comes.
//!
//! The generator is another process of this program; the daemon is asked once a second what its tiers do. Everything is
//! written into the state folder as one page and as JSON, and the verdict is said here.

mod beforehand;
mod climb;
mod conduct;
mod explore;
mod in_use;
pub mod journey;
mod observe;
mod prove;
mod target;
mod tell;
mod write;

use std::future::pending;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use model::{Metric, Threshold};
use rehearsal::baseline;
use rehearsal::capacity::{Effort, Staircase};
use rehearsal::diagnosis::{Diagnosis, disturbed};
use rehearsal::load::{Limits, Load, Visit};
use rehearsal::record::{FailedRequests, Record, SEARCH, Second};
use rehearsal::report::{self, Document, Part, Passed, Verdict, how_it_failed};
use rehearsal::site::mix;
use rehearsal::summary::Summary;
use rehearsal::threshold;
use serde_json::json;

use self::climb::{Climb, climb};
use self::conduct::{Conductor, Subject};
use self::explore::Crowd;
use self::observe::Observer;
use self::target::{Target, TargetArgs};
use super::connect::App;
use super::say::{self, BOLD, Problem, Stream, YELLOW, paint};
use super::status::must_be_whole;
use super::up::Interrupts;
use super::{Place, manifest};
use crate::api::client::call_within;
use crate::api::{Request, Status};
use crate::rehearse::shape;

/// What is required where nobody says anything.
const USUAL_OBJECTIVE: [&str; 2] = ["p99 < 250ms", "errors < 0.1%"];
/// Requests per second beyond which a search does not go: there the generator needs a machine of its own.
const MOST_REQUESTS: f64 = 20_000.0;
/// Visits per second that a search begins with.
const FIRST_PROBE: f64 = 4.0;
/// Kinds of failed requests that are said; the page has more.
const FAILED_SHOWN: usize = 5;
/// A step of a search is over before anybody has read a page; so they read fast.
const SEARCH_THINK_MS: u64 = 500;
/// Of rates from second to second: visitors come in bunches.
const NOISE: f64 = 0.3;
/// For what it does not know how long it will take.
const SEARCH_LASTS: Duration = Duration::from_secs(240);
/// For the daemon to write down what was found.
const REMEMBER_LIMIT: Duration = Duration::from_secs(5);

const LIMITS: Limits = Limits {
    visitors: 50_000,
    connections: 16_000,
    connections_per_visit: 6,
    body_bytes: 64 << 20,
    patience_ms: 8_000,
    redirects: 5,
    threads: 1,
};

#[derive(Debug, clap::Args)]
pub struct RehearseArgs {
    /// front-page, hn, reddit, viral, overload, tv-ad, soak or replay (of the app's own access log)
    #[arg(default_value = "front-page")]
    profile: String,
    /// Instead: raise the load step by step until the app gives way, and say what did
    #[arg(long, conflicts_with_all = ["profile", "duration", "times", "base"])]
    find: bool,
    /// What is required, such as `p99 < 250ms`, `errors < 0.1%` or `p95{write} < 1s` [default: `slo` of the manifest]
    #[arg(long = "threshold", value_name = "THRESHOLD")]
    thresholds: Vec<Threshold>,
    /// How long all of it takes, in seconds, up to six hours
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// Visits per second that are usual; peaks of `viral` and `tv-ad` are multiples of it [default: by the access log]
    #[arg(long, value_name = "VISITS")]
    base: Option<f64>,
    /// Of `replay`: so many times as many visits
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    times: f64,
    /// With the same number, visitors come and choose at the same moments; only words in the place of `{random}` differ
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Compare with a record that `--save-baseline` has written
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write the record for later comparisons
    #[arg(long, value_name = "FILE")]
    save_baseline: Option<PathBuf>,
    /// Write the report there, as FILE.html and FILE.json [default: in the state folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
    /// Say the verdict and what it rests on as JSON
    #[arg(long)]
    json: bool,
}

/// What came of a rehearsal.
struct Outcome {
    record: Record,
    climb: Option<Climb>,
    judgements: Vec<threshold::Judgement>,
}

pub fn rehearse(place: &Place, args: &RehearseArgs) -> Result<(), Problem> {
    let app = place.app()?;
    app.must_be_ours()?;
    let manifest = manifest::read(&app.dir)?;
    let graph = manifest.graph();
    let status: Status = app.ask(&Request::Status, |_| {})?;
    must_be_whole(&status, "a rehearsal")?;
    let target = Target::of(&args.target, &status)?;
    let subject = Subject {
        app: graph.app.to_string(),
        shape: shape::words(graph),
        target: target.url.clone(),
        profile: if args.find { SEARCH.to_owned() } else { args.profile.clone() },
    };
    let before = beforehand::check(&app, args, &subject)?;
    let own = graph.rehearsal.as_ref();
    target.consent(&args.target, &app, &status, own.is_some_and(model::Rehearsal::writes))?;
    let interrupts = Interrupts::listen()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Problem::failed(error.to_string()))?;
    let crowd = Crowd::of(&subject.profile);
    let explored = explore::explore(&runtime, &app, &target, own, crowd, &interrupts)?;
    for note in &explored.notes {
        say::talk(&format!("{} {note}", paint(Stream::Err, BOLD, "note:")));
    }
    let objective = objective(&args.thresholds, own);
    let began = Instant::now();
    // What the tiers of this app do says nothing of another.
    let observer = match target.is_ours {
        true => Observer::start(&app.state.daemon_socket(), began),
        false => Observer::of_nobody(began),
    };
    let mut kept = Ok(());
    let outcome = if args.find {
        let visits = hurried(explored.visits);
        let staircase = staircase(&visits);
        let load = load(&target, visits, args.seed, 0.0, &objective);
        let above = manifest::above(&app.dir, &manifest, graph.stage);
        let mut conductor = Conductor::begin(subject, load, observer, began, SEARCH_LASTS, &interrupts)?;
        let shape = shape::of(graph, &above, &status);
        let mut climb = runtime.block_on(climb(&mut conductor, &staircase, &objective, shape, None))?;
        if conductor.is_proof() && target.is_ours {
            let (daemon, unlimited) =
                (app.state.daemon_socket(), status.machine.unlimited_because.as_deref());
            let proved = prove::prove(&mut conductor, &daemon, unlimited, staircase.ceiling, &mut climb);
            // What was found before stands.
            if let Err(problem) = runtime.block_on(proved) {
                climb
                    .diagnosis
                    .doubts
                    .push("it was not tested: the test could not be carried out".to_owned());
                problem.report();
            }
        }
        let mut record = conductor.end();
        record.found = climb.capacity.found().filter(|_| record.cut_short.is_none());
        if record.is_proof() && target.is_ours {
            // Whether it could be kept, the report is written.
            kept = write::remember_capacity(&app, &record.shape, &climb.capacity);
            tell_why(&app, &climb.diagnosis);
        }
        let serves = climb.capacity.at_objective.map_or(0.0, |rate| rate.requests_per_second);
        let judgements = threshold::judge_capacity(&of_capacity(&args.thresholds, own), serves);
        Outcome { record, climb: Some(climb), judgements }
    } else {
        let capacity = write::capacity(&app, &subject.shape);
        let phases = beforehand::phases(args, explored.rates.as_ref(), capacity)?;
        let lasts = Duration::from_millis(phases.iter().map(|phase| phase.lasts_ms).sum());
        let load = load(&target, explored.visits, args.seed, NOISE, &objective);
        let mut conductor = Conductor::begin(subject, load, observer, began, lasts, &interrupts)?;
        let played = runtime.block_on(conductor.play(phases, pending()))?;
        let disturbed = disturbed(conductor.seconds(&played), &conductor.tiers());
        conductor.doubt(&disturbed);
        let record = conductor.end();
        let judgements = threshold::judge(&objective, implied(&args.profile), whole(&record));
        Outcome { record, climb: None, judgements }
    };
    match (report(&app, args, before.as_ref(), outcome), kept) {
        (Err(problem), Err(left)) => {
            left.report();
            Err(problem)
        }
        (reported, kept) => reported.and(kept),
    }
}

/// Lets `why` know what was found, and by which figures.
fn tell_why(app: &App, diagnosis: &Diagnosis) {
    let figures: Vec<String> = diagnosis.evidence.iter().map(ToString::to_string).collect();
    let request = Request::Remember { decision: diagnosis.sentence.clone(), evidence: figures.join("; ") };
    if call_within::<()>(&app.state.daemon_socket(), &request, REMEMBER_LIMIT).is_err() {
        say::talk(&format!(
            "{} the daemon did not answer: `why` knows nothing of this",
            paint(Stream::Err, BOLD, "note:")
        ));
    }
}

/// The seconds whose requests had all the time that visitors have. The last of a run that was cut short were cut with it.
fn whole(record: &Record) -> &[Second] {
    let cut = match record.cut_short {
        None => 0,
        Some(_) => {
            usize::try_from(LIMITS.patience_ms.div_ceil(1_000)).unwrap_or(usize::MAX).saturating_add(1)
        }
    };
    &record.seconds[..record.seconds.len().saturating_sub(cut)]
}

/// What is required at each rate: what was typed, what the manifest says, or what is usual.
fn objective(typed: &[Threshold], own: Option<&model::Rehearsal>) -> Vec<Threshold> {
    required(typed, own, |threshold| threshold.metric != Metric::Capacity)
        .unwrap_or_else(|| USUAL_OBJECTIVE.iter().filter_map(|text| text.parse().ok()).collect())
}

/// What is required of what a search finds: what was typed, or what the manifest says.
fn of_capacity(typed: &[Threshold], own: Option<&model::Rehearsal>) -> Vec<Threshold> {
    required(typed, own, |threshold| threshold.metric == Metric::Capacity).unwrap_or_default()
}

/// Of both kinds somebody may have typed one, and the manifest say the other.
fn required(
    typed: &[Threshold],
    own: Option<&model::Rehearsal>,
    is_meant: impl Fn(&Threshold) -> bool,
) -> Option<Vec<Threshold>> {
    let slo = own.map_or(&[][..], |own| &own.slo[..]);
    let meant = |all: &[Threshold]| all.iter().filter(|one| is_meant(one)).cloned().collect::<Vec<_>>();
    [typed, slo].into_iter().map(meant).find(|some| !some.is_empty())
}

/// What is required of a profile where nobody says anything of it. Of ten times what it serves an app has to turn most away.
fn implied(profile: &str) -> &'static [&'static str] {
    match profile {
        "overload" => &["errors <= 0.1%"],
        _ => &["errors <= 0.1%", "shed <= 1%"],
    }
}

fn load(target: &Target, visits: Vec<Visit>, seed: u64, noise: f64, objective: &[Threshold]) -> Load {
    Load {
        origin: target.origin.clone(),
        seed,
        phases: Vec::new(),
        noise,
        visits,
        limits: LIMITS,
        judged_by_us: threshold::shortest(objective).map(|bound| bound as u64),
    }
}

/// Visits whose visitors hardly read.
fn hurried(mut visits: Vec<Visit>) -> Vec<Visit> {
    for step in visits.iter_mut().flat_map(|visit| &mut visit.steps) {
        step.think_median_ms = step.think_median_ms.min(SEARCH_THINK_MS);
    }
    visits
}

fn staircase(visits: &[Visit]) -> Staircase {
    let requests_per_visit = mix::requests_per_visit(visits);
    Staircase {
        start: FIRST_PROBE,
        ceiling: MOST_REQUESTS / requests_per_visit.max(1.0),
        requests_per_visit,
        effort: Effort::Full,
    }
}

/// `before`: what it is compared with.
fn report(app: &App, args: &RehearseArgs, before: Option<&Record>, outcome: Outcome) -> Result<(), Problem> {
    let Outcome { record, climb, judgements } = outcome;
    let mut worse = Vec::new();
    if let Some(before) = before {
        let compared = baseline::compare(before, &record, args.seed);
        for why in &compared.unlike {
            say::talk(&format!("{} not compared: {why}", paint(Stream::Err, YELLOW, "note:")));
        }
        worse = compared.changes.iter().filter(|change| change.is_worse).map(ToString::to_string).collect();
    }
    let verdict = verdict(&record, climb.as_ref(), &judgements, &worse);
    let title = format!("{}: rehearsal, {}", record.app, record.profile);
    let document = Document {
        title,
        verdict: verdict.clone(),
        evidence: evidence(&record, &verdict, climb.as_ref(), &judgements, &worse),
        tables: climb.iter().filter_map(|climb| report::staircase::table(&climb.capacity)).collect(),
        parts: vec![Part {
            title: record.shape.clone(),
            change: None,
            findings: climb.as_ref().map(|climb| vec![climb.capacity.to_string()]).unwrap_or_default(),
            search: climb
                .as_ref()
                .map(|climb| json!({ "capacity": climb.capacity, "diagnosis": climb.diagnosis })),
            record,
        }],
    };
    let written = tell::written(app, args.out.as_deref(), &document)?;
    let record = &document.parts[0].record;
    if args.json {
        say::json(&json!({
            "verdict": document.verdict,
            "valid": record.is_proof(),
            "validity": record.validity,
            "cut_short": record.cut_short,
            "failed": record.failed,
            "thresholds": judgements,
            "capacity": climb.as_ref().map(|climb| &climb.capacity),
            "diagnosis": climb.as_ref().map(|climb| &climb.diagnosis),
            "regressions": worse,
            "page": written.page,
            "record": written.json,
        }))?;
    } else {
        tell::text(&document, &written)?;
    }
    if let Some(path) = &args.save_baseline {
        baseline::save(path, record)
            .map_err(|error| Problem::failed(format!("{}: {error}", path.display())))?;
    }
    tell::outcome(&document)
}

fn verdict(
    record: &Record,
    climb: Option<&Climb>,
    judgements: &[threshold::Judgement],
    worse: &[String],
) -> Verdict {
    if let Some(fault) = record.validity.faults.first() {
        let sentence = format!("This run says nothing of the app: {fault}.");
        return Verdict { passed: Passed::NotAsked, sentence };
    }
    if let Some(why) = &record.cut_short {
        let sentence = format!("This run was cut short, and is no proof: {why}.");
        return Verdict { passed: Passed::NotAsked, sentence };
    }
    let broken: Vec<String> =
        judgements.iter().filter(|judgement| !judgement.kept).map(ToString::to_string).collect();
    match (broken.as_slice(), worse) {
        ([], []) => match climb {
            Some(climb) => Verdict {
                passed: if judgements.is_empty() { Passed::NotAsked } else { Passed::Yes },
                sentence: climb.diagnosis.sentence.clone(),
            },
            None => Verdict {
                passed: Passed::Yes,
                sentence: format!("The app kept what was required of it under `{}`.", record.profile),
            },
        },
        ([], worse) => Verdict {
            passed: Passed::No,
            sentence: format!("It is worse than before: {}.", worse.join("; ")),
        },
        (broken, _) => Verdict {
            passed: Passed::No,
            sentence: format!("The app did not keep what was required of it: {}.", broken.join("; ")),
        },
    }
}

/// What the app refused in so many words, where nobody has said how much of that may be.
fn shed_unasked(record: &Record, judgements: &[threshold::Judgement]) -> Option<String> {
    let is_asked = judgements.iter().any(|judgement| judgement.threshold.metric == Metric::Shed);
    let share = Summary::of(&record.seconds).shed_share().filter(|share| *share > 0.0 && !is_asked)?;
    let share = Metric::Shed.amount(share);
    Some(format!("shed is {share}, of which nothing is required: `--threshold 'shed < 1%'` requires it"))
}

fn evidence(
    record: &Record,
    verdict: &Verdict,
    climb: Option<&Climb>,
    judgements: &[threshold::Judgement],
    worse: &[String],
) -> Vec<String> {
    let mut lines: Vec<String> = judgements.iter().map(ToString::to_string).collect();
    lines.extend(worse.iter().cloned());
    // A search is stricter.
    lines.extend(shed_unasked(record, judgements).filter(|_| climb.is_none()));
    let mut failed: Vec<&FailedRequests> = record.failed.iter().collect();
    failed.sort_by_key(|one| std::cmp::Reverse(one.count));
    lines.extend(failed.into_iter().take(FAILED_SHOWN).filter_map(|one| {
        Some(format!(
            "{}: {}, {}",
            one.path,
            how_it_failed(one)?,
            model::counted(usize::try_from(one.count).ok()?, "request")
        ))
    }));
    let Some(Climb { capacity, diagnosis, .. }) = climb else { return lines };
    if verdict.passed == Passed::No {
        lines.push(diagnosis.sentence.clone());
    }
    lines.push(capacity.to_string());
    lines.push(capacity.law());
    lines.extend(diagnosis.evidence.iter().map(ToString::to_string));
    let advice = diagnosis.recommendation.iter().map(|advice| ("What to do", advice));
    for (what, advice) in advice.chain(diagnosis.alternatives.iter().map(|advice| ("Or", advice))) {
        let gain = advice.predicted.as_ref().map_or(String::new(), |predicted| {
            format!(": {:.1} times as much is predicted, by {}", predicted.gain, predicted.formula)
        });
        lines.push(format!("{what}: {}{gain}.", advice.says));
    }
    lines.push(format!("Confidence: {}.", diagnosis.confidence));
    lines.extend(diagnosis.doubts.iter().map(|doubt| format!("Doubt: {doubt}.")));
    if !diagnosis.falsified_by.is_empty() {
        lines.push(format!("It is wrong if {}.", diagnosis.falsified_by));
    }
    lines
}

#[cfg(test)]
mod tests;

//! A diagnosis in words and figures.

use super::candidates::{Candidate, Residence};
use super::evidence::{more, tier};
use super::knee::{self, Knee};
use super::law::{Bound, Demands, Plant};
use super::recommend::{Recommendation, recommend};
use super::{Confidence, Diagnosis, Kind, Line, Staircase, Step, Verdict};

/// Three digits that count: `0.94`, `12.5`, `212`, and none that say nothing.
pub(super) fn figure(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        _ if !value.is_finite() => return "any number".to_owned(),
        100.0.. => return format!("{value:.0}"),
        9.95.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent.abs() < 9.95 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

pub(super) fn cores(count: f64) -> String {
    let unit = if (count - 1.0).abs() < 0.005 { "core" } else { "cores" };
    format!("{} {unit}", figure(count))
}

pub(super) fn milliseconds(seconds: f64) -> String {
    format!("{} ms", figure(seconds * 1_000.0))
}

pub(super) fn bound(bound: Option<&Bound>) -> String {
    match bound {
        None => "nothing".to_owned(),
        Some(bound) if bound.demand > 0.0 => {
            format!("{}: {} / {}", bound.tier, cores(bound.cores), milliseconds(bound.demand))
        }
        Some(bound) => format!("{}: as seen", bound.tier),
    }
}

pub(super) fn named(kind: Kind) -> &'static str {
    match kind {
        Kind::WebCpu => "the app's processors",
        Kind::WebThread => "the app's one thread",
        Kind::WebWorkers => "the app's workers, or what it waits for outside",
        Kind::EdgeCpu => "the edge's processors",
        Kind::ProxyCpu => "the database proxy's processors",
        Kind::Pool => "connections to the primary",
        Kind::PrimaryReads => "the primary's processors, by reads",
        Kind::MissingIndex => "the primary's processors, by one statement that goes through many rows",
        Kind::PrimaryWrites => "the primary's processors, by writes",
        Kind::ReplicaLag => "the primary's processors, by reads that no replica was fresh enough for",
        Kind::ReplicaCpu => "the replicas' processors",
        Kind::Locks => "locks in the primary",
        Kind::DataDisk => "the primary's disk, by reading",
        Kind::LogDisk => "the primary's disk, by its log",
        Kind::LimitTooLow => "a limit that refuses requests",
    }
}

pub(super) fn explained(
    staircase: &Staircase,
    knee: &Knee,
    verdict: Verdict,
    causes: &[Candidate],
) -> Diagnosis {
    let (recommendation, alternatives) = recommend(staircase, knee, causes);
    let at = figure(knee.last_good.achieved);
    let first = &causes[0];
    let what = match verdict {
        Verdict::TwoCandidates => format!(
            "two candidates give way above {at}/s: {} ({}) and {} ({})",
            named(first.kind),
            first.because,
            named(causes[1].kind),
            causes[1].because
        ),
        _ => format!("what gives way above {at}/s is {}: {}", named(first.kind), first.because),
    };
    let reads = reads(staircase, knee, first.kind);
    let sentence = format!("{what}{reads} ({}); {}", knee.missed, advice(&recommendation));
    let doubts = doubts(staircase, knee, first.kind);
    Diagnosis {
        verdict,
        causes: causes.iter().map(Candidate::cause).collect(),
        capacity: knee.last_good.achieved,
        sentence,
        evidence: evidence(staircase, knee),
        recommendation: Some(recommendation),
        alternatives,
        confidence: match verdict {
            Verdict::Bottleneck if doubts.is_empty() => Confidence::Fair,
            _ => Confidence::Low,
        },
        doubts,
        falsified_by: falsified_by(first),
    }
}

fn advice(recommendation: &Recommendation) -> String {
    match &recommendation.predicted {
        None => recommendation.says.clone(),
        Some(predicted) => {
            let then = match predicted.bounds.first() {
                Some(bound) => format!(", and then what gives way is {}", bound.tier),
                None => String::new(),
            };
            format!(
                "{}: predicted {}x, {}/s{then}",
                recommendation.says,
                figure(predicted.gain),
                figure(predicted.capacity)
            )
        }
    }
}

/// What gives way, as [`explained`] has it, and no word of what to do about it.
pub(super) fn without_advice(diagnosis: &Diagnosis) -> &str {
    let Diagnosis { sentence, recommendation, .. } = diagnosis;
    let advised = recommendation.as_ref().map(advice).unwrap_or_default();
    sentence.strip_suffix(&advised).map_or(sentence.as_str(), |what| what.trim_end_matches("; "))
}

/// What the primary does, where that is what counts.
fn reads(staircase: &Staircase, knee: &Knee, kind: Kind) -> String {
    let primary = knee.full.tier(tier::PRIMARY);
    let share = |name| {
        primary.more(name).map(|part| if primary.in_flight > 0.0 { part / primary.in_flight } else { 0.0 })
    };
    match kind {
        Kind::PrimaryReads | Kind::PrimaryWrites | Kind::ReplicaLag => match share(more::READS_IN_FLIGHT) {
            Some(reads) => format!(
                ", its load is {}, and {} of the time of its statements only reads",
                figure(primary.in_flight),
                percent(reads)
            ),
            None => String::new(),
        },
        Kind::MissingIndex => {
            let runs = primary.more(more::TOP_DONE).unwrap_or(0.0);
            let rows = primary.more(more::ROWS_READ).unwrap_or(0.0);
            let rows = if runs > 0.0 { rows / runs } else { 0.0 };
            let text = staircase.top_statement.as_deref().unwrap_or("one statement");
            format!(
                ", {} of its time goes to {text}, with {} rows read each time it is run",
                percent(share(more::TOP_IN_FLIGHT).unwrap_or(0.0)),
                figure(rows)
            )
        }
        _ => String::new(),
    }
}

fn doubts(staircase: &Staircase, knee: &Knee, kind: Kind) -> Vec<String> {
    let mut doubts = Vec::new();
    if !staircase.shape.limits_enforced {
        doubts.push("sizes are not enforced here, so tiers take from each other what they need".to_owned());
    }
    let full = knee.full;
    let unseen = full.tiers.contains_key(tier::PRIMARY)
        && full.tier(tier::PRIMARY).more(more::SESSIONS_RUNNING).is_none();
    if unseen {
        doubts.push("what sessions of the primary wait for was not looked at".to_owned());
    }
    doubts.extend(gaps(knee));
    if kind == Kind::WebWorkers {
        doubts.push("what an app waits for within itself is not seen from outside".to_owned());
    }
    if !full.tiers.contains_key(tier::MACHINE) {
        doubts.push("what else the machine does was not looked at".to_owned());
    }
    doubts
}

/// Where nobody saw what the tiers did, a sentence for each step.
fn gaps(knee: &Knee) -> Vec<String> {
    let mut gaps: Vec<String> = Vec::new();
    for step in knee.steps().into_iter().filter(|step| step.unseen > 0.0) {
        let gap = format!(
            "in {} of the time at {}/s nobody saw what the tiers did",
            percent(step.unseen),
            figure(step.offered)
        );
        // A step may be two of the three.
        if !gaps.contains(&gap) {
            gaps.push(gap);
        }
    }
    gaps
}

fn falsified_by(first: &Candidate) -> String {
    let tier = first.tier;
    match first.kind {
        Kind::WebCpu
        | Kind::EdgeCpu
        | Kind::ProxyCpu
        | Kind::PrimaryReads
        | Kind::PrimaryWrites
        | Kind::MissingIndex
        | Kind::ReplicaLag
        | Kind::ReplicaCpu => format!(
            "with a tenth less of the processors of {tier} the app serves as much as before, or a tenth less of another \
             tier's costs as much"
        ),
        Kind::WebThread => "with a tenth less of its one core the app serves as much as before".to_owned(),
        Kind::WebWorkers => "with more workers the app serves no more, or with fewer no less".to_owned(),
        Kind::Pool => "with more connections the app serves no more".to_owned(),
        Kind::Locks => "with the locking statements left out the app serves no more".to_owned(),
        Kind::DataDisk => "with all data in memory the app serves no more".to_owned(),
        Kind::LogDisk => "with `synchronous_commit` off the app serves no more".to_owned(),
        Kind::LimitTooLow => "with the limit raised some tier is full at once".to_owned(),
    }
}

/// The figures of each tier, at half the load and where it gave way.
fn evidence(staircase: &Staircase, knee: &Knee) -> Vec<Line> {
    let (half, full) = (knee.half, knee.full);
    let mut lines = Vec::new();
    let mut add = |tier: &str, measure: &str, read: &dyn Fn(&Step) -> Option<f64>, unit: &str| {
        if let (Some(at_half), Some(at_knee)) = (read(half), read(full)) {
            let (tier, measure, unit) = (tier.to_owned(), measure.to_owned(), unit.to_owned());
            lines.push(Line { tier, measure, at_half, at_knee, unit });
        }
    };
    add("clients", "asked", &|step| Some(step.offered), "/s");
    add("clients", "answered", &|step| Some(step.achieved), "/s");
    add("clients", "p99", &|step| Some(step.p99_us as f64 / 1e3), " ms");
    add("clients", "failed", &|step| Some(step.failed * 100.0), " %");
    add("clients", "refused", &|step| Some(step.shed * 100.0), " %");
    let cores = staircase.shape.machine_cores;
    for name in
        [tier::MACHINE, tier::EDGE, tier::WEB, tier::PROXY, tier::PRIMARY, tier::STANDBYS, tier::REPLICAS]
    {
        if !full.tiers.contains_key(name) {
            continue;
        }
        let allowed = full.tier(name).cpu_allowed;
        let of = if allowed > 0.0 { allowed } else { cores };
        add(name, "processors", &|step| Some(step.tier(name).cpu), &format!(" of {}", self::cores(of)));
        if full.tier(name).throttled >= 0.01 {
            add(name, "held back", &|step| Some(step.tier(name).throttled * 100.0), " % of the time");
        }
        if name != tier::MACHINE {
            add(name, "under way", &|step| Some(step.tier(name).in_flight), "");
        }
        if full.tier(name).waiting >= 0.1 {
            add(name, "waiting", &|step| Some(step.tier(name).waiting), "");
        }
        for measured in full.tier(name).more.keys() {
            let words = measured.replace('_', " ");
            add(name, &words, &|step| step.tier(name).more(measured), "");
        }
    }
    let residence = |read: fn(&Residence) -> f64| {
        move |step: &Step| Some(read(&Residence::of(step)) * 1_000.0).filter(|ms| *ms > 0.0)
    };
    add("latency", "edge, and before it", &residence(|r| r.edge), " ms");
    add("latency", "app, and before it", &residence(|r| r.web), " ms");
    add("latency", "waiting for a connection", &residence(|r| r.pool), " ms");
    add("latency", "primary", &residence(|r| r.primary), " ms");
    add("latency", "replicas", &residence(|r| r.replicas), " ms");
    lines
}

fn nothing(verdict: Verdict, sentence: String) -> Diagnosis {
    Diagnosis {
        verdict,
        causes: Vec::new(),
        capacity: 0.0,
        sentence,
        evidence: Vec::new(),
        recommendation: None,
        alternatives: Vec::new(),
        confidence: Confidence::Low,
        doubts: Vec::new(),
        falsified_by: String::new(),
    }
}

pub(super) fn invalid(faults: &[String]) -> Diagnosis {
    nothing(Verdict::Invalid, format!("the run says nothing about the app: {}", faults.join("; ")))
}

pub(super) fn none_up_to(staircase: &Staircase) -> Diagnosis {
    let Some(last) = staircase.steps.last() else { return invalid(&["no steps".to_owned()]) };
    let before = &staircase.steps[staircase.steps.len() - 2];
    let knee = Knee { last_good: before, full: last, half: before, missed: String::new() };
    let bounds = Plant::of(&staircase.shape).bounds(&Demands::of(&knee, &staircase.shape));
    let fullest = bounds.first().map_or_else(String::new, |bound| {
        let used = last.rate() / bound.rate;
        format!(
            "; the fullest is {} at {}, which would hold up to {}/s ({})",
            bound.tier,
            percent(used),
            figure(bound.rate),
            self::bound(Some(bound))
        )
    });
    Diagnosis {
        capacity: last.achieved,
        evidence: evidence(staircase, &knee),
        confidence: Confidence::Fair,
        doubts: gaps(&knee),
        falsified_by: format!(
            "the objective is missed at or below {}/s in another run",
            figure(last.offered)
        ),
        ..nothing(
            Verdict::NoBottleneckUpTo,
            format!("no bottleneck up to {}/s{fullest}", figure(last.achieved)),
        )
    }
}

pub(super) fn too_slow_at_once(staircase: &Staircase) -> Diagnosis {
    let missed = knee::missed(&staircase.steps[0]);
    let sentence = format!(
        "the objective is missed at the lowest load already ({missed}): it is so whatever the load, or the search began too \
         high; mend that first, or allow more"
    );
    nothing(Verdict::Unexplained, sentence)
}

pub(super) fn unseen(knee: &Knee) -> Diagnosis {
    let last_good = figure(knee.last_good.achieved);
    Diagnosis {
        capacity: knee.last_good.achieved,
        ..nothing(
            Verdict::Unexplained,
            format!(
                "it gives way above {last_good}/s ({}), and what was full is not known: {}",
                knee.missed,
                gaps(knee).join("; ")
            ),
        )
    }
}

pub(super) fn unexplained(staircase: &Staircase, knee: &Knee, all: &[Candidate]) -> Diagnosis {
    let nearest = all.first().map_or_else(String::new, |first| {
        format!("; the likeliest is {} ({})", named(first.kind), first.because)
    });
    Diagnosis {
        capacity: knee.last_good.achieved,
        causes: all.first().map(Candidate::cause).into_iter().collect(),
        evidence: evidence(staircase, knee),
        doubts: doubts(staircase, knee, Kind::WebWorkers),
        ..nothing(
            Verdict::Unexplained,
            format!(
                "it gives way above {}/s ({}), and nothing that is measured is full{nearest}",
                figure(knee.last_good.achieved),
                knee.missed
            ),
        )
    }
}

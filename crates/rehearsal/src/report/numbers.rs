//! The figures of a record as tables: what the charts show, for those who read, search or copy, or have no scripts.

use std::collections::BTreeMap;

use super::Table;
use super::columns::Columns;
use super::words::{
    clock, count, dash, duration, duration_or_dash, failure, how_it_failed, of, percent, rate, share,
};
use crate::record::{FailedRequests, Record, Second, Tier, TierSecond};
use crate::summary::{Summary, classes};

/// Of the table of the course of time.
const MOST_ROWS: usize = 60;

/// What stands in large type: a name, a figure, and a word on it.
pub struct KeyFigure {
    pub name: &'static str,
    pub figure: String,
    pub note: String,
}

pub fn key_figures(record: &Record) -> Vec<KeyFigure> {
    let all = Summary::of(&record.seconds);
    let peak = record.seconds.iter().map(|second| Summary::of([second]).sent).max().unwrap_or(0);
    let visitors = record.seconds.iter().map(|second| second.visitors).max().unwrap_or(0);
    let visits: u64 = record.seconds.iter().map(|second| u64::from(second.visits)).sum();
    let lasted = record.seconds.len() as u64;
    let figure = |name, figure, note| KeyFigure { name, figure, note };
    vec![
        figure("Requests", count(all.sent), format!("{} visits in {}", count(visits), clock(lasted))),
        figure("Failed", count(all.failed()), format!("{} of all", share(all.failed(), all.sent))),
        figure("Shed", count(all.shed()), format!("{} of all", share(all.shed(), all.sent))),
        figure(
            "Latency p50",
            duration_or_dash(all.latency.quantile(0.5)),
            format!("p90 {}", duration_or_dash(all.latency.quantile(0.9))),
        ),
        figure(
            "Latency p99",
            duration_or_dash(all.latency.quantile(0.99)),
            format!("slowest {}", duration_or_dash(all.latency.max())),
        ),
        figure(
            "Busiest second",
            format!("{}/s", count(peak)),
            format!("{} at once", of(u64::from(visitors), "visitor")),
        ),
    ]
}

/// All tables of a record, in the order of the page.
pub fn tables(record: &Record) -> Vec<Table> {
    [
        Some(by_class(record)),
        failures(record),
        failed(record),
        Some(by_phase(record)),
        by_tier(record),
        Some(course(record)),
    ]
    .into_iter()
    .flatten()
    .chain([generator(record)])
    .collect()
}

fn table(title: &str, head: &[&str], rows: Vec<Vec<String>>) -> Table {
    let head = head.iter().map(|&name| name.to_owned()).collect();
    Table { title: title.to_owned(), head, rows, note: None }
}

fn by_class(record: &Record) -> Table {
    let seconds = &record.seconds;
    let row = |name: &str| class_row(name, &Summary::of_class(seconds, name));
    let mut rows: Vec<Vec<String>> = classes(seconds).into_iter().map(row).collect();
    rows.push(class_row("all", &Summary::of(seconds)));
    let head = [
        "class",
        "requests",
        "ok",
        "shed",
        "failed",
        "without an end",
        "p50",
        "p90",
        "p99",
        "slowest",
        "p99 of ok",
        "p99 once sent",
    ];
    Table {
        note: Some(
            "Latencies are of what was answered in full, whatever the status, but for `p99 of ok`, from the moment a request was \
             meant to be sent; in the last column from when it was really sent."
                .to_owned(),
        ),
        ..table("By class", &head, rows)
    }
}

fn class_row(name: &str, of: &Summary) -> Vec<String> {
    vec![
        name.to_owned(),
        count(of.sent),
        share(of.ok(), of.sent),
        count(of.shed()),
        count(of.failed()),
        count(of.sent.saturating_sub(of.settled())),
        duration_or_dash(of.latency.quantile(0.5)),
        duration_or_dash(of.latency.quantile(0.9)),
        duration_or_dash(of.latency.quantile(0.99)),
        duration_or_dash(of.latency.max()),
        duration_or_dash(of.latency_ok.quantile(0.99)),
        duration_or_dash(of.service.quantile(0.99)),
    ]
}

fn failures(record: &Record) -> Option<Table> {
    let mut kinds: BTreeMap<(&str, _), u64> = BTreeMap::new();
    for (name, class) in record.seconds.iter().flat_map(|second| &second.classes) {
        for (outcome, n) in class.outcomes.iter().filter(|(_, n)| **n > 0) {
            *kinds.entry((name.as_str(), *outcome)).or_default() += u64::from(*n);
        }
    }
    let row = |((name, outcome), n)| Some(vec![str::to_owned(name), failure(outcome)?.to_owned(), count(n)]);
    let rows: Vec<Vec<String>> = kinds.into_iter().filter_map(row).collect();
    (!rows.is_empty()).then(|| table("Failed requests by kind", &["class", "how", "requests"], rows))
}

fn failed(record: &Record) -> Option<Table> {
    let row = |one: &FailedRequests| Some(vec![one.path.clone(), how_it_failed(one)?, count(one.count)]);
    let rows: Vec<Vec<String>> = record.failed.iter().filter_map(row).collect();
    (!rows.is_empty()).then(|| table("Which requests failed", &["path", "how", "requests"], rows))
}

fn by_phase(record: &Record) -> Table {
    let phases = record.seconds.chunk_by(|a, b| a.phase == b.phase);
    let head =
        ["phase", "from", "visits/s wished", "visits/s begun", "requests/s", "shed", "failed", "p50", "p99"];
    table("By phase", &head, phases.map(|seconds| stretch(seconds, &seconds[0].phase)).collect())
}

/// A few seconds in one row.
fn stretch(seconds: &[Second], name: &str) -> Vec<String> {
    let all = Summary::of(seconds);
    let lasted = seconds.len() as f64;
    let begun: u64 = seconds.iter().map(|second| u64::from(second.visits)).sum();
    let wished: f64 = seconds.iter().map(|second| second.wished_visits).sum();
    vec![
        name.to_owned(),
        clock(seconds.first().map_or(0, |second| u64::from(second.at))),
        rate(wished / lasted),
        rate(begun as f64 / lasted),
        rate(all.sent as f64 / lasted),
        count(all.shed()),
        count(all.failed()),
        duration_or_dash(all.latency.quantile(0.5)),
        duration_or_dash(all.latency.quantile(0.99)),
    ]
}

fn by_tier(record: &Record) -> Option<Table> {
    let head = [
        "tier",
        "ready",
        "CPU, cores",
        "of what it may use",
        "at most",
        "held back",
        "waiting, at most",
        "finished",
        "errors",
    ];
    let rows: Vec<Vec<String>> = record.tiers.iter().filter_map(tier_row).collect();
    (!rows.is_empty()).then(|| table("By tier", &head, rows))
}

fn tier_row(tier: &Tier) -> Option<Vec<String>> {
    let seconds = &tier.seconds;
    let last = seconds.last()?;
    let sum = |of: fn(&TierSecond) -> f64| seconds.iter().map(of).sum::<f64>();
    let mean = |of: fn(&TierSecond) -> f64| sum(of) / seconds.len() as f64;
    let most = |of: fn(&TierSecond) -> f64| seconds.iter().map(of).fold(0.0, f64::max);
    let of_allowed = |second: &TierSecond| second.cpu / second.cpu_allowed;
    // What is counted in a moment more than a second is no more than there is.
    let allowed = |share: f64| if share.is_finite() { percent(share.min(1.0)) } else { dash() };
    Some(vec![
        tier.name.clone(),
        last.members.to_string(),
        rate(mean(|second| second.cpu)),
        allowed(sum(|second| second.cpu) / sum(|second| second.cpu_allowed)),
        allowed(most(of_allowed)),
        percent(mean(|second| second.throttled)),
        rate(most(|second| second.waiting)),
        count(sum(|second| second.done).round() as u64),
        count(sum(|second| second.errors).round() as u64),
    ])
}

fn course(record: &Record) -> Table {
    let seconds = &record.seconds;
    let columns = Columns::at_most(seconds.len(), MOST_ROWS);
    let rows = columns.ranges().map(|range| {
        let seconds = &seconds[range];
        stretch(seconds, seconds.first().map_or("", |second| second.phase.as_str()))
    });
    let head =
        ["phase", "from", "visits/s wished", "visits/s begun", "requests/s", "shed", "failed", "p50", "p99"];
    let title = match columns.step {
        1 => "Second by second".to_owned(),
        step => format!("Every {step} seconds"),
    };
    table(&title, &head, rows.collect())
}

fn generator(record: &Record) -> Table {
    let validity = &record.validity;
    let row = |name: &str, figure: String| vec![name.to_owned(), figure];
    let rows = vec![
        row("requests were late by, p99", duration(validity.schedule_error_p99_us)),
        row("its processor time per request", duration(validity.cpu_us_per_request.round() as u64)),
        row("its share of the machine's processor time", percent(validity.cpu_share)),
        row("taken by other guests of the host", percent(validity.stolen)),
        row("requests it could not send, at its limits", count(validity.not_offered)),
        row("seed", record.seed.to_string()),
    ];
    table("The generator of this load", &["of itself", "figure"], rows)
}

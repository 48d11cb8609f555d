//! What the page's script draws of one record: column-wise, rounded, and no more than a page can carry.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, Serializer};

use super::columns::Columns;
use super::heat::Heat;
use super::words::{failure, shortened};
use crate::record::{Event, Outcome, Record, Second, Tier, TierSecond};
use crate::summary::{Latencies, Summary};

/// Classes that can be looked at alone, those with the most requests. The tables have all.
const MOST_CLASSES: usize = 8;
/// Lines of what tiers measured, over all charts. The record has all.
const MOST_LINES: usize = 96;
/// Marks for events and phases. The record has all.
pub const MOST_MARKS: usize = 200;
/// Characters of a name that a stranger chose.
pub const MOST_NAME: usize = 120;

/// Every list of values is as long as there are columns.
#[derive(Debug, Serialize)]
pub struct Drawing {
    /// Seconds that a column stands for.
    step: usize,
    columns: usize,
    phases: Vec<Mark>,
    events: Vec<Mark>,
    wished: Vec<Figure>,
    begun: Vec<Figure>,
    visitors: Vec<Figure>,
    connections: Vec<Figure>,
    /// All requests first, then class by class.
    groups: Vec<Group>,
    /// Failures per second, by kind. Kinds that did not occur are left out.
    failures: Vec<Line>,
    heat: Option<Heat>,
    tiers: Vec<Chart>,
    /// Lines of tiers that found no place.
    left_out: usize,
}

/// Something at a moment, in seconds since the run began.
#[derive(Debug, Serialize)]
struct Mark {
    at: f64,
    text: String,
}

/// Rates per second, and latencies of what was answered in full, in µs.
#[derive(Debug, Serialize)]
struct Group {
    name: String,
    sent: Vec<Figure>,
    ok: Vec<Figure>,
    shed: Vec<Figure>,
    failed: Vec<Figure>,
    p50: Vec<Option<u64>>,
    p90: Vec<Option<u64>>,
    p99: Vec<Option<u64>>,
    max: Vec<Option<u64>>,
    /// The 99th percentile from when requests were really sent.
    service: Vec<Option<u64>>,
}

#[derive(Debug, Serialize)]
struct Chart {
    title: String,
    unit: Unit,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Share,
    Cores,
    PerSecond,
    Us,
    Plain,
    /// Whole things that come and go at once, drawn in steps.
    Members,
}

#[derive(Debug, Serialize)]
struct Line {
    label: String,
    values: Vec<Option<Figure>>,
}

/// With four digits, which is more than a chart shows. What is no number is a gap.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figure(f64);

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = self.0;
        if !value.is_finite() {
            return serializer.serialize_none();
        }
        let rounded = if value == 0.0 {
            0.0
        } else {
            let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
            let rounded = (value * scale).round() / scale;
            if rounded.is_finite() { rounded } else { value }
        };
        if rounded.fract() == 0.0 && rounded.abs() < 1e15 {
            serializer.serialize_i64(rounded as i64)
        } else {
            serializer.serialize_f64(rounded)
        }
    }
}

impl Drawing {
    pub fn new(record: &Record, coarseness: usize) -> Drawing {
        let seconds = &record.seconds;
        let columns = Columns::new(seconds.len(), coarseness);
        let all: Vec<Summary> = columns.ranges().map(|range| Summary::of(&seconds[range])).collect();
        let latencies: Vec<Latencies> = all.iter().map(|column| column.latency.clone()).collect();
        let mut groups = vec![Group::new("all", columns, &all)];
        for class in largest_classes(seconds) {
            let of_class = columns.ranges().map(|range| Summary::of_class(&seconds[range], class));
            groups.push(Group::new(class, columns, &of_class.collect::<Vec<_>>()));
        }
        let mut left = Places { lines: MOST_LINES, left_out: 0 };
        let tiers = charts_of_tiers(&record.tiers, columns, &mut left);
        Drawing {
            step: columns.step,
            columns: columns.count(),
            phases: phases(seconds),
            events: events(record),
            wished: mean(seconds, columns, |second| second.wished_visits),
            begun: mean(seconds, columns, |second| f64::from(second.visits)),
            visitors: peak(seconds, columns, |second| second.visitors),
            connections: peak(seconds, columns, |second| second.connections),
            groups,
            failures: failures(&all, columns),
            heat: Heat::new(&latencies),
            tiers,
            left_out: left.left_out,
        }
    }
}

impl Group {
    fn new(name: &str, columns: Columns, summaries: &[Summary]) -> Group {
        let rate = |of: fn(&Summary) -> u64| rates(columns, summaries, of);
        let latency = |share| summaries.iter().map(|column| column.latency.quantile(share)).collect();
        Group {
            name: shortened(name, MOST_NAME),
            sent: rate(|column| column.sent),
            ok: rate(Summary::ok),
            shed: rate(Summary::shed),
            failed: rate(Summary::failed),
            p50: latency(0.5),
            p90: latency(0.9),
            p99: latency(0.99),
            max: latency(1.0),
            service: summaries.iter().map(|column| column.service.quantile(0.99)).collect(),
        }
    }
}

fn largest_classes(seconds: &[Second]) -> Vec<&str> {
    let mut sent: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, class) in seconds.iter().flat_map(|second| &second.classes) {
        *sent.entry(name).or_default() += u64::from(class.sent);
    }
    let mut classes: Vec<(&str, u64)> = sent.into_iter().collect();
    classes.sort_by_key(|(_, sent)| std::cmp::Reverse(*sent));
    classes.into_iter().take(MOST_CLASSES).map(|(name, _)| name).collect()
}

fn rates(columns: Columns, summaries: &[Summary], of: impl Fn(&Summary) -> u64) -> Vec<Figure> {
    let lengths = columns.ranges().map(|range| range.len() as f64);
    summaries.iter().zip(lengths).map(|(column, seconds)| Figure(of(column) as f64 / seconds)).collect()
}

fn mean(seconds: &[Second], columns: Columns, of: impl Fn(&Second) -> f64) -> Vec<Figure> {
    let mean = |seconds: &[Second]| seconds.iter().map(&of).sum::<f64>() / seconds.len() as f64;
    columns.ranges().map(|range| Figure(mean(&seconds[range]))).collect()
}

fn peak(seconds: &[Second], columns: Columns, of: impl Fn(&Second) -> u32) -> Vec<Figure> {
    let peak = |seconds: &[Second]| seconds.iter().map(&of).max().unwrap_or(0);
    columns.ranges().map(|range| Figure(f64::from(peak(&seconds[range])))).collect()
}

fn failures(all: &[Summary], columns: Columns) -> Vec<Line> {
    let occurred = all.iter().flat_map(|column| &column.outcomes).filter(|(_, n)| **n > 0);
    let kinds: BTreeSet<Outcome> = occurred.map(|(outcome, _)| *outcome).collect();
    let line = |outcome| {
        let values = rates(columns, all, |column| column.count(outcome));
        Some(Line { label: failure(outcome)?.to_owned(), values: values.into_iter().map(Some).collect() })
    };
    kinds.into_iter().filter_map(line).collect()
}

/// Where each began.
fn phases(seconds: &[Second]) -> Vec<Mark> {
    let mut phases: Vec<Mark> = Vec::new();
    for second in seconds {
        let text = shortened(&second.phase, MOST_NAME);
        if phases.last().is_none_or(|last| last.text != text) && phases.len() < MOST_MARKS {
            phases.push(Mark { at: f64::from(second.at), text });
        }
    }
    phases
}

fn events(record: &Record) -> Vec<Mark> {
    let mark =
        |event: &Event| Mark { at: event.at_ms as f64 / 1_000.0, text: shortened(&event.text, MOST_NAME) };
    record.events.iter().take(MOST_MARKS).map(mark).collect()
}

/// How many more lines may be drawn.
struct Places {
    lines: usize,
    left_out: usize,
}

type Measured = fn(&TierSecond) -> f64;

/// What every tier measures, in the order of the page.
const MEASURED: &[(&str, Unit, Measured)] = &[
    ("Processor time, of what each may use", Unit::Share, |second| second.cpu / second.cpu_allowed),
    ("Processor time, in cores", Unit::Cores, |second| second.cpu),
    ("Held back by its limit, of the time", Unit::Share, |second| second.throttled),
    ("Waiting in front of it", Unit::Plain, |second| second.waiting),
    ("Under way in it", Unit::Plain, |second| second.in_flight),
    ("Finished per second", Unit::PerSecond, |second| second.done),
    ("Errors per second", Unit::PerSecond, |second| second.errors),
    ("Ready processes", Unit::Members, |second| f64::from(second.members)),
];

fn charts_of_tiers(tiers: &[Tier], columns: Columns, left: &mut Places) -> Vec<Chart> {
    let mut charts: Vec<Chart> = Vec::new();
    for (title, unit, of) in MEASURED {
        charts.extend(chart(title, *unit, tiers, columns, left, |second| Some(of(second))));
    }
    let seconds = tiers.iter().flat_map(|tier| &tier.seconds);
    let others: BTreeSet<&str> = seconds.flat_map(|second| second.more.keys()).map(String::as_str).collect();
    for name in others {
        let (title, unit, scale) = named(name);
        let of = |second: &TierSecond| second.more.get(name).map(|value| value * scale);
        charts.extend(chart(&title, unit, tiers, columns, left, of));
    }
    charts
}

/// `lag_ms` is a time, and everything is drawn in µs.
fn named(name: &str) -> (String, Unit, f64) {
    let units = [("_us", Unit::Us, 1.0), ("_ms", Unit::Us, 1_000.0), ("_share", Unit::Share, 1.0)];
    let known = units.iter().find_map(|(end, unit, scale)| Some((name.strip_suffix(end)?, *unit, *scale)));
    let (name, unit, scale) = known.unwrap_or((name, Unit::Plain, 1.0));
    let mut title = shortened(&name.replace('_', " "), MOST_NAME);
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    (title, unit, scale)
}

/// `None`: there is nothing but zero to show.
fn chart(
    title: &str,
    unit: Unit,
    tiers: &[Tier],
    columns: Columns,
    left: &mut Places,
    of: impl Fn(&TierSecond) -> Option<f64>,
) -> Option<Chart> {
    let mut lines = Vec::new();
    for tier in tiers {
        let values = values_of(tier, columns, &of);
        if values.iter().flatten().all(|Figure(value)| *value == 0.0) {
            continue;
        }
        if left.lines == 0 {
            left.left_out += 1;
            continue;
        }
        left.lines -= 1;
        lines.push(Line { label: shortened(&tier.name, MOST_NAME), values });
    }
    (!lines.is_empty()).then(|| Chart { title: title.to_owned(), unit, lines })
}

/// The mean of what was looked at in each column.
fn values_of(tier: &Tier, columns: Columns, of: impl Fn(&TierSecond) -> Option<f64>) -> Vec<Option<Figure>> {
    let mut sums = vec![(0.0, 0_u32); columns.count()];
    for second in &tier.seconds {
        let Some(value) = of(second).filter(|value| value.is_finite()) else { continue };
        let Some(column) = columns.of_second(second.at) else { continue };
        sums[column].0 += value;
        sums[column].1 += 1;
    }
    sums.into_iter().map(|(sum, n)| (n > 0).then(|| Figure(sum / f64::from(n)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: f64) -> String {
        serde_json::to_string(&Figure(value)).unwrap()
    }

    #[test]
    fn figures_are_short_and_what_is_no_number_is_a_gap() {
        let values = [0.0, 12.0, 0.123456, 1_234_567.0, -2.5, 98.7654, f64::NAN, f64::INFINITY];
        let shown = values.map(written);
        assert_eq!(shown, ["0", "12", "0.1235", "1235000", "-2.5", "98.77", "null", "null"]);
        assert_eq!(written(f64::MIN_POSITIVE / 4.0).parse(), Ok(f64::MIN_POSITIVE / 4.0));
    }

    #[test]
    fn a_unit_in_a_name_is_understood() {
        assert_eq!(named("lag_ms"), ("Lag".to_owned(), Unit::Us, 1_000.0));
        assert_eq!(named("pool_wait_us"), ("Pool wait".to_owned(), Unit::Us, 1.0));
        assert_eq!(named("connections"), ("Connections".to_owned(), Unit::Plain, 1.0));
    }

    #[test]
    fn what_a_tier_did_not_look_at_is_a_gap_and_what_is_zero_everywhere_is_not_drawn() {
        let seconds = [0, 1, 4, 9].map(|at| TierSecond { at, cpu: f64::from(at), ..TierSecond::default() });
        let tier = Tier { name: "web".into(), seconds: seconds.to_vec() };
        let columns = Columns::at_most(6, 3);
        let cores = values_of(&tier, columns, |second| Some(second.cpu));
        assert_eq!(cores, [Some(Figure(0.5)), None, Some(Figure(4.0))]);
        let mut left = Places { lines: 1, left_out: 0 };
        let tiers = [tier.clone(), Tier { name: "edge".into(), ..tier }];
        assert!(
            chart("waits", Unit::Plain, &tiers, columns, &mut left, |second| Some(second.waiting)).is_none()
        );
        let chart =
            chart("cores", Unit::Cores, &tiers, columns, &mut left, |second| Some(second.cpu)).unwrap();
        assert_eq!((chart.lines.len(), left.left_out), (1, 1));
    }
}

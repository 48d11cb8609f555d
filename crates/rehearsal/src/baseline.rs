//! A record that was kept, and whether another is worse.
//!
//! Two runs of the same app never give the same numbers. What is compared are ratios of quantiles, with the interval in
//! which they would lie if the same seconds had come in another order and number: stretches of seconds are drawn anew from
//! either record, two hundred times. Stretches and not requests, because requests of the same seconds share their fate. Worse
//! is only what is so at both ends of the interval, and by more than anybody would shrug at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use model::Metric;
use serde::Serialize;

use crate::record::json::{self, ReadError};
use crate::record::{Found, Record, SEARCH, Second};
use crate::summary::{self, Summary, quantile};

/// Why there is no baseline.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("{}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} cannot be compared with", path.display())]
    Refused {
        path: PathBuf,
        #[source]
        source: ReadError,
    },
}

/// Keeps a record. A reader finds the old one or this one, whole.
///
/// # Errors
/// When it cannot be written.
pub fn save(path: &Path, record: &Record) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let written = write(&part, record).and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        // What is left of it helps nobody; that it could not be written is what is said.
        let _ = std::fs::remove_file(&part);
    }
    written
}

fn write(path: &Path, record: &Record) -> io::Result<()> {
    let mut file = io::BufWriter::new(File::create(path)?);
    json::write_to(&mut file, record)?;
    file.write_all(b"\n")?;
    file.into_inner()?.sync_all()
}

/// The record that was kept.
///
/// # Errors
/// When it cannot be read, is no record, or one of another form.
pub fn load(path: &Path) -> Result<Record, Unreadable> {
    let io = |source| Unreadable::Io { path: path.to_owned(), source };
    let mut text = Vec::new();
    // One byte too many is enough to be refused.
    File::open(path).map_err(io)?.take(json::MOST_BYTES as u64 + 1).read_to_end(&mut text).map_err(io)?;
    json::read(&text).map_err(|source| Unreadable::Refused { path: path.to_owned(), source })
}

/// What became of the app since.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub changes: Vec<Change>,
    /// Why the two should not be compared, each a sentence. Nothing is said to be worse then.
    pub unlike: Vec<String>,
}

/// One number, then and now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Such as `p99`.
    pub name: &'static str,
    /// `None`: all of them.
    pub class: Option<String>,
    pub before: f64,
    pub after: f64,
    /// In which both are.
    pub unit: &'static str,
    /// `after / before` of latencies and capacities; `after - before` of shares. With the interval of nine tenths of the
    /// resamples; of a capacity, which lies between the last rate that was kept and the first that was not, that of their ratios.
    pub change: f64,
    pub low: f64,
    pub high: f64,
    pub is_worse: bool,
    pub is_better: bool,
    #[serde(skip)]
    metric: Metric,
}

const RESAMPLES: usize = 200;

/// What happens in one second lasts into the next few.
const STRETCH_SECONDS: usize = 5;

/// With fewer seconds each stretch is nearly all of them.
const LEAST_SECONDS: usize = 20;

/// Fewer answers say nothing of a class.
const LEAST_SETTLED: u64 = 200;

/// A latency that is longer by less is as it was.
const TOLERATED_RATIO: f64 = 1.05;

/// A share of what failed, or was shed, that is higher by less is as it was.
const TOLERATED_SHARE: f64 = 0.001;

/// Of what an app can serve. A search finds it to within a twentieth, and no two find the same.
const TOLERATED_CAPACITY: f64 = 0.1;

/// Of visits. Bursts by chance are a few percent.
const TOLERATED_RATE: f64 = 0.1;

const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

/// Compares `after` with `before`, whatever they are: [`Comparison::unlike`] says when they should not be. `seed` is of the
/// resamples.
pub fn compare(before: &Record, after: &Record, seed: u64) -> Comparison {
    let unlike = unlike(before, after);
    let mut changes = Vec::new();
    if let (Some(before), Some(after)) = (before.found, after.found) {
        // Each search climbs to where its own app gives way: what it measured on the way is of other rates.
        changes.extend(capacity(before, after));
    } else if before.seconds.len().min(after.seconds.len()) >= LEAST_SECONDS {
        let mut random = fastrand::Rng::with_seed(seed);
        changes.extend(changes_of(None, before, after, &mut random));
        let classes: [BTreeSet<&str>; 2] = [before, after].map(|record| summary::classes(&record.seconds));
        for class in classes[0].intersection(&classes[1]) {
            changes.extend(changes_of(Some(class), before, after, &mut random));
        }
    }
    if !unlike.is_empty() {
        for change in &mut changes {
            (change.is_worse, change.is_better) = (false, false);
        }
    }
    Comparison { changes, unlike }
}

/// Of two searches. `None`: the one before found nothing that could be less now.
fn capacity(before: Found, after: Found) -> Option<Change> {
    let ratio = |now: f64, then: f64| now / then;
    let change = (before.kept > 0.0).then(|| ratio(after.kept, before.kept))?;
    let low = before.gave_way.map_or(0.0, |gave_way| ratio(after.kept, gave_way));
    let high = after.gave_way.map_or(f64::INFINITY, |gave_way| ratio(gave_way, before.kept));
    Some(Change {
        name: "capacity",
        class: None,
        before: before.kept,
        after: after.kept,
        unit: Metric::Capacity.unit(),
        change,
        low,
        high,
        is_worse: change < 1.0 - TOLERATED_CAPACITY && high < 1.0,
        is_better: change > 1.0 / (1.0 - TOLERATED_CAPACITY) && low > 1.0,
        metric: Metric::Capacity,
    })
}

/// Why no run of this profile of this app can be compared with `before`, each a sentence. Empty: one can.
pub fn unfit(before: &Record, app: &str, profile: &str) -> Vec<String> {
    let mut unfit = Vec::new();
    // Another shape is welcome: what it brings is what one wants to know.
    for (what, then, now) in [("app", before.app.as_str(), app), ("profile", &before.profile, profile)] {
        if then != now {
            unfit.push(format!("The {what} of the baseline was `{then}`, and is `{now}` now."));
        }
    }
    if profile == SEARCH && before.found.is_none() {
        unfit.push("The baseline has no capacity: a search of before that was kept had none.".to_owned());
    }
    unfit.extend(unreliable("The baseline", before));
    unfit
}

fn unlike(before: &Record, after: &Record) -> Vec<String> {
    let mut unlike = unfit(before, &after.app, &after.profile);
    unlike.extend(unreliable("This run", after));
    let (then, now) = (asked(before), asked(after));
    if after.found.is_none() && (now - then).abs() > then * TOLERATED_RATE {
        unlike.push(format!(
            "Visitors came at {} in this run, and at {} in the one before.",
            Metric::Rate.amount(now),
            Metric::Rate.amount(then)
        ));
    }
    unlike
}

/// Visits per second that were wished for, on average.
fn asked(record: &Record) -> f64 {
    let seconds = record.seconds.len().max(1) as f64;
    record.seconds.iter().map(|second| second.wished_visits).sum::<f64>() / seconds
}

fn unreliable(which: &str, record: &Record) -> Vec<String> {
    let mut why = Vec::new();
    if !record.validity.faults.is_empty() {
        why.push(format!("{which} is invalid: {}.", record.validity.faults.join("; ")));
    }
    if let Some(cut) = &record.cut_short {
        why.push(format!("{which} was cut short: {cut}."));
    }
    if record.seconds.len() < LEAST_SECONDS {
        why.push(format!("{which} has fewer than {LEAST_SECONDS} seconds."));
    }
    why
}

/// The seconds of a record for one class or all, with buckets as positions in a list of their own.
struct Sample {
    /// Upper bounds.
    bounds: Vec<u64>,
    seconds: Vec<Tally>,
}

#[derive(Default)]
struct Tally {
    /// Of those who were served: position in the bounds, and count.
    latency: Vec<(usize, u64)>,
    settled: u64,
    failed: u64,
    shed: u64,
}

/// What a sample, drawn or whole, comes to.
#[derive(Debug, Clone, Copy)]
struct Figures {
    /// In µs, of [`QUANTILES`], of those who were served.
    quantiles: [Option<f64>; 3],
    failed: f64,
    shed: f64,
}

impl Sample {
    fn of(seconds: &[Second], class: Option<&str>) -> Sample {
        let summaries: Vec<Summary> = seconds
            .iter()
            .map(|second| match class {
                Some(class) => Summary::of_class([second], class),
                None => Summary::of([second]),
            })
            .collect();
        let bounds: BTreeSet<u64> = summaries
            .iter()
            .flat_map(|summary| summary.latency_ok.buckets().map(|(bound, _)| bound))
            .collect();
        let positions: BTreeMap<u64, usize> =
            bounds.iter().enumerate().map(|(at, bound)| (*bound, at)).collect();
        let tally = |summary: &Summary| Tally {
            latency: summary.latency_ok.buckets().map(|(bound, count)| (positions[&bound], count)).collect(),
            settled: summary.settled(),
            failed: summary.failed(),
            shed: summary.shed(),
        };
        Sample { seconds: summaries.iter().map(tally).collect(), bounds: bounds.into_iter().collect() }
    }

    /// Served or not.
    fn settled(&self) -> u64 {
        self.seconds.iter().map(|tally| tally.settled).sum()
    }

    fn figures<'a>(&'a self, seconds: impl Iterator<Item = &'a Tally>) -> Figures {
        let mut counts = vec![0; self.bounds.len()];
        let (mut all, mut settled, mut failed, mut shed) = (0, 0, 0, 0);
        for tally in seconds {
            for (at, count) in &tally.latency {
                counts[*at] += count;
                all += count;
            }
            settled += tally.settled;
            failed += tally.failed;
            shed += tally.shed;
        }
        let buckets = || self.bounds.iter().copied().zip(counts.iter().copied());
        let share = |of: u64| if settled == 0 { 0.0 } else { of as f64 / settled as f64 };
        Figures {
            quantiles: QUANTILES.map(|(_, of)| quantile(buckets(), all, of).map(|us| us as f64)),
            failed: share(failed),
            shed: share(shed),
        }
    }

    fn whole(&self) -> Figures {
        self.figures(self.seconds.iter())
    }

    /// As many seconds as there are, in stretches that begin anywhere.
    fn drawn(&self, random: &mut fastrand::Rng) -> Figures {
        let stretches = self.seconds.len().div_ceil(STRETCH_SECONDS);
        let starts: Vec<usize> = (0..stretches)
            .map(|_| random.usize(..=self.seconds.len().saturating_sub(STRETCH_SECONDS)))
            .collect();
        let seconds = starts.iter().flat_map(|start| self.seconds.iter().skip(*start).take(STRETCH_SECONDS));
        self.figures(seconds)
    }
}

fn changes_of(
    class: Option<&str>,
    before: &Record,
    after: &Record,
    random: &mut fastrand::Rng,
) -> Vec<Change> {
    let (before, after) = (Sample::of(&before.seconds, class), Sample::of(&after.seconds, class));
    if before.settled().min(after.settled()) < LEAST_SETTLED {
        return Vec::new();
    }
    let drawn: Vec<(Figures, Figures)> =
        (0..RESAMPLES).map(|_| (before.drawn(random), after.drawn(random))).collect();
    let (then, now) = (before.whole(), after.whole());
    let mut changes = Vec::new();
    for (at, (name, of)) in QUANTILES.into_iter().enumerate() {
        let ratio = |then: &Figures, now: &Figures| Some(now.quantiles[at]? / then.quantiles[at]?.max(1.0));
        if let (Some(before), Some(after), Some(change)) =
            (then.quantiles[at], now.quantiles[at], ratio(&then, &now))
        {
            let (low, high) = interval(change, drawn.iter().filter_map(|(then, now)| ratio(then, now)));
            changes.push(Change {
                name,
                class: class.map(ToOwned::to_owned),
                before,
                after,
                unit: Metric::Latency(of).unit(),
                change,
                low,
                high,
                is_worse: low > TOLERATED_RATIO,
                is_better: high < 1.0 / TOLERATED_RATIO,
                metric: Metric::Latency(of),
            });
        }
    }
    for (name, metric) in [("errors", Metric::Errors), ("shed", Metric::Shed)] {
        let share = |figures: &Figures| if metric == Metric::Errors { figures.failed } else { figures.shed };
        let change = share(&now) - share(&then);
        let (low, high) = interval(change, drawn.iter().map(|(then, now)| share(now) - share(then)));
        changes.push(Change {
            name,
            class: class.map(ToOwned::to_owned),
            before: share(&then),
            after: share(&now),
            unit: metric.unit(),
            change,
            low,
            high,
            is_worse: low > TOLERATED_SHARE,
            is_better: high < -TOLERATED_SHARE,
            metric,
        });
    }
    changes
}

/// Of nine tenths of them; what was measured is within.
fn interval(measured: f64, drawn: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut drawn: Vec<f64> = drawn.collect();
    drawn.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let rank = (share * drawn.len().saturating_sub(1) as f64).round() as usize;
        drawn.get(rank).copied().unwrap_or(measured)
    };
    (at(0.05).min(measured), at(0.95).max(measured))
}

impl Comparison {
    /// Whether something is surely worse.
    pub fn is_worse(&self) -> bool {
        self.changes.iter().any(|change| change.is_worse)
    }

    /// Of a command that compares: 0 when nothing is worse, 1 when something is, 2 when that cannot be said.
    pub fn exit_code(&self) -> u8 {
        match (self.unlike.is_empty(), self.is_worse()) {
            (false, _) => 2,
            (true, true) => 1,
            (true, false) => 0,
        }
    }
}

impl fmt::Display for Change {
    /// As a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.class.as_ref().map(|class| format!(" of `{class}`")).unwrap_or_default();
        let (before, after) = (self.metric.amount(self.before), self.metric.amount(self.after));
        let judged = match (self.is_worse, self.is_better) {
            (true, _) => "worse",
            (_, true) => "better",
            _ => "no sure change",
        };
        write!(f, "{}{of} is {after} instead of {before}, ", self.name)?;
        match self.metric {
            Metric::Capacity if self.high.is_infinite() => {
                write!(f, "{:.2} times (at least {:.2})", self.change, self.low)?
            }
            Metric::Latency(_) | Metric::Capacity => {
                write!(f, "{:.2} times (from {:.2} to {:.2})", self.change, self.low, self.high)?
            }
            Metric::Errors | Metric::Shed | Metric::Rate => {
                let points = [self.change, self.low, self.high].map(|share| share * 100.0);
                write!(f, "{:+.2} points (from {:+.2} to {:+.2})", points[0], points[1], points[2])?;
            }
        }
        write!(f, ": {judged}")
    }
}

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::error::Error as _;

use super::*;
use crate::record::{ClassSecond, Outcome, VERSION, Validity};

/// Seconds of a hundred requests whose latency is drawn around a median, and of which some fail.
fn record(seed: u64, median_ms: f64, failed: u32) -> Record {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut second = |at: u32| {
        let mut latency: BTreeMap<u64, u32> = BTreeMap::new();
        for _ in 0..100 {
            let us = median_ms * 1e3 * (random.f64() + random.f64()).powi(2);
            *latency.entry((us / 100.0).ceil() as u64 * 100).or_default() += 1;
        }
        let latency: Vec<(u64, u32)> = latency.into_iter().collect();
        let outcomes = BTreeMap::from([(Outcome::Ok, 100 - failed), (Outcome::Status, failed)]);
        let latency_not_ok = BTreeMap::new();
        let class = ClassSecond { sent: 100, outcomes, service: latency.clone(), latency, latency_not_ok };
        Second {
            at,
            phase: "plateau".to_owned(),
            wished_visits: 100.0,
            visits: 100,
            visitors: 0,
            connections: 0,
            classes: BTreeMap::from([("page".to_owned(), class)]),
        }
    };
    Record {
        version: VERSION,
        app: "guestbook".to_owned(),
        shape: "stage 1".to_owned(),
        target: "http://127.0.0.1:8080".to_owned(),
        profile: "hn".to_owned(),
        seed,
        began: jiff::Timestamp::UNIX_EPOCH,
        cut_short: None,
        validity: Validity {
            schedule_error_p99_us: 100,
            cpu_us_per_request: 20.0,
            cpu_share: 0.1,
            stolen: 0.0,
            not_offered: 0,
            faults: Vec::new(),
        },
        failed: Vec::new(),
        found: None,
        seconds: (0..60).map(&mut second).collect(),
        tiers: Vec::new(),
        events: Vec::new(),
    }
}

fn change<'a>(comparison: &'a Comparison, name: &str, class: Option<&str>) -> &'a Change {
    let mut changes = comparison.changes.iter();
    changes.find(|change| change.name == name && change.class.as_deref() == class).unwrap()
}

#[test]
fn two_runs_of_the_same_are_no_regression() {
    // Whatever chance did in either.
    for seed in 0..20 {
        let comparison = compare(&record(seed, 50.0, 1), &record(seed + 100, 50.0, 1), seed);
        assert_eq!(comparison.exit_code(), 0, "{seed}: {comparison:?}");
        assert!(comparison.changes.iter().all(|change| !change.is_better), "{seed}: {comparison:?}");
    }
}

#[test]
fn runs_that_asked_for_different_rates_are_not_compared() {
    let mut faster = record(2, 60.0, 0);
    faster.seconds.iter_mut().for_each(|second| second.wished_visits = 120.0);
    let comparison = compare(&record(1, 50.0, 0), &faster, 1);
    assert_eq!(comparison.unlike, ["Visitors came at 120/s in this run, and at 100/s in the one before."]);
    assert!(comparison.changes.iter().all(|change| !change.is_worse && !change.is_better));
}

#[test]
fn what_is_slower_by_a_fifth_is_found_and_said() {
    for seed in 0..20 {
        let comparison = compare(&record(seed, 50.0, 0), &record(seed + 100, 60.0, 0), seed);
        assert_eq!(comparison.exit_code(), 1, "{seed}");
        let p99 = change(&comparison, "p99", Some("page"));
        assert!(p99.is_worse && p99.low <= 1.2 * 1.02 && 1.2 <= p99.high * 1.02, "{seed}: {p99:?}");
        let said = p99.to_string();
        assert!(said.starts_with("p99 of `page` is 2") && said.ends_with("): worse"), "{said}");
    }
    let faster = compare(&record(1, 60.0, 0), &record(2, 50.0, 0), 1);
    assert!(faster.exit_code() == 0 && change(&faster, "p50", None).is_better);
}

#[test]
fn more_failures_are_a_regression() {
    let comparison = compare(&record(1, 50.0, 0), &record(2, 50.0, 2), 1);
    let errors = change(&comparison, "errors", None);
    assert_eq!(errors.to_string(), "errors is 2% instead of 0%, +2.00 points (from +2.00 to +2.00): worse");
    assert_eq!(comparison.exit_code(), 1);
}

/// To refuse is quick: by its latency such an app is better than before.
#[test]
fn an_app_that_refuses_its_visitors_is_a_regression_however_fast_it_does() {
    let mut refusing = record(2, 20.0, 0);
    for second in &mut refusing.seconds {
        let class = second.classes.get_mut("page").unwrap();
        class.outcomes = BTreeMap::from([(Outcome::Ok, 40), (Outcome::Shed, 60)]);
    }
    let comparison = compare(&record(1, 50.0, 0), &refusing, 1);
    assert!(change(&comparison, "p50", None).is_better && !change(&comparison, "errors", None).is_worse);
    for class in [None, Some("page")] {
        let shed = change(&comparison, "shed", class);
        assert!(shed.is_worse && (shed.before, shed.after, shed.unit) == (0.0, 0.6, "share"), "{shed:?}");
    }
    let shed = change(&comparison, "shed", None);
    assert_eq!(shed.to_string(), "shed is 60% instead of 0%, +60.00 points (from +60.00 to +60.00): worse");
    assert_eq!(comparison.exit_code(), 1);
    assert!(change(&compare(&refusing, &record(1, 50.0, 0), 1), "shed", None).is_better);
}

/// A search that found an app to serve so much.
fn search(kept: f64, gave_way: Option<f64>) -> Record {
    let mut record = record(kept as u64, 50.0, 1);
    record.profile = SEARCH.to_owned();
    record.found = Some(Found { kept, gave_way });
    record.seconds.iter_mut().for_each(|second| second.wished_visits = kept);
    record
}

#[test]
fn an_app_that_serves_less_than_before_is_a_regression_of_a_search() {
    let before = search(300.0, Some(312.0));
    let compared = |kept, gave_way| compare(&before, &search(kept, gave_way), 1);
    let halved = compared(150.0, Some(156.0));
    assert_eq!((halved.exit_code(), &halved.unlike[..]), (1, &[][..]));
    let [change] = &halved.changes[..] else { panic!("{halved:?}") };
    assert_eq!(
        change.to_string(),
        "capacity is 150/s instead of 300/s, 0.50 times (from 0.48 to 0.52): worse"
    );
    assert_eq!(compared(0.0, Some(30.0)).exit_code(), 1, "kept at no rate");
    for (kept, gave_way) in [(275.0, Some(290.0)), (310.0, Some(330.0)), (250.0, Some(310.0)), (200.0, None)]
    {
        let compared = compared(kept, gave_way);
        assert_eq!((compared.exit_code(), compared.changes[0].is_better), (0, false), "{kept}: {compared:?}");
    }
    assert!(compared(600.0, None).changes[0].is_better);
    let mut old = before.clone();
    old.found = None;
    assert_eq!(unfit(&old, &old.app, SEARCH).len(), 1);
}

#[test]
fn what_is_unlike_is_not_judged() {
    let before = record(1, 50.0, 0);
    let other = |change: fn(&mut Record)| {
        let mut after = record(2, 500.0, 50);
        change(&mut after);
        compare(&before, &after, 1)
    };
    for (comparison, why) in [
        (
            other(|after| after.profile = "viral".to_owned()),
            "The profile of the baseline was `hn`, and is `viral` now.",
        ),
        (
            other(|after| after.validity.faults.push("the generator was late".to_owned())),
            "This run is invalid: the generator was late.",
        ),
        (
            other(|after| after.cut_short = Some("interrupted".to_owned())),
            "This run was cut short: interrupted.",
        ),
        (other(|after| after.seconds.truncate(19)), "This run has fewer than 20 seconds."),
    ] {
        assert_eq!(comparison.unlike, [why]);
        assert_eq!((comparison.exit_code(), comparison.is_worse()), (2, false));
    }
}

#[test]
fn a_class_with_few_answers_is_not_compared() {
    let mut sparse = record(1, 50.0, 0);
    for second in sparse.seconds.iter_mut().skip(1) {
        second.classes.clear();
    }
    assert_eq!(compare(&sparse, &record(2, 50.0, 0), 1).changes, []);
}

#[test]
fn the_same_seed_gives_the_same_comparison() {
    let (before, after) = (record(1, 50.0, 1), record(2, 55.0, 1));
    assert_eq!(compare(&before, &after, 3), compare(&before, &after, 3));
}

#[test]
fn a_record_that_was_kept_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("baseline.json");
    for seed in [1, 2] {
        save(&path, &record(seed, 50.0, 1)).unwrap();
        assert_eq!(load(&path).unwrap(), record(seed, 50.0, 1));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_is_no_record_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("baseline.json");
    let refused = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let refused = load(&path).unwrap_err();
        (refused.to_string(), refused.source().unwrap().to_string())
    };
    assert!(refused("{").0.ends_with("baseline.json cannot be compared with"));
    assert!(refused("{\"version\":1}").1.contains("no record of a rehearsal"));
    assert!(refused("{\"version\":2}").1.contains("form 2 and this Switchback reads form 1"));
    assert!(matches!(load(&folder.path().join("none")), Err(Unreadable::Io { .. })));
}

use std::collections::BTreeMap;

use local::paths::StateDir;
use rehearsal::capacity::{Capacity, Step};
use rehearsal::diagnosis::{Confidence, Verdict as Named};
use rehearsal::record::{ClassSecond, Outcome as Ended, VERSION, Validity};
use serde_json::Value;

use super::*;

fn thresholds(texts: &[&str]) -> Vec<Threshold> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Half a minute in which so many of a hundred requests a second were answered, and the others turned away at once.
fn record(profile: &str, served: u32) -> Record {
    let class = ClassSecond {
        sent: 100,
        outcomes: BTreeMap::from([(Ended::Ok, served), (Ended::Shed, 100 - served)]),
        latency: vec![(1_000, 100 - served), (20_000, served)],
        service: Vec::new(),
        latency_not_ok: BTreeMap::from([(Ended::Shed, vec![(1_000, 100 - served)])]),
    };
    let second = |at| Second {
        at,
        phase: "plateau".to_owned(),
        wished_visits: 10.0,
        visits: 10,
        visitors: 0,
        connections: 0,
        classes: BTreeMap::from([("page".to_owned(), class.clone())]),
    };
    Record {
        version: VERSION,
        app: "shop".to_owned(),
        shape: "stage 1".to_owned(),
        target: "http://127.0.0.1:8080".to_owned(),
        profile: profile.to_owned(),
        seed: 1,
        began: jiff::Timestamp::UNIX_EPOCH,
        cut_short: None,
        validity: Validity::default(),
        failed: Vec::new(),
        found: None,
        seconds: (0..30).map(second).collect(),
        tiers: Vec::new(),
        events: Vec::new(),
    }
}

/// A search that found an app to serve so many requests a second.
fn search(served: f64) -> Outcome {
    let step = |share: f64| Step {
        seconds: 10.0,
        visits: served * share / 10.0,
        begun: served * share / 10.0,
        offered: served * share,
        achieved: served * share.min(1.0),
        p50_us: Some(5_000),
        p99_us: Some(if share > 1.0 { 900_000 } else { 20_000 }),
        failed: 0.0,
        shed: 0.0,
        in_flight: served * share / 200.0,
        kept: share <= 1.0,
        broken: if share > 1.0 { vec!["p99 < 250ms: is 900ms, not kept".to_owned()] } else { Vec::new() },
    };
    let capacity = Capacity::of([0.2, 0.4, 0.6, 0.8, 1.0, 1.05, 1.2].map(step).to_vec(), 1);
    let diagnosis = Diagnosis {
        verdict: Named::Unexplained,
        causes: Vec::new(),
        capacity: served,
        sentence: "what gives way is not known".to_owned(),
        evidence: Vec::new(),
        recommendation: None,
        alternatives: Vec::new(),
        confidence: Confidence::Low,
        doubts: Vec::new(),
        falsified_by: "another run says otherwise".to_owned(),
    };
    let mut record = record(SEARCH, 100);
    record.found = capacity.found();
    let climb = Climb { capacity, diagnosis, failed_while_kept: 0, was_out_of_time: false };
    Outcome { record, climb: Some(climb), judgements: Vec::new() }
}

/// With which code it ends, and what is written.
fn reported(before: Option<&Record>, outcome: Outcome) -> (Option<u8>, Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let app = App { dir: folder.path().to_owned(), state: StateDir::at(&folder.path().join(".switchback")) };
    let args = RehearseArgs {
        profile: "front-page".to_owned(),
        find: outcome.climb.is_some(),
        thresholds: Vec::new(),
        duration: None,
        base: None,
        times: 1.0,
        seed: 1,
        baseline: None,
        save_baseline: None,
        out: Some(folder.path().join("report")),
        target: TargetArgs::default(),
        json: false,
    };
    let code = match report(&app, &args, before, outcome) {
        Ok(()) => None,
        Err(Problem::Said(code)) => Some(code),
        Err(other) => panic!("{}", other.message()),
    };
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    (code, serde_json::from_str(&read("report.json")).unwrap(), read("report.html"))
}

#[test]
fn a_search_that_finds_less_than_before_fails() {
    let before = search(300.0).record;
    let (code, said, _) = reported(Some(&before), search(150.0));
    assert_eq!((code, &said["verdict"]["passed"]), (Some(1), &json!("no")), "{said:#}");
    let sentence = said["verdict"]["sentence"].as_str().unwrap();
    assert!(sentence.contains("capacity is 150/s instead of 300/s"), "{sentence}");
    for before in [Some(&before), None] {
        let (code, said, _) = reported(before, search(295.0));
        assert_eq!((code, &said["verdict"]["passed"]), (None, &json!("not_asked")), "{said:#}");
    }
}

#[test]
fn a_search_is_judged_by_the_capacity_that_is_required() {
    let found = |required: &str| {
        let found = search(300.0);
        let kept = found.record.found.unwrap().kept;
        let judgements = threshold::judge_capacity(&thresholds(&[required]), kept);
        let (code, said, _) = reported(None, Outcome { judgements, ..found });
        (code, said["verdict"]["passed"].as_str().unwrap().to_owned())
    };
    assert_eq!(found("capacity > 290/s"), (None, "yes".to_owned()));
    assert_eq!(found("capacity > 310/s"), (Some(1), "no".to_owned()));
}

/// What is required of each rate says nothing of how high it must go, and the other way round.
#[test]
fn a_required_capacity_leaves_what_is_required_at_each_rate() {
    let typed = thresholds(&["capacity > 300/s"]);
    assert_eq!(objective(&typed, None), thresholds(&USUAL_OBJECTIVE));
    assert_eq!(of_capacity(&typed, None), typed);
    let slo = thresholds(&["p99 < 1s", "capacity > 9/s"]);
    let own = model::Rehearsal { slo, visits: BTreeMap::new() };
    assert_eq!(objective(&typed, Some(&own)), thresholds(&["p99 < 1s"]));
    assert_eq!(of_capacity(&typed, Some(&own)), typed);
    assert_eq!(of_capacity(&thresholds(&["p99 < 2s"]), Some(&own)), thresholds(&["capacity > 9/s"]));
}

#[test]
fn what_a_search_found_is_in_the_report_with_all_that_it_rests_on() {
    let (_, said, page) = reported(None, search(300.0));
    let table = &said["tables"][0];
    assert_eq!((&table["title"], table["rows"].as_array().unwrap().len()), (&json!("Staircase"), 7));
    assert!(page.contains("Staircase") && page.contains("p99 &lt; 250ms: is 900ms, not kept"), "{page}");
    let evidence = said["evidence"].to_string();
    for line in ["scalability law", "Confidence: low", "It is wrong if another run says otherwise."] {
        assert!(evidence.contains(line) && page.contains(line), "{line}: {evidence}");
    }
    let found = &said["parts"][0]["search"];
    assert_eq!(found["capacity"]["steps"].as_array().unwrap().len(), 7);
    assert_eq!(found["diagnosis"]["falsified_by"], "another run says otherwise");
}

#[test]
fn an_app_that_turns_nearly_everybody_away_does_not_pass() {
    let kept = |profile: &str| {
        let record = record(profile, 5);
        let objective = objective(&[], None);
        threshold::judge(&objective, implied(profile), whole(&record)).iter().all(|judged| judged.kept)
    };
    assert!(!kept("front-page") && !kept("viral"));
    assert!(kept("overload"), "ten times what it serves it cannot serve");
}

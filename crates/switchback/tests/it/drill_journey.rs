//! A whole journey on a small app, in the least time that one can have: each stage gets some ten seconds of search, which tell
//! little of what it serves. What they tell has to be true all the same.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::App;

use crate::prepare;

const WITHIN: u64 = 90;
/// Until the copy is up comes on top where it is long, as for a build.
const BUILD: Duration = Duration::from_secs(20);

#[test]
fn a_copy_goes_through_all_stages_without_a_failed_request_and_leaves_only_its_report() {
    let work = serde_json::json!({ "cpu_ms": 2, "sql": ["SELECT 1"] });
    let visit = "{ weight = 50, steps = { get = \"/work\" } }";
    let switchback =
        prepare(App::guestbook("shop").knob("work", work).set("rehearsal", "visit.worker", visit));
    let begun = Instant::now();
    let within = WITHIN.to_string();
    let output = switchback.cli(&["journey", "--quick", "--within", &within, "--json"]);
    let took = begun.elapsed();
    let told: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:#?}"));
    assert!(took < Duration::from_secs(WITHIN) + BUILD, "{took:?}: {}", output.stderr);
    let stages = told["stages"].as_array().unwrap();
    let numbers: Vec<u64> = stages.iter().map(|stage| stage["stage"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3], "{told:#}\n{}", output.stderr);
    assert!(told["ended_early"].is_null(), "{told:#}");
    for stage in stages {
        assert_eq!(stage["failed"], 0, "{told:#}");
        let diagnosis = &stage["diagnosis"];
        assert!(diagnosis["sentence"].as_str().is_some_and(|sentence| !sentence.is_empty()), "{told:#}");
    }
    for stage in &stages[1..] {
        let because = stage["taken_because"].as_str().unwrap();
        let asks = because.ends_with("asks for it") || because.ends_with("on the way");
        assert!(asks || because.contains("does not ask for it: "), "{because}");
        assert!(stage["changes"].as_array().is_some_and(|changes| !changes.is_empty()), "{told:#}");
        assert!(stage["taken_within_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{told:#}");
    }
    let evidence = told["evidence"].as_array().unwrap();
    let compared = evidence.iter().filter_map(Value::as_str).filter(|line| line.contains(" predicted, "));
    assert_eq!(compared.count(), 2, "each move is compared with what was predicted of it: {told:#}");
    // A machine that others use may make it say nothing, which is not a pass then.
    let is_proof = told["verdict"]["passed"] == "yes";
    assert_eq!(output.code, Some(i32::from(!is_proof)), "{told:#}");
    assert!(std::fs::metadata(told["page"].as_str().unwrap()).is_ok());
    assert!(!switchback.app().state_dir().join("journey").exists());
    assert_eq!(switchback.running(), Vec::<String>::new());
}

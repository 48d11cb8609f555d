//! The suite of injected faults, on real processes: an app in which one thing is too small, driven until it gives way, and
//! asked what that was.
//!
//! They need a machine that nobody else uses: where others do, the answer is that the run says nothing, and the test fails
//! with that. `cargo xtask diagnose` runs them, and reads what stands after `said: ` and `skipped: `.

use std::path::Path;
use std::time::Duration;

use rehearsal::capacity::{self, Effort, Staircase};
use rehearsal::diagnosis::intervention::{Trial, judge};
use rehearsal::diagnosis::{self, Diagnosis, Kind, Shape, Verdict, diagnose};
use rehearsal::generator::{Heard, Process};
use rehearsal::load::{Limits, Load, Method, Origin, Phase, Protocol, Step, Visit};
use rehearsal::record::{Second, Tier};
use serde_json::{Value, json};
use testkit::{App, Status, Switchback};

use crate::data::sql;
use crate::up;

/// Requests per second beyond which nothing is tried.
const CEILING: f64 = 400.0;
/// Of a step, before its windows count: the load and what it fills settle.
const SETTLES: u32 = 2;

fn load(switchback: &Switchback, phase: Phase) -> Load {
    let url = switchback.url("/");
    let authority = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let address = authority.parse().expect("an address and a port");
    let step = Step {
        class: "page".to_owned(),
        probability: 1.0,
        think_median_ms: 0,
        method: Method::Get,
        paths: vec!["/work".to_owned()],
        form: Vec::new(),
        expect: Vec::new(),
        assets: Vec::new(),
    };
    let visit =
        Visit { name: "one".to_owned(), weight: 1.0, steps: vec![step], fetches_assets: false, retries: 0.0 };
    Load {
        origin: Origin { authority, address, protocol: Protocol::Http1, tls: None },
        seed: 1,
        phases: vec![phase],
        noise: 0.0,
        visits: vec![visit],
        limits: Limits {
            visitors: 10_000,
            connections: 10_000,
            connections_per_visit: 1,
            body_bytes: 1 << 20,
            patience_ms: 8_000,
            redirects: 0,
            threads: 1,
        },
        judged_by_us: None,
    }
}

/// What the generator saw, and why that says nothing, if it does not.
async fn heard(mut generator: Process) -> (Vec<Second>, Vec<String>) {
    let mut seconds = Vec::new();
    loop {
        match generator.next().await.expect("it goes on") {
            Heard::Second(second) => seconds.push(second),
            Heard::End(end) => return (seconds, end.validity.faults),
        }
    }
}

/// One phase of load, seen from outside and from inside.
struct Played {
    step: capacity::Step,
    observed: Value,
    faults: Vec<String>,
    seconds: u32,
}

fn played(switchback: &Switchback, phase: Phase) -> Played {
    let seconds = u32::try_from(phase.lasts_ms / 1_000).expect("seconds");
    let load = load(switchback, phase);
    let objective = [model::Threshold::try_from("p99 < 400ms".to_owned()).expect("a threshold")];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let program = Path::new(env!("CARGO_BIN_EXE_switchback"));
    let generator = runtime.block_on(Process::start(program, &["generate"], &load)).expect("a generator");
    let pids = [generator.id().expect("it runs"), std::process::id()].map(|pid| pid.to_string());
    let lasts = seconds.to_string();
    let asked = ["observe", "--seconds", &lasts, "--generator", &pids[0], "--generator", &pids[1]];
    std::thread::scope(|scope| {
        let observing = scope.spawn(|| switchback.must(&asked).json());
        let (measured, faults) = runtime.block_on(heard(generator));
        let step = capacity::Step::of(&measured, &objective).expect("a step has seconds");
        Played { step, observed: observing.join().expect("it observes"), faults, seconds }
    })
}

/// Drives the app until it gives way, or up to `ceiling`, and asks what that was.
fn rehearse(switchback: &Switchback, ceiling: f64) -> Diagnosis {
    rehearse_with(switchback, ceiling, Effort::Quick)
}

fn rehearse_with(switchback: &Switchback, ceiling: f64, effort: Effort) -> Diagnosis {
    let staircase = Staircase { start: 4.0, ceiling, requests_per_visit: 1.0, effort };
    let mut all: Vec<Played> = Vec::new();
    loop {
        let done: Vec<capacity::Step> = all.iter().map(|played| played.step.clone()).collect();
        let Some(phase) = staircase.next(&done) else { break };
        println!("{} of {} visits/s", phase.name, phase.from);
        all.push(played(switchback, phase));
    }
    let done: Vec<capacity::Step> = all.iter().map(|played| played.step.clone()).collect();
    let mut steps = all.split_off(staircase.probes(&done).expect("the probes ended"));
    steps.sort_by(|a, b| a.step.visits.total_cmp(&b.step.visits));
    let shape: Shape = serde_json::from_value(steps[0].observed["shape"].clone()).expect("a shape");
    let top_statement = steps.last().and_then(|played| played.observed["top_statement"].as_str());
    let diagnosed = diagnosis::Staircase {
        top_statement: top_statement.map(str::to_owned),
        steps: steps.iter().map(step).collect(),
        shape,
        faults: Vec::new(),
    };
    let diagnosis = diagnose(&diagnosed);
    println!("said: {}", diagnosis.sentence);
    for line in &diagnosis.evidence {
        println!("  {line}");
    }
    assert_ne!(diagnosis.verdict, Verdict::Invalid, "{}", diagnosis.sentence);
    diagnosis
}

fn step(played: &Played) -> diagnosis::Step {
    let tiers: Vec<Tier> = serde_json::from_value(played.observed["tiers"].clone()).expect("tiers");
    diagnosis::Step {
        faults: played.faults.clone(),
        ..diagnosis::Step::of(&played.step, &tiers, SETTLES..played.seconds)
    }
}

fn check(switchback: &Switchback, kind: Kind) {
    let diagnosis = rehearse(switchback, CEILING);
    let kinds: Vec<Kind> = diagnosis.causes.iter().map(|cause| cause.kind).collect();
    assert_eq!(kinds.first(), Some(&kind), "{:?}: {}", diagnosis.verdict, diagnosis.sentence);
}

/// Takes a tenth from what is said to be full, and from something else, while more is asked than the app can do.
fn prove(switchback: &Switchback, diagnosis: Diagnosis) -> Diagnosis {
    let rate = diagnosis.capacity * 1.4;
    let served = |from: &[&str]| -> (u64, String) {
        let asked = [&["intervene"], from].concat();
        std::thread::scope(|scope| {
            let taking = (!from.is_empty()).then(|| scope.spawn(|| switchback.must(&asked).json()));
            let phase = Phase { name: "test".to_owned(), lasts_ms: 16_000, from: rate, to: rate };
            let step = played(switchback, phase).step;
            let tier =
                taking.map_or(Value::Null, |taking| taking.join().expect("it is taken")["tier"].clone());
            ((step.achieved * step.seconds).round() as u64, tier.as_str().unwrap_or_default().to_owned())
        })
    };
    let suspect = diagnosis.causes[0].tier.clone();
    let (before, _) = served(&[]);
    let trial = |from: &[&str]| {
        let (during, tier) = served(from);
        Trial { tier, taken: 0.1, before, during }
    };
    let (suspect, other) = (
        trial(&[suspect.as_str(), "--seconds", "15"]),
        trial(&[suspect.as_str(), "--other", "--seconds", "15"]),
    );
    let judged = judge(diagnosis, &suspect, &other);
    println!("said: {}\n{:?}", judged.sentence, judged.doubts);
    judged
}

/// Small enough to give way at some tens of requests a second, so that a small machine can drive it.
const SMALL: &str = "{ cpu = 0.3, memory = \"256MB\" }";
/// Without backups: the first is made a minute after `up`, and what it uses counts as somebody else's.
fn shop() -> App {
    App::guestbook("shop").set("db", "backups", "\"off\"")
}

/// A read that is nearly free, and some processor time in the app.
fn light(cpu_ms: u32) -> Value {
    json!({ "cpu_ms": cpu_ms, "sql": ["SELECT 1"] })
}

#[test]
#[ignore = "needs a quiet machine: cargo xtask diagnose"]
fn an_app_of_a_small_size_is_named() {
    let switchback = up(shop().set("web", "size", SMALL).knob("work", light(8)));
    let diagnosis = rehearse(&switchback, CEILING);
    assert_eq!(diagnosis.causes[0].kind, Kind::WebCpu, "{}", diagnosis.sentence);
    let judged = prove(&switchback, diagnosis);
    // Of some hundred requests it may not be clear; it must not be contradicted.
    assert_ne!(judged.verdict, Verdict::Unexplained, "{}", judged.sentence);
}

/// The command itself: it finds the tier, takes from it to be sure, and the daemon remembers.
#[test]
#[ignore = "needs a quiet machine: cargo xtask diagnose"]
fn a_search_tests_what_it_says_and_tells_why() {
    let visit = "{ weight = 100, steps = [{ get = \"/work\" }] }";
    let app = shop().set("web", "size", SMALL).knob("work", light(8));
    let switchback = up(app.set("rehearsal", "visit.work", visit));
    if switchback.status().raw["unlimited_because"].is_string() {
        println!("skipped: no control groups");
        return;
    }
    let find = ["rehearse", "--find", "--yes", "--json", "--threshold", "p99 < 400ms"];
    // At some tens of requests a second each step takes half a minute.
    let output = switchback.cli_within(Duration::from_secs(900), &find);
    println!("{}", output.stderr);
    let said = output.json();
    println!("said: {}", said["diagnosis"]["sentence"].as_str().unwrap_or_default());
    assert_eq!(output.code, Some(0), "{said:#}");
    let diagnosis = &said["diagnosis"];
    assert_eq!(diagnosis["causes"][0]["kind"], "web_cpu", "{diagnosis:#}");
    // Whatever came of it, it was tried.
    let tried = |text: &Value| text.as_str().is_some_and(|text| text.contains("a tenth less of web"));
    let doubts = diagnosis["doubts"].as_array().unwrap();
    assert!(tried(&diagnosis["sentence"]) || doubts.iter().any(tried), "{diagnosis:#}");
    assert_ne!(diagnosis["verdict"], "unexplained", "{diagnosis:#}");
    assert!(switchback.app().state_dir().join("rehearsals/capacity.json").exists());
    let why = switchback.must(&["why", "-n", "1"]).stdout;
    assert!(why.contains("rehearsal") && why.contains("gives way above"), "{why}");
}

#[test]
#[ignore = "needs a quiet machine: cargo xtask diagnose"]
fn an_app_with_two_workers_is_named() {
    let work = json!({ "cpu_ms": 1, "wait_ms": 60, "sql": ["SELECT 1"] });
    check(&up(shop().knob("workers", 2).knob("work", work)), Kind::WebWorkers);
}

#[test]
#[ignore = "needs a quiet machine: cargo xtask diagnose"]
fn a_slow_query_is_named_with_its_text() {
    let work = json!({ "cpu_ms": 1, "sql": ["SELECT count(*) FROM items WHERE tag = {random}"] });
    let switchback = up(shop().set("db", "size", SMALL).knob("work", work));
    sql(
        &switchback,
        "CREATE TABLE items AS SELECT i AS id, i % 1000 AS tag FROM generate_series(1, 100000) i",
    );
    sql(&switchback, "ANALYZE items");
    let diagnosis = rehearse(&switchback, CEILING);
    assert_eq!(diagnosis.causes[0].kind, Kind::MissingIndex, "{}", diagnosis.sentence);
    assert!(diagnosis.sentence.contains("from items where tag = 0"), "{}", diagnosis.sentence);
}

#[test]
#[ignore = "needs a quiet machine: cargo xtask diagnose"]
fn reads_that_fill_the_primary_are_named() {
    let work = json!({ "cpu_ms": 1, "sql": ["SELECT sum(g) FROM generate_series(1, 60000) g"] });
    let switchback = up(shop().set("db", "size", SMALL).knob("work", work));
    check(&switchback, Kind::PrimaryReads);
}

#[test]
#[ignore = "needs a quiet machine: cargo xtask diagnose"]
fn a_row_that_everybody_changes_is_named() {
    let change = "UPDATE counters SET n = n + 1 WHERE id = 1";
    let work = json!({ "cpu_ms": 1, "sql": ["BEGIN", change, "COMMIT"], "hold_ms": 20 });
    let switchback = up(shop().knob("work", work));
    sql(&switchback, "CREATE TABLE counters (id int PRIMARY KEY, n int); INSERT INTO counters VALUES (1, 0)");
    check(&switchback, Kind::Locks);
}

#[test]
#[ignore = "needs a quiet machine: cargo xtask diagnose"]
fn a_small_pool_is_named() {
    let work = json!({ "cpu_ms": 1, "sql": ["BEGIN", "SELECT 1", "COMMIT"], "hold_ms": 100 });
    let app = shop().set("db", "size", "{ memory = \"64MB\" }").knob("work", work);
    check(&up(app), Kind::Pool);
}

#[test]
#[ignore = "needs a quiet machine: cargo xtask diagnose"]
fn an_edge_that_is_held_back_is_named() {
    let switchback = up(App::python("shop"));
    let status = switchback.status();
    if status.raw["unlimited_because"].is_string() {
        println!("skipped: no control groups");
        return;
    }
    hold_back(status.of_kind("edge")[0].pid.expect("it runs"), 30);
    check(&switchback, Kind::EdgeCpu);
}

/// Limits a process from outside, to so many thousandths of a core.
fn hold_back(pid: u32, millis: u32) {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups");
    let of_cpu = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == "cpu").then_some(path)
    });
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let (file, text) = match (of_cpu, unified) {
        (Some(path), _) => {
            (format!("/sys/fs/cgroup/cpu{path}/cpu.cfs_quota_us"), format!("{}", millis * 100))
        }
        (None, path) => {
            let path = path.expect("version 2 where version 1 is not");
            (format!("/sys/fs/cgroup{path}/cpu.max"), format!("{} 100000", millis * 100))
        }
    };
    std::fs::write(&file, text).unwrap_or_else(|error| panic!("{file}: {error}"));
}

#[test]
#[ignore = "needs a quiet machine: cargo xtask diagnose"]
fn replicas_that_do_not_replay_are_named() {
    let statements = ["INSERT INTO visits DEFAULT VALUES", "SELECT sum(g) FROM generate_series(1, 60000) g"];
    let work = json!({ "cpu_ms": 1, "sql": statements });
    let app = shop().stage(3).instances(1).set("db", "size", SMALL).knob("work", work);
    let switchback = up(app);
    let status = switchback.wait_for("all follow", Duration::from_secs(60), Status::is_whole);
    sql(&switchback, "CREATE TABLE visits (id bigserial PRIMARY KEY)");
    for replica in status.read_replicas() {
        crate::replicas::ask_node(&switchback, replica, "SELECT pg_wal_replay_pause()");
    }
    check(&switchback, Kind::ReplicaLag);
}

#[test]
#[ignore = "needs a quiet machine: cargo xtask diagnose"]
fn an_app_that_is_not_full_is_called_nothing() {
    let app = shop().set("web", "size", SMALL).knob("work", light(8));
    let diagnosis = rehearse(&up(app), 12.0);
    assert_eq!(diagnosis.verdict, Verdict::NoBottleneckUpTo, "{}", diagnosis.sentence);
}

#[test]
#[ignore = "needs a quiet machine: cargo xtask diagnose"]
fn an_app_and_a_primary_that_are_as_full_are_not_one_of_them() {
    let work = json!({ "cpu_ms": 7, "sql": ["SELECT sum(g) FROM generate_series(1, 60000) g"] });
    let app = shop().set("web", "size", SMALL).set("db", "size", SMALL).knob("work", work);
    let diagnosis = rehearse(&up(app), CEILING);
    let gains = diagnosis.recommendation.as_ref().and_then(|it| it.predicted.as_ref()).map(|it| it.gain);
    let is_sure = diagnosis.verdict == Verdict::Bottleneck && gains.is_some_and(|gain| gain > 1.5);
    assert!(!is_sure, "{}", diagnosis.sentence);
}

/// What is recommended is done, and gains what was predicted, within a fifth.
#[test]
#[ignore = "needs a quiet machine: cargo xtask diagnose"]
fn the_next_stage_gains_what_was_predicted() {
    let app = shop().set("web", "size", SMALL).knob("work", light(8));
    let switchback = up(app);
    let before = rehearse_with(&switchback, CEILING, Effort::Full);
    let recommended = before.recommendation.expect("something helps");
    let diagnosis::Change::Stage { stage, .. } = recommended.change else { panic!("{}", recommended.says) };
    let predicted = recommended.predicted.expect("it can be said");
    switchback.must(&["stage", &stage.to_string(), "--yes"]);
    let after = rehearse_with(&switchback, CEILING, Effort::Full);
    let gain = after.capacity / before.capacity;
    println!("said: {:.2} times as much is predicted, and {gain:.2} times measured", predicted.gain);
    assert!(
        (gain / predicted.gain - 1.0).abs() <= 0.2,
        "predicted {:.2}, measured {gain:.2}",
        predicted.gain
    );
}

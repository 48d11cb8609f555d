//! What a rehearsal sees of the tiers, and what it may take from them for a moment.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{App, Load, Mix, Status, Switchback};

use crate::data::sql;
use crate::up;

/// The mean of `read` over the seconds of a tier but the first, in which the load may just have begun.
fn mean(observed: &Value, tier: &str, read: impl Fn(&Value) -> Option<f64>) -> f64 {
    let tiers = observed["tiers"].as_array().expect("tiers");
    let found = tiers.iter().find(|found| found["name"] == tier).unwrap_or_else(|| panic!("{tier} is there"));
    let seconds = &found["seconds"].as_array().expect("seconds")[1..];
    seconds.iter().filter_map(read).sum::<f64>() / seconds.len() as f64
}

fn of<'a>(name: &'a str) -> impl Fn(&Value) -> Option<f64> + 'a {
    move |second| second[name].as_f64()
}

fn more<'a>(name: &'a str) -> impl Fn(&Value) -> Option<f64> + 'a {
    move |second| second["more"][name].as_f64()
}

fn observe(switchback: &Switchback, seconds: u32) -> Value {
    let output = switchback.must(&["observe", "--seconds", &seconds.to_string()]);
    serde_json::from_str(&output.stdout).expect("JSON")
}

/// Asks the daemon in its own words.
fn ask_daemon(switchback: &Switchback, request: &Value) -> Value {
    let mut stream =
        UnixStream::connect(switchback.app().state_dir().join("run/daemon.sock")).expect("a daemon");
    writeln!(stream, "{request}").expect("it listens");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("it answers");
    serde_json::from_str(&answer).expect("JSON")
}

#[test]
fn each_tier_says_what_it_does_while_the_app_is_under_load() {
    let switchback = up(App::guestbook("shop").stage(3).instances(2));
    switchback.wait_for("all followers follow", Duration::from_secs(60), Status::is_whole);
    sql(&switchback, "CREATE TABLE visits (id bigserial PRIMARY KEY)");
    let load = Load::start(&switchback.url("/visit"), Mix::both().at_most(100));
    load.wait_for_more(100, Duration::from_secs(20));
    let before = load.requests();
    let observed = observe(&switchback, 5);
    let sent = (load.requests() - before) as f64 / 5.0;
    load.stop().assert_nothing_failed(300);

    let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.25;
    for tier in ["edge", "web"] {
        let done = mean(&observed, tier, of("done"));
        assert!(near(done, sent), "{tier} did {done}/s of {sent}/s: {observed:#}");
        assert!(mean(&observed, tier, of("in_flight")) > 0.0, "{tier}: {observed:#}");
        assert!(mean(&observed, tier, of("cpu")) > 0.0, "{tier}: {observed:#}");
    }
    assert_eq!(mean(&observed, "web", of("members")), 2.0);
    // Each visit writes a row, and reads it.
    let (primary, replicas) =
        (mean(&observed, "primary", of("done")), mean(&observed, "replicas", of("done")));
    assert!(primary > 0.8 * sent, "the primary answered {primary}/s of {sent} visits/s: {observed:#}");
    assert!(primary + replicas > 1.8 * sent, "and the replicas {replicas}/s: {observed:#}");
    assert!(mean(&observed, "primary", of("in_flight")) > 0.0);
    assert!(mean(&observed, "primary", more("top_in_flight")) > 0.0);
    assert!(mean(&observed, "pgproxy", more("pool_size")) >= 1.0);
    let top = observed["top_statement"].as_str().expect("there is one").to_lowercase();
    assert!(top.contains("visits"), "{top}");
    let cores = mean(&observed, "machine", of("cpu_allowed"));
    let used = mean(&observed, "machine", of("cpu"));
    assert!(used > 0.0 && used <= cores * 1.05, "{used} of {cores}");
    let parts: f64 = ["edge", "web", "pgproxy", "primary", "standbys", "replicas"]
        .map(|tier| mean(&observed, tier, of("cpu")))
        .iter()
        .sum();
    assert_eq!(observed["shape"]["stage"], 3);
    assert_eq!(observed["shape"]["read_replicas"], 2);
    assert!(parts <= used * 1.05, "the tiers used {parts}, and the machine {used}");
}

/// Whatever becomes of the daemon, the limit comes back.
#[test]
fn processors_that_an_intervention_takes_come_back_when_it_is_over() {
    let switchback = up(App::python("shop").set("web", "size", "{ cpu = 0.5 }"));
    if switchback.status().raw["unlimited_because"].is_string() {
        eprintln!("skipped: no control groups");
        return;
    }
    let shape = &observe(&switchback, 1)["shape"];
    assert_eq!((&shape["web_cores"], &shape["next"][0]["stage"]), (&json!(0.5), &json!(2)));
    assert_eq!(shape["next"][0]["web_instances"], 2);
    let allowed = || mean(&observe(&switchback, 2), "web", of("cpu_allowed"));
    assert_eq!(allowed(), 0.5);
    let take = |millis: u32, lasts_ms: u64| json!({ "request": "intervene", "cpu_millis": { "web.1": millis }, "lasts_ms": lasts_ms });
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| ask_daemon(&switchback, &take(100, 5_000)));
        switchback
            .wait_for("it has begun", Duration::from_secs(5), |status| status.raw["operation"].is_object());
        assert_eq!(allowed(), 0.1);
        assert_eq!(asked.join().unwrap()["type"], "done");
    });
    assert_eq!(allowed(), 0.5);

    // As a rehearsal does it: a tenth less of what it may use.
    let taken = switchback.must(&["intervene", "web", "--seconds", "1"]).json();
    assert_eq!(taken, json!({ "tier": "web", "cpu_millis": { "web.1": 450 } }));
    // The edge has no limit of its own: of a machine that other tests fill it may use nothing more, and that is said.
    let other = switchback.cli(&["intervene", "web", "--other", "--seconds", "1"]);
    match other.code {
        Some(0) => assert_eq!(other.json()["tier"], "edge"),
        _ => assert!(other.stderr.contains("of no other tier is there anything to be taken"), "{other:?}"),
    }

    // More than it has is none of an intervention.
    assert_eq!(ask_daemon(&switchback, &take(700, 100))["type"], "failed");
    assert_eq!(allowed(), 0.5);

    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream =
                UnixStream::connect(switchback.app().state_dir().join("run/daemon.sock")).expect("a daemon");
            writeln!(stream, "{}", take(100, 20_000)).expect("it listens");
        });
        switchback
            .wait_for("it has begun", Duration::from_secs(5), |status| status.raw["operation"].is_object());
        switchback.kill_daemon();
    });
    switchback.start_daemon_again();
    assert_eq!(allowed(), 0.5);

    let found = json!({ "request": "remember", "decision": "web gives way at 30/s", "evidence": "web: 0.5 of 0.5 cores" });
    assert_eq!(ask_daemon(&switchback, &found)["type"], "done");
    let why = switchback.must(&["why", "-n", "1"]).stdout;
    assert!(
        why.contains("rehearsal") && why.contains("gives way at 30/s") && why.contains("of 0.5 cores"),
        "{why}"
    );
    switchback.down();
}

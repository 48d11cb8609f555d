//! A rehearsal beside a running app: whom it asks, what it says, and that it leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::{App, Load, Mix, Switchback, request};

use crate::up;

/// For lines to be in the access log, which the edge writes in blocks.
const LOG_LIMIT: Duration = Duration::from_secs(15);

/// An app that has been visited: about five visits a second.
fn visited_for(seconds: u64) -> Switchback {
    visited(App::python("shop").stage(2), seconds)
}

fn visited(app: App, seconds: u64) -> Switchback {
    let switchback = up(app);
    let (began, mut visits) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        assert_eq!(request("GET", &switchback.url("/"), &[], b"").unwrap().status, 200);
        visits += 1;
        std::thread::sleep(Duration::from_millis(200));
    }
    let log = switchback.app().state_dir().join("logs/access.log");
    let deadline = Instant::now() + LOG_LIMIT;
    while std::fs::read_to_string(&log).unwrap_or_default().lines().count() < visits {
        assert!(Instant::now() < deadline, "the access log has not all of {visits} visits");
        std::thread::sleep(Duration::from_millis(50));
    }
    switchback
}

fn record(said: &Value) -> Value {
    let path = Path::new(said["record"].as_str().unwrap());
    serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap()["parts"][0]["record"].clone()
}

#[test]
fn a_replay_asks_as_often_as_visitors_did_and_writes_a_page_and_what_it_measured() {
    let switchback = visited_for(4);
    let required = ["--threshold", "errors < 1%", "--threshold", "p99 < 30s"];
    let output = switchback.cli(&[&["rehearse", "replay", "--yes", "--json"], &required[..]].concat());
    let said: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:#?}"));
    // On a machine that is busy with other tests it may be invalid, and must say so then.
    let is_valid = said["valid"].as_bool().unwrap();
    assert_eq!(said["verdict"]["passed"], if is_valid { "yes" } else { "not_asked" }, "{said:#}");
    assert_eq!(said["validity"]["faults"].as_array().unwrap().is_empty(), is_valid, "{said:#}");
    assert_eq!(output.code, Some(i32::from(!is_valid)));
    for judged in said["thresholds"].as_array().unwrap() {
        assert_eq!(judged["kept"], true, "{said:#}");
    }
    let page = std::fs::read_to_string(said["page"].as_str().unwrap()).unwrap();
    assert!(page.starts_with("<!doctype html>") || page.starts_with("<!DOCTYPE html>"), "{}", &page[..60]);
    let record = record(&said);
    let sum = |of: fn(&Value) -> u64| record["seconds"].as_array().unwrap().iter().map(of).sum::<u64>();
    let visits = sum(|second| second["visits"].as_u64().unwrap());
    assert!((5..=60).contains(&visits), "{visits} visits for about twenty");
    let tiers: Vec<&str> =
        record["tiers"].as_array().unwrap().iter().map(|tier| tier["name"].as_str().unwrap()).collect();
    for tier in ["machine", "edge", "web"] {
        assert!(tiers.contains(&tier), "{tiers:?}");
    }
}

/// Two who use all that they get, beside the app.
#[test]
fn what_others_use_of_the_machine_is_not_blamed_on_the_app() {
    let switchback = visited_for(4);
    let busy = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let mut others = [busy(), busy()];
    let output = switchback.cli(&["rehearse", "replay", "--yes", "--json", "--threshold", "rate > 100000/s"]);
    for other in &mut others {
        other.kill().unwrap();
        other.wait().unwrap();
    }
    assert_eq!(output.code, Some(1), "{output:?}");
    let said: Value = serde_json::from_str(&output.stdout).unwrap();
    let sentence = said["verdict"]["sentence"].as_str().unwrap();
    assert_eq!(
        (&said["valid"], &said["verdict"]["passed"]),
        (&json!(false), &json!("not_asked")),
        "{sentence}"
    );
    assert!(!sentence.contains("The app did not keep"), "{sentence}");
}

#[test]
fn a_threshold_that_is_not_kept_is_said_and_fails_the_command() {
    let switchback = visited_for(2);
    let output = switchback.cli(&["rehearse", "replay", "--yes", "--threshold", "rate > 100000/s"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stdout.contains("not kept"), "{}", output.stdout);
    let output = switchback.cli(&["rehearse", "replay", "--threshold", "p99 < 250"]);
    assert_eq!(output.code, Some(2), "{output:?}");
}

#[test]
fn an_interrupted_rehearsal_says_what_it_has_and_that_it_is_not_all() {
    let switchback = visited_for(1);
    let arguments = ["rehearse", "hn", "--duration", "60", "--yes", "--json"];
    let child = switchback.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["cut_short"], "it was interrupted");
    assert_eq!(said["valid"], false);
    let seconds = record(&said)["seconds"].as_array().unwrap().len();
    assert!((1..30).contains(&seconds), "{seconds}");
}

/// By then it may have taken hours.
#[test]
fn what_was_measured_is_said_where_it_can_no_longer_be_written() {
    let switchback = visited_for(1);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    let arguments = ["rehearse", "hn", "--duration", "60", "--yes", "--out", out.to_str().unwrap()];
    let child = switchback.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    drop(folder);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    // On a busy machine it may be invalid before that.
    assert!(said.contains("This run ") && said.contains("report.html"), "{said}");
}

#[test]
fn an_app_that_somebody_uses_is_not_loaded_without_a_yes() {
    let switchback = visited_for(4);
    let output = switchback.cli(&["rehearse", "replay"]);
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(output.stderr.contains("somebody uses the app now"), "{}", output.stderr);
}

/// Loads the app for some seconds.
fn rehearsed_for_a_moment(switchback: &Switchback) {
    let arguments = ["rehearse", "front-page", "--duration", "60", "--yes"];
    let mut child =
        switchback.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    switchback.wait_for("it is loaded", Duration::from_secs(30), |status| {
        let processes = status.raw["processes"].as_array().unwrap();
        processes.iter().any(|process| process["requests_per_second"].as_f64().is_some_and(|rate| rate > 1.0))
    });
    interrupt(&child);
    child.wait().unwrap();
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
}

/// Whoever rehearses twice has no visitors for that. Without a log it is counted anew who asks.
#[test]
fn a_rehearsal_before_is_no_use_of_the_app() {
    for has_log in [true, false] {
        let switchback = up(App::python("shop").set("edge", "access_log", has_log));
        rehearsed_for_a_moment(&switchback);
        let again = switchback.cli(&["rehearse", "replay"]);
        assert!(!again.stderr.contains("somebody uses the app"), "{has_log}: {again:#?}");
        // It went on: only then it is known that the log has no visit.
        assert!(again.stderr.contains("there is nothing to replay"), "{has_log}: {again:#?}");
        let mut journey = switchback
            .command(&["journey", "--quick"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(journey.stderr.take().unwrap()).lines();
        let first = said.next().expect("it says something").unwrap();
        interrupt(&journey);
        said.for_each(drop);
        journey.wait().unwrap();
        assert!(first.contains("the app beside itself"), "{has_log}: {first}");
    }
}

#[test]
fn another_app_is_asked_only_when_it_was_named_twice() {
    let switchback = up(App::python("shop"));
    let target = ["rehearse", "hn", "--target", "http://198.51.100.1"];
    assert_eq!(switchback.cli(&target).code, Some(2));
    let output = switchback.cli(&[&target[..], &["--yes-target", "198.51.100.2"]].concat());
    assert_eq!(output.code, Some(3), "{output:?}");
    // Named twice it is still another machine, and there is no terminal to say yes in.
    let output = switchback.cli(&[&target[..], &["--yes-target", "198.51.100.1"]].concat());
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(output.stderr.contains("another machine"), "{}", output.stderr);
}

#[test]
fn a_profile_that_does_not_exist_is_told_from_those_that_do() {
    let switchback = up(App::python("shop"));
    let output = switchback.cli(&["rehearse", "slashdot"]);
    assert_eq!(output.code, Some(2));
    for known in ["front-page", "tv-ad", "replay"] {
        assert!(output.stderr.contains(known), "{}", output.stderr);
    }
    // A search has no profile, and neither does its usage.
    let output = switchback.cli(&["rehearse", "--find", "hn", "--duration", "60"]);
    assert_eq!(output.code, Some(2));
    assert!(output.stderr.contains("switchback rehearse --find [OPTIONS]"), "{}", output.stderr);
    // What is relative to a capacity needs one.
    let output = switchback.cli(&["rehearse", "overload"]);
    assert_eq!(output.code, Some(2));
    assert!(output.stderr.contains("--find"), "{}", output.stderr);
}

/// Ten minutes later it would be too late.
#[test]
fn what_cannot_be_played_compared_or_written_is_told_before_anything_is_asked() {
    let switchback = up(App::python("shop"));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(file("no-record.json"), "{}").unwrap();
    for (arguments, said) in [
        (vec!["hn", "--duration", "30"], "the duration must be from 1 minute"),
        (vec!["replay", "--duration", "30"], "the duration must be from 1 minute"),
        (vec!["hn", "--base", "0"], "the usual rate of visits must be"),
        (vec!["replay", "--times", "0"], "the factor must be"),
        (vec!["hn", "--baseline", &file("none.json")], "none.json"),
        (vec!["hn", "--baseline", &file("no-record.json")], "no-record.json cannot be compared with"),
        (vec!["hn", "--out", &file("none/report")], "none/report.html"),
        (vec!["--find", "--out", &file("none/report")], "none/report.html"),
        (vec!["hn", "--save-baseline", &file("none/baseline.json")], "none/baseline.json"),
    ] {
        let output = switchback.cli(&[&["rehearse", "--yes"], &arguments[..]].concat());
        assert_eq!(output.code, Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(said), "{arguments:?}: {}", output.stderr);
        assert!(!output.stderr.contains("looking at what there is"), "{arguments:?}: {}", output.stderr);
    }
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["no-record.json"], "nothing is left of the check");
}

#[test]
fn a_search_that_says_nothing_of_the_app_fails_and_is_not_remembered() {
    let broken = "{ weight = 100, steps = [{ get = \"/there-is-none\" }] }";
    let switchback = up(App::python("shop").set("rehearsal", "visit.broken", broken));
    let output = switchback.cli(&["rehearse", "--find", "--yes", "--json"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    let said: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(
        (&said["valid"], &said["diagnosis"]["verdict"]),
        (&json!(false), &json!("invalid")),
        "{said:#}"
    );
    assert!(said["verdict"]["sentence"].as_str().unwrap().contains("says nothing of the app"), "{said:#}");
    assert!(!switchback.app().state_dir().join("rehearsals/capacity.json").exists());
    // So what is relative to a capacity still needs one.
    assert_eq!(switchback.cli(&["rehearse", "soak", "--yes"]).code, Some(2));
}

/// Told to end, it says so; killed, it says nothing, and what it said before is kept all the same.
#[test]
fn a_generator_that_ends_before_its_time_cuts_a_rehearsal_short() {
    let switchback = visited_for(2);
    for (what, signal) in [
        (&["hn", "--duration", "60"][..], Signal::TERM),
        (&["hn"], Signal::KILL),
        (&["--find"], Signal::KILL),
    ] {
        let arguments = [&["rehearse"], what, &["--yes", "--json"]].concat();
        let child =
            switchback.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        generator(child.id());
        // So that it has sent something, and told a second or two of it.
        std::thread::sleep(Duration::from_secs(4));
        // A search has one for each step.
        while rustix::process::kill_process(generator(child.id()), signal).is_err() {}
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let why = said["cut_short"].as_str().unwrap();
        assert!(why.starts_with("the generator ended before its time"), "{why}");
        assert_eq!(said["verdict"]["passed"], "not_asked", "{said:#}");
        let seconds = record(&said)["seconds"].as_array().unwrap().clone();
        assert!(seconds.iter().any(|second| second["visits"].as_u64() > Some(0)), "{arguments:?}");
    }
}

/// The process that sends the load of a rehearsal.
fn generator(rehearsal: u32) -> rustix::process::Pid {
    let children = format!("/proc/{rehearsal}/task/{rehearsal}/children");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = std::fs::read_to_string(&children).unwrap_or_default();
        if let Some(pid) = found.split_whitespace().next() {
            return rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        }
        assert!(Instant::now() < deadline, "no generator was started");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_apps_own_address_is_not_loaded_without_a_yes_either() {
    let switchback = up(App::python("shop"));
    let users = Load::start(&switchback.url("/"), Mix::both().at_most(20));
    // The daemon looks every few seconds.
    switchback.wait_for("its use is seen", Duration::from_secs(30), |status| {
        let processes = status.raw["processes"].as_array().unwrap();
        processes.iter().any(|process| process["requests_per_second"].as_f64().is_some_and(|rate| rate > 1.0))
    });
    let url = switchback.url("/");
    let target = ["rehearse", "hn", "--target", url.trim_end_matches('/'), "--yes-target", "127.0.0.1"];
    let output = switchback.cli(&target);
    users.stop();
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(output.stderr.contains("somebody uses the app now"), "{}", output.stderr);
}

/// The app with a second listener, whose certificate its own authority has issued.
fn with_tls(listen_tls: &str) -> App {
    App::python("shop").set("edge", "tls", "\"local\"").set("edge", "listen_tls", format!("\"{listen_tls}\""))
}

fn tls_port(switchback: &Switchback) -> String {
    let status = switchback.status();
    let url = status.front.iter().find(|url| url.starts_with("https://")).unwrap();
    url.rsplit_once(':').unwrap().1.to_owned()
}

#[test]
fn a_tls_listener_that_is_open_to_other_machines_is_not_loaded_without_a_yes() {
    let switchback = up(with_tls("0.0.0.0:0"));
    let url = format!("https://127.0.0.1:{}", tls_port(&switchback));
    let ours = ["rehearse", "hn", "--duration", "60"];
    let named = [&ours[..], &["--target", &url, "--yes-target", "127.0.0.1"]].concat();
    for arguments in [&ours[..], &named] {
        let output = switchback.cli(arguments);
        assert_eq!(output.code, Some(3), "{output:?}");
        assert!(output.stderr.contains("open to other machines"), "{}", output.stderr);
    }
}

#[test]
fn an_app_is_rehearsed_by_tls_with_its_own_authority_and_its_tiers_are_seen() {
    let switchback = visited(with_tls("127.0.0.1:0"), 2);
    let port = tls_port(&switchback);
    let (url, named) = (format!("https://127.0.0.1:{port}"), format!("https://localhost:{port}"));
    for (how, target) in
        [(&["--tls"][..], &named), (&["--target", &url, "--yes-target", "127.0.0.1"][..], &url)]
    {
        let output = switchback.cli(&[&["rehearse", "replay", "--yes", "--json"], how].concat());
        let said: Value =
            serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:#?}"));
        let record = record(&said);
        assert_eq!((&record["target"], &record["failed"]), (&json!(target), &json!([])), "{said:#}");
        let ok = |second: &Value| second["classes"]["page"]["outcomes"]["ok"].as_u64().unwrap_or(0);
        assert!(record["seconds"].as_array().unwrap().iter().map(ok).sum::<u64>() > 0, "{said:#}");
        assert!(record["tiers"].as_array().unwrap().iter().any(|tier| tier["name"] == "web"), "{said:#}");
    }
    // Whom another authority vouches for is not asked.
    let output = switchback.cli(&["rehearse", "replay", "--yes", "--tls", "--authorities", "/dev/null"]);
    assert!(output.code == Some(1) && output.stderr.contains("/dev/null"), "{output:?}");
    let without = up(App::python("shop"));
    assert_eq!(without.cli(&["rehearse", "hn", "--tls"]).code, Some(2));
}

#[test]
fn an_interrupt_before_the_crowd_comes_is_heard() {
    let switchback = up(App::python("shop"));
    // It takes connections, and answers none.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let arguments = ["rehearse", "hn", "--target", &url, "--yes-target", "127.0.0.1"];
    let mut child =
        switchback.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    said.find(|line| line.as_ref().unwrap().contains("looking at what there is")).expect("it looks").unwrap();
    let interrupted = Instant::now();
    interrupt(&child);
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("nothing was measured")), "{rest:?}");
    // Less than the app is given for its first answer.
    assert!(interrupted.elapsed() < Duration::from_secs(5), "{:?}", interrupted.elapsed());
}

#[test]
fn reports_are_for_the_owner_of_the_app_alone() {
    let switchback = visited_for(1);
    switchback.cli(&["rehearse", "replay", "--yes"]);
    let folder = switchback.app().state_dir().join("rehearsals");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2, "{files:?}");
    assert!(files.iter().all(|path| mode(path) == 0o600), "{files:?}");
}

#[test]
fn another_app_is_not_measured_by_the_tiers_of_this_one() {
    let (switchback, other) = (up(App::python("shop")), up(App::python("other")));
    let url = other.url("/");
    let target = ["--target", url.trim_end_matches('/'), "--yes-target", "127.0.0.1"];
    let arguments = [&["rehearse", "hn", "--duration", "60", "--json"], &target[..]].concat();
    let child = switchback.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let record = record(&serde_json::from_slice(&output.stdout).unwrap());
    assert!(!record["seconds"].as_array().unwrap().is_empty());
    assert_eq!(record["tiers"], json!([]));
}

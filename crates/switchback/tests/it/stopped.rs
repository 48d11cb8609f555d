//! An app that is down, or has no daemon: what can be seen of it, and what commands mean then.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use testkit::{App, get};

use crate::faults::nothing_runs;
use crate::up;

#[test]
fn why_and_which_releases_are_kept_can_be_asked_while_no_daemon_runs() {
    let switchback = up(App::python("shop"));
    let release = switchback.status().web()[0].release.clone().unwrap();
    let seen = || {
        // To the second, as wherever people are shown it; what a program reads is exact.
        let is_time = |text: &str| DateTime::strptime("%F %T", text).is_ok();
        let listed = switchback.must(&["rollback", "--list"]).stdout;
        let time: Vec<&str> = listed.split_whitespace().skip(1).take(2).collect();
        assert!(is_time(&time.join(" ")), "{listed}");
        let why = switchback.must(&["why"]).stdout;
        assert!(why.contains("web") && why.lines().all(|line| is_time(&line[..19])), "{why}");
        let logs = switchback.must(&["logs"]).stdout;
        assert!(logs.lines().count() > 0 && logs.lines().all(|line| is_time(&line[..19])), "{logs}");
        let kept = switchback.must(&["rollback", "--list", "--json"]).json();
        assert_eq!((&kept[0]["id"], &kept[0]["serving"]), (&release.clone().into(), &true.into()));
        let exact = kept[0]["created"].as_str().unwrap();
        assert!(exact.ends_with('Z') && exact.parse::<Timestamp>().is_ok(), "{exact}");
    };
    // Whose state file was left open.
    switchback.kill_daemon();
    seen();
    switchback.start_daemon_again();
    switchback.down();
    seen();
    nothing_runs(&switchback);
    switchback.must(&["up", "--detach"]);
}

#[test]
fn a_daemon_that_hangs_is_said_to_and_goes_on_when_it_can() {
    let switchback = up(App::python("shop"));
    let status = switchback.while_the_daemon_hangs(|| {
        assert_eq!(get(&switchback.url("/")).unwrap().status, 200);
        switchback.cli(&["status"])
    });
    assert_eq!(status.code, Some(1), "{status:#?}");
    assert!(status.stderr.contains("the daemon does not answer"), "{status:#?}");
    assert_eq!(switchback.status().web().len(), 1);
}

#[test]
fn a_daemon_that_was_killed_is_not_taken_for_an_app_that_is_down() {
    let switchback = up(App::python("shop"));
    switchback.kill_daemon();
    let status = switchback.cli(&["status"]);
    assert_eq!(status.code, Some(1), "{status:#?}");
    assert!(status.stderr.contains("the app was not brought down"), "{status:#?}");
    assert!(status.stderr.contains("`switchback up --detach`"), "{status:#?}");
    switchback.start_daemon_again();
    switchback.down();
    let status = switchback.cli(&["status"]);
    assert!(status.stderr.contains("the app is not up here"), "{status:#?}");
}

/// The daemon has nothing that it could go on with.
#[test]
fn an_interrupt_while_a_daemon_is_waited_for_says_that_nothing_was_begun() {
    let switchback = up(App::python("shop"));
    switchback.kill_daemon();
    // As one has it that has just begun.
    let lock = std::fs::File::options().write(true).open(switchback.app().state_dir().join("daemon.lock"));
    let lock = lock.unwrap();
    lock.lock().unwrap();
    let mut deploy = switchback.command(&["deploy"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(deploy.stderr.take().unwrap()).lines();
    said.find(|line| line.as_ref().unwrap().contains("waiting for the daemon")).expect("it waits").unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&deploy), rustix::process::Signal::INT)
        .unwrap();
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    assert_eq!(rest, ["interrupted: nothing was begun"]);
    assert_eq!(deploy.wait().unwrap().code(), Some(130));
    drop(lock);
    switchback.start_daemon_again();
}

#[test]
fn a_second_down_finds_nothing_to_stop_and_starts_nothing_to_stop_it() {
    let switchback = up(App::python("shop"));
    switchback.down();
    let again = switchback.must(&["down"]);
    assert_eq!(again.stderr, "nothing is up here\n");
    nothing_runs(&switchback);
    // What was killed is another matter: it is taken over and stopped.
    switchback.must(&["up", "--detach"]);
    switchback.kill_daemon();
    let stopped = switchback.must(&["down"]);
    assert!(stopped.stderr.contains("everything is stopped"), "{stopped:#?}");
    nothing_runs(&switchback);
}

#[test]
fn the_plan_of_a_stopped_app_says_what_up_would_start_and_change() {
    let mut switchback = up(App::python("shop"));
    switchback.down();
    let plan = switchback.must(&["plan"]);
    assert_eq!(plan.stdout, "start    edge, web.1: they stand and do not run\n");
    assert!(plan.stderr.contains("`switchback up` brings it up"), "{plan:#?}");
    switchback.app_mut().change("web", "instances", 2);
    let plan = switchback.must(&["plan"]).stdout;
    assert!(
        plan.contains("start    edge, web.1:") && plan.contains("update   web: 1 instance more"),
        "{plan}"
    );
    let planned = switchback.must(&["plan", "--json"]).json();
    assert_eq!(planned["starts"], serde_json::json!(["edge", "web.1"]));
    let refused = switchback.cli(&["apply", "--yes"]);
    assert_eq!(refused.code, Some(3), "{refused:#?}");
    nothing_runs(&switchback);
    switchback.must(&["up", "--detach"]);
    assert_eq!(switchback.must(&["plan"]).stdout, "Nothing to change.\n");
}

#[test]
fn another_stage_for_a_stopped_app_is_noted_and_reached_by_the_next_up() {
    let switchback = up(App::python("shop"));
    switchback.down();
    let said = switchback.must(&["stage", "2", "--yes"]).stderr;
    assert!(said.contains("the manifest says stage 2 now; the app is down"), "{said}");
    assert!(switchback.app().manifest().contains("stage = 2"));
    nothing_runs(&switchback);
    switchback.must(&["up", "--detach"]);
    assert_eq!((switchback.status().stage, switchback.status().web().len()), (2, 2));
}

#[test]
fn an_address_that_was_taken_meanwhile_can_be_changed_before_up() {
    let mut switchback = up(App::python("shop"));
    let front = switchback.url("");
    switchback.down();
    let taken = std::net::TcpListener::bind(front.strip_prefix("http://").unwrap()).unwrap();
    let refused = switchback.cli(&["up", "--detach"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("cannot listen on"), "{refused:#?}");
    // Who has it, which is this test, and what can be done about that.
    let who = format!("(pid {}) has port {}", std::process::id(), taken.local_addr().unwrap().port());
    assert!(
        refused.stderr.contains(&who) && refused.stderr.contains("`listen` under [edge]"),
        "{refused:#?}"
    );
    // Nobody waits for the address, so nothing is left that only looks as if it came up.
    assert!(refused.stderr.contains("stopping what was started"), "{refused:#?}");
    assert!(!refused.stderr.contains("still being started"), "{refused:#?}");
    nothing_runs(&switchback);
    switchback.app_mut().change("edge", "listen", "\"127.0.0.2:0\"");
    switchback.must(&["up", "--detach"]);
    switchback.look_up_front();
    assert_ne!(switchback.url(""), front);
    assert_eq!(get(&switchback.url("/")).unwrap().status, 200);
}

#[test]
fn an_app_whose_release_no_longer_starts_can_be_rolled_back_and_deployed() {
    let mut switchback = up(App::python("shop").set("web", "start_timeout", "\"2s\""));
    let spoil = |switchback: &testkit::Switchback| {
        let serving = switchback.status().web()[0].release.clone().unwrap();
        switchback.down();
        let tree = switchback.app().state_dir().join("releases").join(serving).join("tree");
        std::fs::remove_file(tree.join("app.py")).unwrap();
        let failed = switchback.cli(&["up", "--detach"]);
        assert_eq!(failed.code, Some(1), "{failed:#?}");
        assert!(failed.stderr.contains("still being started: web."), "{failed:#?}");
    };
    switchback.app_mut().put("version", "2");
    switchback.must(&["deploy"]);
    spoil(&switchback);
    switchback.must(&["rollback"]);
    switchback.look_up_front();
    assert_eq!(get(&switchback.url("/")).unwrap().header("x-app-version"), Some("1"));
    spoil(&switchback);
    switchback.app_mut().put("version", "3");
    switchback.must(&["deploy"]);
    switchback.look_up_front();
    assert_eq!(get(&switchback.url("/")).unwrap().header("x-app-version"), Some("3"));
}

/// Asks on another thread. `true`: the answer came whole.
pub fn asking(url: String) -> std::thread::JoinHandle<bool> {
    std::thread::spawn(move || get(&url).is_ok_and(|answer| answer.status == 200))
}

pub fn until_in_flight(switchback: &testkit::Switchback, count: u64) {
    switchback.wait_for("requests in flight", Duration::from_secs(10), |status| {
        let processes = status.raw["processes"].as_array().expect("a list");
        processes.iter().any(|process| process["kind"] == "edge" && process["in_flight"] == count)
    });
}

#[test]
fn down_waits_for_requests_as_long_as_the_longest_grace_and_logs_what_it_cuts() {
    let switchback = up(App::python("shop").set("web", "grace", "\"12s\""));
    let (waited_for, cut) = (asking(switchback.url("/slow/11000")), asking(switchback.url("/slow/18000")));
    until_in_flight(&switchback, 2);
    switchback.down();
    assert!(waited_for.join().unwrap(), "a request within the grace was cut");
    assert!(!cut.join().unwrap());
    let log = std::fs::read_to_string(switchback.app().state_dir().join("logs/access.log")).unwrap();
    let outcome = |path: &str| {
        let line = log.lines().find(|line| line.contains(path)).unwrap_or_else(|| panic!("{path}: {log}"));
        serde_json::from_str::<serde_json::Value>(line).unwrap()["outcome"].clone()
    };
    assert_eq!((outcome("/slow/11000"), outcome("/slow/18000")), ("ok".into(), "cut".into()));
}

#[test]
fn a_second_interrupt_ends_what_the_first_waits_for() {
    let mut switchback = crate::prepare(App::python("shop").set("web", "grace", "\"60s\""));
    let mut attached =
        switchback.command(&["up"]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(attached.stderr.take().unwrap()).lines();
    let mut until = |text: &str| {
        let heard = said.any(|line| line.unwrap().contains(text));
        assert!(heard, "it ended without saying `{text}`");
    };
    until("Ctrl-C stops it");
    switchback.look_up_front();
    let waiting = asking(switchback.url("/slow/50000"));
    until_in_flight(&switchback, 1);
    let pid = rustix::process::Pid::from_child(&attached);
    let interrupt = || rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    interrupt();
    until("stopping");
    assert!(attached.try_wait().unwrap().is_none());
    let began = std::time::Instant::now();
    interrupt();
    until("stopping at once");
    attached.wait().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(!waiting.join().unwrap());
    nothing_runs(&switchback);
}

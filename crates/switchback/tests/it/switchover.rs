//! A planned change of primary: nothing is lost by it, and where it fails in the middle one of the two serves on.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Process, Switchback, request};

use crate::cluster::{RETURN_LIMIT, first_write, second_stage, signal, told_to_proxy, whole};
use crate::data::sql;
use crate::replicas::ask_node;

/// Writes one row after the other, whatever happens.
struct Writing {
    is_over: Arc<AtomicBool>,
    acknowledged: JoinHandle<Vec<u32>>,
}

impl Writing {
    fn begin(switchback: &Switchback) -> Writing {
        let (url, is_over) = (switchback.url("/sql"), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&is_over);
        let acknowledged = std::thread::spawn(move || {
            let write = |id: &u32| {
                std::thread::sleep(Duration::from_millis(10));
                let insert = format!("INSERT INTO visits VALUES ({id})");
                request("POST", &url, &[], insert.as_bytes()).is_ok_and(|answer| answer.status == 200)
            };
            (1_000..).take_while(|_| !ended.load(Ordering::Relaxed)).filter(write).collect()
        });
        Writing { is_over, acknowledged }
    }

    /// What it was told is written is there.
    fn lost_nothing(self, switchback: &Switchback) {
        self.is_over.store(true, Ordering::Relaxed);
        let acknowledged = self.acknowledged.join().unwrap();
        let there = sql(switchback, "SELECT string_agg(id::text, ' ') FROM visits");
        let there: BTreeSet<u32> = there.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let lost: Vec<&u32> = acknowledged.iter().filter(|id| !there.contains(id)).collect();
        assert!(!acknowledged.is_empty() && lost.is_empty(), "lost: {lost:?}\n{}", switchback.daemon_log());
    }
}

/// A switchover that lets everybody wait who has not begun, and waits some seconds for one who has.
struct Switching(Child);

impl Switching {
    fn begin(switchback: &Switchback, primary: &Process) -> Switching {
        let url = switchback.url("/sql");
        // Its answer is nobody's concern: it may be cut with the primary.
        std::thread::spawn(move || request("POST", &url, &[], b"SELECT pg_sleep(15)"));
        let works = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        switchback.wait_for("somebody works", RETURN_LIMIT, |_| ask_node(switchback, primary, works) == "1");
        let mut command = switchback.command(&["failover"]);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let since = Instant::now();
        while told_to_proxy(switchback)["nodes"][&primary.name]["role"] == "primary" {
            assert!(since.elapsed() < RETURN_LIMIT, "{}", switchback.daemon_log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Switching(command)
    }

    /// Whether it succeeded, and what it said.
    fn ended(self) -> (bool, String) {
        let output = self.0.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Of a process of a node, by its kind.
fn pid_of(switchback: &Switchback, node: &Process, kind: &str) -> String {
    ask_node(switchback, node, &format!("SELECT pid FROM pg_stat_activity WHERE backend_type = '{kind}'"))
}

#[test]
fn a_switchover_changes_the_primary_and_loses_nothing() {
    let switchback = second_stage();
    for number in 0..20 {
        sql(&switchback, &format!("INSERT INTO visits VALUES ({number})"));
    }
    let before = switchback.status().primary().name.clone();
    let switched = switchback.must(&["failover", "--json"]).json();
    assert_eq!(switched["from"], before.as_str());
    println!("switched over in {} ms, the return of the old primary included", switched["took_ms"]);
    let status = whole(&switchback);
    assert_eq!(switched["to"], status.primary().name.as_str());
    first_write(&switchback, Instant::now(), 20);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "21");

    let refused = switchback.cli(&["failover", "--to", &status.primary().name]);
    assert_eq!(refused.code, Some(3), "{refused:#?}");
    let unknown = switchback.cli(&["failover", "--to", "db.9"]);
    assert_eq!(unknown.code, Some(3), "{unknown:#?}");
    assert!(unknown.stderr.contains("db.9 is no node of db"), "{unknown:#?}");
    assert!(unknown.stderr.contains("it has db.1, db.2; db.2 is the primary"), "{unknown:#?}");
}

/// Its end is heard of before the switchover waits for it.
#[test]
fn a_primary_that_crashes_before_a_switchover_has_shut_it_down_is_failed_over_at_once() {
    let switchback = second_stage();
    let status = switchback.status();
    let (old, proxy) = (status.primary(), status.of_kind("pgproxy")[0]);
    let writing = Writing::begin(&switchback);
    let switching = Switching::begin(&switchback, old);
    // The proxy goes by what it was told a moment after that was written down.
    switchback.wait_for("clients wait", RETURN_LIMIT, |_| {
        let metrics = switchback.must(&["metrics"]).stdout;
        let mut waiting =
            metrics.lines().filter(|line| line.starts_with("switchback_pgproxy_clients_waiting{"));
        waiting.any(|line| !line.ends_with(" 0"))
    });
    // Now it does not say that nobody works any more.
    proxy.hang();
    old.crash();
    switchback
        .wait_for("its end is seen", RETURN_LIMIT, |status| status.process(&old.name).state == "restarting");
    proxy.go_on();
    let took = first_write(&switchback, Instant::now(), 1);
    assert!(took < Duration::from_secs(20), "{took:?}");
    let (_, said) = switching.ended();
    assert!(said.contains("has ended by itself before it was shut down"), "{said}");
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    // On a full machine a standby may be too slow to be asked.
    let decided = [format!("fail over from {}", old.name), format!("start {} again where it was", old.name)];
    assert!(decided.iter().any(|decided| why.contains(decided)), "{why}");
    whole(&switchback);
    writing.lost_nothing(&switchback);
}

/// A checkpoint takes minutes on a slow disk, and a follower of a primary at rest hears nothing of it.
#[test]
fn a_primary_that_prepares_for_a_switchover_is_not_taken_for_hung() {
    let switchback = second_stage();
    let before = switchback.status().primary().clone();
    let checkpointer = pid_of(&switchback, &before, "checkpointer");
    signal(&checkpointer, "STOP");
    let mut switching = switchback.command(&["failover"]);
    let switching = switching.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waits =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event IN ('CheckpointStart', 'CheckpointDone')";
    switchback.wait_for("it waits for the checkpoint", RETURN_LIMIT, |_| {
        ask_node(&switchback, &before, waits) == "1"
    });
    // For longer than a busy primary is waited for.
    std::thread::sleep(Duration::from_secs(20));
    let after = switchback.status().primary().clone();
    assert_eq!((&before.name, before.pid), (&after.name, after.pid), "{}", switchback.daemon_log());
    signal(&checkpointer, "CONT");
    let switched = switching.wait_with_output().unwrap();
    assert!(switched.status.success(), "{}", String::from_utf8_lossy(&switched.stderr));
    assert_ne!(whole(&switchback).primary().name, before.name);
}

/// As on a full machine. Nobody waits yet.
#[test]
fn a_primary_that_takes_connections_slowly_is_waited_for_before_a_switchover() {
    let switchback = second_stage();
    let before = switchback.status().primary().clone();
    before.hang();
    let switching = std::thread::scope(|scope| {
        let switching = scope.spawn(|| switchback.cli(&["failover"]));
        // For longer than a session that is open may be silent, and not for so long that it counts as hung.
        std::thread::sleep(Duration::from_secs(2));
        before.go_on();
        switching.join().unwrap()
    });
    assert_eq!(switching.code, Some(0), "{switching:#?}");
    assert_ne!(whole(&switchback).primary().name, before.name);
}

/// It would have to replay all of it before it takes writes, with everybody waiting.
#[test]
fn a_switchover_to_a_standby_that_is_far_behind_is_refused_before_anything_is_stopped() {
    let switchback = second_stage();
    let before = switchback.status();
    let (primary, standby) = (before.primary(), before.standbys()[0]);
    ask_node(&switchback, standby, "SELECT pg_wal_replay_pause()");
    sql(&switchback, "INSERT INTO visits VALUES (1)");
    switchback.wait_for("it is far behind", RETURN_LIMIT, |status| {
        status.process(&standby.name).replay_lag_ms.is_some_and(|ms| ms > 6_000)
    });
    let refused = switchback.cli(&["failover"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains(&format!("{} is ", standby.name)), "{refused:#?}");
    assert!(refused.stderr.contains(&format!(" s behind {} in replaying", primary.name)), "{refused:#?}");
    first_write(&switchback, Instant::now(), 2);
    let after = whole(&switchback);
    assert_eq!((&primary.name, primary.pid), (&after.primary().name, after.primary().pid));

    ask_node(&switchback, standby, "SELECT pg_wal_replay_resume()");
    switchback.wait_for("it is up to date", RETURN_LIMIT, |status| {
        status.process(&standby.name).replay_lag_ms == Some(0)
    });
    switchback.must(&["failover"]);
    assert_eq!(whole(&switchback).primary().name, standby.name);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "2");
}

/// Nothing of the log is stored while clients wait for a switchover.
#[test]
fn what_was_not_stored_for_a_switchover_is_stored_after_it() {
    let switchback = second_stage();
    switchback.must(&["failover"]);
    whole(&switchback);
    for node in ["db.1", "db.2"] {
        let folder = switchback.app().state_dir().join("data/postgres").join(node);
        let configured = fs::read_to_string(folder.join("conf/managed.conf")).unwrap();
        assert!(configured.contains("wal-push"), "{node}: {configured}");
        let waiting = || {
            let files = fs::read_dir(folder.join("pgdata/pg_wal/archive_status")).unwrap();
            let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name.ends_with(".ready")).collect::<Vec<String>>()
        };
        let since = Instant::now();
        while !waiting().is_empty() {
            assert!(since.elapsed() < RETURN_LIMIT, "{node} does not store {:?}", waiting());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// It would keep it for nobody, until its disk is full.
#[test]
fn an_old_primary_that_follows_keeps_no_log_for_others() {
    let switchback = second_stage();
    let old = switchback.status().primary().clone();
    assert_eq!(ask_node(&switchback, &old, "SELECT count(*) FROM pg_replication_slots"), "1");
    switchback.must(&["failover"]);
    let status = whole(&switchback);
    assert_ne!(status.primary().name, old.name);
    let follows = status.process(&old.name);
    assert_eq!(ask_node(&switchback, follows, "SELECT count(*) FROM pg_replication_slots"), "0");
}

/// It is written down by then that it is the primary, and nobody else may serve.
#[test]
fn a_switchover_whose_successor_cannot_be_promoted_yet_ends_on_it() {
    let switchback = second_stage();
    let before = switchback.status();
    let (old, successor) = (before.primary(), before.standbys()[0]);
    let writing = Writing::begin(&switchback);
    let replays = pid_of(&switchback, successor, "startup");
    let switching = Switching::begin(&switchback, old);
    signal(&replays, "STOP");
    let (succeeded, said) = switching.ended();
    assert!(!succeeded, "{said}");
    assert!(
        said.contains(&format!("{} is the primary from now on, and not ready", successor.name)),
        "{said}"
    );
    assert!(said.contains("hint: it goes on by itself"), "{said}");
    let meanwhile = switchback.status();
    assert_eq!(meanwhile.primary().name, successor.name);
    assert_ne!(meanwhile.process(&old.name).state, "ready", "it would take writes");

    signal(&replays, "CONT");
    first_write(&switchback, Instant::now(), 1);
    assert_eq!(whole(&switchback).primary().name, successor.name);
    writing.lost_nothing(&switchback);
}

#[test]
fn a_successor_that_crashes_while_it_is_promoted_is_the_primary_when_it_is_back() {
    let switchback = second_stage();
    let before = switchback.status();
    let (old, successor) = (before.primary(), before.standbys()[0]);
    let writing = Writing::begin(&switchback);
    let replays = pid_of(&switchback, successor, "startup");
    let switching = Switching::begin(&switchback, old);
    signal(&replays, "STOP");
    switchback.wait_for("it is written down", RETURN_LIMIT, |status| status.primary().name == successor.name);
    successor.crash();
    let (succeeded, said) = switching.ended();
    assert!(!succeeded, "{said}");
    first_write(&switchback, Instant::now(), 1);
    assert_eq!(whole(&switchback).primary().name, successor.name);
    writing.lost_nothing(&switchback);
}

/// It is killed then, and nobody knows whether its successor has everything.
#[test]
fn a_primary_that_does_not_shut_down_in_its_time_starts_again_as_it_was() {
    let switchback = second_stage();
    let before = switchback.status();
    let old = before.primary();
    let writing = Writing::begin(&switchback);
    let checkpointer = pid_of(&switchback, old, "checkpointer").parse().unwrap();
    let switching = Switching::begin(&switchback, old);
    // Again and again until it is gone: whoever stops the primary lets all of it go on first, so that it hears.
    let checkpointer = Pid::from_raw(checkpointer).unwrap();
    let stopping = std::thread::spawn(move || {
        while kill_process(checkpointer, Signal::STOP).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let (succeeded, said) = switching.ended();
    stopping.join().unwrap();
    assert!(!succeeded, "{said}");
    assert!(
        said.contains(&format!("may not have everything; {} starts again as it was", old.name)),
        "{said}"
    );
    goes_on_as_it_was(&switchback, old, writing);
}

/// The old primary was started again, and serves.
fn goes_on_as_it_was(switchback: &Switchback, old: &Process, writing: Writing) {
    first_write(switchback, Instant::now(), 1);
    let after = whole(switchback);
    assert_eq!(after.primary().name, old.name);
    assert_ne!(after.primary().pid, old.pid);
    writing.lost_nothing(switchback);
}

#[test]
fn a_successor_that_has_not_received_everything_is_not_promoted() {
    let switchback = second_stage();
    let before = switchback.status();
    let (old, successor) = (before.primary(), before.standbys()[0]);
    let writing = Writing::begin(&switchback);
    let receives = pid_of(&switchback, successor, "walreceiver");
    let switching = Switching::begin(&switchback, old);
    signal(&receives, "STOP");
    let (succeeded, said) = switching.ended();
    assert!(!succeeded, "{said}");
    assert!(said.contains("has not received everything"), "{said}");
    signal(&receives, "CONT");
    goes_on_as_it_was(&switchback, old, writing);
}

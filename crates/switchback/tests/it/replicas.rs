//! A database with read replicas: they come and go, are lost and come back, and follow whoever is the primary.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::{App, Load, Mix, Process, Status, Switchback, request};

use crate::data::sql;
use crate::up;

/// For everything to be whole again: a copy, a rewind, a start and the next looks.
const RETURN_LIMIT: Duration = Duration::from_secs(60);

fn third_stage() -> Switchback {
    // Fewer instances than the stage says: they are not what is looked at.
    let switchback = up(App::guestbook("shop").stage(3).instances(1));
    whole(&switchback);
    sql(&switchback, "CREATE TABLE visits (id bigserial PRIMARY KEY)");
    switchback
}

fn whole(switchback: &Switchback) -> Status {
    switchback.wait_for("all followers follow", RETURN_LIMIT, Status::is_whole)
}

/// As the superuser, on the node itself.
pub(crate) fn ask_node(switchback: &Switchback, node: &Process, statement: &str) -> String {
    let credentials = switchback.app().state_dir().join("credentials/db.json");
    let credentials: serde_json::Value =
        serde_json::from_slice(&std::fs::read(credentials).unwrap()).unwrap();
    let (folder, port) = node.address.rsplit_once("/.s.PGSQL.").unwrap();
    let mut psql = Command::new("psql");
    psql.args(["-XAtq", "-h", folder, "-p", port, "-U", "postgres", "-d", "shop", "-c", statement]);
    psql.env("PGPASSWORD", credentials["superuser"]["password"].as_str().unwrap());
    let output = psql.output().unwrap();
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// It was stopped while the primary changed, and has more of the log that ended there than anybody has of the next one.
#[test]
fn a_follower_that_missed_a_failover_does_not_take_over_in_the_next_one() {
    let switchback = up(App::guestbook("shop").stage(2).set("db", "read_replicas", "1"));
    let status = whole(&switchback);
    sql(&switchback, "CREATE TABLE visits (id bigserial PRIMARY KEY)");
    sql(&switchback, "CREATE TABLE filling (text text)");
    let (first, standby, replica) = (status.primary(), status.standbys()[0], status.read_replicas()[0]);
    standby.hang_with_children();
    let fill = "SET synchronous_commit = local; \
                INSERT INTO filling SELECT repeat(md5(i::text), 8) FROM generate_series(1, 50000) i";
    ask_node(&switchback, first, fill);
    switchback.wait_for("the replica has what the standby has not", RETURN_LIMIT, |_| {
        ask_node(&switchback, replica, "SELECT count(*) FROM filling") == "50000"
    });
    replica.hang_with_children();
    first.crash();
    standby.go_on_with_children();
    sql(&switchback, "INSERT INTO visits DEFAULT VALUES");
    switchback.wait_for("the old primary confirms commits", RETURN_LIMIT, |status| {
        status.primary().name == standby.name && status.process(&first.name).confirms_commits == Some(true)
    });
    sql(&switchback, "INSERT INTO visits DEFAULT VALUES");

    replica.go_on_with_children();
    assert_eq!(ask_node(&switchback, replica, "SELECT pg_is_in_recovery()"), "t", "it can be asked again");
    standby.crash();
    sql(&switchback, "INSERT INTO visits DEFAULT VALUES");
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "3");
    let status = whole(&switchback);
    assert_eq!(status.primary().name, first.name);
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    let evidence = why.lines().find(|line| line.contains(&format!("{} was lost", standby.name)));
    let has = evidence.and_then(|line| line.split_once(&format!("{} has ", replica.name)));
    // Asked too late to be counted it does not take over, either.
    match has {
        Some((_, has)) => assert!(has.contains("of timeline 1"), "{why}"),
        None => eprintln!("the replica did not answer in time: {why}"),
    }
}

#[test]
fn the_third_stage_has_a_read_replica_in_each_zone_that_confirms_nothing() {
    let switchback = third_stage();
    let status = switchback.status();
    let mut zones: Vec<&str> = status.read_replicas().iter().map(|node| node.zone.as_str()).collect();
    zones.sort_unstable();
    assert_eq!(zones, ["a", "b"]);
    assert_eq!(status.of_kind("postgres").len(), 4);
    let names = sql(&switchback, "SHOW synchronous_standby_names");
    assert_eq!(names, "ANY 1 (\"db_2\")");
    sql(&switchback, "INSERT INTO visits DEFAULT VALUES");
    for replica in status.read_replicas() {
        assert_eq!(replica.confirms_commits, None);
        switchback.wait_for("it has been replayed", RETURN_LIMIT, |_| {
            ask_node(&switchback, replica, "SELECT count(*) FROM visits") == "1"
        });
        assert_eq!(ask_node(&switchback, replica, "SHOW transaction_read_only"), "on");
    }
    switchback.must(&["stage", "2", "--yes"]);
    let status = switchback.status();
    assert_eq!(status.of_kind("postgres").len(), 2);
    assert!(!switchback.app().state_dir().join("data/postgres/db.3").exists());
    assert_eq!(sql(&switchback, "SELECT count(*) FROM pg_replication_slots"), "1");
    switchback.down();
}

#[test]
fn a_read_replica_that_is_killed_comes_back_and_commits_do_not_wait_for_it() {
    let switchback = third_stage();
    let status = switchback.status();
    let lost = status.read_replicas()[0];
    lost.crash();
    sql(&switchback, "INSERT INTO visits DEFAULT VALUES");
    let status = switchback.wait_for("it is another process that gets reads", RETURN_LIMIT, |status| {
        status.is_whole() && status.process(&lost.name).pid.is_some_and(|pid| Some(pid) != lost.pid)
    });
    assert_eq!(status.primary().name, "db.1");
    switchback.down();
}

#[test]
fn after_a_failover_the_read_replicas_follow_the_new_primary_and_nothing_is_left_to_plan() {
    let switchback = third_stage();
    for _ in 0..2 {
        let status = switchback.status();
        let old = status.primary();
        old.crash();
        let status = switchback.wait_for("another one is the primary", RETURN_LIMIT, |status| {
            status.is_whole() && status.primary().name != old.name
        });
        sql(&switchback, "INSERT INTO visits DEFAULT VALUES");
        assert_eq!((status.standbys().len(), status.read_replicas().len()), (1, 2));
        let planned = switchback.must(&["plan"]).stdout;
        assert!(planned.contains("Nothing to change."), "{planned}");
    }
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "2");
    switchback.down();
}

/// It takes writes of its own then, and would show them.
#[test]
fn a_read_replica_that_went_its_own_way_gets_no_reads_and_is_rewound() {
    let switchback = third_stage();
    let status = switchback.status();
    let astray = status.read_replicas()[0];
    ask_node(&switchback, astray, "SELECT pg_promote()");
    ask_node(&switchback, astray, "INSERT INTO visits DEFAULT VALUES");
    switchback.wait_for("it gets no reads", RETURN_LIMIT, |status| {
        status.process(&astray.name).serves_reads == Some(false)
    });
    sql(&switchback, "INSERT INTO visits DEFAULT VALUES");
    sql(&switchback, "INSERT INTO visits DEFAULT VALUES");
    whole(&switchback);
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    for decision in ["send it no reads", "rewind it", "send it reads"] {
        assert!(why.contains(decision), "{why}");
    }
    switchback.wait_for("it shows what the primary has", RETURN_LIMIT, |_| {
        ask_node(&switchback, astray, "SELECT count(*) FROM visits") == "2"
    });
    switchback.down();
}

/// Reads that a node was sent by the proxy.
fn reads(switchback: &Switchback, node: &Process) -> u64 {
    let metrics = switchback.must(&["metrics"]).stdout;
    let labels = [format!("node=\"{}\"", node.name), "class=\"read\"".to_owned()];
    let is_meant = |line: &&str| {
        line.starts_with("switchback_pgproxy_statements_total{")
            && labels.iter().all(|label| line.contains(label))
    };
    let line = metrics.lines().find(is_meant);
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Each request comes on a connection of its own, and the app writes and reads on two: only the cookie tells who comes back.
#[test]
fn whoever_has_posted_sees_it_on_another_connection_while_nothing_is_replayed() {
    let switchback = third_stage();
    let status = switchback.status();
    let (primary, replicas) = (status.primary(), status.read_replicas());
    let on_replicas = || replicas.iter().map(|replica| reads(&switchback, replica)).sum::<u64>();
    let visits = |headers: &[(&str, &str)]| {
        let answer = request("GET", &switchback.url("/visits"), headers, b"").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    };
    let is_read_there = |headers: &[(&str, &str)]| {
        let before = on_replicas();
        visits(headers);
        on_replicas() > before
    };
    switchback.wait_for("the table is known and read on replicas", RETURN_LIMIT, |_| is_read_there(&[]));
    for replica in &replicas {
        ask_node(&switchback, replica, "SELECT pg_wal_replay_pause()");
        switchback.wait_for("it replays nothing", RETURN_LIMIT, |_| {
            ask_node(&switchback, replica, "SELECT pg_get_wal_replay_pause_state()") == "paused"
        });
    }

    let posted = request("POST", &switchback.url("/sql"), &[], b"INSERT INTO visits DEFAULT VALUES").unwrap();
    assert_eq!(posted.status, 200, "{}", posted.body);
    let cookie = posted.header("set-cookie").and_then(|cookie| cookie.split(';').next());
    let returning = [("Cookie", cookie.expect("an answer to a write has a mark"))];
    assert_eq!(visits(&[]), "0", "a stranger is shown what the replicas have");
    let before = (reads(&switchback, primary), on_replicas());
    assert_eq!(visits(&returning), "1");
    assert_eq!((reads(&switchback, primary), on_replicas()), (before.0 + 1, before.1));

    for replica in &replicas {
        ask_node(&switchback, replica, "SELECT pg_wal_replay_resume()");
    }
    switchback.wait_for("replicas are read again", RETURN_LIMIT, |_| is_read_there(&returning));
    assert_eq!(visits(&returning), "1");
    switchback.down();
}

/// PostgreSQL itself says no more of its lag then.
#[test]
fn a_read_replica_that_replays_nothing_is_seen_to_fall_behind() {
    let switchback = third_stage();
    let status = switchback.status();
    let replica = status.read_replicas()[0];
    ask_node(&switchback, replica, "SELECT pg_wal_replay_pause()");
    sql(&switchback, "INSERT INTO visits DEFAULT VALUES");
    switchback.wait_for("it is two seconds behind", RETURN_LIMIT, |status| {
        status.process(&replica.name).replay_lag_ms.is_some_and(|ms| ms > 2_000)
    });
    ask_node(&switchback, replica, "SELECT pg_wal_replay_resume()");
    switchback.wait_for("it is up to date", RETURN_LIMIT, |status| {
        status.process(&replica.name).replay_lag_ms == Some(0)
    });
    switchback.down();
}

/// As after an update of PostgreSQL, which each node only runs when it is started anew.
#[test]
fn every_node_of_a_database_is_restarted_and_no_request_fails() {
    let switchback = third_stage();
    let before = switchback.status();
    let load = Load::start(&switchback.url("/"), Mix::both().at_most(100));
    let restarted = switchback.must(&["restart", "--json"]).json();
    let after = whole(&switchback);
    load.stop().assert_nothing_failed(100);
    let mut named: Vec<&str> =
        restarted["nodes"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    assert_eq!(named.last(), Some(&before.primary().name.as_str()), "the primary is the last: {restarted:#}");
    named.sort_unstable();
    assert_eq!(named, ["db.1", "db.2", "db.3", "db.4"]);
    for node in before.of_kind("postgres") {
        assert_ne!(after.process(&node.name).pid, node.pid, "{} was not started anew", node.name);
    }
    assert_ne!(after.primary().name, before.primary().name, "it has handed over");
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "0");
    let unknown = switchback.cli(&["restart", "--database", "shop"]);
    assert_eq!(unknown.code, Some(3), "{unknown:#?}");
    assert!(unknown.stderr.contains("shop is no database of this app"), "{unknown:#?}");
    switchback.down();
}

/// What a drill has stopped goes on, whatever ends the drill.
#[test]
fn a_drill_that_is_interrupted_or_killed_leaves_nothing_stopped() {
    let switchback = third_stage();
    let replica = switchback.status().read_replicas()[0].clone();
    for signal in [Signal::INT, Signal::KILL] {
        let mut drill = switchback.command(&["drill", "replica-lag", "--seconds", "3"]);
        let drill = drill.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        switchback.wait_for("it replays nothing", RETURN_LIMIT, |_| replica.stopped_children() == 1);
        kill_process(Pid::from_raw(drill.id().cast_signed()).unwrap(), signal).unwrap();
        switchback.wait_for("it goes on", RETURN_LIMIT, |_| replica.stopped_children() == 0);
        let output = drill.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let is_interrupted = output.status.code() == Some(130) && said.contains("interrupted: ");
        assert!(is_interrupted || signal == Signal::KILL, "{said}");
    }
    whole(&switchback);
    switchback.down();
}

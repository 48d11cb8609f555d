//! The daemon may be killed at any instant.

use std::time::{Duration, Instant};

use testkit::{App, Load, Mix, Status, Switchback, get, request};

use crate::cluster::is_promotion_known;
use crate::data::sql;
use crate::{prepare, up};

/// Steps of the plans, as `plan` says them: one more is tried, which must then simply succeed.
const STEPS_UP: usize = 4;
const STEPS_DOWN: usize = 3;
/// Of stage 1 to 2 with a database: adding the standby. And back, from a primary in the zone that goes: switching over,
/// removing the other.
const ADDING: usize = 1;
const SWITCHING_OVER: usize = 2;
const REMOVING: usize = 3;
/// Of stage 2 to 3 with a database: adding the first read replica. And back, once two instances are gone: removing it.
const ADDING_A_REPLICA: usize = 0;
const REMOVING_A_REPLICA: usize = 4;
const STEPS_OF_THE_FIRST: usize = 8;
const STEPS_OF_A_DEPLOYMENT: usize = 7;
const MOMENTS: [&str; 3] = ["before", "after", "committed"];

#[test]
fn a_killed_daemon_costs_no_request_and_its_successor_restarts_nothing() {
    let switchback = up(App::python("shop").stage(2));
    let load = Load::start(&switchback.url("/"), Mix::both());
    for _ in 0..5 {
        load.wait_for_more(200, Duration::from_secs(20));
        let before = switchback.status();
        switchback.kill_daemon();
        load.wait_for_more(200, Duration::from_secs(20));
        let started = Instant::now();
        switchback.start_daemon_again();
        println!("a new daemon had taken over after {:?}", started.elapsed());
        let after = switchback.status();
        assert_ne!(after.daemon_pid, before.daemon_pid);
        assert_eq!(pids(&after), pids(&before));
    }
    load.stop().assert_nothing_failed(2_000);
    switchback.down();
}

/// The app's processes, the edge included.
fn pids(status: &Status) -> Vec<(String, Option<u32>)> {
    status.processes.iter().map(|process| (process.name.clone(), process.pid)).collect()
}

#[test]
fn a_daemon_killed_at_any_step_of_the_stages_leaves_nothing_undone() {
    let mut switchback = up(App::python("shop"));
    let load = Load::start(&switchback.url("/"), Mix::both().at_most(300));
    for step in 0..=STEPS_UP {
        for moment in MOMENTS {
            let point = format!("{step}:{moment}");
            let crashed = go_to_stage(&mut switchback, 2, &point);
            assert_eq!(crashed, step < STEPS_UP, "to stage 2, at {point}");
            stands_at(&switchback, 2, &["a", "b"], &point);

            let crashed = go_to_stage(&mut switchback, 1, &point);
            assert_eq!(crashed, step < STEPS_DOWN, "to stage 1, at {point}");
            stands_at(&switchback, 1, &["a"], &point);
        }
    }
    load.stop().assert_nothing_failed(1_000);
    switchback.down();
}

/// Connections that a change of primary has ended are made anew by the app.
fn until_written(switchback: &Switchback, insert: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while request("POST", &switchback.url("/sql"), &[], insert.as_bytes()).unwrap().status != 200 {
        assert!(Instant::now() < deadline, "nobody takes {insert}\n{}", switchback.daemon_log());
    }
}

#[test]
fn a_daemon_killed_while_standbys_come_go_and_take_over_loses_no_commit() {
    let mut switchback = up(App::guestbook("shop"));
    sql(&switchback, "CREATE TABLE visits (id serial)");
    let mut written = 0;
    let mut check = |switchback: &Switchback, nodes: usize, point: &str| {
        let status = switchback.wait_for(point, Duration::from_secs(60), |status| {
            status.is_whole() && status.raw["operation"].is_null()
        });
        assert_eq!(status.of_kind("postgres").len(), nodes, "{point}");
        assert_eq!(status.raw["plan_in_progress"], false, "{point}");
        until_written(switchback, "INSERT INTO visits DEFAULT VALUES");
        written += 1;
        let count: u32 = sql(switchback, "SELECT count(*) FROM visits").parse().unwrap();
        assert_eq!(count, written, "{point}");
    };
    for step_down in [SWITCHING_OVER, REMOVING] {
        for moment in MOMENTS {
            let point = format!("{ADDING}:{moment}");
            assert!(go_to_stage(&mut switchback, 2, &point), "to stage 2, at {point}");
            check(&switchback, 2, &format!("stage 2, at {point}"));
            switchback.must(&["failover"]);
            check(&switchback, 2, &format!("switched over, before {step_down}:{moment}"));

            let point = format!("{step_down}:{moment}");
            assert!(go_to_stage(&mut switchback, 1, &point), "to stage 1, at {point}");
            check(&switchback, 1, &format!("stage 1, at {point}"));
        }
    }
    switchback.down();
}

#[test]
fn a_daemon_killed_while_read_replicas_come_and_go_leaves_nothing_undone() {
    let mut switchback = up(App::guestbook("shop").stage(2));
    sql(&switchback, "CREATE TABLE visits (id bigserial)");
    let load = Load::start(&switchback.url("/visit"), Mix::both().at_most(50));
    let check = |switchback: &Switchback, nodes: usize, point: &str| {
        let status = switchback.wait_for(point, Duration::from_secs(60), |status| {
            status.is_whole() && status.raw["operation"].is_null()
        });
        assert_eq!(status.of_kind("postgres").len(), nodes, "{point}");
        assert_eq!(status.raw["plan_in_progress"], false, "{point}");
    };
    let copies = |switchback: &Switchback| switchback.daemon_log().matches("copied from its primary").count();
    for moment in MOMENTS {
        let point = format!("{ADDING_A_REPLICA}:{moment}");
        assert!(go_to_stage(&mut switchback, 3, &point), "to stage 3, at {point}");
        check(&switchback, 4, &format!("stage 3, at {point}"));
        let copied = copies(&switchback);

        let point = format!("{REMOVING_A_REPLICA}:{moment}");
        assert!(go_to_stage(&mut switchback, 2, &point), "to stage 2, at {point}");
        check(&switchback, 2, &format!("stage 2, at {point}"));
        assert_eq!(copies(&switchback), copied, "what was to be removed was copied, at {point}");
    }
    load.stop().assert_nothing_failed(100);
    switchback.down();
}

#[test]
fn a_daemon_killed_at_any_moment_of_a_failover_leaves_one_primary_with_every_commit() {
    let switchback = up(App::guestbook("shop").stage(2));
    switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
    sql(&switchback, "CREATE TABLE visits (id int PRIMARY KEY)");
    let mut written = 0;
    for moment in ["chosen", "written", "promoted"] {
        switchback.kill_daemon();
        switchback.must(&["up", "--detach", "--crash-at", &format!("failover:{moment}")]);
        let status = switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
        written += 1;
        sql(&switchback, &format!("INSERT INTO visits VALUES ({written})"));
        status.primary().crash();
        switchback.wait_for_daemon_to_end(&status);
        switchback.start_daemon_again();
        let after = switchback.wait_for(moment, Duration::from_secs(60), Status::is_whole);
        assert_eq!(after.of_kind("postgres").len(), 2, "{moment}");
        if moment != "chosen" {
            assert_ne!(after.primary().name, status.primary().name, "{moment}");
        }
        // Of one that nobody has watched to its end it is too late to ask.
        assert_eq!(is_promotion_known(&switchback), moment == "written", "{moment}");
        written += 1;
        let insert = format!("INSERT INTO visits VALUES ({written}) ON CONFLICT DO NOTHING");
        until_written(&switchback, &insert);
        assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), written.to_string(), "{moment}");
    }
    switchback.down();
}

/// Goes there with a daemon that dies at `point`; `true` when it did. Whatever it left is then taken up by the next.
fn go_to_stage(switchback: &mut Switchback, stage: u8, point: &str) -> bool {
    switchback.kill_daemon();
    switchback.app_mut().change("", "stage", stage);
    dies_in(switchback, &["up", "--detach", "--crash-at", point])
}

/// `true`: the daemon died while it carried the command out, and another one was started.
fn dies_in(switchback: &Switchback, command: &[&str]) -> bool {
    let output = switchback.cli(command);
    if output.code == Some(0) {
        return false;
    }
    assert!(output.stderr.contains("the daemon went away"), "{command:?}: {output:#?}");
    switchback.start_daemon_again();
    true
}

fn stands_at(switchback: &Switchback, stage: u8, zones: &[&str], point: &str) {
    let what = format!("stage {stage} after a crash at {point}");
    let status = switchback.wait_for(&what, Duration::from_secs(30), |status| {
        status.stage == stage && status.all_ready() && status.raw["operation"].is_null()
    });
    let mut standing: Vec<&str> = status.web().iter().map(|instance| instance.zone.as_str()).collect();
    standing.sort_unstable();
    assert_eq!(standing, zones, "{what}");
    assert_eq!(status.raw["plan_in_progress"], false, "{what}");
    // The daemon, the edge, and an instance for each zone: nothing is left over, nothing runs twice.
    switchback.wait_for(&format!("no strays, {what}"), Duration::from_secs(30), |_| {
        switchback.running().len() == 2 + zones.len()
    });
}

#[test]
fn a_daemon_killed_at_any_step_of_the_first_up_leaves_nothing_half_made() {
    let release = "psql -q -c 'CREATE TABLE IF NOT EXISTS visits (name text)' $DATABASE_URL";
    let switchback = prepare(App::guestbook("shop").set("web", "release", format!("{release:?}")));
    // Everything is made anew each time, so each step gets one of the moments, in turn.
    for (step, moment) in (0..=STEPS_OF_THE_FIRST).zip(MOMENTS.iter().cycle()) {
        let point = format!("{step}:{moment}");
        let crashed = dies_in(&switchback, &["up", "--detach", "--crash-at", &point]);
        assert_eq!(crashed, step < STEPS_OF_THE_FIRST, "at {point}");

        let status = switchback.wait_for(&point, Duration::from_secs(30), |status| {
            status.all_ready() && status.raw["operation"].is_null()
        });
        assert_eq!(status.raw["plan_in_progress"], false, "{point}");
        let names: Vec<&str> = status.processes.iter().map(|process| process.name.as_str()).collect();
        assert_eq!(names, ["edge", "pgproxy-db", "db.1", "web.1"], "{point}");
        runs_once(&switchback, &point);
        // The release command has run, and what the app writes is kept.
        let front = status.front[0].trim_end_matches('/');
        let written = request("POST", &format!("{front}/sql"), &[], b"INSERT INTO visits VALUES ('ada')");
        assert_eq!(written.unwrap().status, 200, "{point}");
        let data = switchback.app().state_dir().join("data");
        assert!(!data.join("retired").exists() && !data.join("postgres/db.1.new").exists(), "{point}");
        switchback.must(&["down", "--destroy", "--yes", "shop"]);
    }
}

/// One process of each kind, PostgreSQL's own children aside.
fn runs_once(switchback: &Switchback, point: &str) {
    let kinds =
        ["switchback daemon ", "switchback role edge ", "switchback role pgproxy ", "python3 app.py", " -D "];
    switchback.wait_for(&format!("no strays, {point}"), Duration::from_secs(30), |_| {
        let running = switchback.running();
        kinds.iter().all(|kind| running.iter().filter(|line| line.contains(kind)).count() == 1)
    });
}

#[test]
fn a_daemon_killed_at_any_step_of_a_deployment_finishes_it() {
    let mut switchback = up(App::python("shop").set("web", "release", "\"true\""));
    let load = Load::start(&switchback.url("/"), Mix::both().at_most(300));
    let mut version = 1;
    for step in 0..=STEPS_OF_A_DEPLOYMENT {
        for moment in MOMENTS {
            let point = format!("{step}:{moment}");
            switchback.kill_daemon();
            switchback.must(&["up", "--detach", "--crash-at", &point]);
            version += 1;
            let version = version.to_string();
            switchback.app_mut().put("version", &version);
            let crashed = dies_in(&switchback, &["deploy"]);
            assert_eq!(crashed, step < STEPS_OF_A_DEPLOYMENT, "at {point}");
            stands_at(&switchback, 1, &["a"], &point);
            let served = get(&switchback.url("/")).unwrap();
            assert_eq!(served.header("x-app-version"), Some(version.as_str()), "{point}");
        }
    }
    load.stop().assert_nothing_failed(1_000);
    switchback.down();
}

//! Backups: what was lost comes back, as it was at the moment that is asked for.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{App, Status, Switchback, request};

use crate::data::sql;
use crate::{prepare, up};

/// For everything to be whole again.
const RETURN_LIMIT: Duration = Duration::from_secs(60);
/// For what PostgreSQL and the daemon see every other second.
const SEEN_LIMIT: Duration = Duration::from_secs(30);

/// For the app to answer while its database changes its primary.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const ANSWER_POLL: Duration = Duration::from_millis(10);

pub fn shop(app: App) -> Switchback {
    let switchback = up(app);
    switchback.wait_for("it is whole", RETURN_LIMIT, Status::is_whole);
    sql(&switchback, "CREATE TABLE visits (id int PRIMARY KEY)");
    switchback
}

/// Writes until it succeeds: connections that a change of primary has ended are made anew by the app.
pub fn visit(switchback: &Switchback, id: u32) {
    let statement = format!("INSERT INTO visits VALUES ({id}) ON CONFLICT DO NOTHING");
    let write = || request("POST", &switchback.url("/sql"), &[], statement.as_bytes());
    let deadline = Instant::now() + ANSWER_LIMIT;
    while Instant::now() < deadline {
        if write().is_ok_and(|answer| answer.status == 200) {
            return;
        }
        sleep(ANSWER_POLL);
    }
    panic!("no write succeeds\n{}", switchback.daemon_log());
}

pub fn visits(switchback: &Switchback) -> String {
    let query = b"SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM visits";
    let deadline = Instant::now() + ANSWER_LIMIT;
    while Instant::now() < deadline {
        if let Ok(answer) = request("POST", &switchback.url("/sql"), &[], query)
            && answer.status == 200
        {
            return answer.body.trim().to_owned();
        }
        sleep(ANSWER_POLL);
    }
    panic!("no read succeeds\n{}", switchback.daemon_log());
}

/// The database's own clock, between two commits.
fn now(switchback: &Switchback) -> String {
    sql(
        switchback,
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    )
}

pub fn restore(switchback: &Switchback, to: &str) -> Value {
    switchback.must(&["restore", "--to", to, "--yes", "--json"]).json()
}

fn backups(status: &Status) -> &Value {
    &status.raw["backups"][0]
}

fn archive(switchback: &Switchback) -> PathBuf {
    backups(&switchback.status())["to"].as_str().unwrap().into()
}

fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0);
    std::fs::write(file, bytes).unwrap();
}

fn wal_names(switchback: &Switchback) -> Vec<String> {
    let entries = std::fs::read_dir(archive(switchback).join("wal")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_restore_to_a_time_between_two_commits_has_the_first_and_not_the_second() {
    let switchback = shop(App::guestbook("shop"));
    let taken = switchback.must(&["backup", "--json"]).json();
    assert_eq!(taken["number"], 1);
    visit(&switchback, 1);
    let between = now(&switchback);
    visit(&switchback, 2);

    let restored = restore(&switchback, &between);
    assert_eq!((&restored["backup"], &restored["primary"]), (&1.into(), &"db.2".into()));
    println!("restored in {} ms", restored["took_ms"]);
    assert_eq!(visits(&switchback), "1");
    visit(&switchback, 3);

    // What it was before is there still, and goes when it is said to.
    let status = switchback.status();
    assert_eq!(backups(&status)["kept_aside"], serde_json::json!(["db.1"]));
    let aside = switchback.app().state_dir().join("data/replaced/db.1/pgdata/PG_VERSION");
    assert!(aside.exists());
    let deleted = switchback.must(&["restore", "--forget-replaced", "--yes", "--json"]).json();
    assert_eq!(deleted, serde_json::json!(["db.1"]));
    assert!(!aside.exists());

    // And from the log that was written since, again.
    restore(&switchback, "latest");
    assert_eq!(visits(&switchback), "1 3");
}

#[test]
fn a_restore_that_cannot_be_is_refused_and_changes_nothing() {
    let switchback = shop(App::guestbook("shop"));
    let refused = |to: &str, because: &str| {
        let refused = switchback.cli(&["restore", "--to", to, "--yes"]);
        assert_eq!(refused.code, Some(3), "{refused:#?}");
        assert!(refused.stderr.contains(because), "{refused:#?}");
        assert!(!refused.stderr.contains("brought back"), "{refused:#?}");
    };
    refused("latest", "there is no backup");
    let before = now(&switchback);
    switchback.must(&["backup"]);
    refused(&before, "the oldest backup that leads there is of");
    refused("2099-01-01T00:00:00Z", "that moment is yet to come");
    let unasked = switchback.cli(&["restore", "--to", "latest"]);
    assert_eq!(unasked.code, Some(3), "{unasked:#?}");
    assert!(unasked.stderr.contains("db would be brought back to"), "{unasked:#?}");
    assert_eq!(switchback.status().primary().name, "db.1");
    let wrong = switchback.cli(&["restore", "--to", "yesterday"]);
    assert_eq!(wrong.code, Some(2), "{wrong:#?}");
}

#[test]
fn a_damaged_backup_is_refused_and_the_database_serves_as_before() {
    let switchback = shop(App::guestbook("shop"));
    switchback.must(&["backup"]);
    visit(&switchback, 1);
    damage(&archive(&switchback).join("base/1/base.tar.gz"));
    let failed = switchback.cli(&["restore", "--to", "latest", "--yes"]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert!(failed.stderr.contains("is damaged"), "{failed:#?}");
    assert_eq!(visits(&switchback), "1");
    assert_eq!(switchback.status().primary().name, "db.1");
    assert!(!switchback.app().state_dir().join("data/restored/db.2").exists());

    let unproven = switchback.cli(&["drill", "restore", "--seconds", "3"]);
    assert_eq!(unproven.code, Some(1), "{unproven:#?}");
    let listed = switchback.must(&["backup", "list", "--json"]).json();
    assert!(listed[0]["refuted"].as_str().unwrap().contains("damaged"), "{listed:#}");
    assert!(left_in(&switchback, "data/restored").is_empty(), "as large as the database");
}

/// The database that serves needs the space more.
#[test]
fn a_backup_is_neither_made_nor_proven_where_there_is_no_room_for_it() {
    let switchback = shop(App::guestbook("shop"));
    switchback.must(&["backup"]);
    // As if the database were larger than any disk.
    let description = archive(&switchback).join("base/1/backup.json");
    let mut backup: Value = serde_json::from_slice(&std::fs::read(&description).unwrap()).unwrap();
    backup["data_bytes"] = (1u64 << 60).into();
    backup["stored_bytes"] = (1u64 << 60).into();
    std::fs::write(&description, backup.to_string()).unwrap();

    let refused = switchback.cli(&["backup"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("no room for another copy of the database"), "{refused:#?}");
    assert!(refused.stderr.contains("free some space there"), "{refused:#?}");

    // It is proven by itself a minute after the daemon has begun.
    let no_room = "no room for a second copy of the database";
    switchback.wait_for("it is said", Duration::from_secs(60) + SEEN_LIMIT, |status| {
        backups(status)["problem"].as_str().is_some_and(|problem| problem.contains(no_room))
    });
    let listed = switchback.must(&["backup", "list", "--json"]).json();
    assert!(listed[0]["refuted"].is_null(), "that says nothing about the backup: {listed:#}");
    assert!(switchback.must(&["why"]).stdout.contains(no_room));
    assert!(left_in(&switchback, "data/restored").is_empty());
}

#[test]
fn a_backup_is_proven_by_restoring_it_and_comparing_every_table() {
    let switchback = shop(App::guestbook("shop"));
    for id in 0..100 {
        visit(&switchback, id);
    }
    switchback.must(&["backup"]);
    visit(&switchback, 100);
    let status = switchback.status();
    assert_eq!(backups(&status)["state"], "unproven");
    let report = std::thread::scope(|scope| {
        let proving =
            scope.spawn(|| switchback.must(&["drill", "restore", "--seconds", "3", "--json"]).json());
        switchback.wait_for("it is shown", SEEN_LIMIT, |status| {
            let work = &backups(status)["under_way"];
            (&work["doing"], &work["backup"]) == (&"proving".into(), &1.into())
                && switchback.must(&["status"]).stdout.contains("backup 1 is being proven, for ")
        });
        proving.join().unwrap()
    });
    assert_eq!(report["seen"]["failed"], 0, "{report:#}");

    let listed = switchback.must(&["backup", "list", "--json"]).json();
    let proof = &listed[0]["proof"];
    // The app's, and the one that the drill writes to meanwhile.
    assert_eq!((&proof["tables"], &proof["compared"]), (&2.into(), &2.into()));
    // What the drill writes may come after what is compared.
    assert!(proof["rows"].as_u64().unwrap() >= 101, "{proof:#}");
    let status = switchback.status();
    assert_eq!((&backups(&status)["state"], &backups(&status)["proven"]), (&"proven".into(), &1.into()));
    assert!(backups(&status)["under_way"].is_null(), "{:#}", backups(&status));
    assert!(backups(&status)["proven_age_s"].as_u64().unwrap() < 120);
    assert!(switchback.must(&["status"]).stdout.contains("the newest proven is"));
    assert!(!switchback.app().state_dir().join("data/restored/db.0").exists(), "the scratch node is gone");

    // What is proven may spoil.
    damage(&archive(&switchback).join("base/1/base.tar.gz"));
    assert_eq!(switchback.cli(&["drill", "restore", "--seconds", "3"]).code, Some(1));
    let listed = switchback.must(&["backup", "list", "--json"]).json();
    assert!(listed[0]["proof"].is_object() && listed[0]["refuted"].is_string(), "{listed:#}");
    let status = switchback.status();
    assert_eq!((&backups(&status)["state"], &backups(&status)["proven"]), (&"unproven".into(), &Value::Null));
    assert!(switchback.must(&["status"]).stdout.contains("none proven"));
}

#[test]
fn a_restore_after_a_failover_crosses_timelines_and_the_standby_is_made_anew() {
    let switchback = shop(App::guestbook("shop").stage(2));
    switchback.must(&["backup"]);
    visit(&switchback, 1);
    switchback.status().primary().crash();
    visit(&switchback, 2);
    switchback.wait_for("it is whole again", RETURN_LIMIT, Status::is_whole);
    let between = now(&switchback);
    visit(&switchback, 3);
    switchback.must(&["failover"]);
    visit(&switchback, 4);

    restore(&switchback, &between);
    assert_eq!(visits(&switchback), "1 2");
    let status = switchback.wait_for("the standby is back", RETURN_LIMIT, Status::is_whole);
    assert_eq!(status.of_kind("postgres").len(), 2);
    visit(&switchback, 5);
    // The standby has it all, and the log of the timeline that the restore began is stored.
    status.primary().crash();
    visit(&switchback, 6);
    switchback.wait_for("it is whole again", RETURN_LIMIT, Status::is_whole);
    restore(&switchback, "latest");
    assert_eq!(visits(&switchback), "1 2 5 6");
}

#[test]
fn backups_go_where_the_manifest_says_and_only_as_many_are_kept() {
    let app = App::guestbook("shop");
    let to = app.root().join("elsewhere");
    let setting = format!("{{ to = {:?}, keep = 2 }}", to.display().to_string());
    let switchback = shop(app.set("db", "backups", setting));
    for _ in 0..4 {
        visit(&switchback, 1);
        switchback.must(&["backup"]);
    }
    assert!(archive(&switchback).starts_with(&to));
    let listed = switchback.must(&["backup", "list", "--json"]).json();
    let numbers: Vec<u64> =
        listed.as_array().unwrap().iter().map(|backup| backup["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [3, 4]);
    let first = "000000010000000000000001.zst";
    assert!(!wal_names(&switchback).iter().any(|name| name == first), "{:?}", wal_names(&switchback));
    restore(&switchback, "latest");
    assert_eq!(visits(&switchback), "1");
}

#[test]
fn a_target_that_goes_away_is_said_and_the_database_serves() {
    let app = App::guestbook("shop");
    let to = app.root().join("elsewhere");
    let setting = format!("{{ to = {:?} }}", to.display().to_string());
    let switchback = shop(app.set("db", "backups", setting));
    switchback.must(&["backup"]);
    std::fs::rename(&to, to.with_extension("away")).unwrap();
    let seen = switchback.wait_for("it is said", SEEN_LIMIT, |status| backups(status)["state"] == "failing");
    assert!(backups(&seen)["problem"].as_str().unwrap().contains("is not there"), "{:#}", backups(&seen));
    visit(&switchback, 1);
    let refused = switchback.cli(&["backup"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(!to.exists(), "nothing is made in its place");
    assert!(switchback.must(&["why"]).stdout.contains("keep the log on the primary"));

    std::fs::rename(to.with_extension("away"), &to).unwrap();
    // PostgreSQL tries a few times and then once a minute (`PGARCH_AUTOWAKE_INTERVAL`).
    let limit = SEEN_LIMIT + Duration::from_secs(60);
    switchback.wait_for("all is well", limit, |status| backups(status)["state"] != "failing");
    restore(&switchback, "latest");
    assert_eq!(visits(&switchback), "1");
}

/// Whoever opens a pipe hangs until somebody writes to it, as whoever reads from a disk that does not answer.
#[test]
fn a_target_that_does_not_answer_is_said_and_holds_up_nothing_else() {
    let switchback = shop(App::guestbook("shop").stage(2));
    switchback.must(&["backup"]);
    let base = archive(&switchback).join("base");
    std::fs::create_dir(base.join("2")).unwrap();
    let pipe = base.join("2/backup.json");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let seen = switchback.wait_for("it is said", SEEN_LIMIT, |status| backups(status)["state"] == "failing");
    assert!(backups(&seen)["problem"].as_str().unwrap().contains("does not answer"), "{:#}", backups(&seen));
    assert_eq!(backups(&seen)["copies"], 1, "as it was seen last");
    // A shutdown in order would wait for it.
    let refused = switchback.cli(&["failover"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("the disk of the backups of db does not answer"), "{refused:#?}");
    switchback.status().primary().crash();
    visit(&switchback, 1);
    let status = switchback.wait_for("the standby has taken over", RETURN_LIMIT, Status::is_whole);
    assert_eq!(status.primary().name, "db.2");

    std::fs::rename(base.join("2"), base.join("away")).unwrap();
    drop(std::fs::OpenOptions::new().write(true).open(base.join("away/backup.json")).unwrap());
    switchback.wait_for("all is well", SEEN_LIMIT, |status| backups(status)["state"] != "failing");
}

#[test]
fn a_target_that_cannot_be_made_is_refused_by_the_first_up() {
    let app = App::guestbook("shop");
    let to = app.root().join("file");
    std::fs::write(&to, "").unwrap();
    let setting = format!("{{ to = {:?} }}", to.display().to_string());
    let switchback = prepare(app.set("db", "backups", setting));
    let failed = switchback.cli(&["up", "--detach"]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert!(failed.stderr.contains("backups cannot be kept there"), "{failed:#?}");
}

#[test]
fn backups_are_switched_off_and_on_without_a_restart() {
    let mut switchback = shop(App::guestbook("shop"));
    let pid = switchback.status().primary().pid;
    switchback.app_mut().change("db", "backups", "\"off\"");
    switchback.must(&["apply", "--yes"]);
    let status = switchback.status();
    assert_eq!(backups(&status)["state"], "off");
    assert_eq!(switchback.cli(&["backup"]).code, Some(1));
    switchback.app_mut().change("db", "backups", "\"on\"");
    switchback.must(&["apply", "--yes"]);
    switchback.must(&["backup"]);
    assert_eq!(switchback.status().primary().pid, pid);
}

/// Of a restore at stage 1: preparing, replacing the primary.
const REPLACES: usize = 1;

/// What is left in a folder of the state folder.
fn left_in(switchback: &Switchback, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(switchback.app().state_dir().join(folder)).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// What is not written down could be taken back, and with it what clients were told is committed.
#[test]
fn nobody_is_told_of_a_restored_primary_before_it_is_written_down() {
    let switchback = shop(App::guestbook("shop"));
    switchback.must(&["backup"]);
    visit(&switchback, 1);
    switchback.kill_daemon();
    switchback.must(&["up", "--detach", "--crash-at", &format!("{REPLACES}:after")]);
    let before = switchback.status();
    assert_ne!(switchback.cli(&["restore", "--to", "latest", "--yes"]).code, Some(0));
    switchback.wait_for_daemon_to_end(&before);
    let told = std::fs::read_to_string(switchback.app().state_dir().join("run/pgproxy-db.1.json")).unwrap();
    assert!(told.contains("db.1") && !told.contains("db.2"), "{told}");

    switchback.start_daemon_again();
    assert_eq!(switchback.status().primary().name, "db.2");
    assert_eq!(visits(&switchback), "1");
}

/// Whoever frees some space finds what the database has acknowledged since, and not what a plan of before makes of it.
#[test]
fn a_restore_that_cannot_be_written_down_is_given_up_for_good_and_no_commit_with_it() {
    let switchback = shop(App::guestbook("shop"));
    switchback.must(&["backup"]);
    visit(&switchback, 1);
    switchback.kill_daemon();
    switchback.must(&["up", "--detach", "--crash-at", &format!("{REPLACES}:full")]);
    let failed = switchback.cli(&["restore", "--to", "latest", "--yes"]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert!(failed.stderr.contains("see that the disk is not full"), "{failed:#?}");
    // Clients write to the old primary again, while the plan still stands in the journal.
    visit(&switchback, 2);
    let status = switchback.status();
    assert_eq!(status.primary().name, "db.1");
    assert_eq!(status.raw["plan_in_progress"], true);
    assert!(left_in(&switchback, "data/restored").is_empty(), "the space is given back");

    switchback.kill_daemon();
    switchback.start_daemon_again();
    let status = switchback.wait_for("it is whole", RETURN_LIMIT, Status::is_whole);
    assert_eq!(status.primary().name, "db.1");
    assert_eq!(status.raw["plan_in_progress"], false);
    assert_eq!(visits(&switchback), "1 2");
    assert!(left_in(&switchback, "data/replaced").is_empty());
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    assert!(why.contains("was given up before"), "{why}");

    restore(&switchback, "latest");
    assert_eq!(visits(&switchback), "1 2");
}

/// A proxy that takes what it is told and cannot say so: no reason to go back.
#[test]
fn a_restore_stands_although_a_proxy_took_it_and_did_not_answer() {
    let switchback = shop(App::guestbook("shop"));
    switchback.must(&["backup"]);
    visit(&switchback, 1);
    let proxy = switchback.status().process("pgproxy-db").clone();
    let restored = std::thread::scope(|scope| {
        let restoring = scope.spawn(|| switchback.cli(&["restore", "--to", "latest", "--yes", "--json"]));
        // From when the new node is about to start: hung for longer, it would be restarted.
        let comes = switchback.app().state_dir().join("data/postgres/db.2/pgdata");
        while !comes.exists() && !restoring.is_finished() {
            sleep(ANSWER_POLL);
        }
        proxy.hang();
        let restored = restoring.join().unwrap();
        proxy.go_on();
        restored
    });
    assert_eq!(restored.code, Some(0), "{restored:#?}");
    let log = switchback.daemon_log();
    assert!(log.contains("a proxy was not told of it yet; trying again"), "{log}");
    visit(&switchback, 2);
    assert_eq!(visits(&switchback), "1 2");
    assert_eq!(switchback.status().primary().name, "db.2");
}

/// That file says which database it is, and with that where its backups are. Just then they are needed.
#[test]
fn a_primary_whose_control_file_is_lost_is_said_and_restored() {
    let switchback = shop(App::guestbook("shop"));
    visit(&switchback, 1);
    switchback.must(&["backup"]);
    let control = switchback.app().state_dir().join("data/postgres/db.1/pgdata/global/pg_control");
    std::fs::rename(&control, control.with_extension("away")).unwrap();
    let seen = switchback.wait_for("it is said", SEEN_LIMIT, |status| backups(status)["state"] == "failing");
    assert!(backups(&seen)["problem"].as_str().unwrap().contains("pg_control"), "{:#}", backups(&seen));
    let failed = switchback.cli(&["backup"]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert!(
        failed.stderr.contains("pg_control") && failed.stderr.contains("switchback restore"),
        "{failed:#?}"
    );

    switchback.status().primary().crash();
    switchback.wait_for("it does not come back", SEEN_LIMIT, |status| status.primary().state != "ready");
    restore(&switchback, "latest");
    assert_eq!(visits(&switchback), "1");
    assert_eq!(switchback.status().primary().name, "db.2");
    assert!(switchback.app().state_dir().join("data/replaced/db.1/pgdata/PG_VERSION").exists());
}

#[test]
fn what_a_restore_has_put_aside_can_be_deleted_while_the_app_is_down() {
    let switchback = shop(App::guestbook("shop"));
    switchback.must(&["backup"]);
    restore(&switchback, "latest");
    switchback.down();
    assert_eq!(left_in(&switchback, "data/replaced"), ["db.1"]);
    let deleted = switchback.must(&["restore", "--forget-replaced", "--yes"]);
    assert!(deleted.stderr.contains("deleted: db.1"), "{deleted:#?}");
    assert!(left_in(&switchback, "data/replaced").is_empty());
    assert!(
        switchback.must(&["restore", "--forget-replaced", "--yes"]).stderr.contains("nothing was kept aside")
    );
    switchback.must(&["up", "--detach"]);
    assert_eq!(switchback.status().primary().name, "db.2");
}

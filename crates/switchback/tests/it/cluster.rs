//! A database with a standby: what is lost comes back, and nothing that was acknowledged is lost with it.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{App, Status, Switchback, request};

use crate::data::sql;
use crate::replicas::ask_node;
use crate::up;

/// For everything to be whole again: a rewind, a start and the next looks.
pub(crate) const RETURN_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn second_stage() -> Switchback {
    let switchback = up(App::guestbook("shop").stage(2));
    whole(&switchback);
    sql(&switchback, "CREATE TABLE visits (id int PRIMARY KEY)");
    switchback
}

pub(crate) fn whole(switchback: &Switchback) -> Status {
    switchback.wait_for("every standby follows and confirms commits", RETURN_LIMIT, Status::is_whole)
}

/// Writes until one succeeds. How long that took, from `since`.
pub(crate) fn first_write(switchback: &Switchback, since: Instant, id: u32) -> Duration {
    let statement = format!("INSERT INTO visits VALUES ({id}) ON CONFLICT DO NOTHING");
    while since.elapsed() < RETURN_LIMIT {
        let answer = request("POST", &switchback.url("/sql"), &[], statement.as_bytes());
        if answer.is_ok_and(|answer| answer.status == 200) {
            return since.elapsed();
        }
    }
    panic!("no write within {RETURN_LIMIT:?}\n{}", switchback.daemon_log());
}

#[test]
fn a_standby_takes_over_from_a_primary_that_was_killed_and_the_old_one_follows_it() {
    let switchback = second_stage();
    for number in 0..50 {
        sql(&switchback, &format!("INSERT INTO visits VALUES ({number})"));
    }
    let status = switchback.status();
    let old = status.primary();
    old.crash();
    let took = first_write(&switchback, Instant::now(), 50);
    println!("first write {took:?} after SIGKILL of the primary");
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "51");

    let status = whole(&switchback);
    assert_ne!(status.primary().name, old.name);
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    assert!(why.contains(&format!("fail over from {}", old.name)), "{why}");

    // And back again: the old primary has everything.
    status.primary().crash();
    first_write(&switchback, Instant::now(), 51);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "52");
    assert_eq!(whole(&switchback).primary().name, old.name);
}

#[test]
fn a_primary_that_hangs_is_replaced_within_seconds() {
    let switchback = second_stage();
    let status = switchback.status();
    let old = status.primary();
    old.hang_with_children();
    let took = first_write(&switchback, Instant::now(), 1);
    println!("first write {took:?} after SIGSTOP of the primary");
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    assert!(why.contains("of clients wait and none was answered"), "{why}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_ne!(whole(&switchback).primary().name, old.name);
}

/// What clients get counts for more than what the supervisor sees: here it is its own session that hangs.
#[test]
fn a_primary_that_answers_its_clients_is_not_taken_for_hung() {
    let switchback = second_stage();
    let before = switchback.status();
    let ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'switchback'";
    let sessions = sql(&switchback, ours);
    assert!(!sessions.is_empty(), "the supervisor keeps a session");
    for pid in sessions.lines() {
        signal(pid, "STOP");
    }
    // Reads alone: a follower hears nothing of them. For longer than a busy primary is waited for.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        sql(&switchback, "SELECT count(*) FROM visits");
    }
    // And at rest nobody vouches for it, but the supervisor has another session by now.
    std::thread::sleep(Duration::from_secs(3));
    let after = switchback.status();
    assert_eq!(before.primary().pid, after.primary().pid, "{}", switchback.daemon_log());
    for pid in sessions.lines() {
        signal(pid, "CONT");
    }
}

pub(crate) fn signal(pid: &str, name: &str) {
    let status = std::process::Command::new("kill").args(["-s", name, pid]).status().unwrap();
    assert!(status.success(), "kill -s {name} {pid}");
}

#[test]
fn without_a_standby_commits_wait_and_go_on_when_it_is_back() {
    let switchback = second_stage();
    let status = switchback.status();
    let standby = status.standbys()[0];
    standby.hang_with_children();
    let url = switchback.url("/sql");
    let writing = std::thread::spawn(move || request("POST", &url, &[], b"INSERT INTO visits VALUES (1)"));
    std::thread::sleep(Duration::from_secs(3));
    assert!(!writing.is_finished(), "it was acknowledged by the primary alone");
    // It is said: until PostgreSQL gives a standby up that says nothing, it counts as there.
    let waiting = |status: &Status| status.raw["commits"][0]["state"] == "waiting";
    switchback.wait_for("it is said that commits wait", RETURN_LIMIT, waiting);
    let shown = switchback.must(&["status"]).stdout;
    assert!(shown.contains("commits of db: wait for a standby since"), "{shown}");
    let metrics = switchback.must(&["metrics"]).stdout;
    let line = r#"switchback_database_commits{database="db",state="waiting"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
    let log = switchback.daemon_log();
    assert!(log.contains("WARN") && log.contains("commits wait: no standby confirms them"), "{log}");
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "0", "reads do not wait");
    standby.go_on_with_children();
    assert_eq!(writing.join().unwrap().unwrap().status, 200);
    whole(&switchback);
    switchback.wait_for("nobody waits any more", RETURN_LIMIT, |status| {
        status.raw["commits"][0]["state"] == "confirmed"
    });
    assert!(!switchback.must(&["status"]).stdout.contains("commits of db"));
}

#[test]
fn where_the_manifest_says_so_a_primary_without_standby_goes_on_alone() {
    let switchback = up(App::guestbook("shop").stage(2).set("db", "without_standby", "\"degrade\""));
    whole(&switchback);
    sql(&switchback, "CREATE TABLE visits (id int PRIMARY KEY)");
    let status = switchback.status();
    let standby = status.standbys()[0];
    standby.hang_with_children();
    let took = first_write(&switchback, Instant::now(), 1);
    assert!(took < Duration::from_secs(20), "{took:?}");
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    assert!(why.contains("acknowledge commits by the primary alone"), "{why}");
    let shown = switchback.must(&["status"]).stdout;
    assert!(shown.contains("commits of db: acknowledged by the primary alone since"), "{shown}");
    assert_eq!(switchback.status().raw["commits"][0]["state"], "alone");
    assert!(switchback.daemon_log().contains("commits are acknowledged by the primary alone"));
    // Whoever is lost now has commits that nobody else has: it is started again, not replaced.
    status.primary().crash();
    first_write(&switchback, Instant::now(), 2);
    assert_eq!(switchback.status().primary().name, status.primary().name);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "2");
    standby.go_on_with_children();
    whole(&switchback);
}

/// What PostgreSQL says of the standby shows nothing of whether commits wait for it: its checkpointer must have read so.
#[test]
fn a_standby_is_not_counted_on_before_commits_are_proved_to_wait_for_it() {
    let switchback = up(App::guestbook("shop").stage(2).set("db", "without_standby", "\"degrade\""));
    whole(&switchback);
    sql(&switchback, "CREATE TABLE visits (id int PRIMARY KEY)");
    let status = switchback.status();
    let (primary, standby) = (status.primary(), status.standbys()[0]);
    let why = || switchback.must(&["why", "-n", "100"]).stdout;
    standby.hang_with_children();
    first_write(&switchback, Instant::now(), 1);

    let checkpointer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
    let checkpointer = ask_node(&switchback, primary, checkpointer);
    signal(&checkpointer, "STOP");
    standby.go_on_with_children();
    switchback.wait_for("its primary says that it confirms", RETURN_LIMIT, |_| {
        ask_node(&switchback, primary, "SELECT sync_state FROM pg_stat_replication") == "quorum"
    });
    let not_yet = format!("do not count on {} yet", standby.name);
    switchback.wait_for("it is said that it does not count", RETURN_LIMIT, |_| why().contains(&not_yet));
    assert_eq!(switchback.status().standbys()[0].confirms_commits, Some(false), "{}", why());

    signal(&checkpointer, "CONT");
    whole(&switchback);
    first_write(&switchback, Instant::now(), 2);
    primary.crash();
    first_write(&switchback, Instant::now(), 3);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "3");
    assert_eq!(whole(&switchback).primary().name, standby.name);
}

/// What it would read from there on is kept for it by whoever takes over, from before that.
#[test]
fn an_old_primary_is_rewound_however_much_was_written_since_its_last_checkpoint() {
    let switchback = second_stage();
    sql(&switchback, "CREATE TABLE filling (text text)");
    let old = switchback.status().primary().clone();
    let fill = "INSERT INTO filling SELECT repeat(md5(i::text), 32) FROM generate_series(1, 150000) i";
    ask_node(&switchback, &old, fill);
    old.crash();
    first_write(&switchback, Instant::now(), 1);
    let status = whole(&switchback);
    assert_ne!(status.primary().name, old.name);
    let log = switchback.daemon_log();
    assert!(log.contains("rewound to where it and its primary parted"), "{log}");
    let follows = status.process(&old.name);
    assert_eq!(ask_node(&switchback, follows, "SELECT count(*) FROM filling"), "150000");
    assert!(!log.contains("copied anew") && !log.contains("copy it anew"), "{log}");
}

#[test]
fn the_first_stage_is_reached_from_a_primary_in_the_second_zone() {
    let switchback = second_stage();
    sql(&switchback, "INSERT INTO visits VALUES (1)");
    switchback.must(&["failover"]);
    whole(&switchback);
    switchback.must(&["stage", "1", "--yes"]);
    let status = switchback.status();
    assert_eq!(status.of_kind("postgres").len(), 1);
    assert_eq!(status.primary().name, "db.1");
    first_write(&switchback, Instant::now(), 2);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "2");
    assert!(!switchback.app().state_dir().join("data/postgres/db.2").exists());
}

#[test]
fn with_a_standby_more_memory_costs_a_switchover_and_no_restart_of_the_primary() {
    let mut switchback =
        up(App::guestbook("shop").stage(2).set("db", "size", "{ cpu = 1, memory = \"512MB\" }"));
    whole(&switchback);
    sql(&switchback, "CREATE TABLE visits (id int PRIMARY KEY)");
    switchback.app_mut().change("db", "size", "{ cpu = 1, memory = \"1GB\" }");
    let planned = switchback.must(&["plan"]).stdout;
    assert!(planned.contains("switch over from db.1 to db.2"), "{planned}");
    switchback.must(&["apply", "--yes"]);
    let status = whole(&switchback);
    assert_eq!(status.primary().name, "db.2");
    first_write(&switchback, Instant::now(), 1);
    assert_eq!(sql(&switchback, "SHOW shared_buffers"), "256MB");
}

#[test]
fn a_primary_that_is_lost_while_no_daemon_runs_loses_nothing() {
    let switchback = second_stage();
    for number in 0..20 {
        sql(&switchback, &format!("INSERT INTO visits VALUES ({number})"));
    }
    let status = switchback.status();
    switchback.kill_daemon();
    status.primary().crash();
    switchback.start_daemon_again();
    whole(&switchback);
    first_write(&switchback, Instant::now(), 20);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "21");
}

#[test]
fn a_cluster_comes_back_whole_after_down_and_up() {
    let switchback = second_stage();
    sql(&switchback, "INSERT INTO visits VALUES (1)");
    switchback.must(&["failover"]);
    let before = whole(&switchback);
    switchback.down();
    switchback.must(&["up", "--detach"]);
    let after = whole(&switchback);
    assert_eq!(after.primary().name, before.primary().name);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "1");
    let said = switchback.must(&["logs", "-n", "1000", "db"]).stdout;
    assert!(!said.contains("rewind") && !said.contains("timeline forked"), "{said}");
}

/// A setting of its own stands in the way, and comes with each copy of the primary.
#[test]
fn a_standby_that_cannot_follow_says_why_and_follows_when_that_is_gone() {
    let switchback = second_stage();
    let status = switchback.status();
    let (primary, standby) = (status.primary(), status.standbys()[0]);
    for node in [primary, standby] {
        ask_node(&switchback, node, "ALTER SYSTEM SET primary_slot_name = 'nowhere'");
        ask_node(&switchback, node, "SELECT pg_reload_conf()");
    }
    let slot = "replication slot \"nowhere\" does not exist";
    switchback.wait_for("status says why it does not follow", RETURN_LIMIT, |status| {
        let said = status.process(&standby.name).not_following.as_deref();
        said.is_some_and(|said| said.contains(slot))
    });
    let shown = switchback.must(&["status"]).stdout;
    assert!(shown.contains("does not follow: ") && shown.contains(slot), "{shown}");
    // It has its own from its primary when it is brought back.
    ask_node(&switchback, primary, "ALTER SYSTEM RESET primary_slot_name");
    whole(&switchback);
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    let tried = why.lines().find(|line| line.contains("rewind it"));
    assert!(tried.is_some_and(|line| line.contains(slot)), "{why}");
}

#[test]
fn a_standby_whose_data_is_gone_is_copied_anew() {
    let switchback = second_stage();
    let status = switchback.status();
    let standby = status.standbys()[0];
    std::fs::remove_dir_all(switchback.app().state_dir().join("data/postgres").join(&standby.name)).unwrap();
    standby.crash();
    switchback.wait_for("it is another process", RETURN_LIMIT, |status| {
        status.process(&standby.name).pid.is_some_and(|pid| Some(pid) != standby.pid) && status.is_whole()
    });
    first_write(&switchback, Instant::now(), 1);
}

/// What the proxy that accepts connections was told of the database last.
pub(crate) fn told_to_proxy(switchback: &Switchback) -> Value {
    let run = switchback.app().state_dir().join("run");
    let files = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap());
    let number = |name: &str| name.strip_prefix("pgproxy-db.")?.strip_suffix(".json")?.parse::<u32>().ok();
    let newest = files.filter_map(|file| Some((number(file.file_name().to_str()?)?, file.path()))).max();
    let text = std::fs::read_to_string(newest.unwrap().1).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["databases"]["db"].clone()
}

fn epoch(told: &Value) -> u64 {
    told["epoch"].as_u64().unwrap()
}

/// Whether the proxy knows since when transaction ids are those of the primary that there is now.
pub(crate) fn is_promotion_known(switchback: &Switchback) -> bool {
    let told = told_to_proxy(switchback);
    let promotion = &told["promotions"][epoch(&told).to_string()];
    let timeline =
        sql(switchback, "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int");
    if promotion.is_object() {
        assert_eq!(promotion["timeline"].to_string(), timeline, "{told}");
        assert!(promotion["first_xid"].as_u64() > Some(700), "{told}");
    }
    promotion.is_object()
}

/// So that whoever has lost the answer of a commit can ask the new primary for it, however many proxies serve.
#[test]
fn proxies_are_told_since_when_transaction_ids_are_those_of_the_new_primary() {
    let switchback = second_stage();
    let before = told_to_proxy(&switchback);
    switchback.status().primary().crash();
    first_write(&switchback, Instant::now(), 1);
    assert!(epoch(&told_to_proxy(&switchback)) > epoch(&before));
    assert!(is_promotion_known(&switchback), "of a failover");
    whole(&switchback);
    switchback.must(&["failover"]);
    first_write(&switchback, Instant::now(), 2);
    assert!(is_promotion_known(&switchback), "of a switchover");
    let promotions = told_to_proxy(&switchback)["promotions"].as_object().unwrap().len();
    assert_eq!(promotions, 2, "who waits may have missed one");
}

/// It gives ids again, and nobody can say which.
#[test]
fn a_primary_that_comes_back_in_its_place_begins_an_epoch_of_which_no_promotion_is_known() {
    let switchback = up(App::guestbook("shop"));
    sql(&switchback, "CREATE TABLE visits (id int PRIMARY KEY)");
    let before = epoch(&told_to_proxy(&switchback));
    switchback.status().primary().crash();
    first_write(&switchback, Instant::now(), 1);
    assert_eq!(epoch(&told_to_proxy(&switchback)), before + 1);
    assert!(!is_promotion_known(&switchback));
}

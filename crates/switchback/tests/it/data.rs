//! The database: what is in it stays in it.

use std::fs;
use std::time::Duration;

use testkit::{App, Status, Switchback, request};

use crate::up;

pub fn sql(switchback: &Switchback, statement: &str) -> String {
    let answer = request("POST", &switchback.url("/sql"), &[], statement.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{statement}: {}", answer.body);
    answer.body.trim().to_owned()
}

#[test]
fn the_database_survives_down_and_up() {
    let switchback = up(App::guestbook("shop"));
    sql(&switchback, "CREATE TABLE visits (name text)");
    sql(&switchback, "INSERT INTO visits VALUES ('ada')");
    switchback.down();
    switchback.must(&["up", "--detach"]);
    assert_eq!(sql(&switchback, "SELECT name FROM visits"), "ada");
}

#[test]
fn removing_the_database_is_refused_without_destroy() {
    let switchback = up(App::guestbook("shop"));
    sql(&switchback, "CREATE TABLE visits (name text)");
    let manifest = switchback.app().manifest();
    let without: String = manifest.replace("[db]\nengine = \"postgres\"\n", "");
    assert_ne!(without, manifest);
    switchback.app().put("switchback.toml", &without);

    let refused = switchback.cli(&["up", "--detach"]);
    assert_eq!(refused.code, Some(3), "{refused:#?}");
    assert!(refused.stderr.contains("--destroy db"), "{refused:#?}");
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "0");

    switchback.must(&["up", "--detach", "--destroy", "db"]);
    assert_eq!(switchback.status().of_kind("postgres").len(), 0);
    assert!(!switchback.app().state_dir().join("data/postgres/db.1").exists());
}

#[test]
fn a_new_size_restarts_postgres_only_when_its_memory_changes() {
    let mut switchback = up(App::guestbook("shop").set("db", "size", "{ cpu = 1, memory = \"512MB\" }"));
    assert_eq!(sql(&switchback, "SHOW shared_buffers"), "128MB");
    let before = switchback.status().process("db.1").pid;
    switchback.app_mut().change("db", "size", "{ cpu = 2, memory = \"512MB\" }");
    switchback.must(&["apply", "--yes"]);
    assert_eq!(switchback.status().process("db.1").pid, before);

    switchback.app_mut().change("db", "size", "{ cpu = 2, memory = \"1GB\" }");
    let planned = switchback.must(&["plan"]);
    assert!(planned.stdout.contains("expected interruption: about"), "{planned:#?}");
    switchback.must(&["apply", "--yes"]);
    assert_ne!(switchback.status().process("db.1").pid, before);
    assert_eq!(sql(&switchback, "SHOW shared_buffers"), "256MB");
}

#[test]
fn credentials_are_readable_by_their_owner_only_and_stand_in_no_argument() {
    use std::os::unix::fs::PermissionsExt;
    let switchback = up(App::guestbook("shop"));
    let path = switchback.app().state_dir().join("credentials/db.json");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let credentials: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let password = credentials["app"]["password"].as_str().unwrap();
    assert!(password.len() >= 32);
    for line in switchback.running() {
        assert!(!line.contains(password), "{line}");
    }
    assert!(!switchback.daemon_log().contains(password));
}

#[test]
fn a_plan_that_fails_after_it_destroyed_a_database_brings_it_back() {
    let switchback = up(App::guestbook("shop"));
    sql(&switchback, "CREATE TABLE visits (name text)");
    sql(&switchback, "INSERT INTO visits VALUES ('ada')");
    let manifest = switchback.app().manifest();
    switchback.app().put("switchback.toml", &manifest.replace("[db]\nengine = \"postgres\"\n", ""));
    let file = switchback.app().dir().with_file_name("without.plan");
    let file = file.to_str().unwrap();
    switchback.must(&["plan", "--destroy", "db", "--out", file]);
    // A last step that nothing can take.
    let mut plan: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let steps = plan["steps"].as_array_mut().unwrap();
    let interruption = steps[0]["interruption"].clone();
    steps.push(
        serde_json::json!({ "action": "remove_endpoint", "id": "web.99", "interruption": interruption }),
    );
    std::fs::write(file, plan.to_string()).unwrap();

    let failed = switchback.cli(&["apply", file, "--yes"]);
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert!(failed.stderr.contains("destroy db.1 and its data"), "{failed:#?}");
    assert!(failed.stderr.contains("Everything was taken back"), "{failed:#?}");
    assert_eq!(sql(&switchback, "SELECT name FROM visits"), "ada");
}

#[test]
fn data_of_a_first_plan_that_failed_is_deleted_by_the_next_that_succeeds() {
    let mut switchback = crate::prepare(App::guestbook("shop").set("web", "release", "\"exit 1\""));
    assert_eq!(switchback.cli(&["up", "--detach"]).code, Some(1));
    let retired = switchback.app().state_dir().join("data/retired");
    assert!(std::fs::read_dir(&retired).unwrap().count() > 0);
    switchback.app_mut().change("web", "release", "\"true\"");
    let up = switchback.must(&["up", "--detach"]);
    assert!(up.stderr.contains("of data that stood aside"), "{up:#?}");
    assert!(!retired.exists());
}

#[test]
fn a_lost_state_file_costs_no_data_whichever_node_has_it() {
    let switchback = up(App::guestbook("shop").stage(2));
    switchback.wait_for("a standby that could take over", Duration::from_secs(60), Status::is_whole);
    sql(&switchback, "CREATE TABLE visits (name text)");
    switchback.must(&["failover"]);
    sql(&switchback, "INSERT INTO visits VALUES ('ada')");
    assert_eq!(switchback.status().primary().name, "db.2");
    switchback.down();

    // Nothing is done with a file that cannot be read, and it is said what to do.
    let state = switchback.app().state_dir();
    let file = state.join("state.redb");
    let whole = fs::read(&file).unwrap();
    let scrambled = [&vec![0x5a; 4096], &whole[4096..]].concat();
    for damaged in [&scrambled[..], &whole[..whole.len() / 2], b"not a state file"] {
        fs::write(&file, damaged).unwrap();
        let refused = switchback.cli(&["up", "--detach"]);
        assert_eq!(refused.code, Some(1), "{refused:#?}");
        assert!(refused.stderr.contains("state.redb") && refused.stderr.contains("hint: "), "{refused:#?}");
        assert!(refused.stderr.contains("mv "), "{refused:#?}");
        assert_eq!(fs::read(&file).unwrap(), damaged, "it is left as it was");
    }
    fs::rename(&file, state.join("state.redb.damaged")).unwrap();

    // Two that may have been the primary last: nobody guesses.
    let signal = state.join("data/postgres/db.1/pgdata/standby.signal");
    fs::rename(&signal, signal.with_extension("kept")).unwrap();
    for command in [&["up", "--detach"][..], &["plan"]] {
        let refused = switchback.cli(command);
        assert_eq!(refused.code, Some(3), "{refused:#?}");
        assert!(refused.stderr.contains("postgres/db.1, "), "{refused:#?}");
        assert!(refused.stderr.contains("postgres/db.2"), "{refused:#?}");
    }
    fs::rename(signal.with_extension("kept"), &signal).unwrap();

    let up = switchback.must(&["up", "--detach"]);
    assert!(up.stderr.contains("take up db.2 and its data"), "{up:#?}");
    assert_eq!(sql(&switchback, "SELECT name FROM visits"), "ada");
    // What follows it from now on has another number than any folder there.
    let status = switchback.wait_for("a standby", Duration::from_secs(60), Status::is_whole);
    assert_eq!(status.standbys()[0].name, "db.3");
    assert!(signal.exists());
    assert!(switchback.must(&["plan"]).stdout.contains("Nothing to change"));
}

/// A disk that is not mounted leaves the folder at which it was, if that.
#[test]
fn a_lost_state_file_and_data_that_is_away_never_lead_to_an_empty_database() {
    let switchback = up(App::guestbook("shop"));
    sql(&switchback, "CREATE TABLE visits (name text)");
    sql(&switchback, "INSERT INTO visits VALUES ('ada')");
    switchback.down();
    let state = switchback.app().state_dir();
    fs::remove_file(state.join("state.redb")).unwrap();
    let node = state.join("data/postgres/db.1");
    let refused = |says: &str| {
        for command in [&["up", "--detach"][..], &["plan"]] {
            let refused = switchback.cli(command);
            assert_eq!(refused.code, Some(3), "{refused:#?}");
            assert!(refused.stderr.contains(says), "{refused:#?}");
            assert!(refused.stderr.contains("mount") && refused.stderr.contains("hint: "), "{refused:#?}");
        }
    };

    let away = state.join("away");
    fs::rename(&node, &away).unwrap();
    refused("has no data of it");
    assert!(!node.exists());

    fs::create_dir(&node).unwrap();
    refused("there is no data in");
    assert_eq!(fs::read_dir(&node).unwrap().count(), 0);

    fs::remove_dir(&node).unwrap();
    fs::rename(&away, &node).unwrap();
    let version = node.join("pgdata/PG_VERSION");
    fs::rename(&version, state.join("version")).unwrap();
    refused("there is no data in");
    assert!(!version.exists());

    fs::rename(state.join("version"), &version).unwrap();
    switchback.must(&["up", "--detach"]);
    assert_eq!(sql(&switchback, "SELECT name FROM visits"), "ada");
}

#[test]
fn data_that_nothing_accounts_for_is_never_made_a_follower() {
    let switchback = up(App::guestbook("shop"));
    sql(&switchback, "CREATE TABLE visits (name text)");
    let nodes = switchback.app().state_dir().join("data/postgres");
    fs::create_dir_all(nodes.join("db.2/pgdata")).unwrap();
    fs::write(nodes.join("db.2/pgdata/PG_VERSION"), "15").unwrap();
    let refused = switchback.cli(&["stage", "2", "--yes"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("db.2/pgdata holds data that nothing accounts for"), "{refused:#?}");
    assert_eq!(fs::read_to_string(nodes.join("db.2/pgdata/PG_VERSION")).unwrap(), "15");
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "0");

    fs::rename(nodes.join("db.2"), nodes.join("mine")).unwrap();
    switchback.must(&["stage", "2", "--yes"]);
    let status = switchback.wait_for("a standby", Duration::from_secs(60), Status::is_whole);

    // Another cluster's data in the place of a follower that is known.
    let known = status.standbys()[0];
    let pgdata = nodes.join(&known.name).join("pgdata");
    fs::remove_file(pgdata.join("standby.signal")).unwrap();
    let control = pgdata.join("global/pg_control");
    let mut bytes = fs::read(&control).unwrap();
    bytes[0] ^= 1;
    fs::write(&control, &bytes).unwrap();
    known.crash();
    switchback.wait_for("the reason", Duration::from_secs(60), |status| {
        let reason = status.process(&known.name).reason.clone();
        reason.is_some_and(|reason| reason.contains("is of another cluster than the primary's"))
    });
    assert_eq!(fs::read(&control).unwrap(), bytes);
}

#[test]
fn down_with_destroy_leaves_nothing_but_what_others_have_put_there() {
    let switchback = up(App::guestbook("shop"));
    let state = switchback.app().state_dir();
    switchback.must(&["down", "--destroy", "--yes", "shop"]);
    assert!(!state.exists());
    switchback.must(&["up", "--detach"]);
    std::fs::write(state.join("notes.txt"), "mine").unwrap();
    switchback.must(&["down", "--destroy", "--yes", "shop"]);
    let left: Vec<_> = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes.txt"]);
}

/// `spoil` is undone by putting the file back as it was.
fn refuses_to_start(file: &str, spoil: impl Fn(&mut Vec<u8>), says: &[&str]) {
    let switchback = up(App::guestbook("shop"));
    sql(&switchback, "CREATE TABLE visits (name text)");
    let path = switchback.app().state_dir().join("data/postgres/db.1/pgdata").join(file);
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    spoil(&mut bad);
    std::fs::write(&path, bad).unwrap();

    switchback.status().process("db.1").crash();
    // After its end, the end of the first attempt to start it again.
    switchback
        .wait_for("it did not start", Duration::from_secs(30), |status| status.process("db.1").restarts > 1);
    let shown = switchback.must(&["status"]).stdout;
    for words in says {
        assert!(shown.contains(words), "{shown}");
    }

    std::fs::write(&path, good).unwrap();
    switchback.wait_for("it starts by itself", Duration::from_secs(60), testkit::Status::all_ready);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "0");
}

#[test]
fn data_of_another_major_version_is_said_to_be_that_with_what_to_do() {
    let older = |version: &mut Vec<u8>| *version = b"9.6\n".to_vec();
    let says = ["was made by PostgreSQL 9.6", "apt-get install postgresql-9.6"];
    refuses_to_start("PG_VERSION", older, &says);
}

#[test]
fn a_damaged_control_file_is_said_to_be_that_with_what_to_do() {
    // Any byte before the checksum.
    let damage = |control: &mut Vec<u8>| control[100] ^= 0xFF;
    refuses_to_start(
        "global/pg_control",
        damage,
        &["is damaged", "restore a backup", "do not run pg_resetwal"],
    );
}

//! Another minor version of PostgreSQL than the one that is installed: what an update leaves, or what was there before it.
//!
//! It is the installed one, copied to a folder of its own, with another number in each of its programs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use local::engines::{PgVersion, PostgresEngine, find_postgres, write_lock};
use testkit::{App, Load, Mix, Status, Switchback};

use crate::data::sql;
use crate::prepare;

const RETURN_LIMIT: Duration = Duration::from_secs(60);

fn installed() -> PostgresEngine {
    let nowhere = tempfile::tempdir().unwrap();
    find_postgres(nowhere.path(), nowhere.path(), &|_| {}).unwrap()
}

/// The version with each digit of its minor replaced, which the programs have room for.
fn with_minor_of(version: &PgVersion, digit: &str) -> PgVersion {
    let text = version.to_string();
    let minor = text.split_once('.').map_or("", |(_, minor)| minor);
    PgVersion::parse(&format!("{}.{}", version.major(), digit.repeat(minor.len()))).unwrap()
}

/// Where [`copy`] puts the programs.
fn bin_dir(folder: &Path, version: &PgVersion) -> PathBuf {
    folder.join(format!("lib/postgresql/{}/bin", version.major()))
}

/// PostgreSQL finds its other files by the way from one to the other, as Debian lays them out.
fn copy(folder: &Path, of: &PostgresEngine, version: &PgVersion) -> PostgresEngine {
    let to = bin_dir(folder, version);
    let parent = to.parent().unwrap();
    let share = of.bin_dir.join("../../../../share/postgresql").join(version.major().to_string());
    assert!(share.join("postgres.bki").is_file(), "another layout than Debian's: {}", of.bin_dir.display());
    fs::create_dir_all(parent).unwrap();
    run(Command::new("cp").args(["-rL", "--preserve=mode"]).arg(&of.bin_dir).arg(&to));
    symlink(of.bin_dir.with_file_name("lib"), parent.join("lib")).unwrap();
    fs::create_dir_all(folder.join("share/postgresql")).unwrap();
    symlink(share.canonicalize().unwrap(), folder.join("share/postgresql").join(version.major().to_string()))
        .unwrap();
    let change = format!("s/{}/{version}/g", of.version.to_string().replace('.', "\\."));
    let programs = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path());
    run(Command::new("sed").env("LC_ALL", "C").args(["-i", &change]).args(programs));
    PostgresEngine { bin_dir: to, version: version.clone(), ..of.clone() }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An app that is up at stage 2 on `engine`. What is in `later` by then is found when it looks again.
fn up_on(
    app: App,
    engine: impl FnOnce(&Path) -> PostgresEngine,
    later: impl FnOnce(&Path) -> PathBuf,
) -> Switchback {
    let mut switchback = prepare(app.stage(2));
    let folder = folder(&switchback);
    write_lock(&switchback.app().dir(), &engine(&folder)).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths([later(&folder)].into_iter().chain(std::env::split_paths(&path))).unwrap();
    let up = switchback.command(&["up", "--detach"]).env("PATH", path).output().unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    switchback.look_up_front();
    switchback.wait_for("it is whole", RETURN_LIMIT, Status::is_whole);
    switchback
}

fn folder(switchback: &Switchback) -> PathBuf {
    switchback.app().dir().with_file_name("engines")
}

fn runs(status: &Status, node: &str) -> String {
    status.process(node).version.clone().unwrap_or_default()
}

#[test]
fn a_restart_takes_up_an_update_that_went_to_another_folder() {
    let installed = installed();
    let (old, new) = (installed.version.clone(), with_minor_of(&installed.version, "9"));
    let switchback = up_on(
        App::guestbook("shop"),
        |folder| copy(&folder.join("old"), &installed, &old),
        |folder| bin_dir(&folder.join("new"), &new),
    );
    sql(&switchback, "CREATE TABLE visits (name text)");
    let before = switchback.status();
    for node in before.of_kind("postgres") {
        assert_eq!(runs(&before, &node.name), old.to_string());
    }

    // What runs goes on without its programs.
    fs::remove_dir_all(folder(&switchback).join("old")).unwrap();
    copy(&folder(&switchback).join("new"), &installed, &new);
    sql(&switchback, "INSERT INTO visits VALUES ('ada')");

    // One that ends meanwhile comes back with what there is.
    let standby = before.standbys()[0].name.clone();
    before.standbys()[0].crash();
    let status = switchback.wait_for("the standby is back", RETURN_LIMIT, |status| {
        status.is_whole() && status.process(&standby).pid != before.process(&standby).pid
    });
    assert_eq!(runs(&status, &standby), new.to_string());
    assert_eq!(runs(&status, &status.primary().name), old.to_string());
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    assert!(why.contains(&format!("{standby}: start it with PostgreSQL {new} in ")), "{why}");

    let load = Load::start(&switchback.url("/"), Mix::both().at_most(100));
    let restarted = switchback.must(&["restart"]);
    load.stop().assert_nothing_failed(100);
    assert!(restarted.stderr.contains(&format!("; PostgreSQL {new}")), "{restarted:#?}");
    let after = switchback.wait_for("it is whole", RETURN_LIMIT, Status::is_whole);
    for node in after.of_kind("postgres") {
        assert_eq!(runs(&after, &node.name), new.to_string());
        assert!(switchback.must(&["status"]).stdout.contains(&format!("{new}, ")));
    }
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    assert!(why.contains(&format!("db: restart its nodes with PostgreSQL {new} in ")), "{why}");
    let lock = fs::read_to_string(switchback.app().dir().join("switchback.lock")).unwrap();
    assert!(lock.contains(&format!("version = \"{new}\"")), "{lock}");
    assert_eq!(sql(&switchback, "SELECT name FROM visits"), "ada");
    switchback.down();
}

/// At stage 2 on a minor version whose first commits after a start may go on without a standby. `None`, and said, where the
/// installed major has no such minor.
fn up_on_an_old_minor() -> Option<Switchback> {
    let installed = installed();
    let old = with_minor_of(&installed.version, "0");
    if old.commits_wait_from_the_start() {
        eprintln!("skipped: PostgreSQL {} has no minor that does so", installed.version.major());
        return None;
    }
    let app = App::guestbook("shop").set("db", "backups", "\"off\"");
    let switchback = up_on(app, |folder| copy(folder, &installed, &old), Path::to_owned);
    sql(&switchback, "CREATE TABLE visits (name text)");
    sql(&switchback, "INSERT INTO visits VALUES ('ada')");
    let status = switchback.status();
    assert_eq!(runs(&status, &status.primary().name), old.to_string());
    Some(switchback)
}

/// It would acknowledge commits alone, and the next failover would lose them.
#[test]
fn an_old_minor_is_not_started_while_it_cannot_be_written_down_that_nobody_is_counted_on() {
    let Some(mut switchback) = up_on_an_old_minor() else { return };
    // From the first step of the next plan on nothing can be written down.
    switchback.kill_daemon();
    switchback.must(&["up", "--detach", "--crash-at", "0:full"]);
    switchback.wait_for("it is whole", RETURN_LIMIT, Status::is_whole);
    switchback.app_mut().change("web", "instances", 3);
    let refused = switchback.cli(&["apply", "--yes"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");

    let primary = switchback.status().primary().name.clone();
    switchback.status().primary().crash();
    let status = switchback.wait_for("why it is not started", RETURN_LIMIT, |status| {
        let reason = status.process(&primary).reason.clone().unwrap_or_default();
        reason.contains("that none is counted on meanwhile cannot be written down")
    });
    assert_eq!(status.process(&primary).pid, None);
    assert_eq!(status.primary().name, primary, "what cannot be written down is not done either");
    // It is tried again and again.
    let tried = status.process(&primary).restarts;
    let status = switchback
        .wait_for("the next attempt", RETURN_LIMIT, |status| status.process(&primary).restarts > tried + 1);
    assert_ne!(status.process(&primary).state, "ready");

    switchback.kill_daemon();
    switchback.start_daemon_again();
    switchback.wait_for("it is whole", RETURN_LIMIT, Status::is_whole);
    assert_eq!(sql(&switchback, "SELECT name FROM visits"), "ada");
    switchback.down();
}

/// Nobody is counted on while such a primary is started. But one that lets nobody in has acknowledged nothing.
#[test]
fn an_old_minor_that_never_comes_up_again_is_failed_over_as_soon_as_its_standby_answers() {
    let Some(switchback) = up_on_an_old_minor() else { return };
    let before = switchback.status();
    let (primary, standby) = (before.primary(), before.standbys()[0]);
    standby.hang_with_children();
    let control =
        switchback.app().state_dir().join(format!("data/postgres/{}/pgdata/global/pg_control", primary.name));
    let mut bytes = fs::read(&control).unwrap();
    // Any byte before the checksum.
    bytes[100] ^= 0xFF;
    fs::write(&control, bytes).unwrap();
    primary.crash();
    switchback.wait_for("it does not start, and nobody takes over", RETURN_LIMIT, |status| {
        status.process(&primary.name).restarts > 2 && status.primary().name == primary.name
    });
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    assert!(why.contains("db: count on no standby until commits are proved to wait for one"), "{why}");

    standby.go_on_with_children();
    switchback.wait_for("the standby takes over", RETURN_LIMIT, |status| {
        status.process(&standby.name).role.as_deref() == Some("primary")
    });
    assert_eq!(sql(&switchback, "SELECT name FROM visits"), "ada");
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    assert!(why.contains(&format!("db: count on {} again", standby.name)), "{why}");
    switchback.wait_for("the old one follows", RETURN_LIMIT, Status::is_whole);
    switchback.down();
}

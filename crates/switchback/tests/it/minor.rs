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

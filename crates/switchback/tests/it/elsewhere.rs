//! Backups of a cluster that is not there any more, or not here: another installation of the app is made from them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use testkit::{App, Status, Switchback};

use crate::backup::{shop, visit, visits};
use crate::data::sql;
use crate::up;

/// For followers to be copied anew, and for a log to be stored.
const RETURN_LIMIT: Duration = Duration::from_secs(60);

fn backed_up_to(folder: &Path) -> App {
    App::guestbook("shop").set("db", "backups", format!("{{ to = {:?} }}", folder.display().to_string()))
}

/// The only archive in a folder.
fn archive_in(folder: &Path) -> String {
    let names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [only] = names.as_slice() else { panic!("{names:?}") };
    only.display().to_string()
}

/// PostgreSQL's user passes through.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    folder
}

fn lost(backups: &Path) -> String {
    let lost = shop(backed_up_to(backups));
    visit(&lost, 1);
    lost.must(&["backup"]);
    visit(&lost, 2);
    lost.must(&["down", "--destroy", "--yes", "shop"]);
    archive_in(backups)
}

/// As if the last of its log had been stored so long ago.
fn stored_before(archive: &str, ago: Duration) {
    for file in std::fs::read_dir(Path::new(archive).join("wal")).unwrap() {
        let file = std::fs::File::open(file.unwrap().path()).unwrap();
        file.set_modified(SystemTime::now() - ago).unwrap();
    }
}

fn restore_from(switchback: &Switchback, folder: &str) {
    switchback.must(&["restore", "--to", "latest", "--from", folder, "--yes"]);
}

#[test]
fn a_database_that_is_lost_with_all_its_state_comes_back_from_its_folder_of_backups() {
    let (backups, others) = (folder(), folder());
    let archive = lost(backups.path());

    let switchback = up(backed_up_to(others.path()).stage(2));
    switchback.wait_for("it is whole", RETURN_LIMIT, Status::is_whole);
    let folder = backups.path().to_str().unwrap();
    let listed = switchback.must(&["backup", "list", "--from", folder, "--json"]).json();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["number"]), (1, &1.into()));
    restore_from(&switchback, folder);
    assert_eq!(visits(&switchback), "1 2");
    visit(&switchback, 3);
    switchback.wait_for("its standby is copied from it", RETURN_LIMIT, Status::is_whole);

    // From here on it is a database as any other: its log and copies go where this one's belong, and none to the old folder.
    let written = |folder: &str| std::fs::read_dir(Path::new(folder).join("wal")).unwrap().count();
    let before = written(&archive);
    switchback.must(&["backup"]);
    visit(&switchback, 4);
    switchback.must(&["restore", "--to", "latest", "--yes"]);
    assert_eq!(visits(&switchback), "1 2 3 4");
    switchback.must(&["failover"]);
    visit(&switchback, 5);
    assert_eq!(visits(&switchback), "1 2 3 4 5");
    assert_eq!(written(&archive), before);
}

#[test]
fn a_new_installation_goes_on_in_the_folder_of_the_one_that_is_lost() {
    let backups = folder();
    let archive = lost(backups.path());
    let switchback = up(backed_up_to(backups.path()));
    let several =
        switchback.cli(&["restore", "--to", "latest", "--from", backups.path().to_str().unwrap(), "--yes"]);
    assert_eq!(several.code, Some(3), "{several:#?}");
    assert!(several.stderr.contains("are of several") && several.stderr.contains(&archive), "{several:#?}");
    let lives = switchback.cli(&["restore", "--to", "latest", "--from", &archive, "--yes"]);
    assert_eq!(lives.code, Some(3), "{lives:#?}");
    assert!(lives.stderr.contains("a database stores its log in"), "{lives:#?}");
    stored_before(&archive, Duration::from_secs(200));
    restore_from(&switchback, &archive);
    assert_eq!(visits(&switchback), "1 2");
    switchback.must(&["backup"]);
    visit(&switchback, 3);
    switchback.must(&["restore", "--to", "latest", "--yes"]);
    assert_eq!(visits(&switchback), "1 2 3");
}

#[test]
fn what_cannot_be_restored_from_elsewhere_is_refused_and_changes_nothing() {
    let backups = folder();
    let archive = lost(backups.path());
    let other = up(App::guestbook("bakery"));
    sql(&other, "CREATE TABLE visits (id int PRIMARY KEY)");
    visit(&other, 7);
    let refused = |from: &str, code: i32, because: &str| {
        let refused = other.cli(&["restore", "--to", "latest", "--from", from, "--yes"]);
        assert_eq!(refused.code, Some(code), "{refused:#?}");
        assert!(refused.stderr.contains(because), "{refused:#?}");
    };
    refused("/nowhere", 3, "/nowhere cannot be read");
    refused("/", 3, "there are no backups of db in /");
    refused(&archive, 1, "no database `bakery` in that backup, but postgres, shop");
    assert_eq!(visits(&other), "7");
    assert_eq!(other.status().primary().name, "db.1");
    let restored = other.app().state_dir().join("data/restored");
    assert_eq!(std::fs::read_dir(restored).unwrap().count(), 0, "what was made for it is gone");
}

//! What root runs for the owner of a folder: who may do what, and to whom belongs what is written.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use testkit::{App, Switchback};

/// `nobody`, who owns the folder in these tests.
const OWNER: u32 = 65_534;

/// An app in somebody's folder, with the program where they can reach it.
fn in_somebodys_folder(app: App) -> Switchback {
    let program = app.dir().with_file_name("switchback");
    std::fs::copy(env!("CARGO_BIN_EXE_switchback"), &program).unwrap();
    app.give_to(OWNER);
    Switchback::prepare(program, app)
}

fn skipped() -> bool {
    let skipped = !rustix::process::geteuid().is_root();
    if skipped {
        eprintln!("skipped: only root may run things for others");
    }
    skipped
}

fn owner(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().uid()
}

#[test]
fn the_owner_of_the_folder_may_look_at_what_root_runs_and_change_nothing() {
    if skipped() {
        return;
    }
    let switchback = in_somebodys_folder(App::python("shop"));
    switchback.must(&["up", "--detach"]);
    for looking in [&["status"][..], &["status", "--json"], &["why"], &["rollback", "--list"], &["metrics"]] {
        let theirs = switchback.cli_as(OWNER, looking);
        assert_eq!(theirs.code, Some(0), "{looking:?}: {theirs:#?}");
        assert!(!theirs.stdout.is_empty(), "{looking:?}");
    }
    let before = switchback.status();
    for changing in [
        &["up", "--detach"][..],
        &["up", "--supervised"],
        &["plan"],
        &["deploy"],
        &["stage", "2", "--yes"],
        &["drill", "instance-crash"],
        &["upgrade"],
        &["down"],
        &["logs"],
    ] {
        let refused = switchback.cli_as(OWNER, changing);
        assert_eq!(refused.code, Some(3), "{changing:?}: {refused:#?}");
        assert!(refused.stderr.contains("the app is up, run by root"), "{changing:?}: {refused:#?}");
        assert!(refused.stderr.contains("hint: as root it can be done"), "{changing:?}: {refused:#?}");
    }
    // Whoever does not own the folder sees nothing.
    let stranger = switchback.cli_as(OWNER - 1, &["status"]);
    assert_eq!(stranger.code, Some(3), "{stranger:#?}");
    let after = switchback.status();
    assert_eq!((after.daemon_pid, after.stage), (before.daemon_pid, 1));
    assert!(switchback.app().manifest().contains("stage = 1"));

    switchback.down();
    let stopped = switchback.cli_as(OWNER, &["status"]);
    assert_eq!(stopped.code, Some(1), "{stopped:#?}");
    assert!(
        stopped.stderr.contains("the app is not up, and what is kept of it belongs to root"),
        "{stopped:#?}"
    );
}

#[test]
fn what_root_writes_into_somebodys_folder_belongs_to_them() {
    if skipped() {
        return;
    }
    let switchback = in_somebodys_folder(App::guestbook("shop"));
    let dir = switchback.app().dir();
    std::fs::rename(dir.join("switchback.toml"), dir.join("kept")).unwrap();
    switchback.must(&["init"]);
    assert_eq!(owner(&dir.join("switchback.toml")), OWNER);
    std::fs::rename(dir.join("kept"), dir.join("switchback.toml")).unwrap();
    switchback.must(&["up", "--detach"]);
    switchback.must(&["stage", "2", "--yes"]);
    for written in ["switchback.lock", "switchback.toml"] {
        assert_eq!(owner(&dir.join(written)), OWNER, "{written}");
    }
}

#[test]
fn what_root_builds_in_somebodys_folder_is_built_in_their_name_and_home() {
    if skipped() {
        return;
    }
    let build = "\"echo $(id -u) $HOME $USER $LOGNAME\"";
    let switchback = in_somebodys_folder(App::python("shop").set("web", "build", build));
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let user =
        users.lines().find(|line| line.split(':').nth(2) == Some("65534")).expect("nobody is somebody");
    let (name, home) = (user.split(':').next().unwrap(), user.split(':').nth(5).unwrap());
    let up = switchback.must(&["up", "--detach"]);
    assert!(up.stderr.contains(&format!("build | {OWNER} {home} {name} {name}\n")), "{up:#?}");
}

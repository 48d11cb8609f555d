//! A disk that does not answer: whoever writes to it hangs in the kernel, where no signal reaches him.
//!
//! Each disk here is frozen as for a snapshot, which is just that. What only reads goes on.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::{App, Disk, Status, Switchback, or_skip, request};

use crate::data::sql;
use crate::up;

/// Until a disk counts as stuck, its primary is killed, and another one takes writes.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(15);

fn is_there(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// At stage 2. `None`, and said, where nothing can be mounted.
fn up_with_a_disk_at(below: &str, megabytes: u64) -> Option<Switchback> {
    let app = App::guestbook("shop").stage(2).set("db", "backups", "\"off\"");
    or_skip(app.with_a_freezable_disk_at(below, megabytes)).map(up)
}

/// Each node has a disk of its own here, as on machines of their own.
#[test]
fn a_primary_whose_disk_does_not_answer_hands_over_to_a_standby_whose_disk_does() {
    let Some(switchback) = up_with_a_disk_at("data/postgres/db.1", 500) else { return };
    switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
    sql(&switchback, "CREATE TABLE visits (id int PRIMARY KEY)");
    sql(&switchback, "INSERT INTO visits VALUES (1)");
    assert_eq!(switchback.status().primary().name, "db.1");

    // Nobody writes meanwhile: it is the supervisor who finds it out.
    switchback.app().disk().unwrap().freeze();
    let began = Instant::now();
    let status = switchback.wait_for("the standby has taken over", HAND_OVER_LIMIT, |status| {
        status.process("db.2").role.as_deref() == Some("primary")
    });
    println!("took over {:?} after the disk had stopped to answer", began.elapsed());
    // It is a primary that takes writes, and clients have lost nothing.
    sql(&switchback, "INSERT INTO visits VALUES (2)");
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "2");
    let old =
        switchback.wait_for("it is said what the old one waits for", Duration::from_secs(10), |status| {
            status.raw.to_string().contains("its disk does not answer")
        });
    assert_ne!(old.process("db.1").state, "ready");
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    assert!(why.contains("kill it: its disk does not answer"), "{why}");
    assert!(why.contains("were killed and wait in the kernel for its disk"), "{why}");
    assert!(status.process("db.2").pid.is_some_and(is_there));

    switchback.app().disk().unwrap().thaw();
    switchback.wait_for("the old one follows", Duration::from_secs(60), Status::is_whole);
    sql(&switchback, "INSERT INTO visits VALUES (3)");
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "3");
    switchback.down();
}

/// A commit that hangs over the disk is run again on the next primary, and its client hears of nothing.
#[test]
fn a_commit_that_a_stuck_disk_holds_is_made_by_the_standby() {
    let Some(switchback) = up_with_a_disk_at("data/postgres/db.1", 500) else { return };
    switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
    sql(&switchback, "CREATE TABLE visits (id int PRIMARY KEY)");
    switchback.app().disk().unwrap().freeze();
    let began = Instant::now();
    let answer = request("POST", &switchback.url("/sql"), &[], b"INSERT INTO visits VALUES (1)").unwrap();
    println!("committed {:?} after the disk had stopped to answer", began.elapsed());
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(began.elapsed() < HAND_OVER_LIMIT, "{:?}", began.elapsed());
    switchback.app().disk().unwrap().thaw();
    let status = switchback.wait_for("the old one follows", Duration::from_secs(60), Status::is_whole);
    assert_eq!(status.primary().name, "db.2");
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "1");
    switchback.down();
}

#[test]
fn a_primary_on_a_stuck_disk_is_replaced_also_where_its_standby_only_answers_later() {
    let Some(switchback) = up_with_a_disk_at("data/postgres/db.1", 500) else { return };
    let status = switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
    sql(&switchback, "CREATE TABLE visits (id int PRIMARY KEY)");
    let (primary, standby) = (status.primary(), status.standbys()[0]);
    standby.hang_with_children();
    switchback.app().disk().unwrap().freeze();
    primary.crash();
    switchback.wait_for("nobody could take over", HAND_OVER_LIMIT, |_| {
        let why = switchback.must(&["why", "-n", "100"]).stdout;
        why.contains(&format!("start {} again where it was", primary.name))
    });
    standby.go_on_with_children();
    switchback.wait_for("the standby has taken over", Duration::from_secs(60), |status| {
        status.process(&standby.name).role.as_deref() == Some("primary")
    });
    sql(&switchback, "INSERT INTO visits VALUES (1)");
    switchback.app().disk().unwrap().thaw();
    switchback.wait_for("the old one follows", Duration::from_secs(60), Status::is_whole);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "1");
    switchback.down();
}

#[test]
fn where_all_stand_on_the_disk_that_does_not_answer_nobody_is_killed_and_commits_wait() {
    let Some(switchback) = up_with_a_disk_at("data/postgres", 900) else { return };
    let before = switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
    sql(&switchback, "CREATE TABLE visits (id int PRIMARY KEY)");
    switchback.app().disk().unwrap().freeze();
    let url = switchback.url("/sql");
    let writing = std::thread::spawn(move || request("POST", &url, &[], b"INSERT INTO visits VALUES (1)"));
    let began = Instant::now();
    let mut why = String::new();
    while !why.contains("let it be, though its disk does not answer") && began.elapsed() < HAND_OVER_LIMIT {
        std::thread::sleep(Duration::from_millis(200));
        why = switchback.must(&["why", "-n", "100"]).stdout;
    }
    assert!(why.contains("db.2 stands on the same disk"), "{why}");
    assert!(!writing.is_finished(), "it was acknowledged by nothing");
    switchback.app().disk().unwrap().thaw();
    assert_eq!(writing.join().unwrap().unwrap().status, 200);
    let after = switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
    assert_eq!(before.primary().pid, after.primary().pid);
    switchback.down();
}

/// What the fence of a primary on a stuck disk stands on. The kernel looks for signals before it returns to a program, so
/// one that was killed while it hung there executes nothing more.
#[test]
fn who_was_killed_while_a_disk_held_him_does_nothing_once_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let Some(disk) = or_skip(Disk::mount_freezable(&path, 64 << 20)) else { return };
    let (log, acknowledged) = (path.join("log"), folder.path().join("acknowledged"));
    // Each a process that writes, and says so once the write has returned.
    let script = "exec 3> \"$1\"; echo commit >&3; echo \"$$\" >> \"$2\"";
    let run = || {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).args([&log, &acknowledged]).spawn().unwrap()
    };
    assert!(run().wait().unwrap().success());
    assert_eq!(fs::read_to_string(&acknowledged).unwrap().lines().count(), 1);

    disk.freeze();
    let mut held: Vec<_> = std::iter::repeat_with(run).take(50).collect();
    let in_kernel =
        |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") D "));
    let began = Instant::now();
    while !held.iter().all(|child| in_kernel(child.id())) {
        assert!(began.elapsed() < Duration::from_secs(10), "they do not hang");
        std::thread::sleep(Duration::from_millis(10));
    }
    for child in &mut held {
        child.kill().unwrap();
        assert!(child.try_wait().unwrap().is_none(), "it was killed, and is still there");
    }
    disk.thaw();
    for child in &mut held {
        assert!(!child.wait().unwrap().success());
    }
    assert_eq!(fs::read_to_string(&acknowledged).unwrap().lines().count(), 1);
}

//! Marks between real processes, over real files.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use freshness::{Freshness, FreshnessError, Mark};
use testkit::Disk;

const FILE: &str = "FRESHNESS_FILE";
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn what_one_has_committed_the_other_requires() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let proxy = Freshness::create(&path).unwrap();
    let edge = Freshness::open(&path).unwrap();
    assert_eq!((edge.committed(), edge.required()), (Mark::default(), Mark::default()));

    let first = proxy.now();
    let write = proxy.now();
    proxy.commit(write);
    proxy.commit(first);
    assert_eq!(edge.committed(), write, "an older acknowledgement that comes later takes nothing back");
    edge.require(write);
    edge.require(first);
    assert_eq!(proxy.required(), write);
    let later = edge.now();
    assert!(later > write && proxy.now() > later);
}

/// A client may send what it likes: the most it can do is to have reads as fresh as now.
#[test]
fn nobody_can_require_more_than_has_happened() {
    let freshness = Freshness::private().unwrap();
    freshness.require(Mark::from_micros(u64::MAX));
    assert_eq!(freshness.required(), Mark::default(), "nothing has happened yet");

    freshness.commit(freshness.now());
    freshness.require(Mark::from_micros(u64::MAX));
    assert_eq!(freshness.required(), freshness.committed());
    assert!(freshness.now() > freshness.required(), "a replica can be as fresh as that");
}

/// What was shown may be more than was acknowledged to anybody.
#[test]
fn whoever_has_shown_something_can_require_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let (one, other) = (Freshness::create(&path).unwrap(), Freshness::open(&path).unwrap());
    let before = one.now();
    one.require_all();
    assert!(other.required() > before && other.required() > other.committed());
    assert!(other.now() > other.required(), "a replica can be as fresh as that");
}

#[test]
fn what_replicas_have_shown_is_known_to_all_and_is_never_less_in_the_same_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let (one, other) = (Freshness::create(&path).unwrap(), Freshness::open(&path).unwrap());
    one.show(700);
    other.show(300);
    assert_eq!((one.shown(), other.shown()), (700, 700));
    // Of a database that was restored the log is shorter, unless it has grown since it was asked.
    one.show(800);
    other.forget_shown(700, 100);
    assert_eq!(one.shown(), 800);
    other.forget_shown(800, 100);
    drop((one, other));
    assert_eq!(Freshness::open(&path).unwrap().shown(), 100);
}

#[test]
fn the_file_is_its_owners_alone_and_nothing_else_is_left_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    Freshness::create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn marks_outlive_all_who_had_the_file_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let mark = {
        let before = Freshness::create(&path).unwrap();
        before.commit(before.now());
        before.require(before.committed());
        before.committed()
    };
    let after = Freshness::create(&path).unwrap();
    assert_eq!((after.committed(), after.required()), (mark, mark));
}

#[test]
fn many_who_create_one_file_at_once_share_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let all: Vec<Freshness> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| Freshness::create(&path).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mark = all[0].now();
    all[0].commit(mark);
    assert!(all.iter().all(|one| one.committed() == mark));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn refused(path: &Path) -> String {
    let (opened, created) = (Freshness::open(path), Freshness::create(path));
    let (opened, created) = (opened.unwrap_err().to_string(), created.unwrap_err().to_string());
    assert_eq!(opened, created);
    assert!(opened.contains(&path.display().to_string()), "{opened}");
    opened
}

/// A file that is too short would end its users by SIGBUS.
#[test]
fn what_is_no_file_of_marks_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let put = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    };
    drop(Freshness::create(&path).unwrap());
    let whole = fs::read(&path).unwrap();

    for length in [0, 1, 16, whole.len() - 1] {
        put(&whole[..length]);
        assert!(refused(&path).contains(&format!("{length} bytes long")));
        assert_eq!(fs::read(&path).unwrap(), &whole[..length]);
    }
    put(&[&whole[..], b"more"].concat());
    refused(&path);
    put(&vec![b'x'; whole.len()]);
    assert!(refused(&path).contains("something else"));
    let mut newer = whole.clone();
    newer[8..16].copy_from_slice(&7u64.to_ne_bytes());
    put(&newer);
    assert!(refused(&path).contains("version 7"));

    put(&whole);
    fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
    assert!(refused(&path).contains("chmod 600"));

    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
    refused(&path);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused(&path);
}

#[test]
fn a_file_of_another_user_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    drop(Freshness::create(&path).unwrap());
    if std::os::unix::fs::chown(&path, Some(4_242), None).is_err() {
        // Only root can give a file away.
        return;
    }
    assert!(refused(&path).contains("another user"));
}

#[test]
fn an_absent_file_is_said_to_be_absent() {
    let folder = tempfile::tempdir().unwrap();
    let error = Freshness::open(&folder.path().join("db")).unwrap_err();
    assert!(
        matches!(error, FreshnessError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
}

/// Whoever has it goes on with it: unlinking takes it from nobody.
#[test]
fn a_file_that_was_unlinked_serves_those_who_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let (one, other) = (Freshness::create(&path).unwrap(), Freshness::open(&path).unwrap());
    fs::remove_file(&path).unwrap();
    one.commit(one.now());
    assert_eq!(one.committed(), other.committed());
    assert_eq!(Freshness::create(&path).unwrap().committed(), Mark::default());
}

#[test]
fn on_a_full_disk_marks_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let disk = match Disk::mount(&folder.path().join("disk"), 1 << 20) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("not tested: {why}"),
    };
    let path = folder.path().join("disk/db");
    let freshness = Freshness::create(&path).unwrap();
    disk.fill();
    freshness.commit(freshness.now());
    let other = Freshness::open(&path).unwrap();
    assert_eq!(other.committed(), freshness.committed());
    let absent = Freshness::create(&folder.path().join("disk/other")).unwrap_err();
    assert!(absent.to_string().starts_with("cannot make"), "{absent}");
}

/// Run by [`a_process_killed_at_any_moment_leaves_marks_that_only_grow`], as processes of their own.
#[test]
#[ignore = "runs until it is killed"]
fn commits_until_it_is_killed() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let freshness = Freshness::create(Path::new(&path)).unwrap();
    loop {
        let before = freshness.committed();
        let mark = freshness.now();
        assert!(mark > before, "a mark is later than all before it, of all processes");
        freshness.commit(mark);
        assert!(freshness.committed() >= mark);
        freshness.require(Mark::from_micros(u64::MAX));
        assert!(freshness.required() >= mark);
    }
}

#[test]
fn a_process_killed_at_any_moment_leaves_marks_that_only_grow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let start = || -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "commits_until_it_is_killed", "--ignored"])
            .env(FILE, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let seen = Freshness::create(&path).unwrap();
    let mut highest = Mark::default();
    for _ in 0..10 {
        let mut children = [start(), start()];
        // They have come into their loops, both of them or one of them, when marks grow.
        let deadline = Instant::now() + PATIENCE;
        let begun = seen.committed();
        while seen.committed() == begun {
            assert!(Instant::now() < deadline, "nobody commits");
            std::thread::yield_now();
        }
        for _ in 0..10_000 {
            let (required, committed) = (seen.required(), seen.committed());
            assert!(required <= committed && committed >= highest);
            highest = committed;
        }
        for child in &mut children {
            assert_eq!(child.try_wait().unwrap(), None, "a process has found marks that went back");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    let after = Freshness::open(&path).unwrap();
    assert_eq!(after.committed(), seen.committed());
    assert!(after.now() > after.committed());
}

//! Releases at their border: a folder goes in, an immutable tree comes out.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::process::Exit;

const ANY: DiskFloor = DiskFloor { percent: 0, bytes: 0 };
const FULL: DiskFloor = DiskFloor { percent: 100, bytes: u64::MAX };

struct App {
    folder: tempfile::TempDir,
    include: Vec<String>,
}

impl App {
    fn new(files: &[(&str, &str)]) -> App {
        let app = App { folder: tempfile::tempdir().unwrap(), include: Vec::new() };
        for (path, content) in files {
            app.write(path, content);
        }
        app
    }

    fn including(mut self, patterns: &[&str]) -> App {
        self.include = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        self
    }

    fn dir(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.dir().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Where `up` keeps them: inside of the app's folder.
    fn releases(&self) -> Releases {
        Releases::at(self.dir().join(".state/releases"))
    }

    fn source(&self) -> Source<'_> {
        Source { app_dir: self.dir(), include: &self.include, run: "./serve", release_command: None }
    }

    fn try_snapshot(&self) -> Result<Snapshot, ReleaseError> {
        self.releases().snapshot(&self.source(), ANY, &mut |_| {})
    }

    fn snapshot(&self) -> Snapshot {
        self.try_snapshot().unwrap()
    }

    /// The stored files and links, by path.
    fn stored(&self) -> Vec<String> {
        let tree = self.releases().tree(&self.snapshot().metadata.id);
        let entries = walk::everything(&tree).unwrap();
        let files = entries.iter().filter(|(_, entry)| **entry != walk::Entry::Folder);
        files.map(|(path, _)| path.display().to_string()).collect()
    }
}

#[test]
fn a_release_is_what_git_does_not_ignore() {
    let app = App::new(&[
        ("app.py", ""),
        (".gitignore", "*.log\n/dist\n!keep.log\n"),
        (".switchbackignore", "docs/\n"),
        (".env.example", ""),
        ("a.log", ""),
        ("keep.log", ""),
        ("dist/app", ""),
        ("docs/page", ""),
        ("sub/.gitignore", "secret\n"),
        ("sub/secret", ""),
        ("sub/page", ""),
        ("sub/dist/page", ""),
        (".git/config", ""),
        (".switchback/state", ""),
        ("switchback.toml", ""),
        ("switchback.lock", ""),
        ("sub/switchback.toml", "somebody else's"),
    ]);
    assert_eq!(
        app.stored(),
        [
            ".env.example",
            ".gitignore",
            ".switchbackignore",
            "app.py",
            "keep.log",
            "sub/.gitignore",
            "sub/dist/page",
            "sub/page",
            "sub/switchback.toml"
        ]
    );
}

#[test]
fn include_brings_back_what_is_ignored() {
    let files = &[
        ("run", ""),
        (".gitignore", "target/\nnode_modules/\n*.gen\n"),
        ("target/release/app", ""),
        ("target/release/app.d", ""),
        ("target/debug/app", ""),
        ("node_modules/x/target/y", ""),
        ("src/a.gen", ""),
        ("src/b.gen", ""),
        ("node_modules/.git/config", ""),
    ];
    let app = App::new(files).including(&["target/release/app", "node_modules", "src/**/a*.gen"]);
    assert_eq!(
        app.stored(),
        [".gitignore", "node_modules/x/target/y", "run", "src/a.gen", "target/release/app"]
    );
}

#[test]
fn an_include_that_is_not_there_or_leaves_the_app_is_an_error() {
    for pattern in [
        "target/release/app",
        "no-such-folder/*",
        "*.none",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "",
        ".git",
        ".git/config",
    ] {
        let app = App::new(&[("run", "")]).including(&[pattern]);
        let error = app.try_snapshot().unwrap_err();
        assert!(matches!(error, ReleaseError::Include { .. }), "{pattern:?}: {error:?}");
    }
}

#[test]
fn equal_content_is_one_release_and_any_difference_is_another() {
    let app = App::new(&[("a", "1"), ("b", "2")]);
    let first = app.snapshot();
    assert!(!first.was_stored);
    let inode = |app: &App| app.releases().tree(&first.metadata.id).join("a").metadata().unwrap().ino();
    let before = inode(&app);
    fs::write(app.dir().join("a"), "1").unwrap();
    let again = app.snapshot();
    assert!(again.was_stored);
    assert_eq!((again.metadata, inode(&app)), (first.metadata.clone(), before));

    let mut ids = BTreeSet::from([first.metadata.id.clone()]);
    let mut differs =
        |what: &str, id: model::ReleaseId| assert!(ids.insert(id), "{what} makes no difference");
    app.write("a", "x");
    differs("content", app.snapshot().metadata.id);
    app.write("a", "1");
    fs::set_permissions(app.dir().join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    differs("the executable bit", app.snapshot().metadata.id);
    fs::rename(app.dir().join("a"), app.dir().join("c")).unwrap();
    differs("a name", app.snapshot().metadata.id);
    fs::create_dir(app.dir().join("empty")).unwrap();
    differs("an empty folder", app.snapshot().metadata.id);
    symlink("c", app.dir().join("link")).unwrap();
    differs("a link", app.snapshot().metadata.id);
    let commands = Source { run: "./other", ..app.source() };
    differs("the command", app.releases().snapshot(&commands, ANY, &mut |_| {}).unwrap().metadata.id);
    let commands = Source { release_command: Some("migrate"), ..app.source() };
    differs("the release command", app.releases().snapshot(&commands, ANY, &mut |_| {}).unwrap().metadata.id);
}

#[test]
fn files_keep_their_time_and_who_may_read_them_but_lose_their_write_bits() {
    let app = App::new(&[("run", "#!"), ("secret", "x")]);
    fs::set_permissions(app.dir().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(app.dir().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let tree = app.releases().tree(&app.snapshot().metadata.id);
    let stored = |path: &str| tree.join(path).metadata().unwrap();
    assert_eq!(stored("run").mode() & 0o7777, 0o555);
    assert_eq!(stored("secret").mode() & 0o7777, 0o400);
    let original = app.dir().join("run").metadata().unwrap();
    assert_eq!(stored("run").modified().unwrap(), original.modified().unwrap());
    assert_eq!(stored("run").uid(), original.uid());
}

#[test]
fn links_stay_links_and_those_that_leave_are_reported() {
    let app = App::new(&[("bin/real", "x")]);
    for (target, link) in [
        ("real", "bin/inside"),
        ("../bin/real", "bin/around"),
        ("/usr/bin/python3", "bin/python"),
        ("../../elsewhere", "bin/up"),
        ("nowhere", "dangling"),
    ] {
        symlink(target, app.dir().join(link)).unwrap();
    }
    let snapshot = app.snapshot();
    let tree = app.releases().tree(&snapshot.metadata.id);
    assert_eq!(fs::read_link(tree.join("bin/python")).unwrap(), PathBuf::from("/usr/bin/python3"));
    assert_eq!(fs::read_link(tree.join("dangling")).unwrap(), PathBuf::from("nowhere"));
    assert_eq!(snapshot.outward_links, [PathBuf::from("bin/python"), PathBuf::from("bin/up")]);
}

#[test]
fn what_is_no_file_is_named() {
    let app = App::new(&[("run", "")]);
    let _socket = UnixListener::bind(app.dir().join("app.sock")).unwrap();
    let error = app.try_snapshot().unwrap_err();
    assert!(matches!(error, ReleaseError::Special { kind: "socket", .. }), "{error:?}");
}

#[test]
fn an_empty_release_is_refused_and_whether_the_folder_is_empty_or_all_is_ignored_is_told() {
    let bare = App::new(&[("switchback.toml", "app = 'shop'"), (".gitignore", "node_modules")]);
    let error = bare.try_snapshot().unwrap_err();
    assert!(matches!(&error, ReleaseError::Empty { folder } if folder == bare.dir()), "{error:?}");
    let ignored = App::new(&[(".gitignore", "*"), ("app.py", "")]);
    assert!(matches!(ignored.try_snapshot(), Err(ReleaseError::AllIgnored)));
}

#[test]
fn a_release_is_known_to_have_failed_until_it_serves() {
    let app = App::new(&[("run", "")]);
    let id = app.snapshot().metadata.id;
    let because = || app.releases().get(&id).unwrap().unwrap().failed.map(|failed| failed.because);
    assert_eq!(because(), None);
    app.releases().mark_failed(&id, "web.2: exit code 3").unwrap();
    assert_eq!(because().as_deref(), Some("web.2: exit code 3"));
    assert_eq!(app.releases().list().unwrap()[0].failed.as_ref().unwrap().because, "web.2: exit code 3");
    app.releases().verify(&id).unwrap();
    app.releases().mark_serving(&id).unwrap();
    app.releases().mark_serving(&id).unwrap();
    assert_eq!(because(), None);
    let gone = model::ReleaseId::new("0123456789ab").unwrap();
    app.releases().mark_failed(&gone, "it is not stored").unwrap();
    assert_eq!(app.releases().get(&gone).unwrap(), None);
}

/// Progress is the moment at which a writer strikes.
#[test]
fn a_file_that_changes_while_it_is_copied_fails_the_whole() {
    let app = App::new(&[]);
    for number in 0..130 {
        app.write(&format!("f{number:03}"), "x");
    }
    let victim = app.dir().join("f129");
    let mut strike = |progress| {
        if matches!(progress, Progress::Copying { .. }) {
            fs::write(&victim, "y").unwrap();
        }
    };
    let error = app.releases().snapshot(&app.source(), ANY, &mut strike).unwrap_err();
    assert!(matches!(&error, ReleaseError::Changed { path } if *path == victim), "{error:?}");
    assert!(app.releases().list().unwrap().is_empty());
    assert!(app.try_snapshot().is_ok(), "the next attempt succeeds");
}

#[test]
fn below_the_disk_floor_nothing_is_stored() {
    let app = App::new(&[("run", "")]);
    let error = app.releases().snapshot(&app.source(), FULL, &mut |_| {}).unwrap_err();
    assert!(matches!(error, ReleaseError::DiskLow(_)), "{error:?}");
    assert!(app.releases().list().unwrap().is_empty());
}

#[test]
fn half_a_release_of_a_crash_is_removed() {
    let app = App::new(&[("run", "")]);
    let releases = app.dir().join(".state/releases");
    for left in ["0123456789ab.partial", "ba9876543210.removing"] {
        fs::create_dir_all(releases.join(left).join("tree")).unwrap();
    }
    app.snapshot();
    let left: Vec<_> = fs::read_dir(&releases).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the lock and the release: {left:?}");
}

#[test]
fn a_release_that_somebody_changed_is_recognised() {
    let app = App::new(&[("run", "one"), ("sub/x", "")]);
    let id = app.snapshot().metadata.id;
    assert_eq!(app.releases().verify(&id).unwrap().files, 2);
    let stored = app.releases().tree(&id).join("run");
    fs::set_permissions(&stored, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&stored, "two").unwrap();
    assert!(matches!(app.releases().verify(&id), Err(ReleaseError::Damaged { .. })));
    let absent = model::ReleaseId::new("000000000000").unwrap();
    assert!(matches!(app.releases().verify(&absent), Err(ReleaseError::NotStored { .. })));
}

// Python writes bytecode beside its modules: that must not stand in the way of a rollback.
#[test]
fn what_an_app_adds_beside_its_files_is_no_change_of_them() {
    let app = App::new(&[("run", "one"), ("sub/x", "")]);
    let id = app.snapshot().metadata.id;
    let added = app.releases().tree(&id).join("sub/__pycache__");
    fs::create_dir(&added).unwrap();
    fs::write(added.join("x.pyc"), "bytecode").unwrap();
    assert_eq!(app.releases().verify(&id).unwrap().files, 2);
    fs::remove_file(app.releases().tree(&id).join("sub/x")).unwrap();
    assert!(matches!(app.releases().verify(&id), Err(ReleaseError::Damaged { .. })));
}

#[test]
fn pruning_keeps_the_newest_and_whatever_is_in_use() {
    let app = App::new(&[]);
    let ids: Vec<_> = (0..5)
        .map(|number| {
            app.write("run", &number.to_string());
            app.snapshot().metadata.id
        })
        .collect();
    let listed = |app: &App| -> Vec<_> {
        let releases = app.releases().list().unwrap().into_iter();
        releases.map(|release| ids.iter().position(|id| *id == release.id).unwrap()).collect()
    };
    assert_eq!(listed(&app), [4, 3, 2, 1, 0], "the newest first");
    let in_use = BTreeSet::from([ids[0].clone()]);
    let pruned = app.releases().prune(2, &in_use, ANY).unwrap();
    assert_eq!(pruned.removed, [ids[2].clone(), ids[1].clone()]);
    assert_eq!(listed(&app), [4, 3, 0]);

    let in_use = BTreeSet::from([ids[4].clone()]);
    app.releases().prune(5, &in_use, FULL).unwrap();
    assert_eq!(listed(&app), [4], "a full disk takes what is not in use");
}

fn watched<'a>(app: &'a App, log: &'a Path, floor: DiskFloor) -> Build<'a> {
    Build { app_dir: app.dir(), command: "make", log, floor, time_limit: Duration::from_secs(60) }
}

fn append(log: &Path, text: &str) {
    use std::io::Write;
    fs::OpenOptions::new().append(true).open(log).unwrap().write_all(text.as_bytes()).unwrap();
}

#[tokio::test]
async fn a_failed_build_says_what_it_said_last() {
    let app = App::new(&[]);
    let log = app.dir().join("build.log");
    fs::write(&log, "of an earlier build\n").unwrap();
    let lines = Mutex::new(Vec::new());
    let run = async {
        append(&log, "compiling\nerror: no");
        // With it, the half of a line was read.
        while lines.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        append(&log, "thing to do\r\nlast words");
        Ok(Exit::Code(2))
    };
    let mut hear = |line: &str| lines.lock().unwrap().push(line.to_owned());
    let error = build(&watched(&app, &log, ANY), run, &mut hear).await.unwrap_err();
    let lines = lines.into_inner().unwrap();
    assert_eq!(lines, ["compiling", "error: nothing to do", "last words"]);
    assert_eq!(fs::read_to_string(&log).unwrap(), "compiling\nerror: nothing to do\r\nlast words");
    let before = fs::read_to_string(app.dir().join("build.log.1")).unwrap();
    assert_eq!(before, "of an earlier build\n", "the log does not grow with every build");
    assert_eq!(error.last_lines(), lines);
    assert!(matches!(error, BuildError::Failed { exit: Exit::Code(2), .. }));
}

#[tokio::test]
async fn below_the_disk_floor_no_build_is_started() {
    let app = App::new(&[]);
    let log = app.dir().join("build.log");
    let run = async { panic!("it was started") };
    let error = build(&watched(&app, &log, FULL), run, &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, BuildError::DiskLow(_)));
}

#[tokio::test(start_paused = true)]
async fn a_build_that_never_ends_is_dropped() {
    let app = App::new(&[]);
    let log = app.dir().join("build.log");
    let dropped = std::sync::Arc::new(());
    let held = dropped.clone();
    let run = async move {
        let _held = held;
        std::future::pending().await
    };
    let error = build(&watched(&app, &log, ANY), run, &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, BuildError::TimedOut { .. }));
    assert_eq!(std::sync::Arc::strong_count(&dropped), 1);
}

//! What is promised of processes, with real ones: shell scripts and small Python programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::Size;

use super::handle::Ended;
use super::*;
use crate::cgroup::Cgroups;

/// Far beyond what anything here takes: a test that reaches it has found a hang.
const DEADLINE: Duration = Duration::from_secs(20);
const NO_GRACE: Duration = Duration::from_millis(100);

struct Place {
    dir: tempfile::TempDir,
    processes: Processes,
}

impl Place {
    fn without_cgroups() -> Place {
        Place::with(|_| Cgroups::none("test", "switched off by the test"))
    }

    /// `None` where the machine does not let us make groups: the test then says so.
    fn with_cgroups() -> Option<Place> {
        let place = Place::with(|dir| {
            let unique = dir.file_name().unwrap().to_str().unwrap();
            Cgroups::detect(&format!("test{unique}"))
        });
        if let Some(why) = place.processes.cgroups().unavailable() {
            eprintln!("skipped: {why}");
            return None;
        }
        Some(place)
    }

    fn with(cgroups: impl FnOnce(&Path) -> Cgroups) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = cgroups(dir.path());
        let processes = Processes::new(dir.path(), cgroups, BaseEnv::pick(std::env::vars_os()));
        Place { dir, processes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn spec(&self, command: Command) -> Spec {
        spec_in(self.dir.path(), command)
    }

    fn shell(&self, line: &str) -> Spec {
        self.spec(Command::Shell(line.to_owned()))
    }

    fn start(&self, line: &str) -> Process {
        self.processes.spawn(self.shell(line)).unwrap()
    }

    /// Runs to its end and returns what it printed.
    async fn output_of(&self, spec: Spec) -> String {
        let process = self.processes.spawn(spec).unwrap();
        within_deadline(process.exited()).await;
        fs::read_to_string(self.path("web.1.out")).unwrap()
    }

    /// Waits until the app has said that it is where the test wants it.
    async fn said(&self, what: &str) {
        let out = self.path("web.1.out");
        within_deadline(async {
            while !fs::read_to_string(&out).is_ok_and(|text| text.contains(what)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    fn number_in(&self, file: &str) -> u32 {
        fs::read_to_string(self.path(file)).unwrap().trim().parse().unwrap()
    }
}

fn spec_in(dir: &Path, command: Command) -> Spec {
    Spec {
        name: "web.1".to_owned(),
        command,
        cwd: dir.to_owned(),
        env: BTreeMap::new(),
        user: None,
        size: Size::UNLIMITED,
        output: OutputFiles { stdout: dir.join("web.1.out"), stderr: dir.join("web.1.err") },
        priority: Priority::Normal,
        inherited_fds: Vec::new(),
        oom_score_adj: None,
        stop_signal: StopSignal::TermGroup,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in self.processes.cgroups().names() {
            if let Some(group) = self.processes.cgroups().adopt(&name) {
                let _ = group.kill();
            }
        }
        self.processes.cgroups().remove_empty();
    }
}

async fn within_deadline<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, wait).await.expect("took longer than the deadline")
}

fn is_running(pid: u32) -> bool {
    stat::Stat::of(pid).is_some_and(|stat| !stat.is_zombie())
}

/// What runs under this pid by now: a shell takes a moment to become the app.
async fn becomes(pid: u32, program: &str) {
    within_deadline(async {
        while !fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with(program)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

fn is_root() -> bool {
    crate::user::running_as_root()
}

#[tokio::test]
async fn the_leader_is_the_app_itself_and_its_end_is_told() {
    let place = Place::without_cgroups();
    let process = place.start("sh -c 'exit 3'");
    assert_eq!(within_deadline(process.exited()).await, Exit::Code(3));
    assert!(!Path::new(&format!("/proc/{}", process.pid())).exists(), "left as a zombie");

    let process = place.start("sleep 60");
    becomes(process.pid(), "sleep").await;
    process.signal(Signal::USR1).unwrap();
    assert_eq!(within_deadline(process.exited()).await, Exit::Signal(libc::SIGUSR1));
}

#[tokio::test]
async fn a_child_gets_its_environment_and_nothing_else() {
    let place = Place::without_cgroups();
    let mut spec = place.shell("env");
    spec.env.insert("PORT".to_owned(), "4711".to_owned());
    let output = place.output_of(spec).await;
    assert!(output.contains("PORT=4711\n"), "{output}");
    for line in output.lines() {
        let name = line.split('=').next().unwrap();
        // `PWD` and the like are the shell's own.
        let known = [
            "PATH", "HOME", "LANG", "USER", "LOGNAME", "TZ", "TMPDIR", "PORT", "PWD", "OLDPWD", "SHLVL", "_",
        ];
        assert!(known.contains(&name), "{name} leaked into the child");
    }
}

#[tokio::test]
async fn a_child_gets_the_descriptors_named_for_it_and_nothing_else() {
    let place = Place::without_cgroups();
    // Left open over exec on purpose, as a careless library would.
    let leaky = fs::File::open("/proc/self/status").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (other_reader, mut other) = std::io::pipe().unwrap();
    other.write_all(b"passed in").unwrap();
    drop(other);
    // Each wants the number that the other has now: they must not tread on each other.
    let (writer, other_reader) = (OwnedFd::from(writer), OwnedFd::from(other_reader));
    let mut spec = place.shell("readlink /proc/self/fd/3; ls /proc/self/fd | wc -w; cat <&4 >&3");
    spec.inherited_fds = vec![(writer, 3), (other_reader, 4)];
    let output = place.output_of(spec).await;
    let mut received = String::new();
    reader.read_to_string(&mut received).unwrap();
    assert_eq!(received, "passed in");
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].starts_with("pipe:"), "{output}");
    // 0 to 4, and the one that `ls` lists them by.
    assert_eq!(lines[1], "6", "descriptors leaked");
}

#[tokio::test]
async fn a_child_starts_with_default_signals_umask_and_all_the_files_it_may_open() {
    let place = Place::without_cgroups();
    // SAFETY: ignoring a signal that nobody in this test binary sends.
    unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
    let line = "grep -E 'SigBlk|SigIgn' /proc/self/status; umask; ulimit -Sn; ulimit -Hn; cat; echo $0";
    let output = place.output_of(place.shell(line)).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(&lines[..3], ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "0022"]);
    assert_eq!(lines[3], lines[4], "the soft limit of open files is below the hard one");
    assert_eq!(lines.len(), 6, "stdin is not empty");
}

#[tokio::test]
async fn output_is_appended_to_what_is_there() {
    let place = Place::without_cgroups();
    for _ in 0..2 {
        place.output_of(place.shell("echo out; echo err >&2")).await;
    }
    assert_eq!(fs::read_to_string(place.path("web.1.out")).unwrap(), "out\nout\n");
    assert_eq!(fs::read_to_string(place.path("web.1.err")).unwrap(), "err\nerr\n");
}

#[tokio::test]
async fn what_cannot_start_says_why_and_leaves_no_record() {
    let place = Place::without_cgroups();
    let script = place.path("script");
    fs::write(&script, "\x7fELF but not really").unwrap();
    let refuse = |command: Command, change: &dyn Fn(&mut Spec)| {
        let mut spec = place.spec(command);
        change(&mut spec);
        let error = place.processes.spawn(spec).expect_err("it started");
        assert!(place.processes.record("web.1").is_none(), "a record is left after {error}");
        error
    };
    let argv = |program: &Path| Command::Argv(vec![program.into()]);
    let shell = |line: &str| Command::Shell(line.to_owned());
    let unchanged = |_: &mut Spec| {};

    let error = refuse(shell("no-such-program --x"), &unchanged);
    assert!(
        matches!(&error, SpawnError::CommandNotFound { program, .. } if program == "no-such-program"),
        "{error}"
    );
    let error = refuse(argv(Path::new("./missing")), &unchanged);
    assert!(matches!(error, SpawnError::CommandNotFound { .. }), "{error}");
    let error = refuse(argv(&script), &unchanged);
    assert!(matches!(error, SpawnError::PermissionDenied { .. }), "{error}");
    let error = refuse(shell("./script"), &unchanged);
    assert!(matches!(error, SpawnError::PermissionDenied { .. }), "{error}");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let error = refuse(argv(&script), &unchanged);
    assert!(matches!(error, SpawnError::NotExecutable { .. }), "{error}");
    let error = refuse(shell(" "), &unchanged);
    assert!(matches!(error, SpawnError::EmptyCommand), "{error}");
    let error = refuse(shell("true"), &|spec| spec.cwd = "/no/such/folder".into());
    assert!(matches!(error, SpawnError::CwdMissing { .. }), "{error}");
    let error = refuse(shell("true"), &|spec| spec.name = "../web".to_owned());
    assert!(matches!(error, SpawnError::BadName { .. }), "{error}");
    let error = refuse(shell("true"), &|spec| spec.output.stdout = "/no/such/folder/out".into());
    assert!(matches!(error, SpawnError::Output { .. }), "{error}");
}

#[tokio::test]
async fn a_command_that_only_the_shell_can_miss_is_explained_by_its_exit() {
    let place = Place::without_cgroups();
    let line = "cd / && no-such-program";
    let process = place.start(line);
    let exit = within_deadline(process.exited()).await;
    assert_eq!(exit.explain(&Command::Shell(line.to_owned())), Some("the shell found no such command"));
}

#[tokio::test]
async fn root_runs_an_app_as_its_user_with_that_users_home_and_groups() {
    if !is_root() {
        eprintln!("skipped: only root may become someone else");
        return;
    }
    let place = Place::without_cgroups();
    fs::set_permissions(place.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let user = crate::user::Identity {
        uid: 3_999_998,
        gid: 3_999_997,
        groups: vec![3_999_997, 3_999_996],
        name: "somebody".to_owned(),
        home: "/home/somebody".into(),
    };
    let mut spec = place.shell("id -u; id -g; id -G; echo $HOME $USER $LOGNAME; echo again > /dev/stderr");
    spec.user = Some(user);
    let output = place.output_of(spec).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(&lines[..3], ["3999998", "3999997", "3999997 3999996"]);
    assert_eq!(lines[3], "/home/somebody somebody somebody");
    // An app that reopens its output by name may do so.
    assert_eq!(fs::read_to_string(place.path("web.1.err")).unwrap().lines().next(), Some("again"));
}

#[tokio::test]
async fn a_folder_that_the_user_may_not_enter_is_named() {
    if !is_root() {
        eprintln!("skipped: only root may become someone else");
        return;
    }
    let place = Place::without_cgroups();
    let mut spec = place.shell("true");
    spec.user = Some(crate::user::Identity::by_uid(3_999_998).unwrap());
    fs::set_permissions(place.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let error = place.processes.spawn(spec).unwrap_err();
    assert!(matches!(error, SpawnError::Cwd { .. }), "{error}");
}

#[tokio::test]
async fn an_app_that_ends_on_sigterm_is_not_killed() {
    let place = Place::without_cgroups();
    let process = place.start("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done");
    place.said("ready").await;
    let report = within_deadline(process.stop(DEADLINE)).await.unwrap();
    assert_eq!((report.exit, report.ended, report.leftover), (Exit::Code(7), Ended::InGrace, 0));
}

#[tokio::test]
async fn an_app_that_ignores_sigterm_is_killed_after_its_grace() {
    let place = Place::without_cgroups();
    let process = place.start("trap '' TERM; echo ready; while :; do sleep 1; done");
    place.said("ready").await;
    let report = within_deadline(process.stop(NO_GRACE)).await.unwrap();
    assert_eq!((report.exit, report.ended), (Exit::Signal(libc::SIGKILL), Ended::LeaderKilled));
    assert!(report.took >= NO_GRACE);
    assert!(process.pids().is_empty());
}

#[tokio::test]
async fn a_postgres_that_does_not_end_in_time_is_told_to_end_at_once_before_it_is_killed() {
    let place = Place::without_cgroups();
    let mut spec = place.shell("trap '' INT; trap 'exit 7' QUIT; echo ready; while :; do sleep 0.05; done");
    spec.stop_signal = StopSignal::IntLeader;
    let process = place.processes.spawn(spec).unwrap();
    place.said("ready").await;
    let report = within_deadline(process.stop(NO_GRACE)).await.unwrap();
    assert_eq!((report.exit, report.ended), (Exit::Code(7), Ended::AtOnce));
}

#[tokio::test]
async fn an_app_that_is_stopped_by_a_debugger_still_hears_sigterm() {
    let place = Place::without_cgroups();
    let process = place.start("sleep 60");
    becomes(process.pid(), "sleep").await;
    process.signal(Signal::STOP).unwrap();
    let report = within_deadline(process.stop(DEADLINE)).await.unwrap();
    assert_eq!(report.exit, Exit::Signal(libc::SIGTERM));
}

#[tokio::test]
async fn children_that_outlive_their_leader_are_ended_too() {
    let place = Place::without_cgroups();
    // A child that ignores SIGTERM and is left behind by a leader that obeys it.
    let line = "sh -c 'trap \"\" TERM; echo $$ > child; echo ready; while :; do sleep 1; done' & trap 'exit 0' TERM; wait; wait";
    let process = place.start(line);
    place.said("ready").await;
    let child = place.number_in("child");
    let report = within_deadline(process.stop(NO_GRACE)).await.unwrap();
    assert_eq!((report.exit, report.ended), (Exit::Code(0), Ended::ChildrenKilled));
    assert!(report.leftover >= 1);
    assert!(!is_running(child), "a child was left over");
}

/// To a process of PostgreSQL that waits for a standby, SIGINT says to acknowledge the commit without one.
#[tokio::test]
async fn what_a_postgres_that_was_killed_leaves_behind_hears_nothing_but_sigkill() {
    let place = Place::without_cgroups();
    let child =
        "trap \"echo heard; exit\" INT TERM QUIT; echo $$ > child; echo ready; while :; do sleep 0.02; done";
    // A child in the background would ignore SIGINT.
    let line = format!("env --default-signal=INT sh -c '{child}' & wait; wait");
    let mut spec = place.shell(&line);
    spec.stop_signal = StopSignal::IntLeader;
    let process = place.processes.spawn(spec).unwrap();
    place.said("ready").await;
    let child = place.number_in("child");
    process.signal(Signal::KILL).unwrap();
    within_deadline(process.exited()).await;
    let report = within_deadline(process.stop(NO_GRACE)).await.unwrap();
    assert_eq!(report.ended, Ended::ChildrenKilled);
    assert!(!is_running(child), "a child was left over");
    let said = fs::read_to_string(place.path("web.1.out")).unwrap();
    assert!(!said.contains("heard"), "{said}");
}

#[tokio::test]
async fn a_leader_that_is_gone_leaves_children_that_the_fence_still_kills() {
    let place = Place::without_cgroups();
    let process = place.start("sleep 60 & echo $! > child; sleep 60 & echo ready; exit 0");
    within_deadline(process.exited()).await;
    let child = place.number_in("child");
    assert!(is_running(child));
    within_deadline(process.kill_group()).await.unwrap();
    assert!(!is_running(child));
    assert!(process.pids().is_empty());
}

#[tokio::test]
async fn a_daemon_forked_twice_into_its_own_session_does_not_escape_its_control_group() {
    let Some(place) = Place::with_cgroups() else { return };
    let line = "(setsid sh -c 'echo $$ > child; echo ready; exec sleep 60' &) ; while [ ! -s child ]; do sleep 0.01; done; exit 0";
    let process = place.start(line);
    assert_eq!(*process.limits(), Limits::Enforced);
    within_deadline(process.exited()).await;
    let child = place.number_in("child");
    assert!(is_running(child), "the test's daemon did not start");
    assert_eq!(process.pids(), [child]);
    within_deadline(process.kill_group()).await.unwrap();
    assert!(!is_running(child));
    place.processes.forget("web.1");
    assert_eq!(place.processes.cgroups().names(), Vec::<String>::new());
}

#[tokio::test]
async fn the_fence_outruns_a_process_that_forks_without_end() {
    let Some(place) = Place::with_cgroups() else { return };
    let program = "import os, sys, time\nprint('ready', flush=True)\nwhile True:\n    pid = os.fork()\n    if pid: os._exit(0)\n    time.sleep(0.0005)\n";
    let argv = ["python3", "-c", program].map(Into::into).to_vec();
    let process = place.processes.spawn(place.spec(Command::Argv(argv))).unwrap();
    place.said("ready").await;
    within_deadline(process.kill_group()).await.unwrap();
    assert!(process.pids().is_empty());
}

#[tokio::test]
async fn waiting_for_the_end_can_be_cancelled_and_shared() {
    let place = Place::without_cgroups();
    let process = place.start("sleep 60");
    assert!(tokio::time::timeout(Duration::from_millis(5), process.exited()).await.is_err());
    let other = process.clone();
    let both = async { tokio::join!(process.exited(), other.exited(), process.kill_group()) };
    let (one, two, killed) = within_deadline(both).await;
    killed.unwrap();
    assert_eq!((one, two), (Exit::Signal(libc::SIGKILL), Exit::Signal(libc::SIGKILL)));
}

#[tokio::test]
async fn a_build_yields_to_everything_else() {
    let place = Place::without_cgroups();
    let mut spec = place.shell("cat /proc/self/oom_score_adj; nice");
    spec.priority = Priority::Build;
    assert_eq!(place.output_of(spec).await, "500\n19\n");
}

/// The record is the child's own work, so it must be there as soon as anything of the app can be seen.
#[tokio::test]
async fn a_child_finds_its_own_record_in_place() {
    let place = Place::without_cgroups();
    let output = place.output_of(place.shell("cat web.1.pid; echo $$")).await;
    let (record, pid) = output.trim_end().rsplit_once('\n').unwrap();
    let record: Record = serde_json::from_str(record).unwrap();
    assert_eq!((record.name.as_str(), record.pid.to_string().as_str()), ("web.1", pid));
    assert_eq!(Some(&record), place.processes.record("web.1").as_ref());
}

/// A daemon as a process of its own: this test binary, asked to run [`helper_daemon`] only.
fn helper_daemon_in(place: &Place) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "process::tests::helper_daemon"])
        .env("HELPER_DIR", place.dir.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_new_daemon_finds_what_the_old_one_started_and_sees_its_end() {
    let place = Place::without_cgroups();
    let mut helper = helper_daemon_in(&place);
    within_deadline(async {
        while fs::metadata(place.path("started")).is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    helper.kill().unwrap();
    helper.wait().unwrap();

    let process = place.processes.find("web.1").expect("the app of the dead daemon was not found");
    assert_eq!(process.record(), &place.processes.record("web.1").unwrap());
    assert_eq!(place.processes.find_all().len(), 1);
    let report = within_deadline(process.stop(DEADLINE)).await.unwrap();
    // Somebody else's child, but this kernel or its zombie told how it ended; an older kernel may not have.
    assert!(matches!(report.exit, Exit::Signal(libc::SIGTERM) | Exit::Unknown), "{:?}", report.exit);
    assert!(place.processes.find("web.1").is_none());
}

/// Not a test: the old daemon of the ones that kill it. Starts an app and waits for its death.
#[tokio::test]
#[ignore = "run by other tests as a process of its own"]
async fn helper_daemon() {
    let Some(dir) = std::env::var_os("HELPER_DIR").map(PathBuf::from) else { return };
    let cgroups = Cgroups::none("test", "switched off by the test");
    let processes = Processes::new(&dir, cgroups, BaseEnv::pick(std::env::vars_os()));
    let mut spec = spec_in(&dir, Command::Shell("sleep 60".to_owned()));
    spec.env.insert("ROUND".to_owned(), dir.display().to_string());
    fs::write(dir.join("about-to-start"), "").unwrap();
    let process = processes.spawn(spec).unwrap();
    fs::write(dir.join("started"), "").unwrap();
    process.exited().await;
}

#[tokio::test]
async fn a_reused_pid_is_not_mistaken_for_our_process() {
    let place = Place::without_cgroups();
    let process = place.start("sleep 60");
    let record = process.record().clone();
    assert!(place.processes.adopt(&record).is_some());
    let other_start = Record { start_time_ticks: record.start_time_ticks - 1, ..record.clone() };
    assert!(place.processes.adopt(&other_start).is_none());
    let other_boot = Record { boot_id: "another".to_owned(), ..record.clone() };
    assert!(place.processes.adopt(&other_boot).is_none());
    // And a fence over such a record harms nobody.
    let path = place.path("web.1.pid");
    fs::write(&path, serde_json::to_vec(&other_start).unwrap()).unwrap();
    within_deadline(place.processes.clear("web.1")).await.unwrap();
    assert!(is_running(process.pid()), "a stranger was killed");
    within_deadline(process.kill_group()).await.unwrap();
}

#[tokio::test]
async fn what_a_dead_leader_left_while_nobody_watched_is_cleared() {
    let place = Place::without_cgroups();
    let process = place.start("sleep 60 & echo $! > child; exit 0");
    within_deadline(process.exited()).await;
    drop(process);
    let child = place.number_in("child");
    assert!(place.processes.find("web.1").is_none());
    assert!(is_running(child));
    within_deadline(place.processes.clear("web.1")).await.unwrap();
    assert!(!is_running(child));
}

/// However often the daemon dies while it starts something: what runs can be found, for the child writes its
/// record itself.
#[tokio::test]
async fn a_daemon_killed_in_the_middle_of_a_start_leaves_nothing_that_cannot_be_found() {
    for round in 0..12u64 {
        let place = Place::without_cgroups();
        let mut helper = helper_daemon_in(&place);
        // A little later in each round, so that the death falls into different steps of the start.
        let spawned = Instant::now();
        while fs::metadata(place.path("about-to-start")).is_err() {
            assert!(spawned.elapsed() < DEADLINE);
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(round * 150));
        helper.kill().unwrap();
        helper.wait().unwrap();
        // Once no child of it is still on its way to its program, every `sleep` of this round has a record.
        let marker = format!("ROUND={}", place.dir.path().display());
        let running = within_deadline(async {
            loop {
                let ours: Vec<u32> = stat::all()
                    .filter(|s| !s.is_zombie() && environ(s.pid).contains(&marker))
                    .map(|s| s.pid)
                    .collect();
                let on_its_way = stat::all().any(|s| {
                    !s.is_zombie()
                        && environ(s.pid).contains(&format!("HELPER_DIR={}", place.dir.path().display()))
                });
                if !on_its_way {
                    break ours;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        let found: Vec<u32> = place.processes.find_all().iter().map(Process::pid).collect();
        assert!(
            running.iter().all(|pid| found.contains(pid)),
            "round {round}: {running:?} run, {found:?} are found"
        );
        for process in place.processes.find_all() {
            within_deadline(process.kill_group()).await.unwrap();
        }
    }
}

fn environ(pid: u32) -> String {
    fs::read(format!("/proc/{pid}/environ"))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

#[tokio::test]
async fn a_name_in_use_is_not_started_again() {
    let place = Place::without_cgroups();
    let process = place.start("sleep 60");
    let error = place.processes.spawn(place.shell("sleep 60")).unwrap_err();
    assert!(matches!(error, SpawnError::AlreadyRunning { pid, .. } if pid == process.pid()), "{error}");
    within_deadline(process.kill_group()).await.unwrap();
    let again = place.start("true");
    within_deadline(again.exited()).await;
}

#[tokio::test]
async fn half_a_record_is_no_record() {
    let place = Place::without_cgroups();
    for text in ["", "{", "{\"name\":\"web.1\",\"pid\":1", "null", "[]"] {
        fs::write(place.path("web.1.pid"), text).unwrap();
        assert!(place.processes.find("web.1").is_none());
        assert!(place.processes.find_all().is_empty());
    }
}

//! A running Switchback: the real binary in a folder of its own.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::app::App;
use crate::folder;
use crate::guardian::Guardian;
use crate::output::Output;
use crate::status::Status;

/// Longest any command may take; a hung one fails its test by name instead of the whole run by its limit.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);
/// After it whatever is left is killed.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// After `down` has answered.
const DAEMON_END_LIMIT: Duration = Duration::from_secs(2);
/// Between two looks at the status.
const POLL: Duration = Duration::from_millis(20);

pub struct Switchback {
    program: PathBuf,
    app: App,
    front: Option<String>,
    guardian: Guardian,
}

impl Switchback {
    /// Only prepares: nothing runs before a command is given. For tests of what goes wrong.
    pub fn prepare(program: impl AsRef<Path>, app: App) -> Switchback {
        let program = program.as_ref().to_owned();
        let guardian = Guardian::of(&program, app.root());
        Switchback { program, app, front: None, guardian }
    }

    /// Runs `up --detach`.
    ///
    /// # Panics
    /// When it fails, with all it said.
    pub fn up(program: impl AsRef<Path>, app: App) -> Switchback {
        let mut switchback = Switchback::prepare(program, app);
        switchback.must(&["up", "--detach"]);
        switchback.look_up_front();
        switchback
    }

    /// Learns where it answers, for [`Switchback::url`], when the test has brought it up in another way.
    ///
    /// # Panics
    /// When no daemon answers.
    pub fn look_up_front(&mut self) {
        self.front = self.status().front.into_iter().find(|url| url.starts_with("http://"));
    }

    pub fn app(&self) -> &App {
        &self.app
    }

    /// To change it; see [`App::change`], [`App::turn`], [`App::put`].
    pub fn app_mut(&mut self) -> &mut App {
        &mut self.app
    }

    /// The plain front address with `path`.
    ///
    /// # Panics
    /// When it is not up.
    pub fn url(&self, path: &str) -> String {
        let front = self.front.as_deref().expect("it is up, with a plain listener");
        format!("{}{path}", front.trim_end_matches('/'))
    }

    /// Runs a command of the binary with this app's folders.
    ///
    /// # Panics
    /// When it takes longer than three minutes.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.cli_within(COMMAND_LIMIT, arguments)
    }

    /// The same, of one that may take longer.
    ///
    /// # Panics
    /// When it takes longer than `limit`.
    pub fn cli_within(&self, limit: Duration, arguments: &[&str]) -> Output {
        Output::of(&mut self.command(arguments), limit)
    }

    /// The same as another user, as root can. The binary must be where they can reach it.
    ///
    /// # Panics
    /// As [`Switchback::cli`], and when we are not root.
    pub fn cli_as(&self, uid: u32, arguments: &[&str]) -> Output {
        Output::of(self.command(arguments).uid(uid).gid(uid), COMMAND_LIMIT)
    }

    /// The same, for tests that run it themselves: attached, with a terminal, killed in the middle.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-C").arg(self.app.dir()).arg("--state-dir").arg(self.app.state_dir()).args(arguments);
        // What a test runner sets is not the app's business.
        command.env_remove("CARGO_TARGET_DIR").env_remove("RUST_LOG").env("NO_COLOR", "1");
        command
    }

    /// A command that has to succeed.
    ///
    /// # Panics
    /// When it does not, with all it and the daemon said.
    pub fn must(&self, arguments: &[&str]) -> Output {
        let output = self.cli(arguments);
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:#?}\ndaemon: {}", self.daemon_log());
        output
    }

    /// # Panics
    /// When no daemon answers.
    pub fn status(&self) -> Status {
        let output = self.must(&["status", "--json"]);
        Status::read(output.json()).unwrap_or_else(|error| panic!("{error}: {output:#?}"))
    }

    /// `None` while no daemon answers.
    pub fn try_status(&self) -> Option<Status> {
        let output = self.cli(&["status", "--json"]);
        if output.code != Some(0) {
            return None;
        }
        Status::read(serde_json::from_str(&output.stdout).ok()?).ok()
    }

    /// Looks until `is_so`, and gives the status in which it was.
    ///
    /// # Panics
    /// When it is not so within `limit`, with the last status.
    pub fn wait_for(&self, what: &str, limit: Duration, is_so: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.try_status();
            if let Some(status) = status.as_ref().filter(|status| is_so(status)) {
                return status.clone();
            }
            if Instant::now() > deadline {
                let last =
                    status.map_or_else(|| "no daemon answers".to_owned(), |last| format!("{:#}", last.raw));
                panic!("not within {limit:?}: {what}\n{last}\ndaemon: {}", self.daemon_log());
            }
            std::thread::sleep(POLL);
        }
    }

    /// SIGKILL to the daemon; returns when it is gone.
    ///
    /// # Panics
    /// When there is none.
    pub fn kill_daemon(&self) {
        let pid = self.status().daemon_pid;
        assert!(folder::signal(pid, Signal::KILL), "the daemon was gone");
        let deadline = Instant::now() + STOP_LIMIT;
        while !folder::is_gone(pid) {
            assert!(Instant::now() < deadline, "the daemon outlives SIGKILL");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGSTOP to the daemon, until `meanwhile` has returned.
    ///
    /// # Panics
    /// When it has ended.
    pub fn while_the_daemon_hangs<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let pid = self.status().daemon_pid;
        assert!(folder::signal(pid, Signal::STOP), "the daemon was gone");
        let met = meanwhile();
        assert!(folder::signal(pid, Signal::CONT), "the daemon has ended");
        met
    }

    /// Returns when the daemon of `status` has died by itself.
    ///
    /// # Panics
    /// When it still lives after half a minute.
    pub fn wait_for_daemon_to_end(&self, status: &Status) {
        let deadline = Instant::now() + STOP_LIMIT;
        while !folder::is_gone(status.daemon_pid) {
            assert!(Instant::now() < deadline, "the daemon still lives: {}", self.daemon_log());
            std::thread::sleep(POLL);
        }
    }

    /// What a person does then: `up --detach`.
    ///
    /// # Panics
    /// When it fails.
    pub fn start_daemon_again(&self) {
        self.must(&["up", "--detach"]);
    }

    /// The daemon's own log so far.
    pub fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.app.state_dir().join("logs/daemon.log")).unwrap_or_default()
    }

    /// The command lines of the processes that run for this app, the daemon included.
    pub fn running(&self) -> Vec<String> {
        let guardian = |line: &str| line.contains("guardian");
        let all = folder::inhabitants(self.app.root()).into_iter();
        all.map(|process| process.command_line).filter(|line| !guardian(line)).collect()
    }

    /// `down`, as a person would; afterwards nothing may be left.
    ///
    /// # Panics
    /// When it fails, or something is left.
    pub fn down(&self) {
        self.must(&["down"]);
        // The daemon answers, and then ends itself.
        let deadline = Instant::now() + DAEMON_END_LIMIT;
        while !self.running().is_empty() {
            assert!(Instant::now() < deadline, "left behind by `down`: {:#?}", self.running());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Switchback {
    fn drop(&mut self) {
        self.guardian.dismiss();
        self.app.disk_answers_again();
        let root = self.app.root();
        for process in folder::inhabitants(root) {
            // What a test has stopped could not stop in order.
            folder::signal(process.pid, Signal::CONT);
        }
        if !folder::inhabitants(root).is_empty() {
            // In order if it can be; a panic here while a test panics would hide the test's.
            if let Ok(mut child) = self.command(&["down", "--now"]).stdin(std::process::Stdio::null()).spawn()
            {
                let deadline = Instant::now() + STOP_LIMIT;
                while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                    std::thread::sleep(POLL);
                }
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        folder::evict(root);
    }
}

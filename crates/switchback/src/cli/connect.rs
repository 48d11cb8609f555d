//! Finding the app's daemon, or starting one.

use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use local::machine::Event;
use local::paths::StateDir;
use model::AppName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::de::DeserializeOwned;

use super::Place;
use super::say::Problem;
use crate::api::client::{self, CallError};
use crate::api::{Hello, Request};

/// From its start to the first answer. It reads its state and binds a socket before that; nothing slow.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// From SIGTERM to its end: it only stores what was said last.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// One app's folders, settled.
#[derive(Debug, Clone)]
pub struct App {
    pub dir: PathBuf,
    pub state: StateDir,
}

impl Place {
    /// # Errors
    /// When the folder is not there.
    pub fn app(&self) -> Result<App, Problem> {
        let dir = fs::canonicalize(&self.directory).map_err(|error| {
            Problem::usage(format!("{}: {error}", self.directory.display())).hint("-C names the app's folder")
        })?;
        let root = match &self.state_dir {
            Some(named) => std::path::absolute(named).map_err(|error| Problem::usage(error.to_string()))?,
            None => dir.join(".switchback"),
        };
        Ok(App { state: StateDir::at(&root), dir })
    }
}

impl App {
    /// Asks the daemon.
    ///
    /// # Errors
    /// When there is none, or it fails.
    pub fn ask<T: DeserializeOwned>(
        &self,
        request: &Request,
        heard: impl FnMut(Event),
    ) -> Result<T, Problem> {
        client::call(&self.state.daemon_socket(), request, heard).map_err(|error| match error {
            CallError::NoDaemon => Problem::failed("the app is not up here")
                .hint("`switchback up` brings it up; -C names another folder"),
            CallError::Lost(error) => {
                Problem::failed(format!("the daemon went away: {error}")).hint(format!(
                    "what it runs goes on; `switchback up` starts a new one, and {} says what happened",
                    self.state.daemon_log().display()
                ))
            }
            CallError::Failed(failure) => failure.into(),
        })
    }

    pub fn hello(&self) -> Option<Hello> {
        client::call(&self.state.daemon_socket(), &Request::Hello, |_| {}).ok()
    }

    /// The daemon that runs, or a new one. `true`: it is new.
    ///
    /// # Errors
    /// When it does not start; what it said stands in the error.
    pub fn ensure_daemon(&self, app: &AppName, crash_at: Option<&str>) -> Result<(Hello, bool), Problem> {
        if let Some(hello) = self.hello() {
            return Ok((hello, false));
        }
        let state = StateDir::open(self.state.root())
            .map_err(|error| Problem::refused(error.to_string()).hint(error.hint()))?;
        let log_path = state.daemon_log();
        let log = OpenOptions::new().create(true).append(true).open(&log_path);
        let log = log.map_err(|error| Problem::failed(format!("{}: {error}", log_path.display())))?;
        let written_before = log.metadata().map(|metadata| metadata.len()).unwrap_or(0);
        let mut child = self.spawn_daemon(app, log, crash_at)?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(hello) = self.hello() {
                return Ok((hello, true));
            }
            if let Ok(Some(status)) = child.try_wait() {
                // Two `up` at once: the other one's daemon has the lock.
                if let Some(hello) = self.hello() {
                    return Ok((hello, false));
                }
                let said = said_since(&log_path, written_before);
                return Err(Problem::Failed {
                    message: format!("the daemon did not start ({status})"),
                    hint: Some(format!("{} has all it said", log_path.display())),
                    last_lines: said,
                });
            }
            if Instant::now() >= deadline {
                return Err(Problem::failed("the daemon does not answer")
                    .hint(format!("{} has all it said", log_path.display())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends a daemon and waits until it is gone. What it runs goes on.
    ///
    /// # Errors
    /// When it belongs to somebody else, or does not end.
    pub fn end_daemon(&self, pid: u32) -> Result<(), Problem> {
        let Some(daemon) = Running::find(pid)? else { return Ok(()) };
        match pidfd_send_signal(&daemon.pidfd, Signal::TERM) {
            Err(Errno::SRCH) => Ok(()),
            sent => sent.map_err(|error| daemon.cannot_be_ended(error)).and_then(|()| daemon.wait()),
        }
    }

    fn spawn_daemon(&self, app: &AppName, log: fs::File, crash_at: Option<&str>) -> Result<Child, Problem> {
        let program = std::env::current_exe().map_err(|error| Problem::failed(error.to_string()))?;
        let mut command = Command::new(program);
        command
            .arg("daemon")
            .args(["--app", app.as_str()])
            .arg("--app-dir")
            .arg(&self.dir)
            .arg("--state-dir")
            .arg(self.state.root())
            .arg("--cache-dir")
            .arg(cache_dir())
            .args(crash_at.iter().flat_map(|at| ["--crash-at", at]))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // SAFETY: setsid is async-signal-safe and touches nothing of ours.
        unsafe {
            // A session of its own: closing the terminal, or Ctrl-C in it, does not reach the daemon.
            command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into));
        }
        command.spawn().map_err(|error| Problem::failed(format!("the daemon cannot be started: {error}")))
    }
}

/// A daemon that runs, pinned: its number cannot become another process's.
pub struct Running {
    pid: u32,
    pidfd: OwnedFd,
}

impl Running {
    /// `None` when there is none any more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn find(pid: u32) -> Result<Option<Running>, Problem> {
        let Some(raw) = Pid::from_raw(pid.cast_signed()) else { return Ok(None) };
        match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Some(Running { pid, pidfd })),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(Problem::failed(format!("the daemon (pid {pid}): {error}"))),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in its time.
    pub fn wait(&self) -> Result<(), Problem> {
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let limit = Timespec::try_from(END_TIMEOUT).map_err(|error| Problem::failed(error.to_string()))?;
        if poll(&mut ended, Some(&limit)).map_err(|error| self.cannot_be_ended(error))? > 0 {
            return Ok(());
        }
        let (pid, seconds) = (self.pid, END_TIMEOUT.as_secs());
        Err(Problem::failed(format!("the daemon (pid {pid}) does not end within {seconds} s"))
            .hint(format!("`kill -KILL {pid}` ends it; what it runs goes on")))
    }

    fn cannot_be_ended(&self, error: Errno) -> Problem {
        Problem::failed(format!("the daemon (pid {}) cannot be ended: {error}", self.pid))
            .hint("run this as the user who started the app")
    }
}

/// The last lines written to a log after `offset`, as messages where they are JSON.
fn said_since(path: &Path, offset: u64) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let new = text.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
    let text = String::from_utf8_lossy(new);
    let lines: Vec<String> = text.lines().rev().take(20).map(str::to_owned).collect();
    lines.into_iter().rev().collect()
}

/// `$XDG_CACHE_HOME/switchback`, by default under the home folder (XDG Base Directory Specification). Root's home is
/// closed to the users that engines run as, so root uses the system's cache (file-hierarchy(7)).
pub fn cache_dir() -> PathBuf {
    if local::user::running_as_root() {
        return PathBuf::from("/var/cache/switchback");
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("switchback")
}

//! Finding the app's daemon, or starting one.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use local::chain;
use local::machine::Event;
use local::paths::StateDir;
use local::stopped::{Stopped, StoppedError};
use local::user::Identity;
use model::AppName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::de::DeserializeOwned;

use super::Place;
use super::say::{self, Problem};
use crate::api::client::{self, Call, CallError};
use crate::api::{Hello, Request};

/// From its start to the first answer. It reads its state and binds a socket before that; nothing slow.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// For a service manager to start a daemon again that has ended.
const RESTART_PATIENCE: Duration = Duration::from_secs(2);

/// A wait that is longer is explained.
const SILENT_WAIT: Duration = Duration::from_millis(500);

/// From SIGTERM to its end: it only stores what was said last.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// For a daemon.
struct Waiting {
    begun: Instant,
    is_said: bool,
}

impl Waiting {
    fn begin() -> Waiting {
        Waiting { begun: Instant::now(), is_said: false }
    }
}

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
    /// Asks the daemon. One that has just begun, or is about to be started again, is waited for.
    ///
    /// # Errors
    /// When there is none, or it fails.
    pub fn ask<T: DeserializeOwned>(
        &self,
        request: &Request,
        mut heard: impl FnMut(Event),
    ) -> Result<T, Problem> {
        let mut waiting = Waiting::begin();
        loop {
            let error = match client::call(&self.state.daemon_socket(), request, &mut heard) {
                Err(CallError::NoDaemon(error)) if error.kind() == ErrorKind::PermissionDenied => {
                    return self.ask_as_somebody_else(request);
                }
                Err(error @ CallError::NoDaemon(_)) => error,
                // It ended before it could answer. What changes something is not asked for twice.
                Err(error @ CallError::Lost(_)) if request.only_looks() => error,
                answered => return answered.map_err(|error| self.no_answer(error)),
            };
            self.wait_on(&mut waiting, error)?;
        }
    }

    /// The first half of [`App::ask`], of what changes something: when this returns, the daemon goes on with it whoever
    /// listens. `None`: `is_given_up` while there was no daemon yet.
    ///
    /// # Errors
    /// When there is none.
    pub fn send(&self, request: &Request, is_given_up: impl Fn() -> bool) -> Result<Option<Call>, Problem> {
        let mut waiting = Waiting::begin();
        while !is_given_up() {
            match client::send(&self.state.daemon_socket(), request) {
                Ok(call) => return Ok(Some(call)),
                Err(CallError::NoDaemon(error)) if error.kind() == ErrorKind::PermissionDenied => {
                    return Err(self.somebody_else());
                }
                Err(error @ CallError::NoDaemon(_)) => self.wait_on(&mut waiting, error)?,
                Err(error) => return Err(self.no_answer(error)),
            }
        }
        Ok(None)
    }

    /// What the daemon answers to what was sent.
    ///
    /// # Errors
    /// When it fails, or goes away.
    pub fn hear<T: DeserializeOwned>(&self, call: Call, heard: impl FnMut(Event)) -> Result<T, Problem> {
        call.finish(heard).map_err(|error| self.no_answer(error))
    }

    /// A moment, where a daemon may yet come.
    fn wait_on(&self, waiting: &mut Waiting, error: CallError) -> Result<(), Problem> {
        if waiting.begun.elapsed() >= self.patience() {
            return Err(self.no_answer(error));
        }
        if !waiting.is_said && waiting.begun.elapsed() >= SILENT_WAIT {
            waiting.is_said = true;
            say::talk(match self.state.is_held() {
                true => "waiting for the daemon, which is starting",
                false => "no daemon answers; waiting a moment for one that is started again",
            });
        }
        std::thread::sleep(Duration::from_millis(10));
        Ok(())
    }

    /// [`App::ask`] as things are: a daemon that does not answer now is not waited for.
    ///
    /// # Errors
    /// As [`App::ask`].
    pub fn ask_at_once<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Problem> {
        client::call(&self.state.daemon_socket(), request, |_| {}).map_err(|error| self.no_answer(error))
    }

    /// [`App::ask_at_once`] for work that says how far it is: a daemon that has said nothing for `silence` hangs.
    ///
    /// # Errors
    /// As [`App::ask`].
    pub fn ask_while_heard<T: DeserializeOwned>(
        &self,
        request: &Request,
        silence: Duration,
        heard: impl FnMut(Event),
    ) -> Result<T, Problem> {
        client::call_while_heard(&self.state.daemon_socket(), request, silence, heard)
            .map_err(|error| self.no_answer(error))
    }

    /// Asks the daemon, or looks into the state folder where none runs.
    ///
    /// # Errors
    /// When nothing was ever up here, the folder is somebody else's, or `look` fails.
    pub fn ask_or_look<T: DeserializeOwned>(
        &self,
        request: &Request,
        look: impl FnOnce(&Stopped) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let begun = Instant::now();
        loop {
            let error = match client::call(&self.state.daemon_socket(), request, |_| {}) {
                Err(CallError::NoDaemon(error)) => error,
                answered => return answered.map_err(|error| self.no_answer(error)),
            };
            if error.kind() == ErrorKind::PermissionDenied {
                return self.ask_as_somebody_else(request);
            }
            // One that begins answers soon, and one that ends lets go.
            let is_held = self.state.is_held();
            if !is_held && self.state.database().exists() {
                break;
            }
            if !is_held || begun.elapsed() >= START_TIMEOUT {
                return Err(self.no_answer(CallError::NoDaemon(error)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let stopped = Stopped::open(&self.state).map_err(|error| {
            let hint = match &error {
                StoppedError::State(error) => error.hint(),
                StoppedError::Store(_) => "`switchback up` starts a daemon, which puts it in order",
            };
            Problem::failed(chain(&error)).hint(hint)
        })?;
        look(&stopped)
    }

    /// How long a daemon that does not answer is waited for.
    fn patience(&self) -> Duration {
        if self.state.is_held() {
            START_TIMEOUT
        } else if self.was_left_up() {
            RESTART_PATIENCE
        } else {
            Duration::ZERO
        }
    }

    /// Whether the last daemon ended without bringing the app down.
    fn was_left_up(&self) -> bool {
        self.state.daemon_socket().exists()
    }

    /// Whether no daemon has the folder, and the last one brought the app down, or there was none.
    pub fn is_down(&self) -> bool {
        !self.was_left_up() && !self.state.is_held()
    }

    /// Where the daemon is root's, the owner of the app's folder may look.
    fn ask_as_somebody_else<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Problem> {
        if !request.only_looks() {
            return Err(self.somebody_else());
        }
        match client::call(&self.state.looking_socket(), request, |_| {}) {
            Err(CallError::NoDaemon(_)) => Err(self.somebody_else()),
            answered => answered.map_err(|error| self.no_answer(error)),
        }
    }

    /// That what is here is another user's.
    pub fn somebody_else(&self) -> Problem {
        let name = |user: u32| Identity::by_uid(user).map_or_else(|_| user.to_string(), |found| found.name);
        let theirs = self.state.daemon_user().map_or_else(|| "somebody else".to_owned(), name);
        let ours = name(rustix::process::geteuid().as_raw());
        let problem = if self.state.is_held() {
            Problem::refused(format!("the app is up, run by {theirs}; `{ours}` may not do this"))
        } else {
            Problem::failed(format!("the app is not up, and what is kept of it belongs to {theirs}"))
        };
        let sudo = if theirs == "root" { "sudo".to_owned() } else { format!("sudo -u {theirs}") };
        problem.hint(format!("as {theirs} it can be done: `{sudo} switchback ...`"))
    }

    fn no_answer(&self, error: CallError) -> Problem {
        match error {
            CallError::Lost(error) | CallError::NoDaemon(error) if error.kind() == ErrorKind::WouldBlock => {
                Problem::failed("the daemon does not answer").hint(
                    "what it runs goes on; where it hangs for good, end it with SIGKILL, and `switchback up` starts a new one",
                )
            }
            CallError::NoDaemon(_) if self.was_left_up() => Problem::failed(
                "no daemon runs here, and the app was not brought down",
            )
            .hint(
                "`switchback up --detach` starts one, which takes over what still runs and starts the rest",
            ),
            CallError::NoDaemon(_) => Problem::failed("the app is not up here")
                .hint("`switchback up` brings it up; -C names another folder"),
            CallError::Lost(error) => {
                Problem::failed(format!("the daemon went away: {error}")).hint(format!(
                    "what it runs goes on; `switchback up` starts a new one, and {} says what happened",
                    self.state.daemon_log().display()
                ))
            }
            CallError::Failed(failure) => failure.into(),
        }
    }

    pub fn hello(&self) -> Option<Hello> {
        client::call(&self.state.daemon_socket(), &Request::Hello, |_| {}).ok()
    }

    /// The daemon that runs, or a new one. `true`: it is new.
    ///
    /// # Errors
    /// When it does not start; what it said stands in the error.
    pub fn ensure_daemon(&self, app: &AppName, crash_at: Option<&str>) -> Result<(Hello, bool), Problem> {
        let options: Vec<&str> = crash_at.iter().flat_map(|at| ["--crash-at", at]).collect();
        let (hello, new) = self.find_or_start(app, &options, Stdio::null())?;
        Ok((hello, new.is_some()))
    }

    /// The same, but a new one takes down and deletes everything when the lifeline is dropped, or this process ends however
    /// it does. `None`: there was one already.
    ///
    /// # Errors
    /// As [`App::ensure_daemon`].
    pub fn ensure_bound_daemon(&self, app: &AppName) -> Result<(Hello, Option<Lifeline>), Problem> {
        let (hello, new) = self.find_or_start(app, &["--bound"], Stdio::piped())?;
        Ok((hello, new.and_then(|mut daemon| daemon.stdin.take()).map(|pipe| Lifeline { _pipe: pipe })))
    }

    /// The daemon that runs, or a new one, which is a child of ours then.
    fn find_or_start(
        &self,
        app: &AppName,
        options: &[&str],
        stdin: Stdio,
    ) -> Result<(Hello, Option<Child>), Problem> {
        if let Some(hello) = self.hello() {
            return Ok((hello, None));
        }
        self.must_be_ours()?;
        let state = StateDir::open(self.state.root())
            .map_err(|error| Problem::refused(error.to_string()).hint(error.hint()))?;
        let log_path = state.daemon_log();
        let log = OpenOptions::new().create(true).append(true).open(&log_path);
        let log = log.map_err(|error| Problem::failed(format!("{}: {error}", log_path.display())))?;
        let written_before = log.metadata().map(|metadata| metadata.len()).unwrap_or(0);
        let mut child = self.spawn_daemon(app, options, stdin, log)?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(hello) = self.hello() {
                let is_new = hello.pid == child.id();
                return Ok((hello, is_new.then_some(child)));
            }
            if let Ok(Some(status)) = child.try_wait()
                // Two `up` at once: the other one's daemon has the lock, and is waited for.
                && !self.state.is_held()
            {
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
        daemon.end(Signal::TERM)
    }

    /// Ends a daemon that does not answer, by SIGKILL. What it runs goes on.
    ///
    /// # Errors
    /// When it is not to be found, belongs to somebody else, or does not end.
    pub fn kill_daemon(&self) -> Result<(), Problem> {
        let socket = self.state.daemon_socket();
        let unknown = |error: std::io::Error| {
            Problem::failed(format!("the daemon does not answer, nor at {}: {error}", socket.display()))
        };
        let pid = client::listener(&socket).map_err(unknown)?;
        let Some(daemon) = Running::find(pid)? else { return Ok(()) };
        // Pinned only now: it may have ended before, and its number be another process's.
        match client::listener(&socket) {
            Ok(listener) if listener == pid => daemon.end(Signal::KILL),
            _ => Ok(()),
        }
    }

    /// For what changes something, before anything is changed.
    ///
    /// # Errors
    /// When what is here is another user's, and we are not root.
    pub fn must_be_ours(&self) -> Result<(), Problem> {
        let us = rustix::process::geteuid();
        match self.state.daemon_user() {
            Some(user) if !us.is_root() && user != us.as_raw() => Err(self.somebody_else()),
            _ => Ok(()),
        }
    }

    fn spawn_daemon(
        &self,
        app: &AppName,
        options: &[&str],
        stdin: Stdio,
        log: fs::File,
    ) -> Result<Child, Problem> {
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
            .args(options)
            .current_dir("/")
            .stdin(stdin)
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

/// What keeps a daemon up that is bound to this process.
pub struct Lifeline {
    _pipe: ChildStdin,
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

    fn end(&self, by: Signal) -> Result<(), Problem> {
        match pidfd_send_signal(&self.pidfd, by) {
            Err(Errno::SRCH) => Ok(()),
            sent => sent.map_err(|error| self.cannot_be_ended(error)).and_then(|()| self.wait()),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in its time.
    pub fn wait(&self) -> Result<(), Problem> {
        let limit = Timespec::try_from(END_TIMEOUT).map_err(|error| Problem::failed(error.to_string()))?;
        if self.has_ended(Some(&limit)).map_err(|error| self.cannot_be_ended(error))? {
            return Ok(());
        }
        let (pid, seconds) = (self.pid, END_TIMEOUT.as_secs());
        Err(Problem::failed(format!("the daemon (pid {pid}) does not end within {seconds} s"))
            .hint(format!("`kill -KILL {pid}` ends it; what it runs goes on")))
    }

    /// Waits for its end, however long that takes, or until it can no longer be waited for.
    pub fn outlast(&self) {
        while self.has_ended(None) == Err(Errno::INTR) {}
    }

    fn has_ended(&self, limit: Option<&Timespec>) -> Result<bool, Errno> {
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        Ok(poll(&mut ended, limit)? > 0)
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

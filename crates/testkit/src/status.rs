//! `status --json` as tests read it: what is promised to stay, and the rest as it came.

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;

use crate::folder;

#[derive(Debug, Clone)]
pub struct Status {
    pub app: String,
    pub stage: u8,
    /// Where clients connect.
    pub front: Vec<String>,
    pub daemon_pid: u32,
    pub processes: Vec<Process>,
    /// Everything that was said.
    pub raw: Value,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Process {
    pub name: String,
    /// `edge`, `pgproxy`, `web`, `postgres`.
    pub kind: String,
    pub zone: String,
    pub pid: Option<u32>,
    pub address: String,
    /// `ready`, `starting`, `crash_looping`, ...
    pub state: String,
    pub release: Option<String>,
    /// Of PostgreSQL, as it says itself.
    #[serde(default)]
    pub version: Option<String>,
    /// Of PostgreSQL: `primary`, `standby`, `read_replica`.
    #[serde(default)]
    pub role: Option<String>,
    /// Of a node that follows.
    #[serde(default)]
    pub streaming: Option<bool>,
    /// Of a node that runs and does not follow: why.
    #[serde(default)]
    pub not_following: Option<String>,
    /// Of a standby: whether commits count on it.
    #[serde(default)]
    pub confirms_commits: Option<bool>,
    /// Of a read replica: whether reads are sent to it.
    #[serde(default)]
    pub serves_reads: Option<bool>,
    #[serde(default)]
    pub replay_lag_ms: Option<u64>,
    #[serde(default)]
    pub restarts: u32,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub last_lines: Vec<String>,
}

#[derive(Deserialize)]
struct Wire {
    app: String,
    stage: u8,
    front: Vec<String>,
    daemon: Daemon,
    processes: Vec<Process>,
}

#[derive(Deserialize)]
struct Daemon {
    pid: u32,
}

impl Status {
    pub(crate) fn read(raw: Value) -> Result<Status, serde_json::Error> {
        let Wire { app, stage, front, daemon, processes } = serde_json::from_value(raw.clone())?;
        Ok(Status { app, stage, front, daemon_pid: daemon.pid, processes, raw })
    }

    pub fn of_kind(&self, kind: &str) -> Vec<&Process> {
        self.processes.iter().filter(|process| process.kind == kind).collect()
    }

    /// The instances of the app.
    pub fn web(&self) -> Vec<&Process> {
        self.of_kind("web")
    }

    /// # Panics
    /// When there is none of that name.
    pub fn process(&self, name: &str) -> &Process {
        let found = self.processes.iter().find(|process| process.name == name);
        found.unwrap_or_else(|| panic!("no process {name} in {:#}", self.raw))
    }

    /// The database's primary.
    ///
    /// # Panics
    /// When there is none.
    pub fn primary(&self) -> &Process {
        let found = self.processes.iter().find(|process| process.role.as_deref() == Some("primary"));
        found.unwrap_or_else(|| panic!("no primary in {:#}", self.raw))
    }

    pub fn standbys(&self) -> Vec<&Process> {
        self.processes.iter().filter(|process| process.role.as_deref() == Some("standby")).collect()
    }

    pub fn read_replicas(&self) -> Vec<&Process> {
        self.processes.iter().filter(|process| process.role.as_deref() == Some("read_replica")).collect()
    }

    /// Everything is ready, every standby follows and confirms commits, and every read replica gets reads.
    pub fn is_whole(&self) -> bool {
        let confirms = |node: &&Process| node.streaming == Some(true) && node.confirms_commits == Some(true);
        let serves = |node: &&Process| node.streaming == Some(true) && node.serves_reads == Some(true);
        self.all_ready() && self.standbys().iter().all(confirms) && self.read_replicas().iter().all(serves)
    }

    pub fn all_ready(&self) -> bool {
        self.processes.iter().all(|process| process.state == "ready")
    }
}

impl Process {
    /// # Panics
    /// When it has none.
    pub fn pid(&self) -> u32 {
        self.pid.unwrap_or_else(|| panic!("{} has no process: {self:#?}", self.name))
    }

    /// SIGKILL, as a crash would end it.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn crash(&self) {
        assert!(self.try_crash(), "{} was gone", self.name);
    }

    /// As [`Process::crash`], where it may have ended already: `false`.
    pub fn try_crash(&self) -> bool {
        folder::signal(self.pid(), Signal::KILL)
    }

    /// SIGSTOP: it is there, and does nothing.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn hang(&self) {
        assert!(folder::signal(self.pid(), Signal::STOP), "{} was gone", self.name);
    }

    /// SIGSTOP to it and to the processes it has started, as PostgreSQL starts one for each connection.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn hang_with_children(&self) {
        assert!(self.try_hang_with_children(), "{} was gone", self.name);
    }

    /// As [`Process::hang_with_children`], where it may have ended already: `false`.
    pub fn try_hang_with_children(&self) -> bool {
        let is_there = folder::signal(self.pid(), Signal::STOP);
        for child in folder::children_of(self.pid()) {
            folder::signal(child, Signal::STOP);
        }
        is_there
    }

    /// SIGCONT, after [`Process::hang_with_children`].
    pub fn go_on_with_children(&self) {
        for child in folder::children_of(self.pid()) {
            folder::signal(child, Signal::CONT);
        }
        self.go_on();
    }

    /// How many of its children are stopped by a signal.
    pub fn stopped_children(&self) -> usize {
        folder::children_of(self.pid()).into_iter().filter(|child| folder::is_stopped(*child)).count()
    }

    /// SIGCONT, after [`Process::hang`].
    pub fn go_on(&self) {
        folder::signal(self.pid(), Signal::CONT);
    }

    pub fn is_gone(&self) -> bool {
        folder::is_gone(self.pid())
    }
}

//! Processes: starting them, finding them again, watching them, ending them for certain.
//!
//! What is promised:
//!
//! - **Nothing is lost by the death of the daemon.** A child writes its own record (pid and start time) to
//!   the run folder before it becomes the program, so there is no moment at which it runs and cannot be
//!   found. [`Processes::find`] takes up what an earlier daemon started, and never mistakes a stranger with a
//!   reused pid for it: the start time and the boot must match.
//! - **What was stopped is gone, all of it.** [`Process::stop`] and [`Process::kill_group`] return when the
//!   whole process group is empty, and the control group too where there is one, which also holds those that
//!   left the process group.
//! - **Nothing leaks into a child**: no file descriptors, no environment, no signal mask or ignored signals.
//!
//! The daemon is deliberately not a child subreaper. It reaps its own children, each by its pidfd, and nobody
//! else's; orphans go to init. A subreaper would have to reap strangers by a global wait, which steals from
//! whoever waits for a particular child.

mod child;
mod error;
mod exit;
mod handle;
mod members;
mod program;
mod record;
mod shell;
mod spawn;
pub(crate) mod stat;
#[cfg(test)]
mod tests;
mod told;
mod wait;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use model::Size;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroups;
use crate::user::Identity;

pub use error::SpawnError;
pub use exit::Exit;
pub use handle::{Ended, FENCE_LIMIT, Limits, Process, StillAlive, StopReport};
pub use program::missing as missing_program;
pub use record::Record;

/// What to start. Everything the child will see stands here: nothing else reaches it.
#[derive(Debug)]
pub struct Spec {
    /// Names the record, the control group and the lines in logs: `web.3`, `db.1`. Lower-case letters,
    /// digits, `.`, `-`.
    pub name: String,
    pub command: Command,
    pub cwd: PathBuf,
    /// On top of [`BaseEnv`]; wins over it.
    pub env: BTreeMap<String, String>,
    /// `None`: as whom we run.
    pub user: Option<Identity>,
    pub size: Size,
    pub output: OutputFiles,
    pub priority: Priority,
    /// Each becomes this descriptor number in the child; the numbers are 3 or more, each named once.
    pub inherited_fds: Vec<(OwnedFd, i32)>,
    /// From -1000 (never killed when memory runs out) to 1000 (killed first); lowering needs root. `None`: as
    /// ours.
    pub oom_score_adj: Option<i32>,
    pub stop_signal: StopSignal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A line for `/bin/sh`. A plain command is exec'ed, so that signals reach the app itself.
    Shell(String),
    /// A program, searched for in `PATH` when it has no slash, and its arguments.
    Argv(Vec<OsString>),
}

/// Both are appended to, and made when missing; they may be one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFiles {
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    Normal,
    /// Yields CPU and disk to everything else, and is killed first when memory runs out.
    Build,
}

/// How a process is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopSignal {
    /// SIGTERM to the whole process group: what apps expect.
    TermGroup,
    /// SIGTERM to the leader only, which ends its own children.
    TermLeader,
    /// SIGINT to the leader only: PostgreSQL's fast shutdown. After the grace SIGQUIT, its immediate one: it ends its
    /// children itself and frees its shared memory.
    ///
    /// Its children are never signalled but by SIGKILL. To them SIGINT is a cancel request: a commit that waits for a
    /// standby would be acknowledged without one.
    IntLeader,
}

impl StopSignal {
    fn signal(self) -> Signal {
        match self {
            StopSignal::TermGroup | StopSignal::TermLeader => Signal::TERM,
            StopSignal::IntLeader => Signal::INT,
        }
    }

    /// What children are asked whose leader is gone, who have nobody else to tell them.
    fn orphans_signal(self) -> Option<Signal> {
        match self {
            StopSignal::TermGroup | StopSignal::TermLeader => Some(Signal::TERM),
            StopSignal::IntLeader => None,
        }
    }

    /// What a leader that did not end within its grace is asked before it is killed.
    fn last_signal(self) -> Option<Signal> {
        match self {
            StopSignal::TermGroup | StopSignal::TermLeader => None,
            StopSignal::IntLeader => Some(Signal::QUIT),
        }
    }
}

/// The few variables of the daemon's own environment that children get.
#[derive(Debug, Clone, Default)]
pub struct BaseEnv(BTreeMap<OsString, OsString>);

impl BaseEnv {
    const PASSED_ON: [&str; 7] = ["PATH", "HOME", "LANG", "USER", "LOGNAME", "TZ", "TMPDIR"];

    /// Picks what is passed on out of an environment, such as `std::env::vars_os()` read by the binary.
    pub fn pick(vars: impl IntoIterator<Item = (OsString, OsString)>) -> BaseEnv {
        let passed_on = |name: &OsString| BaseEnv::PASSED_ON.iter().any(|known| name == known);
        let mut env: BTreeMap<_, _> = vars.into_iter().filter(|(name, _)| passed_on(name)).collect();
        env.entry("PATH".into())
            .or_insert_with(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
        BaseEnv(env)
    }

    /// The whole environment of a child.
    fn with(&self, user: Option<&Identity>, own: &BTreeMap<String, String>) -> BTreeMap<OsString, OsString> {
        let mut env = self.0.clone();
        if let Some(user) = user {
            env.insert("HOME".into(), user.home.clone().into());
            env.insert("USER".into(), user.name.clone().into());
            env.insert("LOGNAME".into(), user.name.clone().into());
        }
        env.extend(own.iter().map(|(name, value)| (name.into(), value.into())));
        env
    }
}

/// Starts and finds the processes of one app.
#[derive(Debug, Clone)]
pub struct Processes {
    /// Holds the records, `NAME.pid`. Removed by a reboot or not: a record of an earlier boot is recognised.
    run_dir: PathBuf,
    cgroups: Cgroups,
    base_env: BaseEnv,
}

impl Processes {
    /// `run_dir` must exist.
    pub fn new(run_dir: impl Into<PathBuf>, cgroups: Cgroups, base_env: BaseEnv) -> Processes {
        Processes { run_dir: run_dir.into(), cgroups, base_env }
    }

    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// Takes up the process that `record` describes, if it still runs: pid, start time and boot must match,
    /// and match again once the pid is pinned by a pidfd. How it ends may then stay unknown: it is not our
    /// child.
    pub fn adopt(&self, record: &Record) -> Option<Process> {
        Process::adopt(record, &self.cgroups)
    }

    /// Takes up the process last started as `name`, if it still runs.
    pub fn find(&self, name: &str) -> Option<Process> {
        self.adopt(&self.record(name)?)
    }

    /// Every process of this run folder that still runs, by its name.
    pub fn find_all(&self) -> Vec<Process> {
        let records = record::read_all(&self.run_dir);
        records.iter().filter_map(|record| self.adopt(record)).collect()
    }

    /// What was last started as `name`, running or not.
    pub fn record(&self, name: &str) -> Option<Record> {
        Record::read(&record_path(&self.run_dir, name))
    }

    /// The fence for when nobody watched: kills whatever is left of `name`, also when its leader is gone and
    /// only children of it remain, and waits until nothing is.
    ///
    /// Cancel safe: what was killed stays killed.
    ///
    /// # Errors
    /// When something survived SIGKILL for [`FENCE_LIMIT`], as a process stuck in the kernel may.
    pub async fn clear(&self, name: &str) -> Result<(), StillAlive> {
        handle::clear(self.record(name), self.cgroups.adopt(name), name).await
    }

    /// Forgets `name`, which must not run: removes its record and its control group.
    pub fn forget(&self, name: &str) {
        // What is already gone needs no removing; a group in which something still runs refuses, and stays
        // findable.
        let _ = std::fs::remove_file(record_path(&self.run_dir, name));
        if let Some(group) = self.cgroups.adopt(name) {
            let _ = group.remove();
        }
    }
}

fn record_path(run_dir: &Path, name: &str) -> PathBuf {
    run_dir.join(format!("{name}.pid"))
}

//! A running process, and its end.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use super::members::Members;
use super::record::{Record, boot_id};
use super::stat::Stat;
use super::told::{self, Told};
use super::{Exit, StopSignal, wait};
use crate::cgroup::{Cgroups, Group};

/// SIGKILL takes effect at once, but for a process stuck in the kernel (a dead disk): then waiting helps
/// nobody.
pub const FENCE_LIMIT: Duration = Duration::from_secs(10);

/// From the last signal to SIGKILL. PostgreSQL gives its own children five seconds.
const LAST_GRACE: Duration = Duration::from_secs(10);

/// How long another parent may take to reap before we do without the status.
const REAPED_BY_OTHERS_LIMIT: Duration = Duration::from_millis(100);
const REAP_AGAIN: Duration = Duration::from_millis(1);

/// A process that we started, or took up. Clones are the same process.
#[derive(Debug, Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    record: Record,
    pidfd: OwnedFd,
    members: Members,
    limits: Limits,
    /// As the kernel has counted them when we began to know it.
    oom_kills_before: u64,
    /// Known once it was reaped.
    exit: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    exit: Option<Exit>,
    /// When the end was seen, of a process that somebody else has to reap.
    ended_at: Option<Instant>,
}

/// Whether the size of a process is enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limits {
    Enforced,
    /// Why not. The same for every process of the app as a rule, so say it once.
    Unlimited(String),
}

/// How stopping went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopReport {
    pub exit: Exit,
    pub ended: Ended,
    /// Children, without the leader, that still ran when the grace was over and were killed.
    pub leftover: usize,
    pub took: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everyone ended within the grace.
    InGrace,
    /// Everyone did when told a second time, to end at once.
    AtOnce,
    /// The leader did, but children of it had to be killed.
    ChildrenKilled,
    /// The leader itself had to be killed.
    LeaderKilled,
}

/// Someone survived SIGKILL for as long as was waited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct StillAlive {
    pub name: String,
    pub pids: Vec<u32>,
}

impl fmt::Display for StillAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
        write!(f, "{} does not die: still there after SIGKILL: pid {}", self.name, pids.join(", "))
    }
}

impl Process {
    pub(super) fn new(
        record: Record,
        pidfd: OwnedFd,
        group: Option<Group>,
        limits: Limits,
        oom_kills_before: u64,
    ) -> Process {
        let members = Members::of(Some(&record), group);
        let exit = Mutex::default();
        Process { inner: Arc::new(Inner { record, pidfd, members, limits, oom_kills_before, exit }) }
    }

    pub(super) fn adopt(record: &Record, cgroups: &Cgroups) -> Option<Process> {
        if record.boot_id != boot_id() {
            return None;
        }
        let runs = || {
            Stat::of(record.pid)
                .is_some_and(|s| s.start_time_ticks == record.start_time_ticks && !s.is_zombie())
        };
        if !runs() {
            return None;
        }
        let pidfd = pidfd_open(Pid::from_raw(i32::try_from(record.pid).ok()?)?, PidfdFlags::empty()).ok()?;
        // The number may have changed hands between the look and the pin.
        if !runs() {
            return None;
        }
        let group = cgroups.of_process(record.pid, &record.name);
        let limits = match (&group, cgroups.unavailable()) {
            (Some(_), _) => Limits::Enforced,
            (None, Some(why)) => Limits::Unlimited(why.to_string()),
            (None, None) => Limits::Unlimited("it was started without a control group".to_owned()),
        };
        let oom_kills = group.as_ref().and_then(Group::oom_kills).unwrap_or_default();
        Some(Process::new(record.clone(), pidfd, group, limits, oom_kills))
    }

    pub fn name(&self) -> &str {
        &self.inner.record.name
    }

    pub fn pid(&self) -> u32 {
        self.inner.record.pid
    }

    pub fn record(&self) -> &Record {
        &self.inner.record
    }

    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Its control group, to change limits and read usage.
    pub fn group(&self) -> Option<&Group> {
        self.inner.members.group()
    }

    /// How many of its processes the kernel has killed because memory ran out, since it was started or taken up. None
    /// that is known of without a control group.
    pub fn oom_kills(&self) -> u64 {
        let counted = self.group().and_then(Group::oom_kills).unwrap_or_default();
        counted.saturating_sub(self.inner.oom_kills_before)
    }

    /// How it ended, if it has. Reaps it, when it is our child.
    pub fn try_exited(&self) -> Option<Exit> {
        let mut known = self.inner.exit.lock().unwrap_or_else(PoisonError::into_inner);
        if known.exit.is_none() {
            known.exit = self.reap(&mut known.ended_at);
        }
        known.exit
    }

    /// Waits for the end of the leader and reaps it, so that no zombie keeps its number. Children may outlive
    /// it.
    ///
    /// Cancel safe, and may be awaited by several.
    pub async fn exited(&self) -> Exit {
        loop {
            wait::ended(self.inner.pidfd.as_fd()).await;
            if let Some(exit) = self.try_exited() {
                return exit;
            }
            // Not to be reaped yet: by its own parent first, or someone traces it with a debugger and must
            // let go.
            tokio::time::sleep(REAP_AGAIN).await;
        }
    }

    /// Whether its program is still where it was started from, or another in its place. Also said of who cannot be asked.
    pub fn has_its_program(&self) -> bool {
        let Ok(program) = std::fs::read_link(format!("/proc/{}/exe", self.pid())) else { return true };
        let program = program.as_os_str().as_bytes();
        // So the kernel marks one that was unlinked, whatever stands there now.
        let program = program.strip_suffix(b" (deleted)").unwrap_or(program);
        Path::new(OsStr::from_bytes(program)).exists()
    }

    /// A signal to the leader only.
    ///
    /// # Errors
    /// When it has ended, or belongs to someone we may not signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.inner.pidfd, signal)?)
    }

    /// A signal to the leader and all its descendants that can be seen.
    pub fn signal_all(&self, signal: Signal) {
        self.inner.members.signal(signal);
    }

    /// Asks it to end, and waits until nobody of it is there; after `grace`, kills. Without any grace it is not asked a
    /// second time.
    ///
    /// Not cancel safe in effect: dropped in between, it was asked to end but nobody makes sure.
    ///
    /// # Errors
    /// When someone survived SIGKILL for [`FENCE_LIMIT`].
    pub async fn stop(&self, grace: Duration) -> Result<StopReport, StillAlive> {
        self.stop_within(grace, FENCE_LIMIT).await
    }

    /// As [`Process::stop`], for a caller who does not wait for what SIGKILL does not end within `limit`.
    pub(crate) async fn stop_within(
        &self,
        grace: Duration,
        limit: Duration,
    ) -> Result<StopReport, StillAlive> {
        let begun = Instant::now();
        self.ask_to_end();
        let all_gone = async {
            self.exited().await;
            self.inner.members.gone().await;
        };
        let mut ended = Ended::InGrace;
        let mut leftover = 0;
        let mut all_gone = std::pin::pin!(all_gone);
        let mut gone = tokio::time::timeout(grace, &mut all_gone).await.is_ok();
        let may_still_hear = !gone && !grace.is_zero() && self.try_exited().is_none();
        if let Some(signal) = self.inner.record.stop_signal.last_signal().filter(|_| may_still_hear) {
            // Gone meanwhile is what is wanted.
            let _ = self.signal(signal);
            gone = tokio::time::timeout(LAST_GRACE, &mut all_gone).await.is_ok();
            if gone {
                ended = Ended::AtOnce;
            }
        }
        if !gone {
            let left = self.inner.members.list();
            leftover = left.iter().filter(|pid| **pid != self.pid()).count();
            ended = match self.try_exited() {
                None => Ended::LeaderKilled,
                Some(_) if leftover > 0 => Ended::ChildrenKilled,
                Some(_) => Ended::InGrace,
            };
            self.kill_group_within(limit).await?;
        }
        Ok(StopReport { exit: self.exited().await, ended, leftover, took: begun.elapsed() })
    }

    /// The fence: SIGKILL to the leader and all its descendants, again until nobody is there, and the leader
    /// reaped.
    ///
    /// Cancel safe: what was killed stays killed.
    ///
    /// # Errors
    /// When someone survived SIGKILL for [`FENCE_LIMIT`].
    pub async fn kill_group(&self) -> Result<(), StillAlive> {
        self.kill_group_within(FENCE_LIMIT).await
    }

    async fn kill_group_within(&self, limit: Duration) -> Result<(), StillAlive> {
        // By the pidfd too: without a control group a leader that left its own session would be missed.
        let _ = self.signal(Signal::KILL);
        let still_alive = |pids| StillAlive { name: self.name().to_owned(), pids };
        self.inner.members.kill(limit).await.map_err(still_alive)?;
        let reaped = tokio::time::timeout(limit, self.exited()).await;
        reaped.map(|_| ()).map_err(|_| still_alive(vec![self.pid()]))
    }

    /// Waits until neither the leader nor any descendant is there. Cancel safe.
    pub async fn group_empty(&self) {
        self.exited().await;
        self.inner.members.gone().await;
    }

    /// The leader and its descendants that are there now.
    pub fn pids(&self) -> Vec<u32> {
        self.inner.members.list()
    }

    fn ask_to_end(&self) {
        let stop = self.inner.record.stop_signal;
        let leader_runs = self.try_exited().is_none();
        if !leader_runs {
            if let Some(signal) = stop.orphans_signal() {
                self.inner.members.signal(signal);
            }
        } else if stop == StopSignal::TermGroup {
            // The leader is there, so the group's number is ours.
            if let Some(pgid) = Pid::from_raw(self.inner.record.pgid.cast_signed()) {
                let _ = rustix::process::kill_process_group(pgid, stop.signal());
            }
        } else {
            let _ = self.signal(stop.signal());
        }
        // Someone stopped would not hear it before he continues.
        self.inner.members.signal(Signal::CONT);
    }

    fn reap(&self, ended_at: &mut Option<Instant>) -> Option<Exit> {
        let pidfd = self.inner.pidfd.as_fd();
        match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(None) => None,
            Ok(Some(status)) => Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            }),
            Err(_) if !wait::has_ended(pidfd) => None,
            // Not our child, or reaped by someone else.
            Err(_) => match told::exit_of(&self.inner.record, pidfd) {
                Told::Exit(exit) => Some(exit),
                Told::Never => Some(Exit::Unknown),
                Told::NotYet => {
                    let ended_at = ended_at.get_or_insert_with(Instant::now);
                    (ended_at.elapsed() > REAPED_BY_OTHERS_LIMIT).then_some(Exit::Unknown)
                }
            },
        }
    }
}

/// See [`super::Processes::clear`].
pub(super) async fn clear(
    record: Option<Record>,
    group: Option<Group>,
    name: &str,
) -> Result<(), StillAlive> {
    // One after the other, because they may differ: a process started by a daemon that stood in another group
    // of its own has its group elsewhere.
    for members in [Members::of(record.as_ref(), None), Members::of(None, group)] {
        let still_alive = |pids| StillAlive { name: name.to_owned(), pids };
        members.kill(FENCE_LIMIT).await.map_err(still_alive)?;
    }
    Ok(())
}

//! Everyone who belongs to a process: its descendants, as far as the kernel lets us know them.
//!
//! With a control group that is everyone in it. Without, everyone in the session that the process was made
//! the leader of, which includes process groups made by shells below it; only who called `setsid` is out of
//! sight then.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::record::{Record, boot_id};
use super::stat::{self, Stat};
use super::wait;
use crate::cgroup::Group;

/// Most processes waited for in one round. More only cost more rounds.
const PINNED_AT_ONCE: usize = 256;

#[derive(Debug, Clone)]
pub(super) struct Members {
    session: Option<Session>,
    group: Option<Group>,
}

/// A session is named by its leader, who may be gone: its number is not given away while anyone is in it.
#[derive(Debug, Clone, Copy)]
struct Session {
    leader: u32,
    leader_start: u64,
}

impl Members {
    pub(super) fn of(record: Option<&Record>, group: Option<Group>) -> Members {
        let session = record
            .filter(|record| record.boot_id == boot_id())
            .map(|record| Session { leader: record.pid, leader_start: record.start_time_ticks });
        Members { session, group }
    }

    pub(super) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// Who is there now. Who has ended and waits to be reaped is not.
    pub(super) fn list(&self) -> Vec<u32> {
        if let Some(group) = &self.group
            && let Ok(procs) = group.procs()
        {
            return procs
                .into_iter()
                .filter(|pid| Stat::of(*pid).is_some_and(|stat| !stat.is_zombie()))
                .collect();
        }
        let Some(session) = self.session else { return Vec::new() };
        if session.number_was_reused() {
            return Vec::new();
        }
        stat::all().filter(|stat| session.holds(stat)).map(|stat| stat.pid).collect()
    }

    /// A signal to everyone, once.
    pub(super) fn signal(&self, signal: Signal) {
        let group_signalled = self.group.as_ref().is_some_and(|group| match signal {
            Signal::KILL => group.kill().is_ok(),
            _ => group.signal(signal).is_ok(),
        });
        if !group_signalled {
            for pidfd in self.pins() {
                // Gone meanwhile is what we want.
                let _ = pidfd_send_signal(&pidfd, signal);
            }
        }
    }

    /// Waits until nobody is there. Cancel safe.
    pub(super) async fn gone(&self) {
        loop {
            let pinned = self.pins();
            if pinned.is_empty() {
                return;
            }
            wait::all_ended(&pinned).await;
        }
    }

    /// SIGKILL to everyone, again until nobody is there. Cancel safe.
    pub(super) async fn kill(&self, limit: Duration) -> Result<(), Vec<u32>> {
        let killing = async {
            loop {
                self.signal(Signal::KILL);
                let pinned = self.pins();
                if pinned.is_empty() {
                    return;
                }
                // Who was born after the signal was sent is not hit by it: look again soon, and signal again.
                let _ = tokio::time::timeout(Duration::from_millis(20), wait::all_ended(&pinned)).await;
            }
        };
        match tokio::time::timeout(limit, killing).await {
            Ok(()) => Ok(()),
            Err(_) => match self.list() {
                left if left.is_empty() => Ok(()),
                left => Err(left),
            },
        }
    }

    /// Listed, pinned by a pidfd, and still one of us after that: so never a stranger with a reused number.
    fn pins(&self) -> Vec<OwnedFd> {
        let listed = self.list().into_iter().take(PINNED_AT_ONCE);
        let pinned: Vec<(u32, OwnedFd)> = listed
            .filter_map(|pid| {
                let typed = Pid::from_raw(i32::try_from(pid).ok()?)?;
                Some((pid, pidfd_open(typed, PidfdFlags::empty()).ok()?))
            })
            .collect();
        if pinned.is_empty() {
            return Vec::new();
        }
        let still = self.list();
        pinned.into_iter().filter(|(pid, _)| still.contains(pid)).map(|(_, pidfd)| pidfd).collect()
    }
}

impl Session {
    fn holds(self, stat: &Stat) -> bool {
        stat.session == self.leader && !stat.is_zombie() && stat.start_time_ticks >= self.leader_start
    }

    fn number_was_reused(self) -> bool {
        Stat::of(self.leader).is_some_and(|stat| stat.start_time_ticks != self.leader_start)
    }
}

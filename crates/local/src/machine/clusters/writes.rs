//! A primary whose disk takes nothing any more, while that of a standby does.
//!
//! Such a primary answers every look: what only reads needs no disk. Its commits wait without end. So each look asks how
//! much of the log that was written is on the disk. What an open transaction has written is not, for as long as nobody needs
//! it to be; and where nothing is written, the first to write may hang over a table already. So a few bytes are written that
//! PostgreSQL hands to the disk soon, and their way there is what counts. A primary that is stuck is killed, and what follows
//! is as after any crash, but for one thing: those of its processes that wait for the disk in the kernel are there until it
//! answers. See docs/decisions/017.
//!
//! Nodes on one disk are all as stuck as each other: then it is said, and nothing is done.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use model::{DatabaseNode, Lsn, NodeId, Topology};
use tokio::time::{Instant, timeout};

use super::guard::LOOK_LIMIT;
use crate::machine::{Machine, StepError};
use crate::postgres::{Follower, Log, Session, member_name};

/// Where nobody writes, this long after the log has last grown.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// With a log that has waited longer for the disk, the supervisor leaves that disk alone, too.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// A disk that has taken nothing for this long is stuck. One that is only busy takes something now and then.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// Of the disk of a primary's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskState {
    Works,
    /// What was written is not on it yet, for longer than one should wait for a disk.
    Stuck,
}

/// How the log of a primary reaches its disk.
#[derive(Default)]
pub(super) struct Writes {
    /// Where the disk lacks something of it: how much it has, and since when that has not grown.
    waiting: Option<(Lsn, Instant)>,
    /// Where that ends which was written to see it arrive, and since when it is on its way.
    asked: Option<(Lsn, Instant)>,
    /// How far it was written, and since when.
    written: Option<(Lsn, Instant)>,
    /// Whether it was said that the disk is stuck and nothing can be done.
    said: bool,
}

impl Writes {
    /// For how long the disk has taken nothing, though it was given something to take.
    fn look(&mut self, log: Log, now: Instant) -> Duration {
        if self.written.is_none_or(|(written, _)| written != log.written) {
            self.written = Some((log.written, now));
        }
        // Counted from the first look that sees it wait: how long ago the one before was says nothing of the disk.
        self.waiting = match self.waiting {
            _ if log.flushed >= log.written => None,
            Some((taken, since)) if taken == log.flushed => Some((taken, since)),
            _ => Some((log.flushed, now)),
        };
        self.asked = self.asked.filter(|(until, _)| log.flushed < *until);
        match (self.waiting, self.asked) {
            (Some((_, since)), Some((_, asked))) => now.saturating_duration_since(since.max(asked)),
            _ => Duration::ZERO,
        }
    }

    /// Whether the disk should be given something to take: it lacks what was written since an earlier look, which need not
    /// mean anything, or nothing was written for long.
    fn should_ask(&self, now: Instant) -> bool {
        let lacks = self.waiting.is_some_and(|(_, since)| since < now);
        self.asked.is_none() && (lacks || self.is_idle(now))
    }

    /// Whether nothing was written for so long that the disk should be tried.
    fn is_idle(&self, now: Instant) -> bool {
        let rests = |(_, since)| now.saturating_duration_since(since) >= PROBE_INTERVAL;
        self.written.is_some_and(rests)
    }
}

impl Machine {
    /// Ends a primary whose disk is stuck, when a standby with a disk that works takes over.
    pub(super) async fn mind_writes(
        &self,
        topology: &Topology,
        primary: &DatabaseNode,
        session: &Session,
        log: Option<Log>,
        followers: &[Follower],
    ) -> Result<DiskState, StepError> {
        let id = primary.id.resource();
        let Some(log) = log else { return Ok(DiskState::Works) };
        let now = Instant::now();
        let (waits, should_ask, said) = self.watched(id, |watch| {
            let waits = watch.writes.look(log, now);
            (waits, watch.writes.should_ask(now), watch.writes.said)
        });
        let successor = self.other_disks(topology, primary, log.flushed, followers);
        // Where nothing could be done about it, only when somebody may be waiting: a log that rests costs nothing to store.
        if should_ask && (successor.is_ok() || !session.is_at_rest().await?) {
            // Where there is no room for it in memory, the disk has what was written before to take.
            let until = match timeout(LOOK_LIMIT, session.write_to_log()).await {
                Ok(until) => until?,
                Err(_) => log.written,
            };
            self.watched(id, |watch| watch.writes.asked = Some((until, now)));
        }
        if waits < STUCK_AFTER {
            if said && waits.is_zero() {
                self.watched(id, |watch| watch.writes.said = false);
                self.remember(&primary.id.to_string(), "go on", "its disk takes writes again");
            }
            return Ok(if waits < SLOW_AFTER { DiskState::Works } else { DiskState::Stuck });
        }
        let evidence = format!("for {} s nothing of its log has reached its disk", waits.as_secs());
        match successor {
            Ok(()) => {
                self.watched(id, |watch| watch.writes = Writes::default());
                if let Some(job) = self.node_kept(&primary.id) {
                    job.waits_for_disk.store(true, Relaxed);
                }
                let evidence = format!("{evidence}, and that of its standbys works");
                self.kill_primary(&primary.id, "kill it: its disk does not answer", evidence);
            }
            Err(why) if !said => {
                self.watched(id, |watch| watch.writes.said = true);
                tracing::error!(node = %primary.id, evidence, why, "its disk does not answer; commits wait for it");
                self.remember(
                    &primary.id.to_string(),
                    "let it be, though its disk does not answer",
                    format!("{evidence}, and {why}"),
                );
            }
            Err(_) => {}
        }
        Ok(DiskState::Stuck)
    }

    /// Whether whoever takes over has a disk that works: every follower stands on another one than the primary, and has
    /// stored all that the primary has.
    ///
    /// # Errors
    /// Why not.
    fn other_disks(
        &self,
        topology: &Topology,
        primary: &DatabaseNode,
        flushed: Lsn,
        followers: &[Follower],
    ) -> Result<(), String> {
        let id = primary.id.resource();
        let recorded = topology.clusters.get(id).map(|cluster| &cluster.synchronous);
        let Some(recorded) = recorded.filter(|recorded| !recorded.is_empty()) else {
            return Err("no standby has every commit".to_owned());
        };
        let stored = |node: &NodeId| {
            let name = member_name(node);
            followers.iter().any(|one| one.name == name && one.streaming && one.flushed >= flushed)
        };
        if let Some(behind) = recorded.iter().find(|node| !stored(node)) {
            return Err(format!("{behind} has not stored all that it was sent"));
        }
        let disk = |node: &NodeId| disk_of(&self.inner.setup.state.node(node));
        let stands_on = disk(&primary.id);
        // The most advanced of all takes over, so each of them counts.
        match topology.followers_of(id).find(|node| disk(&node.id).is_none() || disk(&node.id) == stands_on) {
            Some(node) => Err(format!("{} stands on the same disk", node.id)),
            None => Ok(()),
        }
    }
}

/// `None` where it cannot be asked.
fn disk_of(folder: &Path) -> Option<u64> {
    std::fs::metadata(folder).ok().map(|folder| folder.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn log(written: u64, flushed: u64) -> Log {
        Log { written: Lsn(written), flushed: Lsn(flushed) }
    }

    #[test]
    fn a_disk_that_takes_something_now_and_then_is_not_stuck() {
        let (mut writes, began) = (Writes::default(), Instant::now());
        for second in 0..60_u32 {
            // Far behind all the time, and a little less so every three seconds.
            writes.asked.get_or_insert((Lsn(10_000), began));
            let log = log(10_000, u64::from(second / 3));
            let waits = writes.look(log, began + 1_000 * MS * second);
            assert!(waits < 3_000 * MS, "{waits:?}");
        }
    }

    #[test]
    fn a_disk_that_takes_nothing_is_known_by_how_long_the_log_waits_for_it() {
        let (mut writes, began) = (Writes::default(), Instant::now());
        assert_eq!(writes.look(log(100, 100), began), Duration::ZERO);
        assert_eq!(writes.look(log(100, 100), began + 250 * MS), Duration::ZERO);
        // What is written meanwhile does not begin the waiting anew.
        assert_eq!(writes.look(log(200, 100), began + 500 * MS), Duration::ZERO);
        writes.asked = Some((Lsn(300), began + 500 * MS));
        assert_eq!(writes.look(log(900, 100), began + 3_500 * MS), 3_000 * MS);
        assert_eq!(writes.look(log(900, 100), began + 6_500 * MS), 6_000 * MS);
        assert_eq!(writes.look(log(900, 900), began + 6_750 * MS), Duration::ZERO);
        assert_eq!(writes.look(log(901, 900), began + 9_000 * MS), Duration::ZERO);
    }

    /// PostgreSQL leaves it in memory until somebody commits, or for many seconds.
    #[test]
    fn what_an_open_transaction_has_written_waits_for_no_disk() {
        let (mut writes, began) = (Writes::default(), Instant::now());
        assert_eq!(writes.look(log(200, 100), began), Duration::ZERO);
        assert!(!writes.should_ask(began), "it may be on its way");
        assert_eq!(writes.look(log(200, 100), began + 60_000 * MS), Duration::ZERO);
        assert!(writes.should_ask(began + 60_000 * MS));
        writes.asked = Some((Lsn(256), began + 60_000 * MS));
        assert_eq!(writes.look(log(256, 256), began + 60_250 * MS), Duration::ZERO);
        assert_eq!(writes.look(log(300, 256), began + 90_000 * MS), Duration::ZERO);
    }

    #[test]
    fn a_log_that_rests_is_tried_and_one_that_grows_is_not() {
        let (mut writes, began) = (Writes::default(), Instant::now());
        writes.look(log(100, 100), began);
        assert!(!writes.is_idle(began + 1_000 * MS));
        assert!(writes.is_idle(began + 2_000 * MS));
        writes.look(log(200, 200), began + 2_000 * MS);
        assert!(!writes.is_idle(began + 3_000 * MS));
        assert!(writes.is_idle(began + 4_000 * MS));
    }
}

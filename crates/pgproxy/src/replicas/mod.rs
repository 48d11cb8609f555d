//! The read replicas of a database: which of them may answer a read.
//!
//! The primary's insert position is asked for again and again, and each replica how far it has replayed. A replica that
//! has replayed everything up to a position is *fresh as of* the time at which asking for that position began: whatever
//! was acknowledged before is there. So no client's request asks for a position, and one question serves all reads that
//! wait for it.
//!
//! What a replica has shown may be more than that. So each of several is asked behind each read how far it has replayed
//! (`session/shown.rs`), and none is read that is not known to have come as far as any has shown.
//!
//! ```text
//!  primary.rs: time, position  --latest-->  standby.rs, for each replica: fresh as of  --progress-->  reads that wait
//! ```

mod choose;
mod control;
mod primary;
mod standby;

use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use freshness::Mark;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Database, Node, Role};
use crate::lsn::Lsn;
use crate::pool::{Limits, Pool, Serves, Target};
use crate::shared::Served;
use crate::status::{NodeState, NodeStatus, Statements, by_kind};
pub(crate) use choose::{reader, reader_at_once};
pub(crate) use control::Control;
pub(crate) use primary::watch_primary;
pub(crate) use standby::watch_standby;

/// Those of a database, replaced as a whole.
pub(crate) type Replicas = Arc<[Arc<Replica>]>;

/// A node that serves reads, for as long as it is configured as that.
pub(crate) struct Replica {
    pub target: Target,
    pub zone: Option<String>,
    pub pool: Arc<Pool>,
    /// Sent there, by what they may do.
    pub statements: Statements,
    /// Requests that it could not answer, and the primary did.
    pub repaired: AtomicU64,
    /// What was proven last. 0: nothing.
    as_of: AtomicU64,
    /// What it has replayed, and perhaps more. 0: nothing is known.
    replayed: AtomicU64,
    proof: Mutex<Proof>,
    /// That of the proof, for whoever begins to ask. Raised only when nothing is proven any more.
    life: AtomicU64,
    /// How long it took to come to a position, of the last that it came to or still lacks. In microseconds.
    late: AtomicU64,
    /// How much there was to be replayed when it was last asked.
    lag_bytes: AtomicU64,
    is_reachable: AtomicBool,
    /// Cancelled when it is no longer configured.
    pub gone: CancellationToken,
}

/// Everything that was written before a time stands before `lsn`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Of the primary that said so.
    pub epoch: u64,
    pub as_of: Mark,
    pub lsn: Lsn,
}

/// What a read must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needed {
    /// Everything as of a later time than this.
    pub since: Mark,
    /// Everything in the log up to here.
    pub shown: Lsn,
}

/// From when a replica is found to when it is lost: how often it was.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life(u64);

#[derive(Default)]
struct Proof {
    position: Position,
    life: Life,
}

/// What those who ask for positions, and those who need them, tell each other.
pub(crate) struct Positions {
    /// Somebody needs a newer one.
    wanted: Notify,
    latest: watch::Sender<Option<Position>>,
    /// A replica has become fresher.
    progress: watch::Sender<()>,
    /// How often it was asked that the primary moves on, so that what a replica has replayed is told from what it had from
    /// another primary.
    pushes: AtomicU64,
    /// Reads that wait.
    waiting: AtomicU64,
}

impl Default for Positions {
    fn default() -> Positions {
        Positions {
            wanted: Notify::new(),
            latest: watch::Sender::new(None),
            progress: watch::Sender::new(()),
            pushes: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        }
    }
}

impl Replica {
    pub fn new(target: Target, node: &Node, limits: Limits) -> Arc<Replica> {
        let pool = Pool::new(limits);
        pool.retarget(Some(target.clone()), limits);
        Arc::new(Replica {
            target,
            zone: node.zone.clone(),
            pool,
            statements: Statements::default(),
            repaired: AtomicU64::new(0),
            as_of: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            proof: Mutex::default(),
            life: AtomicU64::new(0),
            late: AtomicU64::new(0),
            lag_bytes: AtomicU64::new(0),
            is_reachable: AtomicBool::new(false),
            gone: CancellationToken::new(),
        })
    }

    /// The time as of which it is fresh.
    pub fn as_of(&self) -> Mark {
        Mark::from_micros(self.as_of.load(Acquire))
    }

    /// Whether what is needed is known to be there.
    fn has(&self, needed: Needed) -> bool {
        self.as_of() > needed.since && self.replayed.load(Acquire) >= needed.shown.0
    }

    pub fn lag_bytes(&self) -> u64 {
        self.lag_bytes.load(Relaxed)
    }

    /// Whether there is no sense in waiting so long for it to have what is new.
    fn is_later_than(&self, limit: Duration) -> bool {
        Duration::from_micros(self.late.load(Relaxed)) > limit
    }

    pub fn is_reachable(&self) -> bool {
        self.is_reachable.load(Relaxed)
    }

    /// Its connections were lost, or cannot be made. Until somebody has talked to it nothing is known of it: a standby
    /// that starts again may begin behind where it was.
    pub fn lost(&self) {
        let mut proof = self.proof();
        *proof = Proof { position: Position::default(), life: Life(proof.life.0 + 1) };
        self.is_reachable.store(false, Relaxed);
        self.as_of.store(0, Release);
        self.replayed.store(0, Release);
        // Last: whoever is given this life finds nothing that was proven in the one before.
        self.life.store(proof.life.0, Release);
    }

    /// What is asked of it from now on says something about it until it is lost.
    pub fn life(&self) -> Life {
        Life(self.life.load(Acquire))
    }

    /// It has replayed everything before `position`, and said so in this life.
    fn proven(&self, position: Position, life: Life) {
        let mut proof = self.proof();
        if proof.life == life {
            proof.position = position;
            self.is_reachable.store(true, Relaxed);
            self.as_of.store(position.as_of.as_micros(), Release);
        }
    }

    /// It said so in this life. Whether that is news.
    pub fn has_replayed(&self, lsn: Lsn, life: Life) -> bool {
        let proof = self.proof();
        proof.life == life && self.replayed.fetch_max(lsn.0, AcqRel) < lsn.0
    }

    /// Whether a connection on which it said how far it had replayed leads to what was proven of it: to the same standby,
    /// or to one that has come as far again.
    fn is_proven_at(&self, replayed: Lsn) -> bool {
        let proven = self.proof().position.lsn;
        proven != Lsn::default() && replayed >= proven
    }

    pub fn status(&self, now: Mark, config: &Database) -> NodeStatus {
        let census = self.pool.census();
        let as_of = Some(self.as_of()).filter(|as_of| *as_of > Mark::default());
        let fresh_age_ms = as_of.map(|as_of| now.as_micros().saturating_sub(as_of.as_micros()) / 1_000);
        let is_within = |bound: Option<u64>| bound.is_none_or(|bound| self.lag_bytes() <= bound);
        let state = match fresh_age_ms {
            _ if !self.is_reachable() => NodeState::Unreachable,
            Some(age) if age <= config.max_replica_lag_ms && is_within(config.max_replica_lag_bytes) => {
                NodeState::Serving
            }
            _ => NodeState::Lagging,
        };
        NodeStatus {
            role: Role::ReadReplica,
            state,
            servers: census.open as u64,
            servers_idle: census.idle as u64,
            statements_total: by_kind(&self.statements),
            repaired_total: self.repaired.load(Relaxed),
            fresh_age_ms,
            lag_bytes: self.is_reachable().then(|| self.lag_bytes()),
        }
    }

    fn proof(&self) -> MutexGuard<'_, Proof> {
        self.proof.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Positions {
    /// Somebody has come who may read.
    pub fn wake(&self) {
        self.wanted.notify_one();
    }

    /// Whether a replica has what is needed when it has come to the position that was asked for last.
    fn would_do(&self, needed: Needed) -> bool {
        self.latest.borrow().is_some_and(|latest| latest.as_of > needed.since && latest.lsn >= needed.shown)
    }

    fn push(&self) {
        self.pushes.fetch_add(1, AcqRel);
        self.wanted.notify_one();
    }
}

/// The read replicas that `served` names. Those that were there already stay as they are.
pub(crate) fn configured(served: &Served, before: &Replicas) -> Replicas {
    let limits = served.limits();
    let replica = |(name, node): (&String, &Node)| {
        let target = Target {
            node: name.clone(),
            serves: Serves::Reads,
            upstream: node.upstream.clone(),
            epoch: 0,
            login: served.login,
        };
        let same = before.iter().find(|there| there.target == target && there.zone == node.zone);
        if let Some(same) = same {
            same.pool.retarget(Some(target), limits);
            return same.clone();
        }
        Replica::new(target, node, limits)
    };
    served.config.read_replicas().map(replica).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Upstream;

    fn at(n: u64) -> Position {
        Position { epoch: 1, as_of: Mark::from_micros(n), lsn: Lsn(n) }
    }

    fn needed(since: u64, shown: u64) -> Needed {
        Needed { since: Mark::from_micros(since), shown: Lsn(shown) }
    }

    fn replica() -> Arc<Replica> {
        let upstream = Upstream::Unix("/nowhere".into());
        let node = Node { upstream: upstream.clone(), zone: None, role: Role::ReadReplica };
        let target = Target { node: "db.2".to_owned(), serves: Serves::Reads, upstream, epoch: 0, login: 1 };
        let limits =
            Limits { size: 1, queue: 0, idle_timeout: Duration::MAX, server_lifetime: Duration::MAX };
        Replica::new(target, &node, limits)
    }

    #[test]
    fn a_read_goes_where_everything_up_to_a_time_is_and_everything_that_was_shown() {
        let replica = replica();
        assert!(!replica.has(needed(0, 0)), "nothing is known of it");
        replica.proven(at(100), replica.life());
        assert!(replica.has(needed(99, 0)) && !replica.has(needed(100, 0)));
        assert!(!replica.has(needed(99, 80)));
        assert!(replica.has_replayed(Lsn(80), replica.life()));
        assert!(!replica.has_replayed(Lsn(70), replica.life()), "it never goes back");
        assert!(replica.has(needed(99, 80)) && !replica.has(needed(99, 81)));
    }

    /// It may be another process by then, which begins behind.
    #[test]
    fn what_a_replica_told_before_it_was_lost_proves_nothing() {
        let replica = replica();
        let before = replica.life();
        replica.proven(at(100), before);
        replica.has_replayed(Lsn(100), before);
        replica.lost();
        assert!(!replica.has(needed(0, 0)));
        replica.proven(at(110), before);
        assert!(!replica.has_replayed(Lsn(110), before));
        assert!(!replica.has(needed(0, 0)));
        replica.proven(at(120), replica.life());
        assert!(replica.has(needed(119, 0)) && !replica.has(needed(119, 110)));
    }
}

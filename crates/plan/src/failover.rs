//! Who confirms commits, and who takes over when a primary is lost: decided on observations, without asking anybody.
//!
//! One thing must always hold: *the most advanced of the recorded standbys has every acknowledged commit*. The record is
//! [`ClusterState::synchronous`]; what PostgreSQL is told (`synchronous_standby_names`) is the configuration. They change
//! one after the other, and which one first depends on the direction:
//!
//! - a standby that may confirm is recorded before it is configured, unless nobody is recorded;
//! - where nobody is recorded, a standby is recorded once that is proved to be in force and it has all that was written by
//!   then;
//! - one that leaves is configured away first, and struck from the record once that is proved to be in force and another
//!   has all that was written by then;
//! - to go on alone, the record is emptied first.
//!
//! PostgreSQL may take any time to go by a new configuration, so time proves nothing here.
//!
//! A simulation in the tests holds this against random losses, returns and crashes.

use std::collections::{BTreeMap, BTreeSet};

use model::{ClusterState, Lsn, NodeId, WithoutStandby};

/// A standby that is away for less than this counts as there: a reconnect must not change who confirms.
pub const AWAY_MS: u64 = 2_000;

/// A standby as its primary sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standby {
    /// Gets the log as it is written.
    pub streaming: bool,
    /// PostgreSQL counts it among those that confirm.
    pub confirming: bool,
    pub flushed: Lsn,
}

/// What is seen of a cluster at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    pub now_ms: u64,
    /// Whom commits were proved to wait for, before `written` was read: nobody is acknowledged any more who counted on less,
    /// and nobody else's confirmation counts. `None` where that was not proved.
    pub in_force: Option<BTreeSet<NodeId>>,
    /// What the primary has written.
    pub written: Lsn,
    /// The nodes that are meant to confirm, by what is seen of them. One that is not connected is here all the same.
    pub standbys: BTreeMap<NodeId, Standby>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirm {
    /// Write down that these hold every acknowledged commit between them.
    Record(BTreeSet<NodeId>),
    /// Tell PostgreSQL to wait for one of these.
    Configure(BTreeSet<NodeId>),
}

/// Who should confirm commits, followed over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quorum {
    configured: BTreeSet<NodeId>,
    /// What was written when the configuration was surely in force.
    in_force_at: Option<Lsn>,
    /// When each was last seen streaming.
    seen_ms: BTreeMap<NodeId, u64>,
}

impl Quorum {
    /// For a primary that is configured to wait for one of these.
    pub fn configured(by: BTreeSet<NodeId>) -> Quorum {
        Quorum { configured: by, ..Quorum::default() }
    }

    /// The primary was started anew, and has to prove once more that it goes by what it is configured.
    pub fn starts_anew(&mut self) {
        self.in_force_at = None;
    }

    /// The next thing to do, which the caller has done when it asks again; `None` when nothing is to be done now.
    pub fn next(&mut self, cluster: &ClusterState, observed: &Observed) -> Option<Confirm> {
        let recorded = &cluster.synchronous;
        let wanted = self.wanted(cluster, observed);
        if wanted.is_empty() {
            if !recorded.is_empty() {
                return Some(Confirm::Record(wanted));
            }
            return self.configure(wanted);
        }
        if !recorded.is_empty() && !wanted.is_subset(recorded) {
            return Some(Confirm::Record(recorded.union(&wanted).cloned().collect()));
        }
        if let Some(change) = self.configure(wanted.clone()) {
            return Some(change);
        }
        if *recorded == wanted {
            return None;
        }
        if self.in_force_at.is_none() && observed.in_force.as_ref() == Some(&self.configured) {
            self.in_force_at = Some(observed.written);
        }
        let mark = self.in_force_at?;
        // One with all that was written before is enough: what came later was confirmed by one of them.
        let has_all =
            |id: &NodeId| observed.standbys.get(id).is_some_and(|s| s.confirming && s.flushed >= mark);
        wanted.iter().any(has_all).then_some(Confirm::Record(wanted))
    }

    fn configure(&mut self, wanted: BTreeSet<NodeId>) -> Option<Confirm> {
        if self.configured == wanted {
            return None;
        }
        self.in_force_at = None;
        self.configured.clone_from(&wanted);
        Some(Confirm::Configure(wanted))
    }

    fn wanted(&mut self, cluster: &ClusterState, observed: &Observed) -> BTreeSet<NodeId> {
        for (id, standby) in &observed.standbys {
            if standby.streaming {
                self.seen_ms.insert(id.clone(), observed.now_ms);
            }
        }
        self.seen_ms.retain(|id, _| observed.standbys.contains_key(id));
        let there = |id: &&NodeId| {
            let counted = self.configured.contains(*id);
            match (observed.standbys.get(*id), self.seen_ms.get(*id)) {
                (Some(standby), _) if standby.streaming => true,
                (Some(_), Some(seen)) => counted && observed.now_ms.saturating_sub(*seen) < AWAY_MS,
                _ => false,
            }
        };
        let there: BTreeSet<NodeId> = observed.standbys.keys().filter(there).cloned().collect();
        let alone = there.is_empty() && !observed.standbys.is_empty();
        if alone && cluster.without_standby == WithoutStandby::Block {
            // Commits wait for whoever comes back. After a failover nobody was asked to confirm yet.
            return self
                .configured
                .iter()
                .filter(|id| observed.standbys.contains_key(*id))
                .cloned()
                .collect();
        }
        there
    }
}

/// What to do about a primary that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failover {
    Promote(NodeId),
    /// Nobody else is known to have everything: start it again where it was.
    Restart {
        because: String,
    },
}

/// What a follower that can be reached says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// It has the log up to here, of this timeline. Each primary begins one, with a higher number than those before it.
    pub received: Lsn,
    pub timeline: u32,
    /// Its readers have seen what was done up to here.
    pub replayed: Lsn,
    /// It has not replayed anything for long: it may take as long to be promoted.
    pub is_far_behind: bool,
}

/// Decides on what each follower that can be reached has. The one that has received most is promoted, whatever its role:
/// then nobody is ahead of the new primary, and nothing that a reader has seen is taken back. One that is far behind in
/// replaying is passed over where another has everything that was acknowledged or seen.
///
/// One that missed an earlier change of primary may have received more than anybody, of a log that ended there. So only
/// those count that have received of the timeline of the lost primary: the highest among the recorded, each of which was
/// seen to follow it.
pub fn choose(cluster: &ClusterState, reached: &BTreeMap<NodeId, Reached>) -> Failover {
    let restart = |because: String| Failover::Restart { because };
    if cluster.synchronous.is_empty() {
        return restart("no standby is known to have every commit".to_owned());
    }
    if let Some(missing) = cluster.synchronous.iter().find(|id| !reached.contains_key(*id)) {
        return restart(format!("{missing}, which may have commits that the others lack, cannot be reached"));
    }
    let most = |(id, one): &(&NodeId, &Reached)| {
        (one.received, !cluster.read_replicas.contains(*id), std::cmp::Reverse((*id).clone()))
    };
    let timeline = cluster.synchronous.iter().filter_map(|id| reached.get(id)).map(|one| one.timeline).max();
    let followers =
        || reached.iter().filter(|(id, one)| **id != cluster.primary && Some(one.timeline) == timeline);
    // One of the recorded has every acknowledged commit.
    let acknowledged =
        followers().filter(|(id, _)| cluster.synchronous.contains(*id)).map(|(_, one)| one.received);
    let needed = acknowledged.chain(followers().map(|(_, one)| one.replayed)).max().unwrap_or_default();
    let soon = followers().filter(|(_, one)| !one.is_far_behind && one.received >= needed).max_by_key(most);
    match soon.or_else(|| followers().max_by_key(most)) {
        Some((id, _)) => Failover::Promote(id.clone()),
        None => restart("nobody follows it".to_owned()),
    }
}

#[cfg(test)]
mod tests;

//! Who confirms commits, and who takes over when a primary is lost: decided on observations, without asking anybody.
//!
//! One thing must always hold: *the most advanced of the recorded standbys has every acknowledged commit*. The record is
//! [`ClusterState::synchronous`]; what PostgreSQL is told (`synchronous_standby_names`) is the configuration. They change
//! one after the other, and which one first depends on the direction:
//!
//! - a standby that may confirm is recorded before it is configured, unless nobody is recorded;
//! - where nobody is recorded, a standby is recorded once it is configured and has all that was written by then;
//! - one that leaves is configured away first, and struck from the record once another has all that was written by then;
//! - to go on alone, the record is emptied first.
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
    /// What was written when PostgreSQL first said that the configuration is in force.
    in_force_at: Option<Lsn>,
    /// When each was last seen streaming.
    seen_ms: BTreeMap<NodeId, u64>,
}

impl Quorum {
    /// For a primary that is configured to wait for one of these.
    pub fn configured(by: BTreeSet<NodeId>) -> Quorum {
        Quorum { configured: by, ..Quorum::default() }
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
        let confirming = |id: &&NodeId| observed.standbys.get(*id).is_some_and(|standby| standby.confirming);
        let first = wanted.iter().find(confirming)?;
        let mark = *self.in_force_at.get_or_insert(observed.written);
        // One with all that was written before is enough: what came later was confirmed by one of them.
        let has_all =
            |id: &NodeId| observed.standbys.get(id).is_some_and(|s| s.confirming && s.flushed >= mark);
        let proved = has_all(first) || wanted.iter().any(has_all);
        proved.then_some(Confirm::Record(wanted))
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

/// Decides on what each follower that can be reached has received. The one that has most is promoted, whatever its role:
/// then nobody is ahead of the new primary, and nothing that a reader has seen is taken back.
pub fn choose(cluster: &ClusterState, received: &BTreeMap<NodeId, Lsn>) -> Failover {
    let restart = |because: String| Failover::Restart { because };
    if cluster.synchronous.is_empty() {
        return restart("no standby is known to have every commit".to_owned());
    }
    if let Some(missing) = cluster.synchronous.iter().find(|id| !received.contains_key(*id)) {
        return restart(format!("{missing}, which may have commits that the others lack, cannot be reached"));
    }
    let most = |(id, lsn): &(&NodeId, &Lsn)| {
        (**lsn, !cluster.read_replicas.contains(*id), std::cmp::Reverse((*id).clone()))
    };
    match received.iter().filter(|(id, _)| **id != cluster.primary).max_by_key(most) {
        Some((id, _)) => Failover::Promote(id.clone()),
        None => restart("nobody follows it".to_owned()),
    }
}

#[cfg(test)]
mod tests;

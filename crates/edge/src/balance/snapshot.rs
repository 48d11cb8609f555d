//! The endpoints of one configuration, in the form that a pick reads.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::Endpoint;
use super::choose::{Candidate, least_loaded_of_two, prefer_local};
use super::clock::Tick;
use super::endpoint::Mark;
use crate::config;

/// Replaced as a whole by each configuration.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) config: Arc<config::Upstream>,
    pub(super) slots: Box<[Slot]>,
    pub(super) slow_start: Duration,
    pub(super) window: Duration,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) weight: u32,
    pub(super) locality: Locality,
}

/// Where an endpoint stands, seen from this edge. Without zones everything is local.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locality {
    Local,
    Remote,
}

/// How good an endpoint is now; only the best kind that is present is used, even if it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Ejected, or failing its checks while it can be connected to: better than a certain error.
    LastResort,
    /// Serves, but shall end.
    Draining,
    Ready,
}

/// Whether the verdict of the active checks counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Checks,
    /// More than half fail: rather the checks are wrong, or everything is overloaded, than that all are broken.
    /// Leaving out the failing ones would put their load on the rest.
    Nothing,
}

/// What one pick found.
pub(super) enum Choice {
    Take(usize, Standing),
    Full,
    Nobody,
}

impl Slot {
    /// `None`: not to be tried at all.
    pub(super) fn standing(&self, now: Tick, trust: Trust) -> Option<Standing> {
        let endpoint = &*self.endpoint;
        let marks = endpoint.marks();
        if marks.has(Mark::Removed) || marks.has(Mark::Closed) || endpoint.is_unreachable(now) {
            return None;
        }
        let failing = marks.has(Mark::Unhealthy) && trust == Trust::Checks;
        if failing || endpoint.is_ejected(now) {
            return Some(Standing::LastResort);
        }
        if marks.has(Mark::Draining) {
            return Some(Standing::Draining);
        }
        Some(Standing::Ready)
    }

    /// Ready by its own merit, whatever the others are.
    pub(super) fn is_ready(&self, now: Tick) -> bool {
        self.standing(now, Trust::Checks) == Some(Standing::Ready)
    }
}

impl Snapshot {
    /// One pass over the endpoints, then two draws.
    pub(super) fn choose(&self, now: Tick, tried: &[Arc<Endpoint>], trust: Trust) -> Choice {
        let mut local: SmallVec<[Candidate; 16]> = SmallVec::new();
        let mut remote: SmallVec<[Candidate; 16]> = SmallVec::new();
        let mut best = None;
        for (index, slot) in self.slots.iter().enumerate() {
            if tried.iter().any(|tried| Arc::ptr_eq(tried, &slot.endpoint)) {
                continue;
            }
            let standing = slot.standing(now, trust);
            if standing.is_none() || standing < best {
                continue;
            }
            if standing > best {
                best = standing;
                local.clear();
                remote.clear();
            }
            let busy = slot.endpoint.busy();
            if busy >= self.config.max_in_flight {
                continue;
            }
            let candidate = Candidate {
                slot: index,
                busy,
                weight: slot.endpoint.weight(slot.weight, now, self.slow_start),
            };
            match slot.locality {
                Locality::Local => local.push(candidate),
                Locality::Remote => remote.push(candidate),
            }
        }
        let Some(standing) = best else {
            return Choice::Nobody;
        };
        match prefer_local(least_loaded_of_two(&local), least_loaded_of_two(&remote)) {
            Some(chosen) => Choice::Take(chosen.slot, standing),
            None => Choice::Full,
        }
    }
}

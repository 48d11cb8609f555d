//! Who is fit: what checks and traffic tell becomes health, ejections and slow starts.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::clock::Tick;
use super::endpoint::Mark;
use super::outlier::{Sign, Tally};
use super::snapshot::{Slot, Snapshot};
use super::{Cluster, Endpoint, Outcome};

/// How long a failed connect keeps an endpoint from being tried, unless a check succeeds earlier.
const UNREACHABLE: Duration = Duration::from_secs(1);

/// Why an active check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckFailure {
    /// Nobody listens.
    Unreachable,
    /// Somebody does, but did not answer well or in time.
    Failing,
}

impl Cluster {
    /// An active check of `endpoint` went well.
    pub(crate) fn check_passed(&self, endpoint: &Endpoint, now: Instant) {
        let now = self.clock.at(now);
        let snapshot = self.snapshot.load();
        endpoint.checks.failed.store(0, Ordering::Relaxed);
        let in_a_row = endpoint.checks.passed.fetch_add(1, Ordering::Relaxed) + 1;
        let was_unreachable = endpoint.is_unreachable(now);
        endpoint.unreachable_until(Tick::NEVER);
        let recovered =
            in_a_row >= snapshot.config.health.healthy_threshold && endpoint.unmark(Mark::Unhealthy);
        if !recovered && !was_unreachable {
            return;
        }
        self.judge_checks(&snapshot);
        if snapshot.others_ready(endpoint, now) {
            endpoint.ramp_from(now);
        }
        self.queue.wake_all();
    }

    /// An active check of `endpoint` failed.
    pub(crate) fn check_failed(&self, endpoint: &Endpoint, failure: CheckFailure, now: Instant) {
        let now = self.clock.at(now);
        let snapshot = self.snapshot.load();
        let health = &snapshot.config.health;
        endpoint.checks.passed.store(0, Ordering::Relaxed);
        let in_a_row = endpoint.checks.failed.fetch_add(1, Ordering::Relaxed) + 1;
        match failure {
            // Until the next check is over.
            CheckFailure::Unreachable => {
                let next = Duration::from_millis(health.interval_ms + health.timeout_ms);
                endpoint.unreachable_until(now.after(next + UNREACHABLE));
            }
            // Somebody accepted: it may be the last resort again.
            CheckFailure::Failing => endpoint.unreachable_until(Tick::NEVER),
        }
        if in_a_row >= health.unhealthy_threshold && endpoint.mark(Mark::Unhealthy) {
            self.judge_checks(&snapshot);
            endpoint.went_down();
        }
    }

    /// What a request that ended tells of its endpoint.
    pub(super) fn learn(&self, endpoint: &Endpoint, outcome: Outcome, sign: Sign, now: Tick) {
        let snapshot = self.snapshot.load();
        endpoint.evidence.record(sign, now, snapshot.window);
        if sign == Sign::Success {
            let base = Duration::from_millis(snapshot.config.outlier.base_ejection_ms);
            endpoint.decay_ejections(now, base);
            return;
        }
        if outcome == Outcome::ConnectFailed {
            endpoint.unreachable_until(now.after(UNREACHABLE));
        }
        if snapshot.is_outlier(endpoint, now) {
            self.eject(endpoint, now);
        }
    }

    /// Whether another endpoint is ready.
    pub(crate) fn has_another_ready(&self, endpoint: &Endpoint, now: Instant) -> bool {
        self.snapshot.load().others_ready(endpoint, self.clock.at(now))
    }

    fn eject(&self, endpoint: &Endpoint, now: Tick) {
        // One at a time, or two threads could each see room for one more.
        let _changing = self.lock();
        let snapshot = self.snapshot.load();
        let known = snapshot.holds(endpoint) && !endpoint.is_ejected(now);
        let drains = endpoint.marks().has(Mark::Draining);
        let room = snapshot.ejected(now).count() < snapshot.ejections_allowed();
        if known && !drains && room && snapshot.others_ready(endpoint, now) {
            let outlier = &snapshot.config.outlier;
            let base = Duration::from_millis(outlier.base_ejection_ms);
            endpoint.eject(now, base, Duration::from_millis(outlier.max_ejection_ms));
        }
    }

    /// With fewer endpoints than before, the ejected may be more than their allowed share: the ones that would return
    /// first return now.
    pub(super) fn readmit_excess(&self, snapshot: &Snapshot, now: Tick) {
        let mut ejected: Vec<&Slot> = snapshot.ejected(now).collect();
        ejected.sort_by_key(|slot| slot.endpoint.ejection_ends());
        let excess = ejected.len().saturating_sub(snapshot.ejections_allowed());
        for slot in &ejected[..excess] {
            slot.endpoint.readmit(now);
        }
    }

    /// Decides whether the active checks are to be believed.
    pub(super) fn judge_checks(&self, snapshot: &Snapshot) {
        let counted = || {
            let slots = snapshot.slots.iter();
            slots.filter(|slot| !slot.endpoint.marks().has(Mark::Draining))
        };
        let failing = counted().filter(|slot| slot.endpoint.marks().has(Mark::Unhealthy)).count();
        self.distrust.store(failing * 2 > counted().count(), Ordering::Relaxed);
    }
}

impl Snapshot {
    pub(super) fn holds(&self, endpoint: &Endpoint) -> bool {
        self.slots.iter().any(|slot| is_same(slot, endpoint))
    }

    fn ejected(&self, now: Tick) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |slot| slot.endpoint.is_ejected(now))
    }

    fn ejections_allowed(&self) -> usize {
        self.slots.len() * usize::from(self.config.outlier.max_ejected_percent) / 100
    }

    fn others_ready(&self, endpoint: &Endpoint, now: Tick) -> bool {
        let mut slots = self.slots.iter();
        slots.any(|slot| !is_same(slot, endpoint) && slot.is_ready(now))
    }

    fn is_outlier(&self, endpoint: &Endpoint, now: Tick) -> bool {
        let outlier = &self.config.outlier;
        let in_a_row = outlier.consecutive_failures;
        if in_a_row > 0 && endpoint.evidence.failures_in_a_row() >= in_a_row {
            return true;
        }
        let here = endpoint.evidence.tally(now, self.window);
        if here.answers < u64::from(outlier.minimum_volume.max(1)) {
            return false;
        }
        let others = self.slots.iter().filter(|slot| !is_same(slot, endpoint));
        let others = others
            .map(|slot| slot.endpoint.evidence.tally(now, self.window))
            .fold(Tally::default(), Tally::plus);
        here.is_worse_than(others, outlier.error_percent_above_others)
    }
}

fn is_same(slot: &Slot, endpoint: &Endpoint) -> bool {
    std::ptr::eq(&*slot.endpoint, endpoint)
}

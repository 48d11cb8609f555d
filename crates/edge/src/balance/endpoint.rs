//! One instance: what is known of it, how many requests it has, and who waits for a change.
//!
//! Everything here is atomics, because every thread touches it with every request. Two orders matter and are
//! sequentially consistent: a pick counts itself in flight *before* it looks whether the endpoint may still be used,
//! and whoever takes an endpoint out marks it *before* looking at what is in flight. So either the pick sees the mark
//! and steps back, or the one who waits for [`Endpoint::idle`] sees the request: no request slips between.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::Cluster;
use super::clock::{Clock, Tick};
use super::outlier::Evidence;
use super::queue::Queue;
use crate::config;
use crate::status::{EndpointStatus, Health};

/// One instance of an upstream.
#[derive(Debug)]
pub struct Endpoint {
    id: String,
    address: SocketAddr,
    upstream: String,
    /// Its label; a reconfiguration may change it.
    release: ArcSwapOption<Arc<str>>,
    pub(super) clock: Clock,
    pub(super) cluster: Weak<Cluster>,
    pub(super) queue: Arc<Queue>,

    marks: AtomicU32,
    in_flight: AtomicU32,
    /// Those of them that are as good as answered, and stay.
    lasting: AtomicU32,
    /// How often the endpoint went down; futures compare it with what they saw first.
    downs: AtomicU32,
    ejected_until: AtomicU64,
    unreachable_until: AtomicU64,
    ramp_from: AtomicU64,

    pub(super) evidence: Evidence,
    pub(super) checks: Checks,
    ejections_in_a_row: AtomicU32,
    ejections_decayed: AtomicU64,
    pub(super) counters: Counters,

    changed: Notify,
    idle: Notify,
    idle_waiters: AtomicU32,
}

/// Consecutive results of the active checks.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) passed: AtomicU32,
    pub(super) failed: AtomicU32,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) responses_2xx: AtomicU64,
    pub(super) responses_3xx: AtomicU64,
    pub(super) responses_4xx: AtomicU64,
    pub(super) responses_5xx: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) latency_us: AtomicU64,
    pub(super) ejections: AtomicU64,
}

/// A fact about an endpoint that is either so or not.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum Mark {
    Removed = 1,
    Draining = 2,
    Unhealthy = 4,
    Closed = 8,
}

/// The marks of one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks(u32);

impl Marks {
    pub(super) fn has(self, mark: Mark) -> bool {
        self.0 & mark as u32 != 0
    }
}

impl Endpoint {
    pub(super) fn new(
        spec: &config::Endpoint,
        upstream: &str,
        clock: Clock,
        cluster: Weak<Cluster>,
        queue: Arc<Queue>,
    ) -> Endpoint {
        Endpoint {
            id: spec.id.clone(),
            address: spec.address,
            upstream: upstream.to_owned(),
            release: ArcSwapOption::empty(),
            clock,
            cluster,
            queue,
            marks: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            lasting: AtomicU32::new(0),
            downs: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            unreachable_until: AtomicU64::new(0),
            ramp_from: AtomicU64::new(0),
            evidence: Evidence::default(),
            checks: Checks::default(),
            ejections_in_a_row: AtomicU32::new(0),
            ejections_decayed: AtomicU64::new(0),
            counters: Counters::default(),
            changed: Notify::new(),
            idle: Notify::new(),
            idle_waiters: AtomicU32::new(0),
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The label of [`config::Endpoint::release`].
    pub fn release(&self) -> Option<Arc<str>> {
        self.release.load().as_deref().map(Arc::clone)
    }

    /// Requests between pick and the end of the lease.
    pub fn in_flight(&self) -> u64 {
        u64::from(self.in_flight.load(Ordering::SeqCst))
    }

    /// Requests in flight that it has work with, as far as can be told.
    pub(super) fn busy(&self) -> u32 {
        let lasting = self.lasting.load(Ordering::SeqCst);
        self.in_flight.load(Ordering::SeqCst).saturating_sub(lasting)
    }

    /// True once it is no longer configured.
    pub fn is_removed(&self) -> bool {
        self.marks().has(Mark::Removed)
    }

    /// How often traffic had it ejected.
    pub fn ejections(&self) -> u64 {
        self.counters.ejections.load(Ordering::Relaxed)
    }

    /// Resolves when the endpoint went down since it had gone down this often: became unhealthy or ejected, or was
    /// closed. While it drains, only [`Endpoint::close`] counts: an instance that shuts down well fails its checks and
    /// still finishes its requests. Cancel safe.
    pub(super) async fn down_since(&self, downs: u32) {
        self.until(|| self.downs() != downs || self.marks().has(Mark::Closed)).await;
    }

    /// Cuts what is in flight: [`super::Lease::down`] resolves for everyone, now and later, and the endpoint is picked no
    /// more.
    pub fn close(&self) {
        self.mark(Mark::Closed);
        self.changed.notify_waiters();
    }

    async fn until(&self, condition: impl Fn() -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if condition() {
                return;
            }
            changed.await;
        }
    }

    /// Resolves when no request is in flight. Once the endpoint is removed, or while it drains and others serve, no
    /// request starts after that. Cancel safe.
    pub async fn idle(&self) {
        let _waiting = IdleWaiter::enter(self);
        loop {
            let mut idle = pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            idle.await;
        }
    }

    pub fn status(&self, now: Instant) -> EndpointStatus {
        let now = self.clock.at(now);
        let marks = self.marks();
        let health = if marks.has(Mark::Unhealthy) || self.is_unreachable(now) {
            Health::Unhealthy
        } else if self.is_ejected(now) {
            Health::Ejected
        } else {
            Health::Healthy
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EndpointStatus {
            upstream: self.upstream.clone(),
            health,
            draining: marks.has(Mark::Draining),
            in_flight: self.in_flight(),
            requests_total: read(&self.counters.requests),
            responses_2xx_total: read(&self.counters.responses_2xx),
            responses_3xx_total: read(&self.counters.responses_3xx),
            responses_4xx_total: read(&self.counters.responses_4xx),
            responses_5xx_total: read(&self.counters.responses_5xx),
            failures_total: read(&self.counters.failures),
            latency_us_total: read(&self.counters.latency_us),
        }
    }

    pub(super) fn marks(&self) -> Marks {
        Marks(self.marks.load(Ordering::SeqCst))
    }

    /// True when the mark is new.
    pub(super) fn mark(&self, mark: Mark) -> bool {
        self.marks.fetch_or(mark as u32, Ordering::SeqCst) & mark as u32 == 0
    }

    /// True when the mark was there.
    pub(super) fn unmark(&self, mark: Mark) -> bool {
        self.marks.fetch_and(!(mark as u32), Ordering::SeqCst) & mark as u32 != 0
    }

    pub(super) fn respecify(&self, spec: &config::Endpoint) {
        self.unmark(Mark::Removed);
        if spec.draining {
            self.mark(Mark::Draining);
        } else {
            self.unmark(Mark::Draining);
        }
        if self.release().as_deref() != spec.release.as_deref() {
            let release = spec.release.as_deref().map(Arc::from).map(Arc::new);
            self.release.store(release);
        }
    }

    pub(super) fn downs(&self) -> u32 {
        self.downs.load(Ordering::SeqCst)
    }

    /// Tells those who wait for [`super::Lease::down`].
    pub(super) fn went_down(&self) {
        if !self.marks().has(Mark::Draining) {
            self.downs.fetch_add(1, Ordering::SeqCst);
            self.changed.notify_waiters();
        }
    }

    /// Counts one more request unless it is busy with `limit`.
    pub(super) fn enter(&self, limit: u32) -> bool {
        let limit = limit.saturating_add(self.lasting.load(Ordering::SeqCst));
        let enter = |in_flight| (in_flight < limit).then_some(in_flight + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).is_ok()
    }

    pub(super) fn leave(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.idle_waiters.load(Ordering::SeqCst) != 0 {
            self.idle.notify_waiters();
        }
        self.queue.wake_one();
    }

    pub(super) fn begin_lasting(&self) {
        self.lasting.fetch_add(1, Ordering::SeqCst);
        self.queue.wake_one();
    }

    pub(super) fn end_lasting(&self) {
        self.lasting.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn is_ejected(&self, now: Tick) -> bool {
        now.0 < self.ejected_until.load(Ordering::Relaxed)
    }

    pub(super) fn is_unreachable(&self, now: Tick) -> bool {
        now.0 < self.unreachable_until.load(Ordering::Relaxed)
    }

    pub(super) fn unreachable_until(&self, until: Tick) {
        self.unreachable_until.store(until.0, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Resolves while a connect has failed and no check has succeeded since. Cancel safe.
    pub(crate) async fn unreachable(&self) {
        self.until(|| self.is_unreachable(self.clock.at(tokio::time::Instant::now().into_std()))).await;
    }

    /// Its share of traffic grows from here. Never: it has its full share.
    pub(super) fn ramp_from(&self, from: Tick) {
        self.ramp_from.store(from.0, Ordering::Relaxed);
    }

    /// The configured weight, less while the endpoint starts slowly.
    pub(super) fn weight(&self, configured: u32, now: Tick, slow_start: Duration) -> f64 {
        /// What a new endpoint begins with.
        const FLOOR: f64 = 0.1;
        let full = f64::from(configured);
        let from = self.ramp_from.load(Ordering::Relaxed);
        if from == 0 || slow_start.is_zero() {
            return full;
        }
        let elapsed = now.since(Tick(from));
        if elapsed >= slow_start {
            return full;
        }
        full * (FLOOR + (1.0 - FLOOR) * elapsed.as_secs_f64() / slow_start.as_secs_f64())
    }

    pub(super) fn eject(&self, now: Tick, base: Duration, longest: Duration) {
        let in_a_row = self.ejections_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        let until = now.after(base.saturating_mul(in_a_row).min(longest));
        self.ejected_until.store(until.0, Ordering::Relaxed);
        self.ejections_decayed.store(until.0, Ordering::Relaxed);
        // It comes back slowly, whenever that is.
        self.ramp_from(until);
        self.evidence.forget();
        self.counters.ejections.fetch_add(1, Ordering::Relaxed);
        self.went_down();
    }

    /// Ends an ejection early.
    pub(super) fn readmit(&self, now: Tick) {
        self.ejected_until.store(0, Ordering::Relaxed);
        self.ramp_from(now);
    }

    pub(super) fn ejection_ends(&self) -> Tick {
        Tick(self.ejected_until.load(Ordering::Relaxed))
    }

    /// A success some time after an ejection makes the next one shorter again.
    pub(super) fn decay_ejections(&self, now: Tick, base: Duration) {
        if self.ejections_in_a_row.load(Ordering::Relaxed) == 0 {
            return;
        }
        let decayed = self.ejections_decayed.load(Ordering::Relaxed);
        if now.0 <= decayed || now.since(Tick(decayed)) < base {
            return;
        }
        let once =
            self.ejections_decayed.compare_exchange(decayed, now.0, Ordering::Relaxed, Ordering::Relaxed);
        if once.is_ok() {
            let _ = self
                .ejections_in_a_row
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
        }
    }
}

/// Counts those who wait for idleness, so that the end of a request need not ask when nobody does.
struct IdleWaiter<'a>(&'a Endpoint);

impl<'a> IdleWaiter<'a> {
    fn enter(endpoint: &'a Endpoint) -> IdleWaiter<'a> {
        endpoint.idle_waiters.fetch_add(1, Ordering::SeqCst);
        IdleWaiter(endpoint)
    }
}

impl Drop for IdleWaiter<'_> {
    fn drop(&mut self) {
        self.0.idle_waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

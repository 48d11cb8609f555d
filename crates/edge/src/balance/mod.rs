//! Which endpoint takes the next request.
//!
//! A [`Cluster`] knows the endpoints of one upstream and decides without any I/O: `now` is an argument, so every
//! behaviour can be tested in simulated time. All threads of the edge share it. A pick reads one snapshot and a few
//! atomics per endpoint and takes no lock; locks are for what is rare (a new configuration, an ejection).
//!
//! * **Least request** by the power of two choices, weighted ([`choose`]), with slow start for endpoints that are new
//!   or back, and preference for the own zone.
//! * **Passive health**: connections that fail in a row, or a share of errors well above the others', eject an endpoint
//!   for a while ([`outlier`]); never more than the configured share of them, never the last one that works.
//! * **Unreachable** endpoints (a connect failed) are left out at once and until a check or a second has passed, so
//!   that requests wait for an instance that restarts instead of failing against it. This is no ejection: it needs no
//!   evidence beyond the fact, and passes as soon as somebody listens again.
//! * **Retries** come from a budget ([`budget`]).

mod budget;
mod choose;
mod clock;
mod endpoint;
mod judge;
mod lease;
mod outlier;
mod queue;
mod snapshot;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

pub use endpoint::Endpoint;
pub(crate) use judge::CheckFailure;
pub use lease::{Lease, Outcome};
pub use queue::QueueGuard;

use crate::config;
use budget::Budget;
use clock::Clock;
use endpoint::Mark;
use queue::Queue;
use snapshot::{Choice, Locality, Slot, Snapshot, Standing, Trust};

/// The endpoints of one upstream and what is known of them.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    clock: Clock,
    snapshot: ArcSwap<Snapshot>,
    queue: Arc<Queue>,
    budget: Budget,
    /// [`Trust::Nothing`] as a flag, kept when health changes so that a pick need not count.
    distrust: AtomicBool,
    /// Held while endpoints are added, removed or ejected. Removed endpoints stay here while they have requests.
    removed: Mutex<Vec<Arc<Endpoint>>>,
    this: Weak<Cluster>,
}

/// The answer to [`Cluster::pick`].
#[derive(Debug)]
pub enum Pick {
    /// Send the request there.
    Endpoint(Lease),
    /// Every endpoint that serves has `max_in_flight` requests: queue.
    Full,
    /// No endpoint can be tried now: queue, one may come back.
    None,
}

impl Cluster {
    /// A cluster whose endpoints all count as healthy and warm: at the first configuration nobody is slower than the
    /// others.
    pub fn new(name: &str, config: &config::Upstream, zone: Option<&str>, now: Instant) -> Arc<Cluster> {
        Arc::new_cyclic(|this| {
            let empty = Snapshot {
                config: Arc::new(config.clone()),
                slots: Box::default(),
                slow_start: Duration::ZERO,
                window: Duration::ZERO,
            };
            let cluster = Cluster {
                name: name.to_owned(),
                clock: Clock::starting(now),
                snapshot: ArcSwap::from_pointee(empty),
                queue: Arc::default(),
                budget: Budget::default(),
                distrust: AtomicBool::new(false),
                removed: Mutex::default(),
                this: Weak::clone(this),
            };
            cluster.reconfigure(config, zone, now);
            cluster
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Replaces the endpoints. Those with the same id and address keep their state; new ones start slowly when one
    /// that stays is ready.
    pub fn reconfigure(&self, config: &config::Upstream, zone: Option<&str>, now: Instant) {
        let now = self.clock.at(now);
        let mut removed = self.lock();
        let before = self.snapshot.load_full();
        let stays = |slot: &&Slot| config.endpoints.iter().any(|spec| names(spec, &slot.endpoint));
        let warm = before.slots.iter().filter(stays).any(|slot| slot.is_ready(now));

        let mut slots = Vec::with_capacity(config.endpoints.len());
        for spec in &config.endpoints {
            let known = before.slots.iter().map(|slot| &slot.endpoint);
            // One that was closed has ended; the same id configured again is a new beginning.
            let lives = |known: &&Arc<Endpoint>| names(spec, known) && !known.marks().has(Mark::Closed);
            let endpoint = match known.chain(removed.iter()).find(lives) {
                Some(known) => Arc::clone(known),
                None => {
                    let endpoint = self.adopt(spec);
                    if warm {
                        endpoint.ramp_from(now);
                    }
                    endpoint
                }
            };
            endpoint.respecify(spec);
            slots.push(Slot {
                endpoint,
                weight: u32::from(spec.weight.max(1)),
                locality: locality(zone, spec.zone.as_deref()),
            });
        }
        let after = Arc::new(Snapshot {
            config: Arc::new(config.clone()),
            slots: slots.into_boxed_slice(),
            slow_start: Duration::from_millis(config.slow_start_ms),
            window: Duration::from_millis(config.outlier.window_ms),
        });
        self.snapshot.store(Arc::clone(&after));

        // Marked only once the new snapshot stands: a pick that steps back for the mark must not find it again.
        for slot in &before.slots {
            if !after.holds(&slot.endpoint) {
                slot.endpoint.mark(Mark::Removed);
                removed.push(Arc::clone(&slot.endpoint));
            }
        }
        removed.retain(|endpoint| endpoint.is_removed() && endpoint.in_flight() > 0);
        self.readmit_excess(&after, now);
        self.judge_checks(&after);
        self.queue.wake_all();
    }

    /// The endpoint for the next request, never one of `tried`.
    pub fn pick(&self, now: Instant, tried: &[Arc<Endpoint>]) -> Pick {
        /// Picks that may be lost in a row to other threads (the last place went, the endpoint was removed).
        const RACES: usize = 8;
        let now = self.clock.at(now);
        let trust = if self.distrust.load(Ordering::Relaxed) { Trust::Nothing } else { Trust::Checks };
        for _ in 0..RACES {
            let snapshot = self.snapshot.load();
            let (slot, standing) = match snapshot.choose(now, tried, trust) {
                Choice::Take(slot, standing) => (&snapshot.slots[slot], standing),
                Choice::Full => return Pick::Full,
                Choice::Nobody => return Pick::None,
            };
            if !slot.endpoint.enter(snapshot.config.max_in_flight) {
                continue;
            }
            let lease = Lease::new(Arc::clone(&slot.endpoint));
            // Looked at again after counting; see the head of `endpoint`.
            let marks = slot.endpoint.marks();
            let drains_anew = marks.has(Mark::Draining) && standing == Standing::Ready;
            if !marks.has(Mark::Removed) && !drains_anew {
                return Pick::Endpoint(lease);
            }
        }
        Pick::Full
    }

    /// A place in the queue, or `None` when `queue_length` requests wait already: answer 503.
    pub fn enqueue(&self) -> Option<QueueGuard> {
        QueueGuard::enter(&self.this.upgrade()?, self.snapshot.load().config.queue_length)
    }

    /// Requests that wait.
    pub fn queued(&self) -> u32 {
        self.queue.waiting()
    }

    /// Counts a request (not its retries) for the retry budget.
    pub fn request_started(&self, now: Instant) {
        self.budget.request(self.clock.at(now));
    }

    /// Takes one retry from the budget; false when it is spent.
    pub fn retry_allowed(&self, now: Instant) -> bool {
        let snapshot = self.snapshot.load();
        self.budget.take(&snapshot.config.retry, self.clock.at(now))
    }

    /// Those configured, then removed ones that still have requests in flight.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let mut removed = self.lock();
        removed.retain(|endpoint| endpoint.in_flight() > 0);
        let snapshot = self.snapshot.load();
        let configured = snapshot.slots.iter().map(|slot| &slot.endpoint);
        configured.chain(removed.iter()).cloned().collect()
    }

    pub fn config(&self) -> Arc<config::Upstream> {
        Arc::clone(&self.snapshot.load().config)
    }

    fn adopt(&self, spec: &config::Endpoint) -> Arc<Endpoint> {
        let queue = Arc::clone(&self.queue);
        let this = Weak::clone(&self.this);
        Arc::new(Endpoint::new(spec, &self.name, self.clock, this, queue))
    }

    fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Whether the upstream has endpoints beyond these, in whatever state.
    fn has_others(&self, tried: &[Arc<Endpoint>]) -> bool {
        let snapshot = self.snapshot.load();
        let is_tried = |slot: &Slot| tried.iter().any(|tried| Arc::ptr_eq(tried, &slot.endpoint));
        snapshot.slots.iter().any(|slot| !is_tried(slot))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Endpoint>>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names(spec: &config::Endpoint, endpoint: &Endpoint) -> bool {
    spec.id == endpoint.id() && spec.address == endpoint.address()
}

fn locality(edge: Option<&str>, endpoint: Option<&str>) -> Locality {
    match (edge, endpoint) {
        (Some(edge), Some(endpoint)) if edge != endpoint => Locality::Remote,
        (Some(_), None) => Locality::Remote,
        _ => Locality::Local,
    }
}

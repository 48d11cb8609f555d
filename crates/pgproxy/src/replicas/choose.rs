//! A connection to a replica that is fresh enough, or none.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use freshness::Mark;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Life, Needed, Replica, Replicas};
use crate::acquire::apply;
use crate::config::Database;
use crate::pool::{Offer, Turn};
use crate::server::{NotConnected, Server};
use crate::settings::Settings;
use crate::shared::{Served, Shared};
use crate::status::Gauge;

/// A replica that was late by more than this many times what may be waited is not waited for.
const WORTHWHILE: u32 = 4;

/// A connection, with the `wanted` settings, to a replica that has what is needed, and of which life of it that is. Waits
/// for one to come so far for at most `read_wait_ms`. `None`: it is for the primary.
///
/// Cancel safe: what was on its way to whoever gave up is closed or goes to the next.
pub(crate) async fn reader(
    shared: &Shared,
    served: &watch::Receiver<Arc<Served>>,
    wanted: &Settings,
    needed: Needed,
) -> Option<(Box<Server>, Arc<Replica>, Life)> {
    let now = served.borrow().clone();
    let mut failed: Vec<Arc<Replica>> = Vec::new();
    let mut wait: Option<Wait<'_>> = None;
    loop {
        let needed = Needed { since: needed.since.max(too_old(shared, &now.config)), ..needed };
        let choice = choose(&shared.replicas.borrow(), &failed, &now.config, needed);
        match choice {
            Choice::Take(replica) => {
                let life = replica.life();
                match take(shared, &now, &replica, wanted, needed).await {
                    Some(server) => return Some((server, replica, life)),
                    None => failed.push(replica),
                }
            }
            Choice::None => return None,
            Choice::TooLate => {
                shared.counters.reads_too_late.fetch_add(1, Relaxed);
                return None;
            }
            Choice::Wait => {
                let Some(waiting) = &mut wait else {
                    // What happens from here on is told; what happened before must be looked at once more.
                    wait = Some(Wait::begin(shared, Duration::from_millis(now.config.read_wait_ms)));
                    continue;
                };
                if !shared.positions.would_do(needed) {
                    shared.positions.wake();
                }
                if timeout_at(waiting.until, waiting.progress.changed()).await.is_err() {
                    shared.counters.reads_too_late.fetch_add(1, Relaxed);
                    return None;
                }
            }
        }
    }
}

/// The same, if it can be had without waiting and without asking anybody.
pub(crate) fn reader_at_once(
    shared: &Shared,
    replicas: &Replicas,
    config: &Database,
    wanted: &Settings,
    needed: Needed,
) -> Option<(Box<Server>, Arc<Replica>, Life)> {
    let needed = Needed { since: needed.since.max(too_old(shared, config)), ..needed };
    let replica = best(replicas.iter(), config, needed)?.clone();
    let life = replica.life();
    let server = replica.pool.take(wanted)?;
    if !replica.has(needed) {
        server.give_back();
        return None;
    }
    Some((server, replica, life))
}

enum Choice {
    Take(Arc<Replica>),
    /// One may become fresh enough in time.
    Wait,
    TooLate,
    /// None can be reached.
    None,
}

/// Among those that have not failed.
fn choose(replicas: &Replicas, failed: &[Arc<Replica>], config: &Database, needed: Needed) -> Choice {
    let has_failed = |replica: &Arc<Replica>| failed.iter().any(|there| Arc::ptr_eq(there, replica));
    let left = || replicas.iter().filter(|replica| !has_failed(replica));
    if let Some(replica) = best(left(), config, needed) {
        return Choice::Take(replica.clone());
    }
    let worthwhile = Duration::from_millis(config.read_wait_ms) * WORTHWHILE;
    let reachable = || left().filter(|replica| replica.is_reachable());
    match (reachable().next(), reachable().all(|replica| replica.is_later_than(worthwhile))) {
        (None, _) => Choice::None,
        (Some(_), true) => Choice::TooLate,
        (Some(_), false) => Choice::Wait,
    }
}

struct Wait<'a> {
    progress: watch::Receiver<()>,
    until: Instant,
    _waiting: Gauge<'a>,
}

impl Wait<'_> {
    fn begin(shared: &Shared, limit: Duration) -> Wait<'_> {
        shared.counters.reads_waited.fetch_add(1, Relaxed);
        Wait {
            progress: shared.positions.progress.subscribe(),
            until: Instant::now() + limit,
            _waiting: Gauge::enter(&shared.positions.waiting),
        }
    }
}

/// No replica that is only fresh as of then may serve.
fn too_old(shared: &Shared, config: &Database) -> Mark {
    let lag = config.max_replica_lag_ms.saturating_mul(1_000);
    Mark::from_micros(shared.freshness.now().as_micros().saturating_sub(lag))
}

/// The one that is used least. One of the proxy's zone comes before others, unless it is used more than twice as much as they
/// are and once more: a hop between zones is cheaper than a queue.
fn best<'a>(
    replicas: impl Iterator<Item = &'a Arc<Replica>>,
    config: &Database,
    needed: Needed,
) -> Option<&'a Arc<Replica>> {
    let max_lag_bytes = config.max_replica_lag_bytes.unwrap_or(u64::MAX);
    let mut fresh = replicas.filter(|replica| replica.has(needed) && replica.lag_bytes() <= max_lag_bytes);
    let first = fresh.next()?;
    // Of one alone nothing more needs to be known.
    let Some(second) = fresh.next() else { return Some(first) };
    [first, second].into_iter().chain(fresh).min_by_key(|replica| {
        let is_elsewhere = config.zone.is_some() && replica.zone != config.zone;
        let census = replica.pool.census();
        let in_use = census.open - census.idle;
        let is_full = in_use >= config.pool_size as usize;
        (is_full, if is_elsewhere { 2 * in_use + 1 } else { in_use }, is_elsewhere)
    })
}

/// A connection to this replica, if it can be had and the replica still is what it was chosen for.
async fn take(
    shared: &Shared,
    served: &Served,
    replica: &Replica,
    wanted: &Settings,
    needed: Needed,
) -> Option<Box<Server>> {
    let turn = match replica.pool.offer(wanted) {
        Offer::Now(turn) => turn,
        Offer::Wait(queue) => {
            let _waiting = Gauge::enter(&shared.counters.waiting);
            // Longer than that nobody waits for a replica: the primary may have nothing to do.
            timeout(Duration::from_millis(served.config.read_wait_ms), queue).await.ok()?.ok()?
        }
        Offer::NoPrimary | Offer::QueueFull { .. } => return None,
    };
    let mut server = match turn {
        Turn::Server(server) => server,
        Turn::Connect(permit) => match Server::connect(permit, &served.credentials).await {
            Ok(mut server) if replica.is_proven_at(server.replayed) && server.replayed >= needed.shown => {
                shared.pool.begun(&mut server);
                Box::new(server)
            }
            Ok(_) => {
                replica.lost();
                return None;
            }
            Err(NotConnected::NotNow(cause)) => {
                tracing::debug!(database = shared.name, node = replica.target.node, cause, "no connection");
                replica.lost();
                return None;
            }
            Err(NotConnected::Refused(refusal)) => {
                let (node, cause) = (&replica.target.node, refusal.message);
                tracing::warn!(database = shared.name, node, cause, "a read replica refuses the proxy");
                replica.lost();
                return None;
            }
        },
    };
    match apply(shared, &mut server, wanted).await {
        Ok(Ok(())) => {}
        // The primary will say the same, or not.
        Ok(Err(_)) => {
            server.give_back();
            return None;
        }
        Err(_) => return None,
    }
    if !replica.has(needed) {
        server.give_back();
        return None;
    }
    Some(server)
}

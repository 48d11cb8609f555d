//! Getting a connection: at once, from the queue, or after the primary is back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::message::{Refusal, error_field};
use crate::pool::{Offer, Turn};
use crate::server::{NotConnected, Server};
use crate::settings::Settings;
use crate::shared::{Served, Shared};
use crate::status::Gauge;

/// Between attempts to connect: short enough that a restart is not prolonged noticeably.
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(100);

/// A connection with the `wanted` settings. Waits in the queue for at most `queue_wait_ms`, and while there is no
/// primary, or it cannot be reached, for at most `hold_ms`.
///
/// Cancel safe: what was on its way to whoever gave up is closed or goes to the next.
///
/// # Errors
/// With what the client is told.
pub(crate) async fn acquire(
    shared: &Shared,
    served: &mut watch::Receiver<Arc<Served>>,
    wanted: &Settings,
) -> Result<Box<Server>, Refusal> {
    let began = Instant::now();
    let mut pause = RETRY_FIRST;
    let mut waiting = None;
    loop {
        let now = served.borrow_and_update().clone();
        let hold = Duration::from_millis(now.config.hold_ms);
        let turn = match shared.pool.offer(wanted) {
            Offer::Now(turn) => turn,
            Offer::Wait(queue) => {
                waiting.get_or_insert_with(|| Gauge::enter(&shared.counters.waiting));
                let limit = Duration::from_millis(now.config.queue_wait_ms);
                match timeout_at(began + limit, queue).await {
                    Ok(Ok(turn)) => turn,
                    Ok(Err(_)) => continue,
                    Err(_) => return Err(queue_too_slow(shared, limit)),
                }
            }
            Offer::QueueFull { length } => return Err(queue_full(shared, length)),
            Offer::NoPrimary => {
                waiting.get_or_insert_with(|| Gauge::enter(&shared.counters.waiting));
                match timeout_at(began + hold, served.changed()).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(_)) | Err(_) => return Err(unavailable(shared, hold, "it has no primary")),
                }
            }
        };
        let attempt = match turn {
            Turn::Server(server) => Ok(server),
            Turn::Connect(permit) => {
                tokio::select! {
                    made = Server::connect(permit, &now.credentials) => made.map(|mut server| {
                        shared.pool.begun(&mut server);
                        Box::new(server)
                    }),
                    // Perhaps to somewhere else; an attempt is cheap.
                    Ok(()) = served.changed() => continue,
                }
            }
        };
        let cause = match attempt {
            Ok(mut server) => match apply(shared, &mut server, wanted).await {
                Ok(Ok(())) => return Ok(server),
                Ok(Err(refusal)) => {
                    shared.pool.put(server);
                    return Err(refusal);
                }
                Err(cause) => cause.to_string(),
            },
            Err(NotConnected::Refused(refusal)) => return Err(refusal),
            Err(NotConnected::NotNow(cause)) => cause,
        };
        waiting.get_or_insert_with(|| Gauge::enter(&shared.counters.waiting));
        if Instant::now() + pause >= began + hold {
            return Err(unavailable(shared, hold, &cause));
        }
        tokio::select! {
            () = sleep(pause) => pause = RETRY_MAX.min(pause * 2),
            Ok(()) = served.changed() => pause = RETRY_FIRST,
        }
    }
}

/// Changes a connection's settings to the `wanted` ones, all or none.
///
/// # Errors
/// When the connection is lost, or in no state to be given to anybody.
pub(crate) async fn apply(
    shared: &Shared,
    server: &mut Server,
    wanted: &Settings,
) -> io::Result<Result<(), Refusal>> {
    let sql = server.settings.change_to(wanted);
    if !sql.is_empty() {
        if let Err(error) = server.ask(&sql).await? {
            // Not for what is wanted, but for what is there: the time limit of who had it before, or no memory.
            let sqlstate = error_field(&error, b'C').unwrap_or_default();
            if sqlstate.starts_with(b"57") || sqlstate.starts_with(b"53") {
                return Err(io::Error::other("settings were interrupted"));
            }
            let text = error_field(&error, b'M').unwrap_or_default();
            let message = String::from_utf8_lossy(text);
            let hint = "Mind the settings in the connection's URL or options.";
            return Ok(Err(Refusal::new("22023", message, hint)));
        }
        server.settings = wanted.clone();
        shared.pool.told(server);
    }
    Ok(Ok(()))
}

fn unavailable(shared: &Shared, after: Duration, cause: &str) -> Refusal {
    shared.counters.refused_unavailable.fetch_add(1, Relaxed);
    tracing::warn!(database = shared.name, cause, "gave up waiting for the database");
    let message =
        format!("the database `{}` did not answer within {} ms: {cause}", shared.name, after.as_millis());
    Refusal::new("57P03", message, "It may be restarting or stopped; its own log says why.")
}

fn queue_too_slow(shared: &Shared, after: Duration) -> Refusal {
    shared.counters.refused_queue.fetch_add(1, Relaxed);
    let message = format!(
        "no connection to `{}` became free within {} ms: all are in use",
        shared.name,
        after.as_millis()
    );
    Refusal::new("53300", message, "Look for long transactions, or raise the pool size.")
}

fn queue_full(shared: &Shared, length: usize) -> Refusal {
    shared.counters.refused_queue.fetch_add(1, Relaxed);
    let message = format!("{length} clients wait for a connection to `{}` already", shared.name);
    Refusal::new("53300", message, "Look for long transactions, or raise the pool size.")
}

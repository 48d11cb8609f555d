//! Where the primary stands, asked on a connection that is kept.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::control::{Control, row, text};
use super::{Position, Positions};
use crate::lsn::Lsn;
use crate::server::Server;
use crate::shared::{Served, Shared};

/// While there are clients and nobody needs it sooner.
const IDLE_INTERVAL: Duration = Duration::from_millis(100);
/// Between two questions at least. Whoever comes in between is served by the next.
const PACE: Duration = Duration::from_millis(1);
/// After an attempt to connect.
const RETRY: Duration = Duration::from_millis(100);
/// What reads tidy up in passing is written down but not flushed, by nobody for many seconds. Reads that wait for it have
/// it flushed after so long.
const UNFLUSHED: Duration = Duration::from_millis(3);

/// The insert position: also what was committed with `synchronous_commit` off is before it. And how much of it is on the
/// disk, for that is all that standbys get.
const POSITION: &str = "SELECT pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.pg_current_wal_flush_lsn()";
const SEGMENT_BYTES: &str =
    "SELECT setting FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'wal_segment_size'";
/// Brings the log forward, by no transaction: one might be given the id of another that was lost with the last primary.
const PUSH: &str = "SELECT pg_catalog.pg_logical_emit_message(false, 'pgproxy', '')";

/// Tells `Positions::latest`, for as long as it is polled.
pub(crate) async fn watch_primary(shared: Arc<Shared>, mut served: watch::Receiver<Arc<Served>>) {
    let control = Control::new();
    loop {
        let now = served.borrow_and_update().clone();
        let target = now.target().filter(|_| now.config.read_replicas().next().is_some());
        let cause = match target {
            None => {
                if served.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Some(target) => match control.connect(target, &now.credentials).await {
                Ok(mut server) => match poll(&shared, &mut served, &mut server).await {
                    Ok(()) => continue,
                    Err(cause) => cause,
                },
                Err(cause) => cause,
            },
        };
        tracing::debug!(database = shared.name, cause, "the primary cannot be asked where it stands");
        tokio::select! {
            () = sleep(RETRY) => {}
            changed = served.changed() => if changed.is_err() { return },
        }
    }
}

/// Returns when the configuration has changed.
async fn poll(
    shared: &Shared,
    served: &mut watch::Receiver<Arc<Served>>,
    server: &mut Server,
) -> Result<(), String> {
    let segment_bytes: u64 = text(server, SEGMENT_BYTES)
        .await?
        .and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok())
        .filter(|bytes| *bytes > 0)
        .ok_or("it does not tell the size of its segments")?;
    let target = server.permit.target().clone();
    let positions = &shared.positions;
    let mut unflushed: Option<(Lsn, Instant)> = None;
    let mut pushes = 0;
    loop {
        let asked = Instant::now();
        let as_of = shared.freshness.now();
        // What a later primary acknowledges is acknowledged after this.
        if !shared.pool.leads_to(&target) {
            return Ok(());
        }
        let shown = shared.freshness.shown();
        let (mut lsn, mut flushed) = position(server, segment_bytes).await?;
        if shown > lsn.0 {
            shared.freshness.forget_shown(shown, lsn.0);
        }
        let is_stuck = unflushed.is_some_and(|(at, since)| at == flushed && since.elapsed() > UNFLUSHED);
        let wanted = positions.pushes.load(Acquire);
        if is_stuck || wanted != pushes {
            pushes = wanted;
            text(server, PUSH).await?;
            (lsn, flushed) = position(server, segment_bytes).await?;
        }
        unflushed = match unflushed {
            _ if lsn <= flushed => None,
            Some((at, since)) if at == flushed => Some((at, since)),
            _ => Some((flushed, asked)),
        };
        positions.latest.send_replace(Some(Position { epoch: target.epoch, as_of, lsn }));
        sleep_until(asked + PACE).await;
        if unflushed.is_some() && positions.waiting.load(Relaxed) > 0 {
            continue;
        }
        tokio::select! {
            () = needed(shared, positions) => {}
            cause = server.lost() => return Err(cause.to_string()),
            _ = served.changed() => return Ok(()),
        }
    }
}

async fn needed(shared: &Shared, positions: &Positions) {
    loop {
        tokio::select! {
            () = positions.wanted.notified() => return,
            () = sleep(IDLE_INTERVAL) => {}
        }
        if shared.counters.clients.load(Relaxed) > 0 {
            return;
        }
    }
}

/// Inserted, and flushed.
async fn position(server: &mut Server, segment_bytes: u64) -> Result<(Lsn, Lsn), String> {
    let row = row(server, POSITION).await?;
    let lsn = |at: usize| row.get(at)?.as_deref().and_then(Lsn::parse);
    let (Some(inserted), Some(flushed)) = (lsn(0), lsn(1)) else {
        return Err("it does not tell where it stands".to_owned());
    };
    Ok((inserted.replayable(segment_bytes), flushed.replayable(segment_bytes)))
}

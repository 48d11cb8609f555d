//! How far one read replica has replayed, asked on a connection that is kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::control::{Control, text};
use super::{Position, Replica};
use crate::lsn::Lsn;
use crate::server::Server;
use crate::shared::{Served, Shared};

/// While reads wait for it, and at first.
const PAUSE: Duration = Duration::from_micros(500);
/// Once nobody does, and it has not come so far so soon.
const SOON: Duration = Duration::from_millis(15);
const IDLE_PAUSE: Duration = Duration::from_millis(20);
/// After an attempt to connect.
const RETRY: Duration = Duration::from_millis(100);
/// One that does not answer for so long hangs: its connections are shut down, and what waits for it runs elsewhere.
const HANG_LIMIT: Duration = Duration::from_secs(2);
/// Positions that it has not come to. Of more, the oldest are forgotten: it is proven to be there by a later one.
const MAX_PENDING: usize = 256;

const REPLAYED: &str = "SELECT pg_catalog.pg_last_wal_replay_lsn()";
/// Everything that it may replay without hearing of its primary again.
const RECEIVED: &str =
    "SELECT GREATEST(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())";

/// Keeps what is known of `replica` up to date, for as long as it is polled.
pub(crate) async fn watch_standby(
    shared: Arc<Shared>,
    served: watch::Receiver<Arc<Served>>,
    replica: Arc<Replica>,
) {
    let control = Control::new();
    loop {
        let credentials = served.borrow().credentials.clone();
        let cause = match control.connect(replica.target.clone(), &credentials).await {
            Ok(mut server) => {
                replica.is_reachable.store(true, Relaxed);
                follow(&shared, &replica, &mut server).await
            }
            Err(cause) => cause,
        };
        if replica.is_reachable() {
            tracing::warn!(
                database = shared.name,
                node = replica.target.node,
                cause,
                "a read replica is lost"
            );
        }
        replica.lost();
        sleep(RETRY).await;
    }
}

/// Returns why it cannot be asked any more.
async fn follow(shared: &Shared, replica: &Replica, server: &mut Server) -> String {
    let mut latest = shared.positions.latest.subscribe();
    latest.mark_changed();
    // When it starts again it may begin behind what it has shown since an earlier position was asked for.
    let found = shared.freshness.now();
    shared.positions.wake();
    let mut pending = VecDeque::new();
    let mut barrier: Option<(u64, Lsn)> = None;
    loop {
        let pause = match pending.back() {
            None => Duration::MAX,
            Some(_) if shared.positions.waiting.load(Relaxed) > 0 => PAUSE,
            Some(newest) if age(shared, newest) < SOON => PAUSE,
            Some(_) => IDLE_PAUSE,
        };
        tokio::select! {
            _ = latest.changed() => {}
            () = sleep(pause) => {}
            cause = server.lost() => return cause.to_string(),
        }
        let Some(position) = latest.borrow_and_update().filter(|position| position.as_of > found) else {
            continue;
        };
        let asked =
            timeout(HANG_LIMIT, compare(shared, replica, server, position, &mut barrier, &mut pending));
        match asked.await {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => return cause,
            Err(_) => {
                replica.lost();
                replica.pool.sever();
                return "it does not answer".to_owned();
            }
        }
    }
}

/// Asks how far it has come, and notes what that proves.
async fn compare(
    shared: &Shared,
    replica: &Replica,
    server: &mut Server,
    position: Position,
    barrier: &mut Option<(u64, Lsn)>,
    pending: &mut VecDeque<Position>,
) -> Result<(), String> {
    // A standby may have more of an earlier primary than the next one has, in other words at the same place. It shows
    // that it follows this primary by replaying what it can have from nobody else.
    let behind = match *barrier {
        Some((epoch, behind)) if epoch == position.epoch => behind,
        _ => {
            pending.clear();
            let behind = lsn(server, RECEIVED).await?;
            *barrier = Some((position.epoch, behind));
            shared.positions.push();
            behind
        }
    };
    if position.lsn > behind && pending.back().is_none_or(|last| last.as_of < position.as_of) {
        if pending.len() == MAX_PENDING {
            pending.pop_front();
        }
        pending.push_back(position);
    }
    let life = replica.life();
    let replayed = lsn(server, REPLAYED).await?;
    let has_moved = replica.has_replayed(replayed, life);
    replica.lag_bytes.store(position.lsn.0.saturating_sub(replayed.0), Relaxed);
    let mut proven = None;
    while let Some(reached) = pending.pop_front_if(|position| position.lsn <= replayed) {
        proven = Some(reached);
    }
    let before = if proven.is_some() { 0 } else { replica.late.load(Relaxed) };
    let ages = proven.iter().chain(pending.front()).map(|position| age(shared, position).as_micros() as u64);
    replica.late.store(ages.max().unwrap_or(0).max(before), Relaxed);
    if let Some(position) = proven {
        replica.proven(position, life);
    }
    if has_moved || proven.is_some() {
        shared.positions.progress.send_replace(());
    }
    Ok(())
}

fn age(shared: &Shared, position: &Position) -> Duration {
    let micros = shared.freshness.now().as_micros().saturating_sub(position.as_of.as_micros());
    Duration::from_micros(micros)
}

async fn lsn(server: &mut Server, sql: &str) -> Result<Lsn, String> {
    let lsn = text(server, sql).await?.and_then(|text| Lsn::parse(&text));
    lsn.ok_or_else(|| "it does not tell how far it has replayed".to_owned())
}

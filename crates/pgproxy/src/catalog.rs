//! Reading what the names in statements stand for, and reading it anew when it has changed.
//!
//! Only where there are read replicas, or somebody watches what the nodes have to do: otherwise what a statement may read does
//! not matter enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sqlclass::{Builder, FINGERPRINT, Query};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::judge::Known;
use crate::message::error_field;
use crate::replicas::Control;
use crate::server::{Server, columns};
use crate::shared::{Served, Shared};

/// Between two looks at the fingerprint, while there are clients.
const INTERVAL: Duration = Duration::from_millis(2_500);
/// At least so long, however many definitions are changed.
const PACE: Duration = Duration::from_millis(250);
/// After an attempt to connect, or to read. One that cannot be read is not read over and over.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// For all rows of one of the queries.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// Of a larger catalog nothing is known: every read is for the primary.
const MAX_ROWS: usize = 2_000_000;

/// Given once in a process: verdicts are remembered by it. 0 is that of no catalog.
static NEXT_EPOCH: AtomicU64 = AtomicU64::new(1);

/// Keeps `Shared::known` up to date, for as long as it is polled.
pub(crate) async fn keep_catalog(shared: Arc<Shared>, mut served: watch::Receiver<Arc<Served>>) {
    let control = Control::new();
    let mut said = String::new();
    let mut pause = RETRY_FIRST;
    loop {
        let now = served.borrow_and_update().clone();
        let is_wanted = is_wanted(&shared, &now);
        if !is_wanted && !shared.known.borrow().catalog.is_unread() {
            // Nobody would tell when it is out of date.
            shared.known.send_replace(Known::nothing());
        }
        let Some(target) = now.target().filter(|_| is_wanted) else {
            tokio::select! {
                changed = served.changed() => if changed.is_err() { return },
                () = shared.definitions_changed.notified() => {}
            }
            continue;
        };
        let kept = match control.connect(target, &now.credentials).await {
            Ok(mut server) => follow(&shared, &mut served, &mut server).await,
            Err(cause) => Err(cause),
        };
        let Err(cause) = kept else {
            pause = RETRY_FIRST;
            continue;
        };
        if cause != said {
            tracing::warn!(
                database = shared.name,
                cause,
                "the catalog cannot be read; until it is, all reads go to the primary"
            );
            said = cause;
        }
        tokio::select! {
            () = sleep(pause) => pause = RETRY_MAX.min(pause * 2),
            changed = served.changed() => {
                if changed.is_err() {
                    return;
                }
                pause = RETRY_FIRST;
            }
        }
    }
}

fn is_wanted(shared: &Shared, served: &Served) -> bool {
    served.config.read_replicas().next().is_some() || shared.load.is_watched()
}

/// Returns when the configuration has changed, or nobody wants it any more.
async fn follow(
    shared: &Shared,
    served: &mut watch::Receiver<Arc<Served>>,
    server: &mut Server,
) -> Result<(), String> {
    let mut read = None;
    loop {
        let fingerprint = ask(server, FINGERPRINT).await?;
        if read.as_ref() != Some(&fingerprint) {
            let role = served.borrow().credentials.role.clone();
            shared.known.send_replace(read_catalog(server, role).await?);
            read = Some(fingerprint);
        }
        sleep(PACE).await;
        tokio::select! {
            () = wanted(shared) => {}
            cause = server.lost() => return Err(cause.to_string()),
            _ = served.changed() => return Ok(()),
        }
        if !is_wanted(shared, &served.borrow()) {
            return Ok(());
        }
    }
}

async fn wanted(shared: &Shared) {
    loop {
        tokio::select! {
            () = shared.definitions_changed.notified() => return,
            () = sleep(INTERVAL) => {}
        }
        if shared.counters.clients.load(Relaxed) > 0 {
            return;
        }
    }
}

async fn read_catalog(server: &mut Server, role: String) -> Result<Arc<Known>, String> {
    ask(server, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut builder = Builder::default();
    let mut rows = 0;
    for query in Query::ALL {
        let mut wrong = None;
        let each = |row: &[u8]| {
            rows += 1;
            if rows <= MAX_ROWS && wrong.is_none() {
                wrong = add(&mut builder, query, row).err();
            }
        };
        refused(server.ask_all(query.sql(), READ_LIMIT, each).await)?;
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
    }
    if rows > MAX_ROWS {
        return Err(format!("it has {rows} rows, more than {MAX_ROWS}"));
    }
    let search_path = ask(server, "SHOW search_path").await?;
    ask(server, "COMMIT").await?;
    let epoch = NEXT_EPOCH.fetch_add(1, Relaxed);
    // Some ten milliseconds of computing, for which nobody's query shall wait.
    let catalog = tokio::task::spawn_blocking(move || builder.finish(epoch));
    let catalog = catalog.await.map_err(|panic| panic.to_string())?;
    Ok(Arc::new(Known { catalog, search_path, role }))
}

fn add(builder: &mut Builder, query: Query, row: &[u8]) -> Result<(), String> {
    let columns = columns(row);
    let text = |column: &Option<Vec<u8>>| {
        String::from_utf8_lossy(column.as_deref().unwrap_or_default()).into_owned()
    };
    let columns: Vec<String> = columns.iter().map(text).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    builder.row(query, &columns).map_err(|wrong| wrong.to_string())
}

/// The first column of the only row, where there is one.
async fn ask(server: &mut Server, sql: &str) -> Result<String, String> {
    let mut first = Vec::new();
    refused(server.ask_all(sql, READ_LIMIT, |row| first = columns(row)).await)?;
    let text = first.into_iter().next().flatten().unwrap_or_default();
    String::from_utf8(text).map_err(|not_utf8| not_utf8.to_string())
}

fn refused(answer: std::io::Result<Result<(), bytes::BytesMut>>) -> Result<(), String> {
    match answer {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            Err(String::from_utf8_lossy(error_field(&error, b'M').unwrap_or_default()).into_owned())
        }
        Err(cause) => Err(cause.to_string()),
    }
}

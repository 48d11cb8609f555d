//! What is in the tables of a database, as a digest that does not depend on the order of rows.

use std::collections::BTreeMap;
use std::time::Duration;

use model::Lsn;
use tokio::time::sleep;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::ready::connect;
use super::{Credentials, NodePaths, PostgresError};

/// The primary is read for a comparison only as far as this: smaller tables first.
const COMPARED_BYTES: u64 = 256 * 1024 * 1024;
/// A moment at which nobody writes is looked for this often; a database that never rests is not compared.
const QUIET_TRIES: u32 = 100;
const QUIET_PAUSE: Duration = Duration::from_millis(20);

/// By table, with its schema: rows and the sum of their hashes.
pub type Contents = BTreeMap<String, (u64, String)>;

/// Tables that are in every copy: not temporary, not unlogged.
const TABLES: &str = "SELECT format('%I.%I', n.nspname, c.relname), pg_table_size(c.oid) \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind = 'r' AND c.relpersistence = 'p' \
     AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 2";

/// The contents of the app's database at a position of the log at which nobody was writing, small tables first, up to a
/// bound. `None` where there was no such moment.
///
/// # Errors
/// When the connection fails.
pub async fn contents_at_rest(
    paths: &NodePaths,
    credentials: &Credentials,
) -> Result<Option<(Lsn, Contents)>, PostgresError> {
    let client = open(paths, credentials).await?;
    for _ in 0..QUIET_TRIES {
        let position = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn";
        let before = one(&client, position).await?;
        // Whoever has written anything before this position has an id until others see it, which is some time after its
        // commit was written: it waits for the disk and for standbys. A snapshot would say nothing of the newest of them.
        let writes = "SELECT 1 FROM pg_stat_activity WHERE backend_xid IS NOT NULL LIMIT 1";
        if rows(&client, writes).await?.is_empty() {
            run(&client, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            // What is seen from here on was written before that position; and where it still stands, nothing else was.
            if one(&client, position).await? == before {
                let contents = contents(&client, COMPARED_BYTES).await?;
                return Ok(Some((Lsn(before.parse().unwrap_or_default()), contents)));
            }
            run(&client, "ROLLBACK").await?;
        }
        sleep(QUIET_PAUSE).await;
    }
    Ok(None)
}

/// Everything in the app's database, read from end to end.
///
/// # Errors
/// When a table cannot be read.
pub async fn all_contents(paths: &NodePaths, credentials: &Credentials) -> Result<Contents, PostgresError> {
    contents(&open(paths, credentials).await?, u64::MAX).await
}

async fn contents(client: &Client, up_to_bytes: u64) -> Result<Contents, PostgresError> {
    let (mut contents, mut bytes) = (Contents::new(), 0u64);
    for table in rows(client, TABLES).await? {
        let [name, size] = table.as_slice() else { continue };
        bytes = bytes.saturating_add(size.parse().unwrap_or(u64::MAX));
        if bytes > up_to_bytes {
            break;
        }
        let digest =
            format!("SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM {name} t");
        let found = rows(client, &digest).await?;
        if let Some([count, sum]) = found.first().map(Vec::as_slice) {
            contents.insert(name.clone(), (count.parse().unwrap_or_default(), sum.clone()));
        }
    }
    Ok(contents)
}

async fn open(paths: &NodePaths, credentials: &Credentials) -> Result<Client, PostgresError> {
    let client = connect(paths, &credentials.superuser, &credentials.database)
        .await
        .map_err(PostgresError::Connection)?;
    // What a row looks like as text must not depend on what somebody has set.
    run(
        &client,
        "SET datestyle = iso; SET timezone = 'UTC'; SET extra_float_digits = 3; SET search_path = ''",
    )
    .await?;
    Ok(client)
}

async fn run(client: &Client, statement: &str) -> Result<(), PostgresError> {
    client.batch_execute(statement).await.map_err(PostgresError::Connection)
}

async fn one(client: &Client, query: &str) -> Result<String, PostgresError> {
    Ok(rows(client, query).await?.into_iter().flatten().next().unwrap_or_default())
}

async fn rows(client: &Client, query: &str) -> Result<Vec<Vec<String>>, PostgresError> {
    let messages = client.simple_query(query).await.map_err(PostgresError::Connection)?;
    let row = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|index| row.get(index).unwrap_or_default().to_owned()).collect())
        }
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

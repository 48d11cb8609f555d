//! Bringing the database up to date: the release command.
//!
//! Everything happens in one transaction that starts with a lock. So two runs do not race: the second waits, and
//! finds nothing to do. A run that fails leaves nothing behind, and can simply be repeated.

mod sample;
mod seed;
mod words;

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

use crate::error::StartError;

/// How long to keep trying while the database does not answer yet.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two attempts.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// The key of the lock that only one migration holds: any number that nobody else uses.
const LOCK_KEY: i64 = 0x6672_6f6e_7470_6167;

/// Each is applied once, in this order, and never edited after its release.
const MIGRATIONS: &[(i32, &str, &str)] = &[
    (
        1,
        "people_stories_votes_comments",
        include_str!("../../migrations/0001_people_stories_votes_comments.sql"),
    ),
    (2, "ranking", include_str!("../../migrations/0002_ranking.sql")),
    (3, "search", include_str!("../../migrations/0003_search.sql")),
];

/// Applies what is missing, and fills an empty database with sample data.
///
/// # Errors
/// When the database cannot be reached within [`CONNECT_PATIENCE`], or refuses a statement.
pub fn run(config: Config) -> Result<(), StartError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Server)?;
    runtime.block_on(migrate(&config))
}

async fn migrate(config: &Config) -> Result<(), StartError> {
    let mut client = connect(config).await?;
    let transaction = client.transaction().await.map_err(StartError::Migration)?;
    let locked = transaction.query_one("SELECT pg_advisory_xact_lock($1), now()", &[&LOCK_KEY]);
    let now = locked.await.map_err(StartError::Migration)?.get(1);

    // The sample is put together while PostgreSQL makes the tables for it.
    let wanted = seed::is_wanted(&transaction).await.map_err(StartError::Migration)?;
    let prepared = wanted
        .then(|| tokio::task::spawn_blocking(move || (sample::Sample::new(now), sample::password_hash())));
    let applied = apply(&transaction).await.map_err(StartError::Migration)?;
    let mut seeded = 0;
    if let Some(prepared) = prepared {
        let stopped = |_| StartError::Configuration("the sample was not finished".to_owned());
        let (sample, hash) = prepared.await.map_err(stopped)?;
        seed::fill(&transaction, &sample, &hash?).await.map_err(StartError::Migration)?;
        seeded = sample.stories.len();
    }
    transaction.commit().await.map_err(StartError::Migration)?;
    println!(r#"{{"event":"migrated","applied":{applied},"sample_stories":{seeded}}}"#);
    Ok(())
}

async fn apply(transaction: &tokio_postgres::Transaction<'_>) -> Result<usize, tokio_postgres::Error> {
    // Asked for first, because IF NOT EXISTS would print a notice on every run but the first.
    let exists = transaction.query_one("SELECT to_regclass('schema_migrations') IS NOT NULL", &[]);
    if !exists.await?.get::<_, bool>(0) {
        transaction
            .batch_execute(
                "CREATE TABLE schema_migrations (
                    version    integer PRIMARY KEY,
                    name       text NOT NULL,
                    applied_at timestamptz NOT NULL DEFAULT now()
                )",
            )
            .await?;
    }
    let mut applied = 0;
    for (version, name, sql) in MIGRATIONS {
        let note = "INSERT INTO schema_migrations (version, name) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        if transaction.execute(note, &[version, name]).await? == 1 {
            transaction.batch_execute(sql).await?;
            applied += 1;
        }
    }
    Ok(applied)
}

/// Connects, and keeps trying while the database is absent or starting.
async fn connect(config: &Config) -> Result<Client, StartError> {
    let deadline = Instant::now() + CONNECT_PATIENCE;
    let mut config = config.clone();
    config.connect_timeout(CONNECT_PATIENCE);
    loop {
        match config.connect(NoTls).await {
            Ok((client, connection)) => {
                // It ends when the client is dropped; what goes wrong shows in the client's own calls.
                drop(tokio::spawn(connection));
                return Ok(client);
            }
            Err(error) if !may_pass(&error) || Instant::now() > deadline => {
                return Err(StartError::Unreachable(error));
            }
            Err(_) => tokio::time::sleep(CONNECT_PAUSE).await,
        }
    }
}

/// Whether waiting may help. A wrong password or a missing database stays wrong.
fn may_pass(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(|code| {
        *code == SqlState::CANNOT_CONNECT_NOW
            || *code == SqlState::TOO_MANY_CONNECTIONS
            || code.code().starts_with("57P")
            || code.code().starts_with("08")
    })
}

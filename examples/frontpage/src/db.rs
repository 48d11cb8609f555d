//! The way to PostgreSQL: a small pool whose every wait has a limit.
//!
//! A connection that broke is noticed when it is next taken from the pool, and replaced; so when the database comes
//! back the service does too, with nothing to restart. A connection whose answer did not come in time is thrown
//! away rather than returned: the next user would wait behind the same silence.

use std::future::Future;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};

use crate::error::{Error, StartError};

/// Connections for requests. PostgreSQL works best with a few busy ones; a request uses one at a time, briefly.
const POOL_SIZE: usize = 8;
/// How long a request waits for its turn before the visitor is told to come back.
const WAIT_LIMIT: Duration = Duration::from_secs(3);
/// How long opening a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long a statement or a transaction may take.
const QUERY_LIMIT: Duration = Duration::from_secs(10);
/// How long the health check may take, all in all.
const HEALTH_LIMIT: Duration = Duration::from_secs(1);

pub type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

#[derive(Clone)]
pub struct Database {
    pool: Pool,
    /// One connection of its own for health checks: being busy must not look like being broken, or a crowd would
    /// get healthy instances taken out of service one after the other.
    health: Pool,
}

impl Database {
    /// Prepares the pools; nothing connects before the first use.
    ///
    /// # Errors
    /// When the pool refuses its settings.
    pub fn new(config: &tokio_postgres::Config) -> Result<Self, StartError> {
        Ok(Self { pool: pool(config, POOL_SIZE)?, health: pool(config, 1)? })
    }

    /// All rows of one statement.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is away or silent, [`Error::Internal`] when it refuses the statement.
    pub async fn query(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        let client = self.client().await?;
        let answer = limited(async {
            let statement = client.prepare_cached(sql).await?;
            Ok(client.query(&statement, parameters).await?)
        });
        let answer = answer.await;
        settle(client, answer)
    }

    /// The only row of one statement, if there is one.
    ///
    /// # Errors
    /// As [`Database::query`].
    pub async fn query_opt(&self, sql: &str, parameters: Parameters<'_>) -> Result<Option<Row>, Error> {
        Ok(self.query(sql, parameters).await?.into_iter().next())
    }

    /// A connection for a transaction: run it inside [`limited`], and hand both to [`settle`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] when none comes free in time, or none can be opened.
    pub async fn client(&self) -> Result<Object, Error> {
        Ok(self.pool.get().await?)
    }

    /// Whether the database answers within [`HEALTH_LIMIT`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not.
    pub async fn check(&self) -> Result<(), Error> {
        let answer = tokio::time::timeout(HEALTH_LIMIT, async {
            let client = self.health.get().await?;
            // The guard is disarmed by the answer. If the limit cuts us off first, it takes the silent connection
            // out of the pool.
            let mut probe = Probe(Some(client));
            if let Some(client) = &probe.0 {
                client.simple_query("SELECT 1").await?;
            }
            drop(probe.0.take());
            Ok(())
        });
        answer.await.unwrap_or_else(|_| Err(Error::Unavailable(format!("no answer in {HEALTH_LIMIT:?}"))))
    }
}

/// Discards its connection unless that was taken out first.
struct Probe(Option<Object>);

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}

/// What a statement or transaction came to.
pub enum Answer<T> {
    Given(T),
    Silence,
}

/// Waits for `work` for at most [`QUERY_LIMIT`].
pub async fn limited<T>(work: impl Future<Output = Result<T, Error>>) -> Answer<Result<T, Error>> {
    match tokio::time::timeout(QUERY_LIMIT, work).await {
        Ok(answer) => Answer::Given(answer),
        Err(_) => Answer::Silence,
    }
}

/// Returns the connection to its pool, or throws it away when it has gone silent.
///
/// # Errors
/// The answer's own, or [`Error::Unavailable`] for silence.
pub fn settle<T>(client: Object, answer: Answer<Result<T, Error>>) -> Result<T, Error> {
    match answer {
        Answer::Given(answer) => answer,
        Answer::Silence => {
            drop(Object::take(client));
            Err(Error::Unavailable(format!("no answer in {QUERY_LIMIT:?}")))
        }
    }
}

fn pool(config: &tokio_postgres::Config, size: usize) -> Result<Pool, StartError> {
    let mut config = config.clone();
    config.connect_timeout(CONNECT_LIMIT);
    if config.get_application_name().is_none() {
        config.application_name("frontpage");
    }
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    Pool::builder(Manager::from_config(config, NoTls, recycling))
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(WAIT_LIMIT))
        .create_timeout(Some(CONNECT_LIMIT))
        .recycle_timeout(Some(CONNECT_LIMIT))
        .build()
        .map_err(|problem| StartError::Configuration(problem.to_string()))
}

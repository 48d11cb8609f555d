//! The app's role and database.

use std::time::Duration;

use postgres_protocol::password::scram_sha_256;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::ready::connect;
use super::{Credentials, NodePaths, PostgresError};

/// For each statement. Creating a database copies a template and may wait for a checkpoint.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// What [`provision`] found or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provisioned {
    /// The app's role can enter its database already.
    Already,
    Created,
}

/// Sees to it that the app's role can log in to its database and owns it. Running it again is harmless; so is a crash
/// in the middle.
///
/// # Errors
/// When PostgreSQL refuses or the connection fails. Nothing that exists is ever dropped.
pub async fn provision(paths: &NodePaths, credentials: &Credentials) -> Result<Provisioned, PostgresError> {
    let superuser = connect(paths, &credentials.superuser, "postgres").await.map_err(failed)?;
    // Asked before: a login that cannot succeed yet would stand in the log of a new database as a failure.
    if owns_database(&superuser, credentials).await?
        && connect(paths, &credentials.app, &credentials.database).await.is_ok()
    {
        return Ok(Provisioned::Already);
    }
    let role = identifier(&credentials.app.role);
    // The server gets a verifier, never the password: whatever it logs or shows, there is nothing to read.
    let verifier = scram_sha_256(credentials.app.password.as_bytes());
    let known =
        exists(&superuser, "SELECT 1 FROM pg_roles WHERE rolname = $1", &credentials.app.role).await?;
    let verb = if known { "ALTER" } else { "CREATE" };
    execute(&superuser, &format!("{verb} ROLE {role} LOGIN PASSWORD '{verifier}'")).await?;
    let database = identifier(&credentials.database);
    if exists(&superuser, "SELECT 1 FROM pg_database WHERE datname = $1", &credentials.database).await? {
        execute(&superuser, &format!("ALTER DATABASE {database} OWNER TO {role}")).await?;
    } else {
        execute(&superuser, &format!("CREATE DATABASE {database} OWNER {role}")).await?;
    }
    // By default everybody may enter every database; here the owner may, and the superuser.
    execute(&superuser, &format!("REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC")).await?;
    Ok(Provisioned::Created)
}

/// Makes the superuser of a cluster that was made elsewhere ours, by giving it our password. The app's role gets its own from
/// [`provision`]. Returns the databases that are there.
///
/// # Errors
/// When PostgreSQL refuses or the connection fails.
pub async fn take_in(paths: &NodePaths, credentials: &Credentials) -> Result<Vec<String>, PostgresError> {
    let superuser = connect(paths, &credentials.superuser, "postgres").await.map_err(failed)?;
    let verifier = scram_sha_256(credentials.superuser.password.as_bytes());
    let role = identifier(&credentials.superuser.role);
    // Nobody follows it who could confirm a commit.
    execute(&superuser, "SET synchronous_commit = local").await?;
    execute(&superuser, &format!("ALTER ROLE {role} LOGIN PASSWORD '{verifier}'")).await?;
    let query = "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY datname";
    let rows = within_limit(async { superuser.query(query, &[]).await.map_err(failed) }).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn owns_database(superuser: &Client, credentials: &Credentials) -> Result<bool, PostgresError> {
    let owner = "SELECT 1 FROM pg_database WHERE datname = $1 AND pg_get_userbyid(datdba) = $2";
    let (database, role) = (&credentials.database, &credentials.app.role);
    within_limit(async { Ok(!superuser.query(owner, &[database, role]).await.map_err(failed)?.is_empty()) })
        .await
}

async fn exists(client: &Client, query: &str, name: &str) -> Result<bool, PostgresError> {
    within_limit(async { Ok(!client.query(query, &[&name]).await.map_err(failed)?.is_empty()) }).await
}

async fn execute(client: &Client, statement: &str) -> Result<(), PostgresError> {
    within_limit(async { client.batch_execute(statement).await.map_err(failed) }).await
}

async fn within_limit<T>(
    statement: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, PostgresError> {
    timeout(STATEMENT_TIMEOUT, statement).await.unwrap_or_else(|_| {
        let waited_ms = STATEMENT_TIMEOUT.as_millis() as u64;
        Err(PostgresError::NotReady { waited_ms, last: "a statement did not end".to_owned() })
    })
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn failed(error: tokio_postgres::Error) -> PostgresError {
    match error.as_db_error() {
        Some(said) => PostgresError::Refused {
            sqlstate: said.code().code().to_owned(),
            message: said.message().to_owned(),
        },
        None => PostgresError::Connection(error),
    }
}

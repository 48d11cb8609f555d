//! Asking a node whether it serves, and waiting until it does.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{Credentials, Login, NodePaths, PostgresError, processes_in};
use crate::engines::PgVersion;

/// One question and its answer. A server that is slower than this is not ready.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_FIRST: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(100);

/// What a node says when it is asked for its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// The one that runs, which need not be the one that is installed by now; `None` where it is no number.
    Ready(Option<PgVersion>),
    /// It runs, and is on its way up or down; in its words, with the log segment that is being replayed after a crash.
    Starting(String),
    /// Nothing listens.
    Absent(String),
}

/// Asks once, as the superuser.
///
/// # Errors
/// When the node serves, but not us: a wrong password, or no place left ([`PostgresError::Refused`]).
pub async fn probe(paths: &NodePaths, credentials: &Credentials) -> Result<Readiness, PostgresError> {
    let ask = async {
        let client = connect(paths, &credentials.superuser, "postgres").await?;
        client.simple_query("SHOW server_version").await
    };
    let error = match timeout(PROBE_TIMEOUT, ask).await {
        Ok(Ok(answer)) => return Ok(Readiness::Ready(version_in(&answer))),
        Ok(Err(error)) => error,
        Err(_) => return Ok(Readiness::Starting("it accepts connections, but does not answer".to_owned())),
    };
    match error.as_db_error() {
        Some(said) if *said.code() == SqlState::CANNOT_CONNECT_NOW => {
            Ok(Readiness::Starting(recovery(paths).unwrap_or_else(|| said.message().to_owned())))
        }
        // It was stopped while it answered.
        Some(said) if *said.code() == SqlState::ADMIN_SHUTDOWN => {
            Ok(Readiness::Starting(said.message().to_owned()))
        }
        Some(said) => Err(PostgresError::Refused {
            sqlstate: said.code().code().to_owned(),
            message: said.message().to_owned(),
        }),
        None => Ok(Readiness::Absent(innermost(&error))),
    }
}

/// Asks until the node is ready, and gives its version. `on_starting` hears each new answer once.
///
/// This does not watch the process: race it against the process's end. Cancel safe.
///
/// # Errors
/// [`PostgresError::NotReady`] at the deadline; others as [`probe`], at once.
pub async fn wait_ready(
    paths: &NodePaths,
    credentials: &Credentials,
    deadline: Instant,
    on_starting: &(dyn Fn(&str) + Sync),
) -> Result<Option<PgVersion>, PostgresError> {
    let began = Instant::now();
    let mut pause = POLL_FIRST;
    let mut last = String::new();
    loop {
        let answer = match begun(paths) {
            Some(status) => recovery(paths).unwrap_or(status),
            None => match probe(paths, credentials).await? {
                Readiness::Ready(version) => return Ok(version),
                Readiness::Starting(answer) | Readiness::Absent(answer) => answer,
            },
        };
        if answer != last {
            on_starting(&answer);
            last = answer;
        }
        if Instant::now() + pause >= deadline {
            let waited_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            return Err(PostgresError::NotReady { waited_ms, last });
        }
        sleep(pause).await;
        pause = POLL_MAX.min(pause * 2);
    }
}

/// Reads `15.18 (Debian 15.18-0+deb12u1)`.
fn version_in(answer: &[SimpleQueryMessage]) -> Option<PgVersion> {
    answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => PgVersion::parse(row.get(0)?.split_whitespace().next()?),
        _ => None,
    })
}

/// Opens a session over the Unix socket. It ends when the client is dropped.
pub(super) async fn connect(
    paths: &NodePaths,
    login: &Login,
    database: &str,
) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::Config::new()
        .host_path(paths.socket_dir())
        .port(paths.port())
        .user(&login.role)
        .password(&login.password)
        .dbname(database)
        .application_name("switchback")
        .connect_timeout(PROBE_TIMEOUT)
        .connect(NoTls)
        .await?;
    // Owned by the client: it ends as soon as that is dropped, and what fails in it fails the client's next call.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// What the postmaster says of itself in its lock file, while that is not that it is ready. Asked over its socket by then,
/// it would note each time in its log that it had to refuse us.
fn begun(paths: &NodePaths) -> Option<String> {
    const STATUS_LINE: usize = 7;
    let text = std::fs::read_to_string(paths.pgdata().join("postmaster.pid")).ok()?;
    match text.lines().nth(STATUS_LINE).map(str::trim) {
        Some("ready") => None,
        Some(status) => Some(status.to_owned()),
        None => Some("starting".to_owned()),
    }
}

/// What the startup process says of itself: `startup recovering 000000010000000000000003`.
fn recovery(paths: &NodePaths) -> Option<String> {
    let processes = processes_in(&paths.pgdata()).ok()?;
    processes.iter().find_map(|process| {
        let (_, segment) = process.title.split_once("startup recovering ")?;
        Some(format!("recovering from a crash: replaying log segment {}", segment.trim()))
    })
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

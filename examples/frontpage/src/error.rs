//! What can go wrong, sorted by whose fault it is: that decides the status, and whether to try again.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use tokio_postgres::error::SqlState;

use crate::view;

/// Why the process could not start, or could not finish its command.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Configuration(String),
    #[error("cannot listen on port {port}: {cause}")]
    Listen { port: u16, cause: std::io::Error },
    #[error("the server failed: {0}")]
    Server(std::io::Error),
    #[error("requests were still running {0:?} after the order to stop")]
    Drain(std::time::Duration),
    #[error("the database is not reachable: {}", chain(.0))]
    Unreachable(tokio_postgres::Error),
    #[error("the migration failed: {}", chain(.0))]
    Migration(tokio_postgres::Error),
    #[error("{0}")]
    Secret(#[from] SecretError),
}

/// The system gave no randomness, or a password could not be hashed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no secret could be made: {0}")]
pub struct SecretError(pub &'static str);

/// Why a request was not answered as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is nothing here")]
    NotFound,
    /// The client sent something no form of ours would send.
    #[error("{0}")]
    BadRequest(&'static str),
    /// Only users may do this; after logging in they return to `back`.
    #[error("log in first")]
    LogInFirst { back: String },
    /// The form's token is missing or belongs to another session.
    #[error("this form is out of date: go back, reload the page and send it again")]
    Forged,
    /// The database or this instance has no room now; the same request may work in a moment.
    #[error("unavailable: {0}")]
    Unavailable(String),
    #[error("internal: {0}")]
    Internal(String),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        // Without an answer from PostgreSQL it is the connection that failed.
        let away = error.code().is_none_or(is_away);
        if away { Self::Unavailable(chain(&error)) } else { Self::Internal(chain(&error)) }
    }
}

impl From<deadpool_postgres::PoolError> for Error {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        Self::Unavailable(chain(&error))
    }
}

impl From<SecretError> for Error {
    fn from(error: SecretError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// The states in which PostgreSQL turns clients away for a while: connection trouble, shutting down, starting up,
/// full, or (while roles change hands) read-only.
fn is_away(state: &SqlState) -> bool {
    let code = state.code();
    code.starts_with("08")
        || code.starts_with("57P")
        || code.starts_with("53")
        || *state == SqlState::READ_ONLY_SQL_TRANSACTION
}

/// An error with its causes: PostgreSQL's own message is a cause, the outer one only says "db error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, title, advice) = match &self {
            Self::LogInFirst { back } => {
                return Redirect::to(&view::log_in_path(back)).into_response();
            }
            Self::NotFound => {
                (StatusCode::NOT_FOUND, "Nothing here", "This page does not exist, or no longer does.")
            }
            Self::BadRequest(why) => (StatusCode::BAD_REQUEST, "That did not work", *why),
            Self::Forged => (
                StatusCode::FORBIDDEN,
                "That form is out of date",
                "Go back, reload the page and send the form again.",
            ),
            Self::Unavailable(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Back in a moment",
                "We cannot answer right now. Nothing is lost: please try again shortly.",
            ),
            Self::Internal(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something broke",
                "This is our fault, and it has been noted.",
            ),
        };
        if status.is_server_error() {
            eprintln!("{self}");
        }
        let mut response = (status, view::layout::plain(title, advice)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

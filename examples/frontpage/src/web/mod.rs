//! From requests to pages: the routes, and what all of them share.

mod account;
mod assets;
mod record;
mod stories;
mod visitor;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use crate::db::Database;
use crate::error::Error;

/// The largest form that is read, in bytes: the longest text in four-byte characters, percent-encoded.
const FORM_LIMIT: usize = 128 * 1024;
/// Passwords hashed at once. Each takes a processor and 12 MiB for a moment; pages should not wait behind them.
const HASHES_AT_ONCE: usize = 2;

/// Everything a request handler can reach.
#[derive(Clone)]
pub struct Site {
    database: Database,
    hashing: Arc<Semaphore>,
}

impl Site {
    /// A site on top of a database.
    pub fn new(database: Database) -> Self {
        Self { database, hashing: Arc::new(Semaphore::new(HASHES_AT_ONCE)) }
    }
}

/// All routes.
pub fn router(site: Site) -> Router {
    Router::new()
        .route("/", get(stories::front))
        .route("/new", get(stories::newest))
        .route("/search", get(stories::search))
        .route("/submit", get(stories::submit_form).post(stories::submit))
        .route("/item/{story}", get(stories::item))
        .route("/item/{story}/vote", post(stories::vote))
        .route("/item/{story}/unvote", post(stories::unvote))
        .route("/item/{story}/comment", post(stories::comment))
        .route("/reply/{comment}", get(stories::reply_form))
        .route("/user/{name}", get(account::profile))
        .route("/user/{name}/comments", get(account::remarks))
        .route("/signup", get(account::sign_up_form).post(account::sign_up))
        .route("/login", get(account::log_in_form).post(account::log_in))
        .route("/logout", post(account::log_out))
        .route(record::HEALTH, get(health))
        .route("/assets/{file}", get(assets::serve))
        .route("/robots.txt", get(assets::robots))
        .fallback(async || Error::NotFound)
        .layer(DefaultBodyLimit::max(FORM_LIMIT))
        .layer(middleware::map_response(guard))
        .layer(middleware::from_fn(record::request))
        .with_state(site)
}

async fn health(State(site): State<Site>) -> Result<Response, Error> {
    site.database.check().await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], "ok\n").into_response())
}

/// Headers that every answer carries. There are no scripts, so none may run, wherever they come from.
async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'",
        ),
    );
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    // Pages differ from person to person unless they say otherwise.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    response
}

//! One line on stdout for every request that somebody made.

use std::io::Write as _;
use std::time::Instant;

use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;

/// Where a front door asks once a second whether all is well. That it is is no news.
pub const HEALTH: &str = "/healthz";

/// Passes the request on, and notes what came of it. The query is left out: what people search for is theirs.
pub async fn request(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = quoted(request.uri().path());
    let response = next.run(request).await;
    if path == HEALTH && response.status().is_success() {
        return response;
    }
    let status = response.status().as_u16();
    let bytes = response.body().size_hint().exact().unwrap_or(0);
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let line = format!(
        "{{\"method\":\"{method}\",\"path\":\"{path}\",\"status\":{status},\"ms\":{ms:.1},\"bytes\":{bytes}}}\n"
    );
    // A reader that went away is no reason to fail the request.
    let _ = std::io::stdout().write_all(line.as_bytes());
    response
}

/// A path inside JSON quotes; a long one is cut.
fn quoted(path: &str) -> String {
    path.chars().take(200).map(|c| if c == '"' || c == '\\' || c.is_control() { '_' } else { c }).collect()
}

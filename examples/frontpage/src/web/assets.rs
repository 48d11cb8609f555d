//! The style sheet and the icon, from the binary. Their names change with their content, so they may be kept forever.

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::error::Error;
use crate::view::asset::{self, ICON, STYLE};

const FOREVER: &str = "public, max-age=31536000, immutable";
const BRIEFLY: &str = "public, max-age=60";

/// `GET /assets/{file}`.
pub async fn serve(Path(file): Path<String>) -> Result<Response, Error> {
    let asset = [&STYLE, &ICON].into_iter().find(|asset| asset.answers_to(&file));
    let asset = asset.ok_or(Error::NotFound)?;
    // While a new release rolls out, a page of one instance may ask another instance for its style sheet. The
    // present one will do, but must not be kept under the other one's name.
    let keep = if asset.name() == file { FOREVER } else { BRIEFLY };
    let headers = [(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, keep)];
    Ok((headers, asset.content).into_response())
}

/// `GET /robots.txt`: lists and stories may be crawled, forms need not be.
pub async fn robots() -> impl IntoResponse {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, asset::HOURLY)];
    (headers, "User-agent: *\nDisallow: /search\nDisallow: /reply/\nDisallow: /submit\n")
}

//! What the edge answers by itself.

use super::Piece;
use super::seam::{ResponseSink, SinkError};
use crate::head::{BodyLength, Persistence, ResponseHead};
use crate::metrics::Reject;

/// The words for the statuses that the edge gives.
pub(crate) fn reason_phrase(status: u16) -> &'static str {
    match status {
        204 => "No Content",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// The metric label for a refusal with this status.
pub(crate) fn reject_for(status: u16) -> Reject {
    match status {
        404 => Reject::NoRoute,
        405 => Reject::MethodNotAllowed,
        408 => Reject::RequestTimeout,
        413 => Reject::BodyTooLarge,
        414 => Reject::TargetTooLong,
        417 => Reject::ExpectationFailed,
        421 => Reject::Misdirected,
        431 => Reject::HeadTooLarge,
        502 => Reject::BadGateway,
        503 => Reject::Unavailable,
        504 => Reject::GatewayTimeout,
        505 => Reject::VersionNotSupported,
        _ => Reject::BadRequest,
    }
}

/// Answers with a line of text for whoever has to find out why; `request_id` leads to the access log.
pub(crate) async fn reply(
    sink: &mut impl ResponseSink,
    scratch: &mut ResponseHead,
    status: u16,
    request_id: &[u8],
    method: &[u8],
    persistence: Persistence,
) -> Result<u64, SinkError> {
    let phrase = reason_phrase(status);
    let text = [phrase.as_bytes(), b"\nrequest ", request_id, b"\n"].concat();
    scratch.clear();
    scratch.status = status;
    scratch.reason = scratch.headers.append_text(phrase.as_bytes());
    scratch.headers.push(b"X-Request-Id", request_id);
    if status == 204 {
        scratch.headers.push(b"Allow", b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH");
        sink.head(scratch, BodyLength::None, persistence).await?;
        sink.end(None).await?;
        return Ok(0);
    }
    scratch.headers.push(b"Content-Type", b"text/plain");
    if status == 503 {
        scratch.headers.push(b"Retry-After", b"1");
    }
    if method == b"HEAD" {
        scratch.headers.push(b"Content-Length", text.len().to_string().as_bytes());
        sink.head(scratch, BodyLength::None, persistence).await?;
        sink.end(None).await?;
        return Ok(0);
    }
    sink.head(scratch, BodyLength::Known(text.len() as u64), persistence).await?;
    sink.send(Piece::Lent(&text)).await?;
    sink.end(None).await?;
    Ok(text.len() as u64)
}

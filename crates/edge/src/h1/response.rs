//! From the bytes of a response head to a [`ResponseHead`], as strict as for requests: an upstream that an attacker
//! can make answer ambiguously would poison the connection for the next client.

use std::mem::MaybeUninit;

use super::fields::{members, parse_content_length};
use super::request::{once, reason, refuse_folding};
use super::{HeadLimits, Reject};
use crate::head::{BodyLength, Known, Persistence, ResponseHead, Span, Version};

const MOST_FIELDS: usize = 256;

/// What the request allows its response to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A response with a body as its head says.
    Body,
    /// The answer to HEAD: a head that may speak of a body that does not follow.
    HeadOnly,
}

/// Reads a head from the start of `input` into `head`. `None`: more bytes are needed. `Some(n)`: the head was `n`
/// bytes long.
///
/// # Errors
/// The response cannot be trusted: the connection must be closed and the client is answered 502.
pub(crate) fn parse_response_head(
    input: &[u8],
    limits: &HeadLimits,
    expected: Expected,
    head: &mut ResponseHead,
) -> Result<Option<usize>, Reject> {
    let Some(length) = head_length(input, limits)? else {
        return Ok(None);
    };
    let raw = &input[..length];
    refuse_folding(raw)?;
    let mut slots = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    match parser.parse_response_with_uninit_headers(
        &mut parsed,
        raw,
        &mut slots[..limits.fields.min(MOST_FIELDS)],
    ) {
        Ok(httparse::Status::Complete(n)) if n == raw.len() => {}
        Ok(_) => return Err(Reject::StatusLine),
        Err(error) => return Err(reason(error)),
    }
    let (Some(status), Some(minor), Some(words)) = (parsed.code, parsed.version, parsed.reason) else {
        return Err(Reject::StatusLine);
    };
    if !(100..1000).contains(&status) {
        return Err(Reject::StatusLine);
    }

    head.clear();
    let base = head.headers.append_text(raw).start;
    let origin = raw.as_ptr() as usize;
    let span = |part: &[u8]| {
        // An absent reason phrase is a static empty string, outside of `raw`.
        let at = (part.as_ptr() as usize).wrapping_sub(origin);
        if part.is_empty() || at > raw.len() {
            return Span::default();
        }
        let start = base + at as u32;
        Span { start, end: start + part.len() as u32 }
    };
    head.status = status;
    head.reason = span(words.as_bytes());
    head.version = if minor == 0 { Version::Http10 } else { Version::Http11 };

    let mut content_length = None;
    let mut chunked = false;
    let (mut close, mut keep_alive) = (false, false);
    for field in parsed.headers.iter() {
        match head.headers.push_spans(span(field.name.as_bytes()), span(field.value)) {
            Known::ContentLength => {
                let length = parse_content_length(field.value)?;
                once(content_length.replace(length), Reject::ContentLength)?;
            }
            Known::TransferEncoding => {
                if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Reject::TransferEncoding);
                }
                chunked = true;
            }
            Known::Connection => {
                close |= members(field.value).any(|member| member.eq_ignore_ascii_case(b"close"));
                keep_alive |= members(field.value).any(|member| member.eq_ignore_ascii_case(b"keep-alive"));
            }
            _ => {}
        }
    }
    if chunked && content_length.is_some() {
        return Err(Reject::AmbiguousLength);
    }
    if chunked && head.version == Version::Http10 {
        return Err(Reject::TransferEncoding);
    }
    let bodiless = status < 200 || status == 204 || status == 304 || expected == Expected::HeadOnly;
    head.length = match (bodiless, chunked, content_length) {
        (true, ..) => BodyLength::None,
        (false, true, _) => BodyLength::Framed,
        (false, false, Some(length)) => BodyLength::Known(length),
        (false, false, None) => BodyLength::UntilClose,
    };
    let stays =
        !close && (head.version == Version::Http11 || keep_alive) && head.length != BodyLength::UntilClose;
    head.persistence = if stays { Persistence::KeepAlive } else { Persistence::Close };
    Ok(Some(length))
}

fn head_length(input: &[u8], limits: &HeadLimits) -> Result<Option<usize>, Reject> {
    let window = &input[..input.len().min(limits.bytes)];
    let mut line_start = 0;
    for end in memchr::memchr_iter(b'\n', window) {
        if end == 0 || window[end - 1] != b'\r' {
            return Err(Reject::LineEnd);
        }
        if line_start + 1 == end {
            return Ok(Some(end + 1));
        }
        line_start = end + 1;
    }
    if input.len() < limits.bytes { Ok(None) } else { Err(Reject::HeadTooLarge) }
}

//! From the bytes of a request head to a [`RequestHead`], or a reason to refuse it.
//!
//! `httparse` splits the lines; what it tolerates and RFC 9112 lets a recipient refuse is refused here on the raw
//! bytes.

use std::mem::MaybeUninit;

use super::fields::{is_authority, is_target, members, parse_content_length};
use super::{HeadLimits, Reject};
use crate::head::{BodyLength, Known, Persistence, RequestHead, Span, Version};

/// Most fields that are ever looked at, whatever the limits say.
const MOST_FIELDS: usize = 256;

/// Reads a head from the start of `input` into `head`. `None`: more bytes are needed. `Some(n)`: the head was `n`
/// bytes long.
///
/// # Errors
/// The request must be refused and the connection closed: what follows cannot be told apart.
pub(crate) fn parse_request_head(
    input: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Option<usize>, Reject> {
    // RFC 9112, 2.2: one empty line before a request is forgiven, since old clients end a body with it.
    let skipped = if input.starts_with(b"\r\n") { 2 } else { 0 };
    let input = &input[skipped..];
    if matches!(input, b"" | b"\r") && skipped == 0 {
        return Ok(None);
    }
    let Some(length) = head_length(input, limits)? else {
        return Ok(None);
    };
    let raw = &input[..length];
    refuse_folding(raw)?;

    let mut slots = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let count = limits.fields.min(MOST_FIELDS);
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(raw, &mut slots[..count]) {
        Ok(httparse::Status::Complete(n)) if n == raw.len() => {}
        Ok(_) => return Err(Reject::StartLine),
        Err(error) => return Err(reason(error)),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Reject::StartLine);
    };
    if target.len() > limits.target {
        return Err(Reject::TargetTooLong);
    }
    if !is_target(target.as_bytes()) {
        return Err(Reject::Target);
    }

    head.clear();
    let base = head.headers.append_text(raw).start;
    let origin = raw.as_ptr() as usize;
    let span = |part: &[u8]| {
        // An empty part may be a static one, outside of `raw`.
        if part.is_empty() {
            return Span::default();
        }
        let start = base + (part.as_ptr() as usize - origin) as u32;
        Span { start, end: start + part.len() as u32 }
    };
    head.method = span(method.as_bytes());
    head.target = span(target.as_bytes());
    head.version = if minor == 0 { Version::Http10 } else { Version::Http11 };

    let mut seen = Seen::default();
    for field in parsed.headers.iter() {
        let known = head.headers.push_spans(span(field.name.as_bytes()), span(field.value));
        if known != Known::Other {
            seen.field(known, field.value, head)?;
        }
    }
    seen.conclude(head)?;
    read_target(head)?;
    Ok(Some(skipped + length))
}

/// Finds the end of the head, refusing what is too long and every line that does not end in CRLF.
fn head_length(input: &[u8], limits: &HeadLimits) -> Result<Option<usize>, Reject> {
    let window = &input[..input.len().min(limits.bytes)];
    if window.first().is_some_and(|byte| !byte.is_ascii_graphic()) {
        return Err(Reject::StartLine);
    }
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
    if input.len() < limits.bytes {
        return Ok(None);
    }
    // Which part was too long decides between 414 and 431.
    if line_start == 0 { Err(Reject::TargetTooLong) } else { Err(Reject::HeadTooLarge) }
}

/// A line that begins with white space continues the one before (or hides a field from one of two readers).
pub(super) fn refuse_folding(raw: &[u8]) -> Result<(), Reject> {
    let folded = memchr::memchr_iter(b'\n', raw).any(|end| matches!(raw.get(end + 1), Some(b' ' | b'\t')));
    if folded { Err(Reject::Folded) } else { Ok(()) }
}

pub(super) fn reason(error: httparse::Error) -> Reject {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Reject::Field,
        httparse::Error::NewLine => Reject::LineEnd,
        httparse::Error::TooManyHeaders => Reject::TooManyFields,
        httparse::Error::Version => Reject::Version,
        httparse::Error::Status => Reject::StatusLine,
        httparse::Error::Token => Reject::StartLine,
    }
}

/// Refuses a field that came before.
pub(super) fn once<T>(earlier: Option<T>, reject: Reject) -> Result<(), Reject> {
    if earlier.is_some() { Err(reject) } else { Ok(()) }
}

/// What the fields that frame the message said so far.
#[derive(Default)]
struct Seen {
    content_length: Option<u64>,
    chunked: bool,
    host: Option<Span>,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    upgrade: bool,
    h2c: bool,
}

impl Seen {
    fn field(&mut self, known: Known, value: &[u8], head: &mut RequestHead) -> Result<(), Reject> {
        match known {
            Known::ContentLength => {
                // Even two equal lengths are refused: whoever sends them is broken or is testing us.
                let length = parse_content_length(value)?;
                once(self.content_length.replace(length), Reject::ContentLength)?;
            }
            Known::TransferEncoding => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Reject::TransferEncoding);
                }
                self.chunked = true;
            }
            Known::Host => {
                let span = head.headers.kept().last().map(|field| field.value);
                once(std::mem::replace(&mut self.host, span), Reject::Host)?;
            }
            Known::Connection => {
                for member in members(value) {
                    if member.eq_ignore_ascii_case(b"close") {
                        self.close = true;
                    } else if member.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep_alive = true;
                    } else if member.eq_ignore_ascii_case(b"upgrade") {
                        self.connection_upgrade = true;
                    } else if Known::of(member).must_reach_upstream() {
                        return Err(Reject::Nominated);
                    }
                }
            }
            Known::Upgrade => {
                self.upgrade = true;
                self.h2c |= members(value).any(|name| name.eq_ignore_ascii_case(b"h2c"));
            }
            Known::Expect => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Reject::Expectation);
                }
                head.expects_continue = true;
            }
            Known::Te => {
                head.accepts_trailers |=
                    members(value).any(|member| member.eq_ignore_ascii_case(b"trailers"));
            }
            _ => {}
        }
        Ok(())
    }

    fn conclude(self, head: &mut RequestHead) -> Result<(), Reject> {
        if self.chunked && self.content_length.is_some() {
            return Err(Reject::AmbiguousLength);
        }
        if self.chunked && head.version == Version::Http10 {
            return Err(Reject::TransferEncoding);
        }
        head.length = match self.content_length {
            Some(0) | None if !self.chunked => {
                self.content_length.map_or(BodyLength::None, BodyLength::Known)
            }
            Some(length) => BodyLength::Known(length),
            None => BodyLength::Framed,
        };
        // An HTTP/1.0 hop in between might not have understood the length: nothing may follow such a body.
        let old_with_body = head.version == Version::Http10 && head.has_body();
        let asks_to_stay = head.version == Version::Http11 || self.keep_alive;
        head.persistence = if self.close || !asks_to_stay || old_with_body {
            Persistence::Close
        } else {
            Persistence::KeepAlive
        };
        head.expects_continue &= head.version == Version::Http11 && head.has_body();
        head.upgrade = !self.h2c
            && self.upgrade
            && self.connection_upgrade
            && head.version == Version::Http11
            && !head.has_body();
        match self.host {
            Some(host) => {
                let value = host.of(head.headers.text());
                if !value.is_empty() && !is_authority(value) {
                    return Err(Reject::Host);
                }
                head.authority = host;
            }
            None if head.version == Version::Http11 => return Err(Reject::Host),
            None => {}
        }
        Ok(())
    }
}

/// Brings the target to origin-form. In absolute-form the authority of the target rules and `Host` is ignored
/// (RFC 9112, 3.2.2).
fn read_target(head: &mut RequestHead) -> Result<(), Reject> {
    if head.method() == b"CONNECT" {
        return Err(Reject::Connect);
    }
    let target = head.target();
    if target[0] == b'/' {
        return Ok(());
    }
    if target == b"*" {
        return if head.method() == b"OPTIONS" { Ok(()) } else { Err(Reject::Target) };
    }
    let scheme = [b"http://".as_slice(), b"https://"]
        .into_iter()
        .find(|scheme| target.len() > scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme))
        .ok_or(Reject::Target)?
        .len();
    let rest = &target[scheme..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    if !is_authority(&rest[..end]) {
        return Err(Reject::Host);
    }
    let start = head.target.start + scheme as u32;
    let authority = Span { start, end: start + end as u32 };
    if rest.get(end) == Some(&b'/') {
        head.target.start = authority.end;
    } else {
        let origin_form = [b"/", &rest[end..]].concat();
        head.target = head.headers.append_text(&origin_form);
    }
    head.authority = authority;
    Ok(())
}

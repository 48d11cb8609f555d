//! What the edge says about a request to whoever stands behind it, and what it believes of what others said.
//!
//! `X-Forwarded-For`, `-Proto`, `-Host`, `Forwarded`, `X-Request-Id` and `traceparent` decide who is blamed, billed and
//! let in, so from a peer that is not trusted all of them are replaced. From a trusted one they are kept, and the
//! peer itself is appended to `X-Forwarded-For`.
//!
//! CGI, WSGI and their kin make `HTTP_X_FORWARDED_FOR` of `X_Forwarded_For` as well. Nobody has an honest use for such a
//! name, so what looks like a field that the edge writes or takes out never passes, whoever sends it.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use crate::head::{Known, RequestHead, ResponseHead, Span};
use crate::server::{Peer, Thread, View};

/// Bytes of the addresses in `X-Forwarded-For` that others have written. A longer chain is cut at its far end.
const LONGEST_CHAIN: usize = 448;

/// Longest `X-Request-Id` that is taken over.
const LONGEST_REQUEST_ID: usize = 128;

/// By what a request is known in logs and traces. The texts lie in the request's head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    /// The peer, or the nearest that is not trusted of those whom trusted ones named. What stands before it anybody may
    /// have written.
    pub(crate) client: IpAddr,
    request_id: Span,
    trace_id: Span,
}

impl Identity {
    pub(crate) fn request_id<'a>(&self, request: &'a RequestHead) -> &'a [u8] {
        self.request_id.of(request.headers.text())
    }

    pub(crate) fn trace_id<'a>(&self, request: &'a RequestHead) -> &'a [u8] {
        self.trace_id.of(request.headers.text())
    }
}

/// Strips what belongs to the client's connection and writes the fields of the module.
pub(crate) fn prepare_request(
    thread: &Thread,
    view: &View,
    peer: &Peer,
    request: &mut RequestHead,
) -> Identity {
    let trusted = view.trusts(peer.address);
    let headers = &mut request.headers;
    if headers.get(Known::Connection).is_some() {
        headers.drop_nominated();
    }
    headers.drop_look_alikes(|known| {
        known.must_reach_upstream() || known.is_hop_by_hop() || known == Known::SwitchbackFresh
    });

    let mut client = peer.address;
    let mut chain = [0; 512];
    let mut cursor = std::io::Cursor::new(&mut chain[..]);
    if trusted {
        for (_, value) in headers.iter_known(Known::XForwardedFor) {
            let nearest = nearest_hops(value, LONGEST_CHAIN);
            // What came before is farther away.
            if cursor.position() as usize + nearest.len() > LONGEST_CHAIN {
                cursor.set_position(0);
            }
            if !nearest.is_empty() {
                let _ = cursor.write_all(nearest);
                let _ = cursor.write_all(b", ");
            }
        }
        let written = cursor.position() as usize;
        client = nearest_stranger(view, &cursor.get_ref()[..written]).unwrap_or(client);
    }
    let _ = cursor.write_all(&peer.text);
    let chain_length = cursor.position() as usize;
    headers.drop_where(|known| known == Known::XForwardedFor);
    headers.push(b"X-Forwarded-For", &chain[..chain_length]);

    if !trusted {
        headers.drop_where(|known| {
            matches!(known, Known::XForwardedProto | Known::XForwardedHost | Known::Forwarded)
        });
    }
    if headers.get(Known::XForwardedProto).is_none() {
        headers.push(b"X-Forwarded-Proto", peer.scheme.as_bytes());
    }
    if headers.get(Known::XForwardedHost).is_none() && request.authority != Span::default() {
        let name = headers.append_text(b"X-Forwarded-Host");
        headers.push_spans(name, request.authority);
    }

    let kept =
        headers.find(Known::XRequestId).filter(|span| trusted && is_request_id(span.of(headers.text())));
    let request_id = match kept {
        Some(span) => span,
        None => {
            headers.drop_where(|known| known == Known::XRequestId);
            headers.push_value(b"X-Request-Id", &hex(thread.random()))
        }
    };

    let kept =
        headers.find(Known::Traceparent).filter(|span| trusted && is_traceparent(span.of(headers.text())));
    let traceparent = match kept {
        Some(span) => span,
        None => {
            headers.drop_where(|known| matches!(known, Known::Traceparent | Known::Tracestate));
            let mut value = *b"00-00000000000000000000000000000000-0000000000000000-01";
            value[3..35].copy_from_slice(&hex(thread.random()));
            value[36..52].copy_from_slice(&hex(thread.random())[..16]);
            headers.push_value(b"traceparent", &value)
        }
    };
    Identity {
        client,
        request_id,
        trace_id: Span { start: traceparent.start + 3, end: traceparent.start + 35 },
    }
}

/// The end of a list, of `most` bytes at the most and beginning with a whole member.
fn nearest_hops(list: &[u8], most: usize) -> &[u8] {
    let Some(beyond) = list.len().checked_sub(most).filter(|beyond| *beyond > 0) else {
        return list.trim_ascii();
    };
    match memchr::memchr(b',', &list[beyond - 1..]) {
        Some(comma) => list[beyond + comma..].trim_ascii(),
        None => b"",
    }
}

/// Whom trusted proxies saw, each appending its peer to the chain: the last address that is not trusted, or the first of
/// all. `None` where the last is no address.
fn nearest_stranger(view: &View, chain: &[u8]) -> Option<IpAddr> {
    let mut nearest = None;
    for hop in chain.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()) {
        let Some(address) = std::str::from_utf8(hop).ok().and_then(address_of) else { break };
        nearest = Some(address);
        if !view.trusts(address) {
            break;
        }
    }
    nearest
}

/// Some proxies add the port.
fn address_of(hop: &str) -> Option<IpAddr> {
    hop.parse().ok().or_else(|| hop.parse().map(|socket: SocketAddr| socket.ip()).ok())
}

/// Strips what belongs to the upstream's connection, echoes the request id and dates what is undated.
pub(crate) fn prepare_response(thread: &Thread, request: &RequestHead, response: &mut ResponseHead) {
    let headers = &mut response.headers;
    if headers.get(Known::Connection).is_some() {
        headers.drop_nominated();
    }
    if headers.get(Known::XRequestId).is_none()
        && let Some(id) = request.headers.get(Known::XRequestId)
    {
        headers.push(b"X-Request-Id", id);
    }
    if headers.get(Known::Date).is_none() && response.status >= 200 {
        thread.with_date(|date| {
            headers.push(b"Date", date);
        });
    }
}

fn is_request_id(id: &[u8]) -> bool {
    (1..=LONGEST_REQUEST_ID).contains(&id.len())
        && id.iter().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'=' | b'+')
        })
}

/// Version 00 of the W3C recommendation, and longer ones of later versions.
fn is_traceparent(value: &[u8]) -> bool {
    let lower_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    value.len() >= 55
        && value[2] == b'-'
        && value[35] == b'-'
        && value[52] == b'-'
        && [&value[..2], &value[3..35], &value[36..52], &value[53..55]].into_iter().all(lower_hex)
        && !zero(&value[3..35])
        && !zero(&value[36..52])
        && &value[..2] != b"ff"
        && match &value[..2] {
            b"00" => value.len() == 55,
            _ => value.len() == 55 || value[55] == b'-',
        }
}

fn hex(number: u128) -> [u8; 32] {
    let mut text = [0; 32];
    for (at, digit) in text.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (124 - 4 * at)) as usize & 15];
    }
    text
}

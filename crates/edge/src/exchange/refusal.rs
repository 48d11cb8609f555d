//! Requests that are answered before there is one to carry out: the head cannot be read, or asks for too much.

use std::time::{Duration, SystemTime};

use super::reply::reject_for;
use crate::access_log::{Entry, Outcome};
use crate::h1::is_token;
use crate::server::{Peer, Thread};

/// A method that is longer is none.
const LONGEST_METHOD: usize = 32;
/// Of a target, in the log. What is refused may be of any length.
const LOGGED_TARGET: usize = 1_024;

/// What is known of such a request. Empty where nothing is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) target: &'a [u8],
    pub(crate) host: &'a [u8],
}

impl<'a> Known<'a> {
    /// What the first bytes of an HTTP/1 request say, as far as they look like one.
    pub(crate) fn from_start(bytes: &'a [u8]) -> Known<'a> {
        let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ');
        let method = words.next().unwrap_or_default();
        if method.len() > LONGEST_METHOD || !is_token(method) {
            return Known::default();
        }
        Known { method, target: words.next().unwrap_or_default(), host: b"" }
    }
}

/// Counts the refusal and writes its line of the access log.
pub(crate) fn refused(
    thread: &Thread,
    peer: &Peer,
    protocol: &'static str,
    status: u16,
    known: Known<'_>,
    bytes_out: u64,
) {
    let reason = reject_for(status);
    thread.recorder.rejected(reason);
    thread.log(&Entry {
        time: SystemTime::now(),
        request_id: b"",
        trace_id: b"",
        client: peer.address,
        method: known.method,
        scheme: peer.scheme,
        host: known.host,
        path: &known.target[..known.target.len().min(LOGGED_TARGET)],
        protocol,
        status,
        bytes_in: 0,
        bytes_out,
        duration: Duration::ZERO,
        upstream: None,
        endpoint: None,
        release: None,
        upstream_time: None,
        attempts: 0,
        outcome: Outcome::Rejected(reason.as_str()),
        user_agent: None,
        referer: None,
    });
}

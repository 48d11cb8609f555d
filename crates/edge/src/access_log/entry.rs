//! One line of the access log, written by hand: a serialiser would cost as much as the rest of a small request.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is known when a request ends. Byte fields may hold anything; what is not UTF-8 is replaced by U+FFFD.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// When the request head was complete.
    pub time: SystemTime,
    pub request_id: &'a [u8],
    pub trace_id: &'a [u8],
    pub client: IpAddr,
    pub method: &'a [u8],
    pub scheme: &'static str,
    pub host: &'a [u8],
    /// With the query.
    pub path: &'a [u8],
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// 0: none was sent.
    pub status: u16,
    /// Of the bodies.
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration: Duration,
    pub upstream: Option<&'a str>,
    pub endpoint: Option<&'a str>,
    pub release: Option<&'a str>,
    /// From the first byte sent upstream to the last received, of the last attempt.
    pub upstream_time: Option<Duration>,
    pub attempts: u32,
    pub outcome: Outcome,
    pub user_agent: Option<&'a [u8]>,
    pub referer: Option<&'a [u8]>,
}

/// How the request ended for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    ClientGone,
    TimedOut,
    UpstreamLost,
    /// Refused by the edge, with the reason of the `rejects` metric.
    Rejected(&'static str),
    Shed,
    /// The edge ended in the middle of it: the time that it was given to finish was over.
    Cut,
}

impl Entry<'_> {
    /// Appends the object and a line end. Fields that are unknown are left out.
    pub(super) fn write(&self, out: &mut Vec<u8>, clock: &mut Clock) {
        out.extend_from_slice(b"{\"time\":\"");
        clock.write(out, self.time);
        out.push(b'"');
        known(out, "request_id", self.request_id);
        known(out, "trace_id", self.trace_id);
        key(out, "client");
        print(out, format_args!("\"{}\"", self.client));
        known(out, "method", self.method);
        text(out, "scheme", self.scheme.as_bytes());
        known(out, "host", self.host);
        known(out, "path", self.path);
        text(out, "protocol", self.protocol.as_bytes());
        number(out, "status", u64::from(self.status));
        number(out, "bytes_in", self.bytes_in);
        number(out, "bytes_out", self.bytes_out);
        number(out, "duration_us", micros(self.duration));
        let served = [("upstream", self.upstream), ("endpoint", self.endpoint), ("release", self.release)];
        for (name, value) in served {
            if let Some(value) = value {
                text(out, name, value.as_bytes());
            }
        }
        if let Some(time) = self.upstream_time {
            number(out, "upstream_us", micros(time));
        }
        number(out, "attempts", u64::from(self.attempts));
        match self.outcome {
            Outcome::Ok => text(out, "outcome", b"ok"),
            Outcome::ClientGone => text(out, "outcome", b"client_gone"),
            Outcome::TimedOut => text(out, "outcome", b"timed_out"),
            Outcome::UpstreamLost => text(out, "outcome", b"upstream_lost"),
            Outcome::Shed => text(out, "outcome", b"shed"),
            Outcome::Cut => text(out, "outcome", b"cut"),
            Outcome::Rejected(reason) => {
                key(out, "outcome");
                out.extend_from_slice(b"\"rejected:");
                escape(out, reason.as_bytes());
                out.push(b'"');
            }
        }
        for (name, value) in [("user_agent", self.user_agent), ("referer", self.referer)] {
            if let Some(value) = value {
                text(out, name, value);
            }
        }
        out.extend_from_slice(b"}\n");
    }
}

/// Formats times; most entries share the second of the one before.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: Option<u64>,
    /// `2026-02-03T04:05:06`
    text: String,
}

impl Clock {
    /// RFC 3339 with microseconds, in UTC. Times before 1970 are written as 1970.
    fn write(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.text.clear();
            let second = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            let stamp = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
            // Into a string, of a timestamp in range: cannot fail.
            let _ = write!(self.text, "{}", stamp.strftime("%Y-%m-%dT%H:%M:%S"));
        }
        out.extend_from_slice(self.text.as_bytes());
        print(out, format_args!(".{:06}Z", since.subsec_micros()));
    }
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn text(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    key(out, name);
    out.push(b'"');
    escape(out, value);
    out.push(b'"');
}

/// Of a request that could not be read not everything is.
fn known(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if !value.is_empty() {
        text(out, name, value);
    }
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    print(out, format_args!("{value}"));
}

fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing into memory cannot fail.
    let _ = std::io::Write::write_fmt(out, text);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// RFC 8259, section 7, for bytes: control characters, quotes and backslashes are escaped, what is not UTF-8 becomes
/// U+FFFD. DEL and the C1 controls are escaped as well, and so are the line separators U+2028 and U+2029, so that a
/// terminal or a line-wise tool is not fooled by what a client sent.
fn escape(out: &mut Vec<u8>, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        let valid = chunk.valid();
        let mut plain_from = 0;
        for (at, character) in valid.char_indices() {
            let short = match character {
                '"' => Some(&b"\\\""[..]),
                '\\' => Some(&b"\\\\"[..]),
                '\n' => Some(&b"\\n"[..]),
                '\r' => Some(&b"\\r"[..]),
                '\t' => Some(&b"\\t"[..]),
                '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => None,
                _ => continue,
            };
            out.extend_from_slice(&valid.as_bytes()[plain_from..at]);
            plain_from = at + character.len_utf8();
            match short {
                Some(short) => out.extend_from_slice(short),
                None => print(out, format_args!("\\u{:04x}", u32::from(character))),
            }
        }
        out.extend_from_slice(&valid.as_bytes()[plain_from..]);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

//! Writing the messages that we say ourselves, and reading the few that we look into.

use bytes::{BufMut, BytesMut};

use crate::frame::HEADER_BYTES;

pub(crate) const FLUSH: &[u8] = b"H\0\0\0\x04";
pub(crate) const SYNC: &[u8] = b"S\0\0\0\x04";
pub(crate) const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
pub(crate) const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
pub(crate) const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
pub(crate) const NO_DATA: &[u8] = b"n\0\0\0\x04";

/// How bad it is, in PostgreSQL's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The session goes on.
    Error,
    /// The session ends.
    Fatal,
}

/// An error of our own, with the fields that drivers and people look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub sqlstate: &'static str,
    pub message: String,
    pub hint: &'static str,
}

impl Refusal {
    pub fn new(sqlstate: &'static str, message: impl Into<String>, hint: &'static str) -> Refusal {
        Refusal { sqlstate, message: message.into(), hint }
    }

    pub fn write(&self, severity: Severity, out: &mut BytesMut) {
        let severity = match severity {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        };
        message(out, b'E', |out| {
            for (field, text) in [
                (b'S', severity),
                (b'V', severity),
                (b'C', self.sqlstate),
                (b'M', &self.message),
                (b'H', self.hint),
            ] {
                if !text.is_empty() {
                    out.put_u8(field);
                    cstr(out, text.as_bytes());
                }
            }
            out.put_u8(0);
        });
    }
}

/// Writes one message whose body `body` writes.
pub(crate) fn message(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    sized(out, body);
}

/// A length and what it measures, as in a message without a type.
pub(crate) fn sized(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let begin = out.len();
    out.put_u32(0);
    body(out);
    let length = (out.len() - begin) as u32;
    out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
}

/// Text with its end. A NUL inside ends it early: nothing of ours has one.
pub(crate) fn cstr(out: &mut BytesMut, text: &[u8]) {
    out.put_slice(until_nul(text));
    out.put_u8(0);
}

pub(crate) fn query(out: &mut BytesMut, sql: &str) {
    message(out, b'Q', |out| cstr(out, sql.as_bytes()));
}

pub(crate) fn ready(out: &mut BytesMut, status: TransactionStatus) {
    message(out, b'Z', |out| out.put_u8(status as u8));
}

pub(crate) fn parameter_status(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    message(out, b'S', |out| {
        cstr(out, name);
        cstr(out, value);
    });
}

pub(crate) fn command_complete(out: &mut BytesMut, command: &str) {
    message(out, b'C', |out| cstr(out, command.as_bytes()));
}

/// What ReadyForQuery says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TransactionStatus {
    Idle = b'I',
    InBlock = b'T',
    Failed = b'E',
}

impl TransactionStatus {
    pub fn of(byte: u8) -> Option<TransactionStatus> {
        match byte {
            b'I' => Some(TransactionStatus::Idle),
            b'T' => Some(TransactionStatus::InBlock),
            b'E' => Some(TransactionStatus::Failed),
            _ => None,
        }
    }
}

/// The body of a whole message, or what is there of a longer one.
pub(crate) fn body(message: &[u8]) -> &[u8] {
    message.get(HEADER_BYTES..).unwrap_or_default()
}

/// The text at the front and what follows its end; `None` when there is no end.
pub(crate) fn split_cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    split_cstr(bytes).map_or(bytes, |(text, _)| text)
}

/// Whether a NoticeResponse warns that a commit is on the primary alone, because the wait for a standby was cancelled.
/// PostgreSQL acknowledges it all the same, and names the routine in every language.
pub(crate) fn no_longer_waits(notice: &[u8]) -> bool {
    error_field(notice, b'R') == Some(b"SyncRepWaitForLSN")
}

/// One field of an ErrorResponse or NoticeResponse.
pub(crate) fn error_field(message: &[u8], field: u8) -> Option<&[u8]> {
    let mut rest = body(message);
    while let Some((text, next)) = split_cstr(rest) {
        if text.first() == Some(&field) {
            return Some(&text[1..]);
        }
        if text.is_empty() {
            return None;
        }
        rest = next;
    }
    None
}

/// Whether PostgreSQL closes the connection after this ErrorResponse.
pub(crate) fn is_fatal(message: &[u8]) -> bool {
    matches!(error_field(message, b'V'), Some(b"FATAL" | b"PANIC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_our_own_error_read_back() {
        let mut out = BytesMut::new();
        let refusal = Refusal::new("57P03", "no Cats here", "Come back");
        refusal.write(Severity::Fatal, &mut out);
        assert_eq!(out[1..5], (out.len() as u32 - 1).to_be_bytes());
        assert_eq!(error_field(&out, b'C'), Some(&b"57P03"[..]));
        assert_eq!(error_field(&out, b'M'), Some(&b"no Cats here"[..]));
        assert_eq!(error_field(&out, b'H'), Some(&b"Come back"[..]));
        assert_eq!(error_field(&out, b'D'), None);
        assert!(is_fatal(&out));
    }
}

//! One line that an application said, with where it came from; as JSON, one object a line.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A line of output of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// When it was written, or a moment later: the application's own idea of the time is part of the line.
    pub time: Timestamp,
    /// `web`, `postgres`, ...
    pub service: String,
    /// Which of them: `web-2`.
    pub instance: String,
    pub stream: Stream,
    /// Without its line end.
    pub line: String,
}

/// Where a process said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A line that is no log record: cut off by a crash, or of another program.
#[derive(Debug, thiserror::Error)]
#[error("not a log record")]
pub struct NotARecord(#[from] serde_json::Error);

impl LogRecord {
    /// Takes a line as it was written: a line end (`\n` or `\r\n`) is cut off, and what is not UTF-8 is replaced by
    /// U+FFFD.
    pub fn new(time: Timestamp, service: &str, instance: &str, stream: Stream, line: &[u8]) -> LogRecord {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        LogRecord {
            time,
            service: service.to_owned(),
            instance: instance.to_owned(),
            stream,
            line: String::from_utf8_lossy(line).into_owned(),
        }
    }

    /// Appends the record and a line end.
    pub fn encode(&self, out: &mut Vec<u8>) {
        // Strings and an enum into memory: neither the values nor the writer can fail.
        serde_json::to_writer(&mut *out, self).expect("a log record is always JSON");
        out.push(b'\n');
    }

    /// Reads one line, with or without its line end.
    ///
    /// # Errors
    /// When it is not a whole record. Fields this version does not know are passed over.
    pub fn decode(line: &[u8]) -> Result<LogRecord, NotARecord> {
        Ok(serde_json::from_slice(line)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: &[u8]) -> LogRecord {
        let time = "2026-02-03T04:05:06.000007Z".parse().unwrap();
        LogRecord::new(time, "web", "web-1", Stream::Stderr, line)
    }

    #[test]
    fn a_record_is_one_line_of_json() {
        let mut out = Vec::new();
        record(b"it \"broke\"\n").encode(&mut out);
        let expected = concat!(
            r#"{"time":"2026-02-03T04:05:06.000007Z","service":"web","instance":"web-1","#,
            r#""stream":"stderr","line":"it \"broke\""}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn what_is_decoded_is_what_was_encoded() {
        for line in [&b"plain"[..], b"", b"\x1b[31mred\x1b[0m\r\n", b"caf\xc3\xa9 \xff", b"a\nb\tc\0"] {
            let record = record(line);
            let mut out = Vec::new();
            record.encode(&mut out);
            assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(LogRecord::decode(&out).unwrap(), record);
        }
    }

    #[test]
    fn half_a_record_is_refused() {
        let mut out = Vec::new();
        record(b"whole").encode(&mut out);
        assert!(LogRecord::decode(&out[..out.len() / 2]).is_err());
    }
}

//! The store's segments: written by one daemon, read by anyone at any time.
//!
//! A line is a [`LogRecord`] with one more field, `end`: the offset in the child's file that follows what was
//! logged. Half a line at the end of the last segment was being written when a daemon was killed; readers
//! pass over it, the next writer cuts it off.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use telemetry::log::{LogRecord, Stream};

const ENDING: &str = ".jsonl";
/// Longest record: a line of which every byte is escaped, and its names.
const MAX_RECORD_BYTES: u64 = 256 * 1024;

/// How much the logs of one app may take of the machine. By default 256 MiB in segments of 8 MiB, and 20
/// MB/s.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Beyond this the oldest segments are deleted.
    pub total_bytes: u64,
    /// A segment is closed when it has reached this.
    pub segment_bytes: u64,
    /// Bytes per second that one file of a child may bring in the long run; more is dropped and counted.
    pub rate_bytes: u64,
}

impl Budget {
    /// Bytes that one file may bring at once after a quiet time: a storm of stack traces, a dump at start.
    pub fn burst_bytes(&self) -> u64 {
        2 * self.rate_bytes
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { total_bytes: 256 << 20, segment_bytes: 8 << 20, rate_bytes: 20_000_000 }
    }
}

/// A place in the store: everything before it was read, or written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(super) struct Position {
    /// File name; empty before the first.
    pub segment: String,
    pub length: u64,
}

/// What recovery needs of a stored line.
#[derive(Deserialize)]
pub(super) struct Mark {
    pub time: Timestamp,
    pub instance: String,
    pub stream: Stream,
    #[serde(default)]
    pub end: u64,
}

pub(super) fn encode(record: &LogRecord, end: u64, out: &mut Vec<u8>) {
    record.encode(out);
    // In place of the closing brace and the line end.
    out.truncate(out.len() - 2);
    // Writing to memory does not fail.
    let _ = writeln!(out, ",\"end\":{end}}}");
}

/// The one writer.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    budget: Budget,
    open: Option<Segment>,
}

#[derive(Debug)]
struct Segment {
    name: String,
    file: File,
    length: u64,
}

impl Writer {
    /// Goes on in the last segment, after cutting off half a record.
    pub(super) fn open(dir: PathBuf, budget: Budget) -> io::Result<Writer> {
        fs::create_dir_all(&dir)?;
        let open = match segments(&dir)?.pop() {
            None => None,
            Some(name) => {
                let path = dir.join(&name);
                let length = whole_length(&path)?;
                let file = File::options().append(true).open(&path)?;
                file.set_len(length)?;
                Some(Segment { name, file, length })
            }
        };
        Ok(Writer { dir, budget, open })
    }

    /// Appends whole records. Either all of them are in the store afterwards, or none.
    ///
    /// A full disk is first answered by deleting older segments.
    pub(super) fn append(&mut self, records: &[u8], now: Timestamp) -> io::Result<()> {
        self.roll(now)?;
        loop {
            let Some(segment) = &mut self.open else { return Ok(()) };
            match segment.file.write_all(records) {
                Ok(()) => {
                    segment.length += records.len() as u64;
                    return Ok(());
                }
                Err(error) => {
                    segment.file.set_len(segment.length)?;
                    if error.kind() != io::ErrorKind::StorageFull || !self.delete_oldest()? {
                        return Err(error);
                    }
                }
            }
        }
    }

    pub(super) fn position(&self) -> Position {
        let position = |segment: &Segment| Position { segment: segment.name.clone(), length: segment.length };
        self.open.as_ref().map(position).unwrap_or_default()
    }

    fn roll(&mut self, now: Timestamp) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|segment| segment.length < self.budget.segment_bytes) {
            return Ok(());
        }
        let name = format!("{}{ENDING}", now.strftime("%Y-%m-%dT%H-%M-%S.%6fZ"));
        let file = File::options().append(true).create(true).mode(0o640).open(self.dir.join(&name))?;
        let length = file.metadata()?.len();
        self.open = Some(Segment { name, file, length });
        self.keep_to_budget()
    }

    fn keep_to_budget(&self) -> io::Result<()> {
        // Room for the new one to grow.
        let allowed = self.budget.total_bytes.saturating_sub(self.budget.segment_bytes);
        let sizes: Vec<u64> = segments(&self.dir)?
            .iter()
            .map(|name| fs::metadata(self.dir.join(name)).map_or(0, |metadata| metadata.len()))
            .collect();
        let mut total: u64 = sizes.iter().sum();
        for size in sizes {
            if total <= allowed || !self.delete_oldest()? {
                break;
            }
            total -= size;
        }
        Ok(())
    }

    /// Never the one being written. False when there is no other.
    fn delete_oldest(&self) -> io::Result<bool> {
        let current = self.open.as_ref().map(|segment| segment.name.as_str());
        match segments(&self.dir)?.first() {
            Some(oldest) if Some(oldest.as_str()) != current => {
                fs::remove_file(self.dir.join(oldest))?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// Names of the segments, oldest first: a name is the time of its first record, written so that it sorts.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(ENDING))
        .collect();
    names.sort();
    Ok(names)
}

/// Length up to the last line end.
fn whole_length(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(MAX_RECORD_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(MAX_RECORD_BYTES).read_to_end(&mut tail)?;
    Ok(memchr::memrchr(b'\n', &tail).map_or(from, |at| from + at as u64 + 1))
}

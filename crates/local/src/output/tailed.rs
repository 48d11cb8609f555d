//! One file that a child appends to: how far it was read, how fast it may come, what of it was given back.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use model::counted;
use rustix::fs::{FallocateFlags, fallocate};
use telemetry::log::{LogRecord, Stream};

use super::service_of;
use super::store::{self, Budget, Writer};
use super::tailer::CHUNK_BYTES;

/// Without holes in files: a file read to its end is emptied beyond this.
pub const TRUNCATE_ABOVE: u64 = 16 << 20;
/// Freed in steps of this, because freeing is a change to the file system.
const FREE_STEP: u64 = 1 << 20;
/// The block that a hole begins and ends at.
const BLOCK: u64 = 4096;
/// Dropped bytes that are read to count their lines, at each look. Beyond, the count is a lower bound.
const COUNT_AT_MOST: u64 = 64 << 20;
/// A flood that does not end is reported this often.
const REPORT_FLOOD_EVERY: Duration = Duration::from_secs(10);

/// One file of `current`.
#[derive(Debug)]
pub(super) struct Tailed {
    pub instance: String,
    pub stream: Stream,
    pub file: File,
    pub inode: u64,
    pub offset: u64,
    pub freed: u64,
    /// Bytes that may be read now.
    pub allowance: u64,
    pub looked_at: Instant,
    /// The last piece ended in the middle of a line.
    pub is_inside_line: bool,
    pub dropped: Dropped,
}

#[derive(Debug, Default)]
pub(super) struct Dropped {
    lines: u64,
    is_lower_bound: bool,
    since: Option<Instant>,
}

/// Whether parts of a file can be given back to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holes {
    Supported,
    Unsupported,
}

/// When the checkpoint is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    No,
    Soon,
    Now,
}

/// How much a file holds, and when it was last written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub at: Timestamp,
    pub length: u64,
}

impl Written {
    pub(super) fn of(file: &File) -> io::Result<Written> {
        let metadata = file.metadata()?;
        let at = Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)?;
        Ok(Written { at, length: metadata.len() })
    }
}

impl Tailed {
    /// What there is by now, where there is anything to do: bytes to read, or a flood to report. Half a line counts each
    /// time.
    pub(super) fn stirs(&self) -> Option<Written> {
        let written = Written::of(&self.file).ok()?;
        (written.length != self.offset || self.dropped.since.is_some()).then_some(written)
    }

    /// Passes over whole lines that came faster than allowed, counting them.
    pub(super) fn drop_backlog(&mut self, now: Instant) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let mut chunk = vec![0; CHUNK_BYTES];
        let begin = self.offset.max(length.saturating_sub(COUNT_AT_MOST));
        if begin > self.offset {
            self.dropped.is_lower_bound = true;
        }
        let (mut at, mut line_begin) = (begin, None);
        while at < length {
            let want = chunk.len().min((length - at) as usize);
            let read = self.file.read_at(&mut chunk[..want], at)?;
            if read == 0 {
                break;
            }
            self.dropped.lines += memchr::memchr_iter(b'\n', &chunk[..read]).count() as u64;
            line_begin =
                memchr::memrchr(b'\n', &chunk[..read]).map(|last| at + last as u64 + 1).or(line_begin);
            at += read as u64;
        }
        // Without any line end it is the inside of one endless line.
        let next = line_begin.unwrap_or(at);
        if next > self.offset {
            self.is_inside_line = line_begin.is_none();
            self.offset = next;
            self.dropped.since.get_or_insert(now);
        }
        Ok(())
    }

    /// Says how much was dropped, once the flood is over or has gone on for long.
    pub(super) fn report_flood(
        &mut self,
        writer: &mut Writer,
        budget: Budget,
        time: Timestamp,
        now: Instant,
    ) -> io::Result<()> {
        let Some(since) = self.dropped.since else { return Ok(()) };
        // Over: there is room again for a second's worth.
        if self.allowance < budget.rate_bytes && now.duration_since(since) < REPORT_FLOOD_EVERY {
            return Ok(());
        }
        let Dropped { lines, is_lower_bound, .. } = self.dropped;
        let more = if is_lower_bound { "more than " } else { "" };
        let lines = counted(lines as usize, "line");
        let (instance, limit) = (&self.instance, budget.rate_bytes as f64 / 1e6);
        let line =
            format!("switchback: dropped {more}{lines} of {instance} (output faster than {limit} MB/s)");
        let record = LogRecord::new(time, service_of(instance), instance, self.stream, line.as_bytes());
        let mut encoded = Vec::new();
        store::encode(&record, self.offset, &mut encoded);
        writer.append(&encoded, time)?;
        self.dropped = Dropped::default();
        Ok(())
    }

    /// Gives the disk back what was read.
    pub(super) fn free(&mut self, holes: &mut Holes, due: &mut Due) -> io::Result<()> {
        let free_to = self.offset / BLOCK * BLOCK;
        if *holes == Holes::Supported {
            if free_to - self.freed.min(free_to) < FREE_STEP {
                return Ok(());
            }
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(&self.file, flags, self.freed, free_to - self.freed) {
                Ok(()) => {
                    self.freed = free_to;
                    return Ok(());
                }
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => *holes = Holes::Unsupported,
                Err(error) => return Err(error.into()),
            }
        }
        let length = self.file.metadata()?.len();
        if length > TRUNCATE_ABOVE && length == self.offset {
            self.file.set_len(0)?;
            self.offset = 0;
            self.freed = 0;
            *due = Due::Now;
        }
        Ok(())
    }
}

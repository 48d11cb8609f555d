//! The access log: one JSON object a line, written by a thread of its own so that no request waits for the disk.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config;

/// One line. Byte fields may hold anything; what is not UTF-8 is replaced by U+FFFD.
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
}

/// The writer; shared by all threads.
#[derive(Debug)]
pub struct AccessLog {}

impl AccessLog {
    /// Opens the file and starts the writer thread.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not started.
    pub fn open(_config: &config::AccessLog) -> io::Result<Arc<AccessLog>> {
        Ok(Arc::new(AccessLog {}))
    }
    /// One thread's buffer.
    pub fn buffer(self: &Arc<Self>) -> Buffer {
        Buffer {}
    }
    /// Entries lost because the disk was full or the writer behind.
    pub fn dropped(&self) -> u64 {
        0
    }
    /// Waits until everything flushed so far is in the file. Blocks: for shutdown and tests.
    pub fn sync(&self) {}
}

/// Collects lines of one thread. Its owner calls [`Buffer::flush`] every [`FLUSH_INTERVAL`] and at the end.
#[derive(Debug)]
pub struct Buffer {}

/// How often the owner of a [`Buffer`] flushes it.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

impl Buffer {
    /// Never blocks.
    pub fn push(&mut self, _entry: &Entry<'_>) {}
    /// Hands what is buffered to the writer; never blocks. Nothing to do is cheap.
    pub fn flush(&mut self) {}
}

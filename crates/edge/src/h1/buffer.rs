//! Bytes that were read and not yet understood.

use std::io;
use std::task::{Context, Poll, ready};

use super::stream::{Stream, Wire};

/// Reads start with this much room ...
const SMALL: usize = 8 * 1024;
/// ... and go on with this much once one read has filled it: a body is coming.
const LARGE: usize = 64 * 1024;

/// The read buffer of a connection.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Initialised throughout; what was read is `start..end`.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Never grows above this: the largest head, or [`LARGE`].
    most: usize,
}

impl Inbox {
    /// `head_limit`: the longest head that must fit.
    pub(crate) fn new(head_limit: usize) -> Inbox {
        Inbox { bytes: Vec::new(), start: 0, end: 0, most: LARGE.max(head_limit) }
    }

    #[inline]
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Gives a grown buffer back while nothing is in it: idle connections are many.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() && self.bytes.len() > SMALL {
            self.bytes = Vec::new();
        }
    }

    /// Reads once. 0 is the end of the stream; the caller makes sure that there is room.
    pub(crate) fn poll_fill<S: Stream>(
        &mut self,
        wire: &Wire<S>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.end == self.bytes.len() {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else {
                let larger = if self.bytes.is_empty() { SMALL } else { LARGE.max(self.bytes.len() * 2) };
                self.bytes.resize(larger.min(self.most), 0);
            }
        }
        let room = &mut self.bytes[self.end..];
        let room_len = room.len();
        let count = ready!(wire.poll_read(cx, room))?;
        self.end += count;
        if count == room_len && self.bytes.len() < LARGE {
            self.bytes.resize(LARGE, 0);
        }
        Poll::Ready(Ok(count))
    }
}

//! What an exchange needs and the next one on the same connection uses again.

use crate::head::{RequestHead, ResponseHead};
use crate::marks::Committed;
use crate::watchdog::Watchdog;

/// Reused from request to request, so that a small request allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    /// Limits everything but the upload.
    pub(crate) watchdog: Watchdog,
    pub(crate) upload: Upload,
    /// When the request began. Only looked at where there are marks.
    pub(crate) committed: Committed,
}

/// The state of a request body that outlives an attempt.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    pub(crate) watchdog: Watchdog,
    pub(crate) replay: Replay,
    /// Bytes of the request body read from the client.
    pub(crate) bytes: u64,
}

impl Upload {
    pub(crate) fn begin(&mut self, replay: Replay) {
        self.replay = replay;
        self.bytes = 0;
    }
}

/// Whether, and from what, a request body can be sent a second time.
#[derive(Debug, Default)]
pub(crate) enum Replay {
    /// Nothing of the body was taken from the client, or there is none.
    #[default]
    Untouched,
    /// What was taken so far; it may grow to the limit.
    Kept { bytes: Vec<u8>, limit: usize },
    /// The body (or a part of it) was taken and not kept.
    Lost,
}

impl Replay {
    /// Remembers bytes that were taken from the client.
    pub(crate) fn took(&mut self, taken: &[u8]) {
        *self = match std::mem::take(self) {
            Replay::Kept { mut bytes, limit } if bytes.len() + taken.len() <= limit => {
                bytes.extend_from_slice(taken);
                Replay::Kept { bytes, limit }
            }
            _ => Replay::Lost,
        };
    }

    pub(crate) fn is_possible(&self) -> bool {
        !matches!(self, Replay::Lost)
    }
}

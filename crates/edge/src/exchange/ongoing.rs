//! The upload of a request body, which goes on beside the reading of the response.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::attempt::Verdict;
use super::pump::PumpError;
use super::seam::SourceError;

/// Where the upload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Going,
    Done,
    /// The upstream stopped taking the body. It may have answered early and closed, so this alone is no failure.
    Stuck,
}

/// The upload and its state.
pub(super) struct Ongoing<'a, F> {
    upload: Pin<&'a mut F>,
    state: State,
}

impl<'a, F: Future<Output = Result<(), PumpError>>> Ongoing<'a, F> {
    pub(super) fn new(upload: Pin<&'a mut F>, state: State) -> Self {
        Ongoing { upload, state }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Goes on as far as possible.
    ///
    /// # Errors
    /// When the client's side failed: the request will never be whole.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>) -> Result<(), Verdict> {
        if self.state != State::Going {
            return Ok(());
        }
        let Poll::Ready(result) = self.upload.as_mut().poll(cx) else {
            return Ok(());
        };
        self.state = State::Stuck;
        match result {
            Ok(()) => self.state = State::Done,
            Err(PumpError::Source(SourceError::Reject(reject))) => {
                return Err(Verdict::Refused(reject.status()));
            }
            Err(PumpError::Source(_)) => return Err(Verdict::ClientGone),
            Err(PumpError::SourceIdle) => return Err(Verdict::Refused(408)),
            Err(PumpError::Sink | PumpError::SinkIdle) => {}
        }
        Ok(())
    }
}

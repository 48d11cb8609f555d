//! Moving a body from a source to a sink: streaming, with back-pressure, and flushed whenever the source pauses.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use super::scratch::{Replay, Upload};
use super::seam::{Next, Piece, Sink, SinkError, Source, SourceError};
use crate::watchdog::{Elapsed, Watchdog};

/// The limits of one direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Longest pause of the source.
    pub(crate) read_idle: Duration,
    /// Longest time for the sink to take a piece.
    pub(crate) write_idle: Duration,
}

/// Which end of a body failed.
#[derive(Debug)]
pub(crate) enum PumpError {
    Source(SourceError),
    SourceIdle,
    Sink,
    SinkIdle,
}

impl From<SourceError> for PumpError {
    fn from(error: SourceError) -> PumpError {
        PumpError::Source(error)
    }
}

impl From<SinkError> for PumpError {
    fn from(SinkError: SinkError) -> PumpError {
        PumpError::Sink
    }
}

/// Moves everything, trailers included, and ends the sink. `bytes` counts what the sink was given.
pub(crate) async fn pump(
    source: &mut impl Source,
    sink: &mut impl Sink,
    pace: Pace,
    watchdog: &mut Watchdog,
    bytes: &mut u64,
) -> Result<(), PumpError> {
    loop {
        match next(source, sink, pace, watchdog).await? {
            Next::Data => {
                let piece = source.piece();
                *bytes += piece.as_slice().len() as u64;
                timely(watchdog, pace, pin!(sink.send(piece))).await?;
            }
            Next::End => return timely(watchdog, pace, pin!(sink.end(source.trailers()))).await,
        }
    }
}

/// [`pump`] for a request body, which may have to be sent again: first what an earlier attempt took, then the rest.
pub(crate) async fn upload(
    source: &mut impl Source,
    sink: &mut impl Sink,
    pace: Pace,
    upload: &mut Upload,
) -> Result<(), PumpError> {
    if let Replay::Kept { bytes, .. } = &upload.replay
        && !bytes.is_empty()
    {
        timely(&mut upload.watchdog, pace, pin!(sink.send(Piece::Lent(bytes)))).await?;
    }
    loop {
        match next(source, sink, pace, &mut upload.watchdog).await? {
            Next::Data => {
                let piece = source.piece();
                upload.bytes += piece.as_slice().len() as u64;
                upload.replay.took(piece.as_slice());
                timely(&mut upload.watchdog, pace, pin!(sink.send(piece))).await?;
            }
            Next::End => return timely(&mut upload.watchdog, pace, pin!(sink.end(source.trailers()))).await,
        }
    }
}

/// The next step of the source. If it has to wait, what the sink still holds goes out first.
async fn next(
    source: &mut impl Source,
    sink: &mut impl Sink,
    pace: Pace,
    watchdog: &mut Watchdog,
) -> Result<Next, PumpError> {
    if let Some(ready) = poll_fn(|cx| match source.poll_next(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
    {
        return Ok(ready?);
    }
    timely(watchdog, pace, pin!(sink.flush())).await?;
    let waiting = poll_fn(|cx| match source.poll_next(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        // A source that says nothing for long, as one of events, must not be kept for who is gone.
        Poll::Pending => sink.poll_gone(cx).map(|()| None),
    });
    match watchdog.within(pace.read_idle, pin!(waiting)).await {
        Ok(Some(result)) => Ok(result?),
        Ok(None) => Err(PumpError::Sink),
        Err(Elapsed) => Err(PumpError::SourceIdle),
    }
}

async fn timely(
    watchdog: &mut Watchdog,
    pace: Pace,
    write: Pin<&mut impl Future<Output = Result<(), SinkError>>>,
) -> Result<(), PumpError> {
    match watchdog.within(pace.write_idle, write).await {
        Ok(result) => Ok(result?),
        Err(Elapsed) => Err(PumpError::SinkIdle),
    }
}

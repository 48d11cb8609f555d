//! Bodies as HTTP/2 streams them, in both directions.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::fields;
use crate::exchange::{Next, Piece, SinkError, SourceError};
use crate::h1::Reject;
use crate::head::{HeaderList, Known};

/// A body being received. The window is given back only as pieces are passed on, which is the back-pressure.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: Option<RecvStream>,
    piece: Bytes,
    trailers: Option<HeaderList>,
    /// Bytes that may still come; above it the body is refused.
    allowance: u64,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream, most: u64) -> Incoming {
        Incoming { stream: Some(stream), piece: Bytes::new(), trailers: None, allowance: most }
    }

    /// No body yet.
    pub(super) fn nothing() -> Incoming {
        Incoming { stream: None, piece: Bytes::new(), trailers: None, allowance: 0 }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, SourceError>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(Next::End));
        };
        let passed_on = std::mem::take(&mut self.piece).len();
        if passed_on > 0 {
            stream.flow_control().release_capacity(passed_on).map_err(|_| SourceError::Reset)?;
        }
        loop {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    let Some(rest) = self.allowance.checked_sub(data.len() as u64) else {
                        return Poll::Ready(Err(Reject::BodyTooLarge.into()));
                    };
                    self.allowance = rest;
                    self.piece = data;
                    return Poll::Ready(Ok(Next::Data));
                }
                Some(Err(_)) => return Poll::Ready(Err(SourceError::Reset)),
                None => break,
            }
        }
        match ready!(stream.poll_trailers(cx)) {
            Ok(Some(map)) => {
                let trailers = self.trailers.insert(HeaderList::default());
                fields::read(&map, trailers);
                // In HTTP/1.1 they could be merged into the head.
                trailers.drop_where(Known::is_no_trailer);
                trailers.drop_look_alikes(Known::is_no_trailer);
            }
            Ok(None) => {}
            Err(_) => return Poll::Ready(Err(SourceError::Reset)),
        }
        self.stream = None;
        Poll::Ready(Ok(Next::End))
    }

    pub(super) fn piece(&self) -> Piece<'_> {
        Piece::Owned(self.piece.clone())
    }

    pub(super) fn trailers(&self) -> Option<&HeaderList> {
        self.trailers.as_ref()
    }
}

/// A body being sent. The last piece is held back until it is known whether another follows, so that the end of the
/// stream travels with it.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    stream: Option<SendStream<Bytes>>,
    held: Bytes,
}

impl Outgoing {
    pub(super) fn new(stream: SendStream<Bytes>) -> Outgoing {
        Outgoing { stream: Some(stream), held: Bytes::new() }
    }

    pub(super) async fn send(&mut self, piece: Piece<'_>) -> Result<(), SinkError> {
        self.flush().await?;
        self.held = piece.into_bytes();
        Ok(())
    }

    /// Hands everything to the connection, which writes as soon as it can.
    pub(super) async fn flush(&mut self) -> Result<(), SinkError> {
        let Some(stream) = &mut self.stream else {
            self.held = Bytes::new();
            return Ok(());
        };
        while !self.held.is_empty() {
            let room = reserve(stream, self.held.len()).await?;
            let part = self.held.split_to(room);
            stream.send_data(part, false).map_err(|_| SinkError)?;
        }
        Ok(())
    }

    pub(super) async fn end(&mut self, trailers: Option<&HeaderList>) -> Result<(), SinkError> {
        if trailers.is_some() {
            self.flush().await?;
        }
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        if let Some(trailers) = trailers {
            let map = fields::write(trailers, |_| true);
            stream.send_trailers(map).map_err(|_| SinkError)?;
        } else {
            while !self.held.is_empty() {
                let room = reserve(stream, self.held.len()).await?;
                let part = self.held.split_to(room);
                stream.send_data(part, self.held.is_empty()).map_err(|_| SinkError)?;
                if self.held.is_empty() {
                    self.stream = None;
                    return Ok(());
                }
            }
            stream.send_data(Bytes::new(), true).map_err(|_| SinkError)?;
        }
        self.stream = None;
        Ok(())
    }

    /// Ready when the other side has reset the stream, or the connection has failed. `None` when nothing is being sent.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Option<Poll<Result<h2::Reason, h2::Error>>> {
        self.stream.as_mut().map(|stream| stream.poll_reset(cx))
    }

    pub(super) fn reset(&mut self, reason: h2::Reason) {
        if let Some(stream) = &mut self.stream {
            stream.send_reset(reason);
        }
        self.stream = None;
    }
}

/// Waits for window, and says how much of `wanted` there is.
async fn reserve(stream: &mut SendStream<Bytes>, wanted: usize) -> Result<usize, SinkError> {
    stream.reserve_capacity(wanted);
    loop {
        let room = stream.capacity();
        if room > 0 {
            return Ok(room.min(wanted));
        }
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(SinkError),
        }
    }
}

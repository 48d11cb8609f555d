//! Bodies as HTTP/1.1 frames them, in both directions.

use std::task::{Context, Poll, ready};

use super::buffer::Inbox;
use super::stream::{Outbox, Stream, Wire};
use super::{ChunkDecoder, Reject, Step};
use crate::exchange::{Next, Piece, SinkError, SourceError};
use crate::head::{BodyLength, HeaderList};

/// Where the reading of a body stands.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    framing: Framing,
    /// Bytes at the front of the inbox that were lent out and are consumed by the next step.
    lent: usize,
    /// Bytes that may still come; above it the body is refused.
    allowance: u64,
}

#[derive(Debug, Default)]
enum Framing {
    #[default]
    Done,
    Length(u64),
    Chunked(ChunkDecoder),
    UntilClose,
}

impl Incoming {
    /// A body of this length, no longer than `most` bytes.
    pub(crate) fn new(length: BodyLength, most: u64) -> Incoming {
        Incoming {
            framing: match length {
                BodyLength::None | BodyLength::Known(0) => Framing::Done,
                BodyLength::Known(length) => Framing::Length(length),
                BodyLength::Framed => Framing::Chunked(ChunkDecoder::default()),
                BodyLength::UntilClose => Framing::UntilClose,
            },
            lent: 0,
            allowance: most,
        }
    }

    /// Bytes until the connection ends, without a limit: a tunnel.
    pub(crate) fn tunnel() -> Incoming {
        Incoming { framing: Framing::UntilClose, lent: 0, allowance: u64::MAX }
    }

    /// Whether everything was read and given back, so that the next message can follow.
    pub(crate) fn is_over(&self) -> bool {
        match &self.framing {
            Framing::Done => self.lent == 0,
            Framing::Chunked(decoder) => self.lent == 0 && decoder.is_over(),
            Framing::Length(_) | Framing::UntilClose => false,
        }
    }

    pub(crate) fn trailers(&self) -> Option<&HeaderList> {
        match &self.framing {
            Framing::Chunked(decoder) => decoder.trailers(),
            _ => None,
        }
    }

    pub(crate) fn piece<'a>(&self, inbox: &'a Inbox) -> Piece<'a> {
        Piece::Lent(&inbox.filled()[..self.lent])
    }

    pub(crate) fn poll_next<S: Stream>(
        &mut self,
        wire: &Wire<S>,
        inbox: &mut Inbox,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Next, SourceError>> {
        inbox.consume(std::mem::take(&mut self.lent));
        loop {
            let filled = inbox.filled();
            match &mut self.framing {
                Framing::Done | Framing::Length(0) => {
                    self.framing = Framing::Done;
                    return Poll::Ready(Ok(Next::End));
                }
                Framing::Length(left) if !filled.is_empty() => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(filled.len());
                    *left -= len as u64;
                    return self.lend(len);
                }
                Framing::UntilClose if !filled.is_empty() => {
                    let len = filled.len();
                    return self.lend(len);
                }
                Framing::Chunked(decoder) => match decoder.decode(filled)? {
                    Step::Data { used, len } => {
                        inbox.consume(used);
                        return self.lend(len);
                    }
                    Step::End { used } => {
                        inbox.consume(used);
                        return Poll::Ready(Ok(Next::End));
                    }
                    Step::More { used } => inbox.consume(used),
                },
                Framing::Length(_) | Framing::UntilClose => {}
            }
            if ready!(inbox.poll_fill(wire, cx))? == 0 {
                if let Framing::UntilClose = self.framing {
                    self.framing = Framing::Done;
                    return Poll::Ready(Ok(Next::End));
                }
                return Poll::Ready(Err(SourceError::Truncated));
            }
        }
    }

    fn lend(&mut self, len: usize) -> Poll<Result<Next, SourceError>> {
        self.allowance = match self.allowance.checked_sub(len as u64) {
            Some(rest) => rest,
            None => return Poll::Ready(Err(Reject::BodyTooLarge.into())),
        };
        self.lent = len;
        Poll::Ready(Ok(Next::Data))
    }
}

/// How a body going out is framed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// No body follows the head; pieces are a mistake of the other side and are dropped.
    #[default]
    Nothing,
    /// As many bytes as the head said; whoever reads the source counts them.
    Plain,
    Chunked,
    /// Bytes are bytes and the end is the end of the connection's direction.
    Tunnel,
}

impl Outgoing {
    pub(crate) async fn send<S: Stream>(
        self,
        wire: &Wire<S>,
        out: &mut Outbox,
        piece: Piece<'_>,
    ) -> Result<(), SinkError> {
        let bytes = piece.as_slice();
        match self {
            Outgoing::Nothing => {}
            Outgoing::Plain | Outgoing::Tunnel => out.send(wire, bytes).await?,
            Outgoing::Chunked => {
                write_chunk_size(out.bytes(), bytes.len());
                out.send(wire, bytes).await?;
                out.bytes().extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }

    pub(crate) async fn end<S: Stream>(
        self,
        wire: &Wire<S>,
        out: &mut Outbox,
        trailers: Option<&HeaderList>,
    ) -> Result<(), SinkError> {
        if self == Outgoing::Chunked {
            out.bytes().extend_from_slice(b"0\r\n");
            if let Some(trailers) = trailers {
                trailers.write_lines(out.bytes(), |_| true);
            }
            out.bytes().extend_from_slice(b"\r\n");
        }
        out.flush(wire).await?;
        if self == Outgoing::Tunnel {
            wire.shutdown().await?;
        }
        Ok(())
    }
}

fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut left = size;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

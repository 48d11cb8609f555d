//! The two seams of the relay: what it needs of a client's side and of an upstream's side, whatever protocol they speak.
//!
//! Both are split in the direction of the bytes, so that a request body can still be going up while its response
//! comes down.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::h1::{Expected, Reject};
use crate::head::{BodyLength, HeaderList, Persistence, RequestHead, ResponseHead};

/// What a body goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// [`Source::piece`] holds some bytes.
    Data,
    /// It is over; [`Source::trailers`] may hold something.
    End,
}

/// Some bytes of a body, lent from a read buffer or owned by a frame.
pub(crate) enum Piece<'a> {
    Lent(&'a [u8]),
    Owned(Bytes),
}

impl Piece<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Piece::Lent(bytes) => bytes,
            Piece::Owned(bytes) => bytes,
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Piece::Lent(bytes) => Bytes::copy_from_slice(bytes),
            Piece::Owned(bytes) => bytes,
        }
    }
}

/// Why a body or a head could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("the message is malformed")]
    Reject(#[from] Reject),
    #[error("the connection ended within the message")]
    Truncated,
    #[error("the other side reset the stream")]
    Reset,
    #[error("the other side says that it did not begin with the message before")]
    Unprocessed,
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// Why something could not be written: the other side is gone, whatever the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection failed while writing")]
pub(crate) struct SinkError;

impl From<io::Error> for SinkError {
    fn from(_: io::Error) -> SinkError {
        SinkError
    }
}

/// Why a request was not begun. Nothing of it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("the protocol of the upstream has no way to say it")]
    Unsayable,
    #[error("the connection takes no further request")]
    Over,
}

/// A body being read.
pub(crate) trait Source {
    /// Takes the next step. After [`Next::Data`] the piece is lent until the next call.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, SourceError>>;
    /// The bytes that the last step announced.
    fn piece(&mut self) -> Piece<'_>;
    /// What came after the body.
    fn trailers(&self) -> Option<&HeaderList>;
    /// From here on bytes are bytes: the protocol was upgraded.
    fn become_tunnel(&mut self);
}

/// A body being written. What is sent may wait in a buffer until `flush` or `end`.
pub(crate) trait Sink {
    async fn send(&mut self, piece: Piece<'_>) -> Result<(), SinkError>;
    async fn flush(&mut self) -> Result<(), SinkError>;
    /// Ends the message and flushes it.
    async fn end(&mut self, trailers: Option<&HeaderList>) -> Result<(), SinkError>;
    /// From here on bytes are bytes: the protocol was upgraded. `end` then closes this direction.
    fn become_tunnel(&mut self);
    /// Ready when nobody is there any more for whom the message is meant. Asked while there is nothing to send.
    fn poll_gone(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// The request on its way to an upstream.
pub(crate) trait RequestSink: Sink {
    /// Begins the request; nothing need leave before the first flush.
    async fn head(&mut self, head: &RequestHead) -> Result<(), HeadError>;
}

/// The response coming from an upstream.
pub(crate) trait ResponseSource: Source {
    /// Reads the next head, interim ones included, into `head`.
    fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Poll<Result<(), SourceError>>;
    /// Whether any byte of a response was seen: from then on the request must not be sent again.
    fn began(&self) -> bool;
}

/// The response on its way to the client.
pub(crate) trait ResponseSink: Sink {
    /// Passes an interim response on at once, if the client's protocol knows them.
    async fn interim(&mut self, head: &ResponseHead) -> Result<(), SinkError>;
    /// Begins the final response. `persistence`: whether the client's connection stays for another request. `length`
    /// says how the body will end, as the upstream told it.
    async fn head(
        &mut self,
        head: &ResponseHead,
        length: BodyLength,
        persistence: Persistence,
    ) -> Result<(), SinkError>;
    /// The response cannot be finished: the client must be able to tell (a reset, or a connection closed early).
    fn abort(&mut self);
}

/// The client's side of one exchange.
pub(crate) trait Downstream {
    type Body<'a>: Source
    where
        Self: 'a;
    type Response<'a>: ResponseSink
    where
        Self: 'a;

    fn split(&mut self) -> (Self::Body<'_>, Self::Response<'_>);
}

/// The upstream's side of one exchange.
pub(crate) trait Upstream {
    type Request<'a>: RequestSink
    where
        Self: 'a;
    type Response<'a>: ResponseSource
    where
        Self: 'a;

    /// Begins an exchange. `method` decides how the response is read.
    fn split(&mut self, method: Expected) -> (Self::Request<'_>, Self::Response<'_>);
    /// Whether the connection has carried an exchange before, so that the upstream may have closed it meanwhile.
    fn is_reused(&self) -> bool;
}

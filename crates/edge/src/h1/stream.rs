//! A byte stream that one task reads and writes at the same time.
//!
//! Both directions of an exchange are futures of one task and never run at once, so a `RefCell` borrowed only within
//! a poll is enough to share the stream, TLS included.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What a connection runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Whether the other side has ended its direction, or the connection is lost, whatever of it was read. Costs no system
    /// call.
    fn is_half_closed(&self) -> bool;
}

impl Stream for TcpStream {
    fn is_half_closed(&self) -> bool {
        // What the runtime has seen is told at once.
        let seen = pin!(self.ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop()));
        matches!(seen, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }
}

impl Stream for TlsStream<TcpStream> {
    fn is_half_closed(&self) -> bool {
        self.get_ref().0.is_half_closed()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: RefCell<S>,
    read: Cell<u64>,
    written: Cell<u64>,
}

impl<S: Stream> Wire<S> {
    pub(crate) fn new(stream: S) -> Wire<S> {
        Wire { stream: RefCell::new(stream), read: Cell::new(0), written: Cell::new(0) }
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(room);
        ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        self.read.set(self.read.get() + count as u64);
        Poll::Ready(Ok(count))
    }

    fn poll_write(&self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        let written = match (first, second) {
            (first, []) => ready!(Pin::new(&mut *stream).poll_write(cx, first))?,
            ([], second) => ready!(Pin::new(&mut *stream).poll_write(cx, second))?,
            (first, second) => {
                let both = [IoSlice::new(first), IoSlice::new(second)];
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &both))?
            }
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written.set(self.written.get() + written as u64);
        Poll::Ready(Ok(written))
    }

    /// Writes both parts, in one system call where the kernel takes them. Each successful write counts as progress
    /// for the caller's limit: see [`Outbox`].
    async fn write_all(&self, mut first: &[u8], mut second: &[u8]) -> io::Result<()> {
        while !first.is_empty() || !second.is_empty() {
            let written = poll_fn(|cx| self.poll_write(cx, first, second)).await?;
            let of_first = written.min(first.len());
            first = &first[of_first..];
            second = &second[written - of_first..];
        }
        Ok(())
    }

    async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.stream.borrow_mut()).poll_flush(cx)).await
    }

    /// Ends the writing direction.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)).await
    }

    /// Bytes read and written since the last call.
    pub(crate) fn take_counts(&self) -> (u64, u64) {
        (self.read.take(), self.written.take())
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream.into_inner()
    }

    pub(crate) fn with<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&self.stream.borrow())
    }
}

/// Bytes on their way out. Heads, framing and small pieces gather here so that they leave in one write.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
}

/// A piece at least this long is written from where it lies instead of being copied.
const COPIED_BELOW: usize = 8 * 1024;
/// Gathered bytes above this are written at once.
const GATHERED: usize = 32 * 1024;

impl Outbox {
    /// For appending; nothing leaves before [`Outbox::flush`].
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Adds a piece, writing now if it is large. The pause between two writes is not bounded here: callers wrap this
    /// in their write limit, pieces being no longer than a read buffer.
    pub(crate) async fn send<S: Stream>(&mut self, wire: &Wire<S>, piece: &[u8]) -> io::Result<()> {
        if piece.len() < COPIED_BELOW && self.bytes.len() + piece.len() <= GATHERED {
            self.bytes.extend_from_slice(piece);
            return Ok(());
        }
        wire.write_all(&self.bytes, piece).await?;
        self.bytes.clear();
        Ok(())
    }

    /// Writes everything.
    pub(crate) async fn flush<S: Stream>(&mut self, wire: &Wire<S>) -> io::Result<()> {
        if !self.bytes.is_empty() {
            wire.write_all(&self.bytes, &[]).await?;
            self.bytes.clear();
        }
        wire.flush().await
    }
}

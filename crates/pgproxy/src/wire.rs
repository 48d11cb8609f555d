//! A stream with what was read from it and not looked at, and what is to be written to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::{poll_read_buf, poll_write_buf};

/// A stream of one of two kinds.
pub(crate) enum Either<A, B> {
    One(A),
    Other(B),
}

/// Most connections are idle most of the time: a buffer begins small, and grows while reads fill it.
const SMALL_BUFFER_BYTES: usize = 8 * 1024;
/// What one read may bring.
const LARGE_BUFFER_BYTES: usize = 64 * 1024;
/// An idle buffer that has grown beyond this is given back.
const KEPT_BUFFER_BYTES: usize = 16 * 1024;

pub(crate) struct Wire<S> {
    stream: S,
    pub input: BytesMut,
    pub output: BytesMut,
    /// How many bytes were read so far.
    pub read: u64,
    /// How many bytes the other side, or the kernel for it, has taken so far.
    pub written: u64,
    read_bytes: usize,
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(stream: S) -> Wire<S> {
        Wire {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            read: 0,
            written: 0,
            read_bytes: SMALL_BUFFER_BYTES,
            unflushed: false,
        }
    }

    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Reads what there is. 0 means that the other side has ended. Once per call, so that everybody gets a turn.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // An empty one begins at its front again: a small message is then read into lines that the processor still has.
        if self.input.is_empty() || self.input.capacity() - self.input.len() < self.read_bytes / 2 {
            self.input.reserve(self.read_bytes);
        }
        let room = self.input.capacity() - self.input.len();
        let read = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input))?;
        self.read += read as u64;
        if read == room {
            self.read_bytes = LARGE_BUFFER_BYTES;
        } else if read < SMALL_BUFFER_BYTES {
            self.read_bytes = SMALL_BUFFER_BYTES;
        }
        Poll::Ready(Ok(read))
    }

    /// Writes all of the output, or as much as the other side takes.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut all = self.output.len();
        self.poll_flush_first(cx, &mut all)
    }

    /// Writes the first bytes of the output, as many as there are in `left`, or as many as the other side takes. What was
    /// written is no longer in `left`.
    pub fn poll_flush_first(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<io::Result<()>> {
        while *left > 0 {
            let mut first = Buf::take(&mut self.output, *left);
            let written = ready!(poll_write_buf(Pin::new(&mut self.stream), cx, &mut first))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *left -= written;
            self.written += written as u64;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    pub async fn fill(&mut self) -> io::Result<()> {
        match std::future::poll_fn(|cx| self.poll_fill(cx)).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Says that nothing more will be written.
    pub async fn shut_down(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await
    }

    /// Gives back what large messages have left behind.
    pub fn shrink(&mut self) {
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.is_empty() && buffer.capacity() > KEPT_BUFFER_BYTES {
                *buffer = BytesMut::new();
            }
        }
    }
}

impl<A: AsyncRead + Unpin, B: AsyncRead + Unpin> AsyncRead for Either<A, B> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Either::One(stream) => Pin::new(stream).poll_read(cx, buf),
            Either::Other(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<A: AsyncWrite + Unpin, B: AsyncWrite + Unpin> AsyncWrite for Either<A, B> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Either::One(stream) => Pin::new(stream).poll_write(cx, buf),
            Either::Other(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Either::One(stream) => Pin::new(stream).poll_flush(cx),
            Either::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Either::One(stream) => Pin::new(stream).poll_shutdown(cx),
            Either::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

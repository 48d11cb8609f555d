//! A Unix socket of which the runtime hears only when there is something to read.
//!
//! A Unix socket becomes writable anew each time the other side has read, so one that is watched for both wakes its task
//! once more for each query, for nothing. Here it is watched for writing only while a write waits, through a copy of the
//! descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

pub(crate) struct UnixSocket {
    read: AsyncFd<StdStream>,
    /// While a write waits.
    write: Option<AsyncFd<OwnedFd>>,
}

impl UnixSocket {
    pub async fn connect(path: &Path) -> io::Result<UnixSocket> {
        let stream = UnixStream::connect(path).await?.into_std()?;
        Ok(UnixSocket { read: watch(stream, Interest::READABLE)?, write: None })
    }

    /// Reads where the runtime has heard that there is something, and waits for nothing.
    ///
    /// # Errors
    /// `WouldBlock` where there is nothing; those of `read`.
    pub fn try_read<T>(&self, read: impl FnOnce(&StdStream) -> io::Result<T>) -> io::Result<T> {
        self.read.try_io(Interest::READABLE, read)
    }
}

fn watch<T: Into<OwnedFd> + AsRawFd>(descriptor: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: whatever turns into an OwnedFd owns one open descriptor, names the same one each time, and closes it only
    // when it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl AsyncRead for UnixSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let mut guard = ready!(this.read.poll_read_ready(cx))?;
            // SAFETY: what is in there is only written to.
            let room = unsafe { buf.unfilled_mut() };
            let size = room.len();
            match SockRef::from(guard.get_inner()).recv(room) {
                Ok(read) => {
                    // A short read has emptied it: the next would only say so. The end must be seen again.
                    if read > 0 && read < size {
                        guard.clear_ready();
                    }
                    // SAFETY: so many bytes were received.
                    unsafe { buf.assume_init(read) };
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for UnixSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if let Some(write) = &this.write {
                ready!(write.poll_write_ready(cx))?.clear_ready();
            }
            match SockRef::from(this.read.get_ref()).send(bytes) {
                Ok(written) => {
                    this.write = None;
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if this.write.is_none() {
                        let copy = this.read.as_fd().try_clone_to_owned()?;
                        this.write = Some(watch(copy, Interest::WRITABLE)?);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.read.get_ref().shutdown(std::net::Shutdown::Write))
    }
}

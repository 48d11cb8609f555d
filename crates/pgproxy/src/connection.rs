//! Connecting to PostgreSQL, by either kind of socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::config::Upstream;
use crate::unix::UnixSocket;
use crate::wire::Either;

pub(crate) type Connection = Either<UnixSocket, TcpStream>;

pub(crate) async fn connect(upstream: &Upstream) -> io::Result<Connection> {
    Ok(match upstream {
        Upstream::Unix(path) => Either::One(UnixSocket::connect(path).await?),
        Upstream::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Either::Other(stream)
        }
    })
}

/// Whether the other side surely has not closed it. What was read before this is no answer: it is asked of the kernel.
pub(crate) fn is_open(connection: &Connection) -> bool {
    let peeked = match connection {
        Either::One(socket) => peek(socket),
        Either::Other(stream) => peek(stream),
    };
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether nothing has come, not even the end. The kernel is asked only where the runtime has heard of something.
pub(crate) fn is_quiet(connection: &Connection) -> bool {
    let peeked = match connection {
        Either::One(socket) => socket.try_read(peek),
        Either::Other(stream) => stream.try_io(Interest::READABLE, || peek(stream)),
    };
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn peek(socket: &impl AsFd) -> io::Result<usize> {
    socket2::SockRef::from(socket).peek(&mut [std::mem::MaybeUninit::uninit()])
}

/// A copy of the descriptor, by which somebody else can shut the connection down.
pub(crate) fn fence(connection: &Connection) -> io::Result<OwnedFd> {
    match connection {
        Either::One(socket) => socket.as_fd().try_clone_to_owned(),
        Either::Other(stream) => stream.as_fd().try_clone_to_owned(),
    }
}

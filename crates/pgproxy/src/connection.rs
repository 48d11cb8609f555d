//! Connecting to PostgreSQL, by either kind of socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

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

/// A copy of the descriptor, by which somebody else can shut the connection down.
pub(crate) fn fence(connection: &Connection) -> io::Result<OwnedFd> {
    match connection {
        Either::One(socket) => socket.as_fd().try_clone_to_owned(),
        Either::Other(stream) => stream.as_fd().try_clone_to_owned(),
    }
}

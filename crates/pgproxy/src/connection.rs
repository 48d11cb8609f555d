//! Connecting to PostgreSQL, by either kind of socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::net::{TcpStream, UnixStream};

use crate::config::Upstream;
use crate::wire::Either;

pub(crate) type Connection = Either<UnixStream, TcpStream>;

pub(crate) async fn connect(upstream: &Upstream) -> io::Result<Connection> {
    Ok(match upstream {
        Upstream::Unix(path) => Either::One(UnixStream::connect(path).await?),
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
        Either::One(stream) => stream.as_fd().try_clone_to_owned(),
        Either::Other(stream) => stream.as_fd().try_clone_to_owned(),
    }
}

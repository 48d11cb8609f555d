//! Connecting to PostgreSQL, and telling "come back later" from an answer.
//!
//! A restarting PostgreSQL first has no socket, then one that answers every startup packet with 57P03 ("the database
//! system is starting up", or shutting down). Both mean: wait and try again. Anything else is for the client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::config::Upstream;
use crate::opening::sqlstate;

const CANNOT_CONNECT_NOW: &[u8] = b"57P03";
/// A longer first error is passed on unread.
const MAX_ERROR_BYTES: usize = 10_000;

/// A connection to PostgreSQL of either kind.
pub(crate) enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A session that PostgreSQL has begun to answer.
pub(crate) struct Answered {
    pub connection: Connection,
    /// What it said so far, to be passed to the client first.
    pub first_bytes: Vec<u8>,
}

impl Connection {
    pub async fn open(upstream: &Upstream) -> io::Result<Connection> {
        Ok(match upstream {
            Upstream::Unix(path) => Connection::Unix(UnixStream::connect(path).await?),
            Upstream::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Connection::Tcp(stream)
            }
        })
    }
}

/// Connects, sends the startup packet and waits for the first message.
///
/// # Errors
/// Whatever means that trying again may help: not reachable, closed without a word, or 57P03.
pub(crate) async fn begin_session(upstream: &Upstream, startup: &[u8]) -> io::Result<Answered> {
    let mut connection = Connection::open(upstream).await?;
    connection.write_all(startup).await?;
    let mut first_bytes = vec![0; 5];
    connection.read_exact(&mut first_bytes).await?;
    let length =
        u32::from_be_bytes([first_bytes[1], first_bytes[2], first_bytes[3], first_bytes[4]]) as usize;
    if first_bytes[0] == b'E' && (4..=MAX_ERROR_BYTES).contains(&length) {
        first_bytes.resize(1 + length, 0);
        connection.read_exact(&mut first_bytes[5..]).await?;
        if sqlstate(&first_bytes[5..]) == Some(CANNOT_CONNECT_NOW) {
            return Err(io::Error::other("PostgreSQL is starting up or shutting down"));
        }
    }
    Ok(Answered { connection, first_bytes })
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Connection::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Connection::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Connection::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Connection::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

//! Copying bytes both ways until both sides have ended.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, tcp};

use crate::status::Counters;
use crate::upstream::Connection;

/// Most sessions are idle most of the time: a buffer begins small, and grows while reads fill it.
const SMALL_BUFFER_BYTES: usize = 8 * 1024;
/// Per direction. What does not fit waits in the kernel, and so slows the sender down.
const LARGE_BUFFER_BYTES: usize = 64 * 1024;

/// Returns when both directions have ended, or one has failed.
pub(crate) async fn relay(
    client: &mut TcpStream,
    upstream: &mut Connection,
    counters: &Counters,
) -> io::Result<()> {
    let client = client.split();
    match upstream {
        Connection::Unix(stream) => both_ways(client, stream.split(), counters).await,
        Connection::Tcp(stream) => both_ways(client, stream.split(), counters).await,
    }
}

async fn both_ways<R, W>(
    (from_client, to_client): (tcp::ReadHalf<'_>, tcp::WriteHalf<'_>),
    (from_upstream, to_upstream): (R, W),
    counters: &Counters,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    tokio::try_join!(
        one_way(from_client, to_upstream, &counters.received_bytes),
        one_way(from_upstream, to_client, &counters.sent_bytes),
    )?;
    Ok(())
}

/// Copies until the end, then passes the end on: a client that has said all it wants may still be reading.
async fn one_way<R, W>(mut from: R, mut to: W, bytes: &AtomicU64) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; SMALL_BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        bytes.fetch_add(read as u64, Relaxed);
        if read == buffer.len() && read < LARGE_BUFFER_BYTES {
            buffer.resize(LARGE_BUFFER_BYTES, 0);
        } else if read <= SMALL_BUFFER_BYTES && buffer.len() > SMALL_BUFFER_BYTES {
            buffer.truncate(SMALL_BUFFER_BYTES);
            buffer.shrink_to_fit();
        }
    }
}

//! Whether a postmaster lets nobody in any more: it is there, and does nothing about a client that comes.
//!
//! Sessions that are open say nothing of that: each is served by a process of its own.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::NodePaths;
use crate::process::stat::at_rest;

/// What a client says first that would like to encrypt. The postmaster starts a process for it, and that answers with one
/// byte before it asks who is there: also where the server is full, recovers, or somebody has locked its catalogs.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Whether the postmaster `pid` does nothing at all for `limit` although a client waits for it. One that lacks a processor,
/// waits for a disk or is slow is not silent, and neither is one that refuses. Cancel safe.
pub async fn is_silent(paths: &NodePaths, pid: u32, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    let Some(before) = at_rest(pid) else { return false };
    let asked = async {
        let mut socket = UnixStream::connect(paths.socket()).await?;
        socket.write_all(&SSL_REQUEST).await?;
        socket.read_u8().await
    };
    match timeout_at(deadline, asked).await {
        Err(_) => {}
        // So many clients wait already that there is no place for another one.
        Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => sleep_until(deadline).await,
        Ok(_) => return false,
    }
    at_rest(pid) == Some(before)
}

//! One check of one endpoint.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::balance::CheckFailure;
use crate::config::{Upstream, UpstreamProtocol};
use crate::prior_knowledge::status_of;

/// What of an answer is read to find its status line.
const HEAD_BYTES: usize = 1024;

const USER_AGENT: &str = "switchback-health";

/// Passes on a connect, or on a 2xx or 3xx when the configuration names a path. The caller sets the time limit.
pub(super) async fn probe(config: &Upstream, address: SocketAddr) -> Result<(), CheckFailure> {
    let failure = |error: io::Error| match error.kind() {
        // What a full backlog or a packet filter does instead is silence, and ends as a timeout.
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => CheckFailure::Unreachable,
        _ => CheckFailure::Failing,
    };
    let Some(path) = &config.health.path else {
        return TcpStream::connect(address).await.map(drop).map_err(failure);
    };
    let status = match config.protocol {
        UpstreamProtocol::Http1 => {
            http1(TcpStream::connect(address).await.map_err(failure)?, address, path).await
        }
        UpstreamProtocol::H2c => status_of(address, path, USER_AGENT).await.map_err(failure)?,
    };
    match status {
        Some(200..=399) => Ok(()),
        _ => Err(CheckFailure::Failing),
    }
}

/// The status, or `None` for anything that is not an HTTP/1 answer.
async fn http1(mut stream: TcpStream, address: SocketAddr, path: &str) -> Option<u16> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: {USER_AGENT}\r\naccept: */*\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    // The line is all that is needed; the rest is left in the socket, which is closed.
    let mut bounded = stream.take(HEAD_BYTES as u64);
    while !head.contains(&b'\n') {
        if bounded.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let version = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let (code, rest) = version.split_at_checked(3)?;
    if !matches!(rest.first(), Some(b' ' | b'\r' | b'\n')) {
        return None;
    }
    std::str::from_utf8(code).ok()?.parse().ok()
}

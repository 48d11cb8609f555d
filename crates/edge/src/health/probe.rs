//! One check of one endpoint.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::balance::CheckFailure;
use crate::config::{Upstream, UpstreamProtocol};

/// What of an answer is read to find its status line.
const HEAD_BYTES: usize = 1024;

/// Passes on a connect, or on a 2xx or 3xx when the configuration names a path. The caller sets the time limit.
pub(super) async fn probe(config: &Upstream, address: SocketAddr) -> Result<(), CheckFailure> {
    let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
        // What a full backlog or a packet filter does instead is silence, and ends as a timeout.
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => CheckFailure::Unreachable,
        _ => CheckFailure::Failing,
    })?;
    let Some(path) = &config.health.path else {
        return Ok(());
    };
    let status = match config.protocol {
        UpstreamProtocol::Http1 => http1(stream, address, path).await,
        UpstreamProtocol::H2c => h2c(stream, address, path).await,
    };
    match status {
        Some(200..=399) => Ok(()),
        _ => Err(CheckFailure::Failing),
    }
}

/// The status, or `None` for anything that is not an HTTP/1 answer.
async fn http1(mut stream: TcpStream, address: SocketAddr, path: &str) -> Option<u16> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: switchback-health\r\naccept: */*\r\n\
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

async fn h2c(stream: TcpStream, address: SocketAddr, path: &str) -> Option<u16> {
    let (client, connection) = h2::client::Builder::new()
        .max_header_list_size(16 * 1024)
        .handshake::<_, Bytes>(stream)
        .await
        .ok()?;
    let answer = async {
        let mut client = client.ready().await.ok()?;
        let request = http::Request::get(format!("http://{address}{path}"))
            .header(http::header::USER_AGENT, "switchback-health")
            .body(())
            .ok()?;
        let (answer, _) = client.send_request(request, true).ok()?;
        Some(answer.await.ok()?.status().as_u16())
    };
    // The connection must be driven for the answer to come; should it end first, there is none.
    tokio::select! {
        status = answer => status,
        _ = connection => None,
    }
}

//! A small constant load for drills: what clients of the front door see, counted.
//!
//! Two kinds of clients ask at once: one keeps its connection as long as the server lets it, the other makes a new one
//! for each request. Nothing is retried and nothing is forgiven: a refused or reset connection, an answer cut short, a
//! 5xx are failures, each with its time.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;

/// An answer that takes longer is a failure.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head or chunk line that is read.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// Failures that are told in words; all are counted.
const TOLD_FAILURES: usize = 5;
/// Of each client, per second: enough to see a gap of some milliseconds, without loading the machine.
const REQUESTS_PER_SECOND: u64 = 100;

/// What clients saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Seen {
    pub requests: u64,
    pub failed: u64,
    /// The first few failures, with the time since the load began.
    pub failures: Vec<String>,
    pub longest_ms: u64,
}

/// Load that runs until stopped.
pub struct Load {
    stop: CancellationToken,
    clients: JoinSet<Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    KeepAlive,
    NewConnections,
}

impl Load {
    pub fn start(address: SocketAddr, path: &str) -> Load {
        let stop = CancellationToken::new();
        let mut clients = JoinSet::new();
        for kind in [Client::KeepAlive, Client::NewConnections] {
            clients.spawn(ask_again_and_again(address, path.to_owned(), kind, stop.clone()));
        }
        Load { stop, clients }
    }

    pub async fn stop(mut self) -> Seen {
        self.stop.cancel();
        let mut all = Seen::default();
        while let Some(seen) = self.clients.join_next().await {
            let Ok(seen) = seen else { continue };
            all.requests += seen.requests;
            all.failed += seen.failed;
            all.longest_ms = all.longest_ms.max(seen.longest_ms);
            all.failures.extend(seen.failures);
        }
        all.failures.truncate(TOLD_FAILURES);
        all
    }
}

async fn ask_again_and_again(
    address: SocketAddr,
    path: String,
    kind: Client,
    stop: CancellationToken,
) -> Seen {
    let began = Instant::now();
    let mut seen = Seen::default();
    let mut ticks = interval(Duration::from_millis(1_000 / REQUESTS_PER_SECOND));
    let mut connection = None;
    while !stop.is_cancelled() {
        ticks.tick().await;
        let started = Instant::now();
        let asked = timeout(REQUEST_TIMEOUT, ask(address, &path, kind, &mut connection)).await;
        let answer = asked.unwrap_or_else(|_| Err("no answer within 30 s".to_owned()));
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        seen.requests += 1;
        seen.longest_ms = seen.longest_ms.max(took_ms);
        if let Err(reason) = answer {
            connection = None;
            seen.failed += 1;
            if seen.failures.len() < TOLD_FAILURES {
                seen.failures.push(format!("at {:.2} s: {reason}", began.elapsed().as_secs_f64()));
            }
        }
    }
    seen
}

type Connection = BufReader<TcpStream>;

async fn ask(
    address: SocketAddr,
    path: &str,
    kind: Client,
    kept: &mut Option<Connection>,
) -> Result<(), String> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => {
            let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            BufReader::new(stream)
        }
    };
    let close = if kind == Client::NewConnections { "Connection: close\r\n" } else { "" };
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: switchback-drill\r\n{close}\r\n");
    connection.write_all(head.as_bytes()).await.map_err(|error| format!("send: {error}"))?;
    let keep = read_answer(&mut connection).await?;
    if keep && kind == Client::KeepAlive {
        *kept = Some(connection);
    }
    Ok(())
}

/// Reads one whole answer; `true` when the connection may be used again.
async fn read_answer(connection: &mut Connection) -> Result<bool, String> {
    let status_line = line(connection).await?;
    let status: u16 = status_line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| format!("not an answer: {status_line:?}"))?;
    let (mut length, mut chunked, mut keep) = (None, false, true);
    loop {
        let field = line(connection).await?;
        if field.is_empty() {
            break;
        }
        let Some((name, value)) = field.split_once(':') else {
            return Err(format!("not a header: {field:?}"));
        };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_ascii_lowercase());
        match name.as_str() {
            "content-length" => length = value.parse::<u64>().ok(),
            "transfer-encoding" => chunked = value == "chunked",
            "connection" if value == "close" => keep = false,
            _ => {}
        }
    }
    if chunked {
        read_chunks(connection).await?;
    } else if let Some(length) = length {
        discard(connection, length).await?;
    } else if status != 204 && status != 304 {
        let mut rest = Vec::new();
        connection.read_to_end(&mut rest).await.map_err(|error| format!("body: {error}"))?;
        keep = false;
    }
    if status >= 500 { Err(format!("status {status}")) } else { Ok(keep) }
}

async fn read_chunks(connection: &mut Connection) -> Result<(), String> {
    loop {
        let size = line(connection).await?;
        let digits = size.split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(digits.trim(), 16).map_err(|_| format!("not a chunk: {size:?}"))?;
        if size == 0 {
            while !line(connection).await?.is_empty() {}
            return Ok(());
        }
        discard(connection, size).await?;
        line(connection).await?;
    }
}

async fn line(connection: &mut Connection) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = (&mut *connection).take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes).await;
    match read {
        Ok(_) if bytes.ends_with(b"\r\n") => {
            bytes.truncate(bytes.len() - 2);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        Ok(0) => Err("closed before the answer".to_owned()),
        Ok(_) => Err("closed within the answer".to_owned()),
        Err(error) => Err(format!("receive: {error}")),
    }
}

async fn discard(connection: &mut Connection, length: u64) -> Result<(), String> {
    let copied = tokio::io::copy(&mut (&mut *connection).take(length), &mut tokio::io::sink()).await;
    match copied {
        Ok(copied) if copied == length => Ok(()),
        Ok(copied) => Err(format!("closed after {copied} of {length} bytes")),
        Err(error) => Err(format!("body: {error}")),
    }
}

//! WebSocket messages there and back (RFC 6455), as little of it as both ends of a measurement need.
//!
//! Blocking, with a thread for each connection: only the processor time of the proxy between them is looked at.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::clients::{Seen, percentile};
use crate::failure::{Failure, Result};

const CONNECTIONS: usize = 16;
/// The longest payload with a length of one byte.
const PAYLOAD_BYTES: usize = 125;
const TIMEOUT: Duration = Duration::from_secs(5);
/// The example of RFC 6455, section 1.3: with a fixed key the answer is fixed, too.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const FINAL_TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A server that sends every message back.
pub struct Echo {
    port: u16,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// # Errors
    /// When there is no port to be had.
    pub fn start() -> Result<Echo> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(Failure::while_doing("the echo server"))?;
        let port = listener.local_addr().map_err(Failure::while_doing("the echo server"))?.port();
        let ends = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming().flatten() {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                connections.retain(|connection: &JoinHandle<()>| !connection.is_finished());
                connections.push(std::thread::spawn(move || {
                    // A peer that goes away is the ordinary end, and health checks only knock.
                    let _ = echo(stream);
                }));
            }
        });
        Ok(Echo { port, ends, thread: Some(thread) })
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Wakes the thread out of accept. Connections end with the peers that hold them.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            // It cannot panic; and if it did, nothing here depends on it any more.
            let _ = thread.join();
        }
    }
}

fn echo(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    read_head(&mut reader)?;
    write!(
        writer,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )?;
    let mut frame = [0; 2 + 4 + PAYLOAD_BYTES];
    let mut answer = [0; 2 + PAYLOAD_BYTES];
    answer[0] = FINAL_TEXT;
    answer[1] = PAYLOAD_BYTES as u8;
    loop {
        reader.read_exact(&mut frame)?;
        let (mask, payload) = frame[2..].split_at(4);
        for (at, byte) in payload.iter().enumerate() {
            answer[2 + at] = byte ^ mask[at % 4];
        }
        writer.write_all(&answer)?;
    }
}

fn read_head(reader: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// Sends messages for `duration`, each connection one at a time.
///
/// # Errors
/// When a connection fails: there is nothing to count then.
pub fn run(port: u16, duration: Duration) -> Result<Seen> {
    let began = Instant::now();
    let clients: Vec<_> =
        (0..CONNECTIONS).map(|_| std::thread::spawn(move || client(port, began + duration))).collect();
    let mut micros = Vec::new();
    for client in clients {
        let of_one = client.join().map_err(|_| Failure::new("a WebSocket client panicked"))?;
        micros.extend(of_one.map_err(Failure::while_doing("WebSocket"))?);
    }
    let seconds = began.elapsed().as_secs_f64();
    micros.sort_unstable();
    let requests = micros.len() as u64;
    let rate = requests as f64 / seconds;
    Ok(Seen { requests, failed: 0, rate, p50_ms: percentile(&micros, 50), p99_ms: percentile(&micros, 99) })
}

/// The microseconds of each message.
fn client(port: u16, deadline: Instant) -> std::io::Result<Vec<u32>> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    write!(
        writer,
        "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )?;
    let head = read_head(&mut reader)?;
    if !head.starts_with("HTTP/1.1 101") {
        return Err(std::io::Error::other(format!("no WebSocket: {head}")));
    }
    let mut frame = vec![FINAL_TEXT, MASKED | PAYLOAD_BYTES as u8];
    frame.extend(MASK);
    frame.extend((0..PAYLOAD_BYTES).map(|at| b'x' ^ MASK[at % 4]));
    let mut answer = [0; 2 + PAYLOAD_BYTES];
    let mut micros = Vec::new();
    loop {
        let sent = Instant::now();
        if sent >= deadline {
            break;
        }
        writer.write_all(&frame)?;
        reader.read_exact(&mut answer)?;
        if answer[2..].iter().any(|byte| *byte != b'x') {
            return Err(std::io::Error::other("another message came back"));
        }
        micros.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    writer.shutdown(Shutdown::Both)?;
    Ok(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_from_the_echo_server() {
        let echo = Echo::start().unwrap();
        let seen = run(echo.port(), Duration::from_millis(50)).unwrap();
        assert!(seen.requests >= CONNECTIONS as u64 && seen.failed == 0);
    }
}

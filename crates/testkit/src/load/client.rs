//! A client of HTTP/1.1 that notices everything: it reads each answer to its last byte, and retries nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::report::Outcome;
use crate::get::split;

/// Longer than any request of a drill; an answer that does not come at all must fail the test, not hang it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_HEAD_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connections {
    Kept,
    New,
}

#[derive(Clone)]
pub(super) struct Client {
    address: SocketAddr,
    kept: Vec<u8>,
    new: Vec<u8>,
}

/// A kept connection, and what it has carried: for the words of a failure.
pub(super) struct Kept {
    stream: TcpStream,
    answers: u64,
}

/// What came, up to and beyond the end of the head.
struct Received {
    bytes: Vec<u8>,
    /// Where the body begins.
    body: usize,
}

struct Head {
    status: u16,
    length: Length,
    closes: bool,
}

enum Length {
    Bytes(usize),
    Chunked,
    UntilClose,
}

impl Client {
    pub(super) fn of(url: &str) -> Client {
        let (authority, path) = split(url);
        let address = authority.parse().unwrap_or_else(|_| panic!("{authority} is no address with a port"));
        let request = |last: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: testkit\r\n{last}\r\n")
                .into_bytes()
        };
        Client { address, kept: request(""), new: request("Connection: close\r\n") }
    }

    pub(super) async fn request(&self, kept: &mut Option<Kept>, connections: Connections) -> Outcome {
        let outcome = timeout(REQUEST_TIMEOUT, self.exchange(kept, connections)).await;
        let failure = match outcome {
            Ok(Ok(status)) => return Outcome::Answered(status),
            Ok(Err(why)) => why,
            Err(_) => format!("no answer within {REQUEST_TIMEOUT:?}"),
        };
        let on = match (connections, kept.take()) {
            (Connections::Kept, Some(kept)) => {
                let port = kept.stream.local_addr().map_or(0, |address| address.port());
                format!("a kept connection from port {port}, after {} answers", kept.answers)
            }
            (Connections::Kept, None) => "a connection to keep".to_owned(),
            (Connections::New, _) => "a new connection".to_owned(),
        };
        Outcome::Failed(format!("{failure} (on {on})"))
    }

    async fn exchange(&self, kept: &mut Option<Kept>, connections: Connections) -> Result<u16, String> {
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let stream =
                    TcpStream::connect(self.address).await.map_err(|error| format!("connect: {error}"))?;
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                kept.insert(Kept { stream, answers: 0 })
            }
        };
        let request = if connections == Connections::Kept { &self.kept } else { &self.new };
        connection.stream.write_all(request).await.map_err(|error| format!("send: {error}"))?;
        let head = answer(&mut connection.stream).await?;
        connection.answers += 1;
        if head.closes || connections == Connections::New {
            *kept = None;
        }
        Ok(head.status)
    }
}

/// Reads one answer whole.
async fn answer(stream: &mut TcpStream) -> Result<Head, String> {
    let mut received = Received { bytes: Vec::with_capacity(4096), body: 0 };
    loop {
        let head = received.head(stream).await?;
        match head.length {
            Length::Bytes(length) => received.exactly(stream, length).await?,
            Length::Chunked => received.chunks(stream).await?,
            Length::UntilClose => received.rest(stream).await?,
        }
        // An interim answer is followed by the real one.
        if head.status >= 200 {
            if received.bytes.len() > received.body {
                return Err("bytes after the end of the answer".to_owned());
            }
            return Ok(head);
        }
    }
}

impl Received {
    async fn more(&mut self, stream: &mut TcpStream, what: &str) -> Result<(), String> {
        match stream.read_buf(&mut self.bytes).await {
            Ok(0) => Err(format!("closed {what}")),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{what}: {error}")),
        }
    }

    async fn head(&mut self, stream: &mut TcpStream) -> Result<Head, String> {
        self.bytes.drain(..self.body);
        self.body = 0;
        loop {
            if let Some(end) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                self.body = end + 4;
                let text = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
                return Head::parse(&text).ok_or_else(|| format!("not an answer: {text}"));
            }
            if self.bytes.len() > MAX_HEAD_BYTES {
                return Err("a head without end".to_owned());
            }
            let what = if self.bytes.is_empty() { "before the answer" } else { "within the head" };
            self.more(stream, what).await?;
        }
    }

    async fn exactly(&mut self, stream: &mut TcpStream, length: usize) -> Result<(), String> {
        while self.bytes.len() < self.body + length {
            self.more(stream, "within the body").await?;
        }
        self.body += length;
        Ok(())
    }

    async fn chunks(&mut self, stream: &mut TcpStream) -> Result<(), String> {
        loop {
            let line = self.line(stream).await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| format!("not a chunk: {line}"))?;
            if size == 0 {
                break;
            }
            self.exactly(stream, size + 2).await?;
        }
        // Trailers end with an empty line.
        while !self.line(stream).await?.is_empty() {}
        Ok(())
    }

    async fn line(&mut self, stream: &mut TcpStream) -> Result<String, String> {
        loop {
            let rest = &self.bytes[self.body..];
            if let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&rest[..end]).into_owned();
                self.body += end + 2;
                return Ok(line);
            }
            self.more(stream, "within the body").await?;
        }
    }

    async fn rest(&mut self, stream: &mut TcpStream) -> Result<(), String> {
        stream.read_to_end(&mut self.bytes).await.map_err(|error| format!("within the body: {error}"))?;
        self.body = self.bytes.len();
        Ok(())
    }
}

impl Head {
    fn parse(text: &str) -> Option<Head> {
        let mut lines = text.split("\r\n");
        let status: u16 = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let mut head = Head { status, length: Length::UntilClose, closes: false };
        for line in lines {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.length = Length::Bytes(value.parse().ok()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.length = Length::Chunked;
            } else if name.eq_ignore_ascii_case("connection") {
                head.closes = value.to_ascii_lowercase().split(',').any(|option| option.trim() == "close");
            }
        }
        if status < 200 || matches!(status, 204 | 304) {
            head.length = Length::Bytes(0);
        }
        head.closes |= matches!(head.length, Length::UntilClose);
        Some(head)
    }
}

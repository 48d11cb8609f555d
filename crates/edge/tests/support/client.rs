//! A client (or a server: messages look alike) that speaks HTTP/1.1 by hand.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

/// A message as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Start line and fields without the empty line, as sent.
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
    }

    /// The value of the only field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.fields(name);
        assert!(values.len() < 2, "{name} is repeated in {}", self.head);
        values.first().copied()
    }

    pub fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text body")
    }
}

/// Whether a message without a length ends with the connection (a response) or at once (a request).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    /// To HEAD.
    BodilessResponse,
}

/// One connection.
#[derive(Debug)]
pub struct Client<S = TcpStream> {
    pub stream: S,
    pub unread: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        let stream = soon("a connection", TcpStream::connect(address)).await.expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        Client::over(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(stream: S) -> Client<S> {
        Client { stream, unread: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("send");
    }

    /// Sends a GET and reads its answer.
    pub async fn get(&mut self, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        self.response().await
    }

    pub async fn response(&mut self) -> Message {
        soon("a response", self.message(Kind::Response)).await.expect("a whole response")
    }

    pub async fn bodiless_response(&mut self) -> Message {
        soon("a response", self.message(Kind::BodilessResponse)).await.expect("a whole response")
    }

    /// A message, or `None` when the connection ends before it is whole.
    pub async fn message(&mut self, kind: Kind) -> Option<Message> {
        let head = self.until(b"\r\n\r\n").await?;
        let head = String::from_utf8(head).expect("a text head");
        let mut message =
            Message { head: head.trim_end().to_owned(), body: Vec::new(), trailers: String::new() };
        let interim =
            kind != Kind::Request && (message.status() < 200 || matches!(message.status(), 204 | 304));
        if interim || kind == Kind::BodilessResponse {
            return Some(message);
        }
        if message.field("transfer-encoding").is_some() {
            loop {
                let line = self.until(b"\r\n").await?;
                let line = std::str::from_utf8(&line).expect("a chunk size").trim();
                let size = usize::from_str_radix(line, 16).expect("a chunk size");
                if size == 0 {
                    break;
                }
                message.body.extend(self.exactly(size).await?);
                assert_eq!(self.exactly(2).await?, b"\r\n", "a chunk ends in CRLF");
            }
            loop {
                let line = self.until(b"\r\n").await?;
                if line == b"\r\n" {
                    return Some(message);
                }
                message.trailers.push_str(std::str::from_utf8(&line).expect("a text trailer"));
            }
        }
        if let Some(length) = message.field("content-length") {
            let length = length.parse().expect("a length");
            message.body = self.exactly(length).await?;
        } else if kind == Kind::Response {
            message.body = self.rest().await;
        }
        Some(message)
    }

    /// Bytes up to and with `end`.
    pub async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return Some(self.unread.drain(..at + end.len()).collect());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    pub async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.unread.drain(..count).collect())
    }

    /// Everything until the connection ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.unread)
    }

    /// Whether the other side closes without another byte.
    pub async fn is_closed(&mut self) -> bool {
        soon("the end of the connection", self.rest()).await.is_empty()
    }

    async fn fill(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.unread.extend_from_slice(&bytes[..count]);
                true
            }
        }
    }
}

//! An HTTP client that costs little, believes nothing, and has a limit to everything.
//!
//! Of one origin: it connects to one address whatever an answer says. Requests are written and answers read without being kept,
//! in buffers that a thread has once ([`connect::Shared`]), so that a visitor who reads costs a socket and little more.

pub mod answer;
mod chunked;
pub mod connect;
pub mod cookies;
pub mod form;
mod http1;
pub mod http2;
pub mod location;
pub mod response;
mod socket;

use std::task::{Context, Poll};
use std::time::Instant;

use crate::load::{Method, Protocol};
use answer::{Failure, Head};
use connect::{Shared, Wire};

/// So that an app can tell this traffic from its own.
const USER_AGENT: &str = "Mozilla/5.0 (compatible; switchback-rehearsal)";
/// Of a page whose forms are wanted; what is beyond is not looked at.
const PAGE_BYTES: usize = 256 * 1024;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: Method,
    pub path: &'a str,
    /// Of the page that it comes from, for `Referer`. `None`: typed in.
    pub from: Option<&'a str>,
    /// `Cookie`; empty: none.
    pub cookies: &'a [u8],
    /// Of a form.
    pub body: Option<&'a [u8]>,
    pub wants: Wants,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// What is in the body says nothing to this visitor.
    Nothing,
    /// The page itself, if it is one, for its forms.
    Page,
    /// So many bytes of it, if it is a page. What is beyond is not waited for, whatever it is.
    Beginning { bytes: usize },
}

impl Wants {
    /// Of a page, what is kept.
    fn most_kept(self) -> usize {
        match self {
            Wants::Nothing => 0,
            Wants::Page => PAGE_BYTES,
            Wants::Beginning { bytes } => bytes,
        }
    }

    /// Whether nothing that comes after so many bytes is wanted any more.
    fn is_cut_at(self, body_bytes: u64) -> bool {
        matches!(self, Wants::Beginning { bytes } if body_bytes > bytes as u64)
    }
}

impl Request<'_> {
    /// Header fields that are the same by every protocol, and need no writing.
    fn fields(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let encoding = match self.wants {
            // What is dropped may come as small as the app can make it; a page that is looked at comes as it is.
            Wants::Nothing => "gzip, br",
            Wants::Page | Wants::Beginning { .. } => "identity",
        };
        let form = self.body.map(|_| ("Content-Type", "application/x-www-form-urlencoded"));
        [("User-Agent", USER_AGENT), ("Accept", "*/*"), ("Accept-Encoding", encoding)].into_iter().chain(form)
    }
}

/// Keeps what came of a page that is wanted.
fn keep(page: &mut Vec<u8>, wants: Wants, head: &Head, data: &[u8]) {
    if head.is_html {
        let room = wants.most_kept().saturating_sub(page.len());
        page.extend_from_slice(&data[..data.len().min(room)]);
    }
}

#[derive(Debug)]
pub struct Answer {
    pub head: Head,
    /// When the last of it had come, however late it was read.
    pub arrived: Instant,
    /// As much as is wanted of it.
    pub page: Vec<u8>,
    /// The rest was not waited for.
    pub is_cut: bool,
}

/// A way to the app that requests can go.
#[derive(Debug)]
pub enum Connection {
    Http1(http1::Connection),
    Http2(http2::Connection),
}

impl Connection {
    /// Connects, with TLS where that is wished for.
    ///
    /// # Errors
    /// [`Failure::Refused`], or [`Failure::NotOffered`] where the generator has no connection left.
    pub async fn open(shared: &Shared, visitor: u64) -> Result<Connection, Failure> {
        let wire = Wire::open(shared, visitor).await?;
        Ok(match shared.protocol() {
            Protocol::Http1 => Connection::Http1(http1::Connection::new(wire)),
            Protocol::Http2 => Connection::Http2(http2::Connection::begin(wire).await?),
        })
    }

    /// Sends a request and reads the answer to its end. `sent` is called when the request was handed over.
    ///
    /// # Errors
    /// As [`Failure`]. The connection is of no use then.
    pub async fn ask(
        &mut self,
        shared: &Shared,
        request: &Request<'_>,
        sent: impl FnOnce(),
    ) -> Result<Answer, Failure> {
        match self {
            Connection::Http1(connection) => connection.ask(shared, request, sent).await,
            Connection::Http2(connection) => {
                let asker = connection.asker();
                connection.with(asker.ask(shared, request, sent)).await
            }
        }
    }

    /// Looks after it while nothing is asked. Ready: it is of no use any more.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Connection::Http1(connection) => connection.poll_ended(cx),
            Connection::Http2(connection) => connection.poll_ended(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::runtime::Builder;

    use super::*;
    use crate::load::Origin;

    /// How much too late every answer is read.
    const LATE: Duration = Duration::from_millis(20);
    /// The kernel begins to time what it receives a moment after the first socket has asked for it.
    const EXCHANGES: u32 = 100;

    /// Answers whatever is asked over one connection at once, until it ends.
    fn app(protocol: Protocol) -> (SocketAddr, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let runtime = Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                let mut stream = tokio::net::TcpStream::from_std(stream).unwrap();
                if protocol == Protocol::Http1 {
                    let mut head = [0; 4096];
                    while let Ok(1..) = stream.read(&mut head).await {
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
                    }
                    return;
                }
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data(Bytes::from_static(b"hi"), true).unwrap();
                }
            });
        });
        (address, serving)
    }

    #[test]
    fn an_answer_had_come_when_the_app_sent_it_however_late_it_is_read() {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let (address, serving) = app(protocol);
            let origin = Origin { authority: "shop.example".to_owned(), address, protocol, tls: None };
            let shared = Shared::new(origin, None, 1, 1 << 20);
            let runtime = Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                let mut connection = Connection::open(&shared, 0).await.unwrap();
                for exchange in 1.. {
                    let request = Request {
                        method: Method::Get,
                        path: "/",
                        from: None,
                        cookies: b"",
                        body: None,
                        wants: Wants::Nothing,
                    };
                    let began = Instant::now();
                    // Nothing is read before it is over.
                    let late = async {
                        std::thread::sleep(LATE);
                        Instant::now()
                    };
                    let asking = connection.ask(&shared, &request, || {});
                    let (answer, late) = tokio::join!(biased; asking, late);
                    let arrived = answer.unwrap().arrived;
                    assert!(arrived >= began && arrived <= Instant::now());
                    if arrived < late {
                        break;
                    }
                    assert!(exchange < EXCHANGES, "{protocol:?}: the kernel times nothing");
                }
            });
            drop(runtime);
            serving.join().unwrap();
        }
    }
}

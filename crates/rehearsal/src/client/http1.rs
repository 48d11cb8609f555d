//! A request and its answer over HTTP/1.1: one write, and as few reads as the answer has pieces.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::answer::Failure;
use super::connect::{Shared, Wire};
use super::response::Response;
use super::{Answer, Request, keep};
use crate::load::Method;

/// Kept between requests, one at a time.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
}

impl Connection {
    pub fn new(wire: Wire) -> Connection {
        Connection { wire }
    }

    /// Nothing was asked: whatever comes, the end most likely, is the end of it.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut byte = [0; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        Pin::new(&mut self.wire).poll_read(cx, &mut buffer).map(drop)
    }

    /// Sends a request and reads the answer to its end. Whether the connection can be used again is in
    /// [`Head::keeps_connection`]; after a failure it cannot.
    ///
    /// `sent` is called when the request has been handed to the kernel, or has begun to.
    ///
    /// # Errors
    /// [`Failure::Broken`] or [`Failure::TooMuch`].
    pub async fn ask(
        &mut self,
        shared: &Shared,
        request: &Request<'_>,
        sent: impl FnOnce(),
    ) -> Result<Answer, Failure> {
        let unsent = self.write(shared, request).await?;
        sent();
        // Of a form that is larger than what the kernel takes at once.
        self.wire.write_all(&unsent).await.map_err(|_| Failure::Broken)?;
        self.wire.flush().await.map_err(|_| Failure::Broken)?;
        let mut response = Response::to(request.method);
        let mut page = Vec::new();
        loop {
            let read = poll_fn(|cx| {
                let mut buffer = shared.read.borrow_mut();
                let mut buffer = ReadBuf::new(&mut buffer);
                ready!(Pin::new(&mut self.wire).poll_read(cx, &mut buffer)).map_err(|_| Failure::Broken)?;
                let bytes = buffer.filled();
                Poll::Ready(if bytes.is_empty() {
                    response.end().map(Some)
                } else {
                    response.take(bytes, &mut |head, data| keep(&mut page, request.wants, head, data))
                })
            });
            let whole = read.await?;
            if response.body_bytes() > shared.body_limit {
                return Err(Failure::TooMuch);
            }
            let is_cut = whole.is_none() && request.wants.is_cut_at(response.body_bytes());
            if let Some(head) = if is_cut { response.leave() } else { whole } {
                return Ok(Answer { head, arrived: self.wire.arrived().last(), page, is_cut });
            }
        }
    }

    /// What the kernel did not take at once.
    async fn write(&mut self, shared: &Shared, request: &Request<'_>) -> Result<Vec<u8>, Failure> {
        poll_fn(|cx| {
            let mut out = shared.write.borrow_mut();
            out.clear();
            write(shared, request, &mut out);
            let written = match Pin::new(&mut self.wire).poll_write(cx, &out) {
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::Broken)),
                Poll::Pending => 0,
            };
            Poll::Ready(Ok(out[written..].to_vec()))
        })
        .await
    }
}

fn write(shared: &Shared, request: &Request<'_>, out: &mut Vec<u8>) {
    let method = match request.method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
    };
    for part in [method, " ", request.path, " HTTP/1.1\r\nHost: ", &shared.origin.authority] {
        out.extend_from_slice(part.as_bytes());
    }
    for (name, value) in request.fields() {
        for part in ["\r\n", name, ": ", value] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    if let Some(from) = request.from {
        for part in ["\r\nReferer: ", shared.scheme, "://", &shared.origin.authority, from] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    if !request.cookies.is_empty() {
        out.extend_from_slice(b"\r\nCookie: ");
        out.extend_from_slice(request.cookies);
    }
    if let Some(body) = request.body {
        for part in ["\r\nOrigin: ", shared.scheme, "://", &shared.origin.authority] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(b"\r\nContent-Length: ");
        out.extend_from_slice(body.len().to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(request.body.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Wants;
    use crate::client::connect::tests::plain;

    fn get(path: &str) -> Request<'_> {
        Request { method: Method::Get, path, from: None, cookies: b"", body: None, wants: Wants::Nothing }
    }

    fn written(request: &Request<'_>) -> String {
        let mut out = Vec::new();
        write(&plain("shop.example", "127.0.0.1:80".parse().unwrap()), request, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_page_is_asked_for_as_a_browser_does() {
        let request = Request { from: Some("/start"), ..get("/page?a=b") };
        let head = written(&Request { cookies: b"a=1; b=2", ..request });
        assert!(head.starts_with("GET /page?a=b HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: "), "{head}");
        assert!(head.contains("\r\nAccept-Encoding: gzip, br\r\n"), "{head}");
        assert!(
            head.ends_with("\r\nReferer: http://shop.example/start\r\nCookie: a=1; b=2\r\n\r\n"),
            "{head}"
        );
    }

    #[test]
    fn a_form_is_sent_with_its_length_and_origin() {
        let request = Request { method: Method::Post, body: Some(b"a=1"), ..get("/post") };
        let head = written(&request);
        assert!(head.contains("\r\nContent-Type: application/x-www-form-urlencoded\r\n"), "{head}");
        assert!(head.ends_with("\r\nOrigin: http://shop.example\r\nContent-Length: 3\r\n\r\na=1"), "{head}");
    }

    #[test]
    fn a_page_that_is_looked_at_comes_as_it_is() {
        let head = written(&Request { wants: Wants::Page, ..get("/") });
        assert!(head.contains("\r\nAccept-Encoding: identity\r\n"), "{head}");
    }
}

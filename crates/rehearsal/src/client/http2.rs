//! Requests and answers over HTTP/2: many at once on one connection.
//!
//! The connection has no task of its own. Whoever waits for an answer drives it ([`Connection::with`]), and so does a visitor
//! who reads, so that pings are answered and its end is noticed.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::SendRequest;
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, COOKIE, ORIGIN, REFERER};

use super::answer::{Failure, Head};
use super::connect::{Shared, Wire};
use super::socket::Arrived;
use super::{Answer, Request, keep};
use crate::load::Method;

/// What an app may send before it is read. Browsers allow more; what comes is dropped at once.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const HEADER_LIST_BYTES: u32 = super::response::HEAD_BYTES as u32;

pub struct Connection {
    sender: SendRequest<Bytes>,
    driver: Pin<Box<h2::client::Connection<Wire, Bytes>>>,
    arrived: Arrived,
    has_ended: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("http2::Connection").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

impl Connection {
    /// # Errors
    /// [`Failure::Refused`]: whoever is there does not speak it.
    pub async fn begin(wire: Wire) -> Result<Connection, Failure> {
        let arrived = wire.arrived().clone();
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .max_header_list_size(HEADER_LIST_BYTES)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let (sender, driver) = builder.handshake(wire).await.map_err(|_| Failure::Refused)?;
        Ok(Connection { sender, driver: Box::pin(driver), arrived, has_ended: false })
    }

    /// For a request of its own beside others.
    pub fn asker(&self) -> Asker {
        Asker { sender: self.sender.clone(), arrived: self.arrived.clone() }
    }

    /// Drives the connection until `asking`, which goes over it, is done.
    pub async fn with<T>(&mut self, asking: impl Future<Output = T>) -> T {
        let mut asking = pin!(asking);
        poll_fn(|cx| {
            // What came is handed on before those who wait for it look, and what they ask is sent at once.
            self.drive(cx);
            let asked = asking.as_mut().poll(cx);
            self.drive(cx);
            asked
        })
        .await
    }

    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.drive(cx);
        if self.has_ended { Poll::Ready(()) } else { Poll::Pending }
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        // An error reaches every stream by itself.
        if !self.has_ended && self.driver.as_mut().poll(cx).is_ready() {
            self.has_ended = true;
        }
    }
}

/// Asks over a connection that somebody drives.
#[derive(Debug, Clone)]
pub struct Asker {
    sender: SendRequest<Bytes>,
    arrived: Arrived,
}

impl Asker {
    /// # Errors
    /// [`Failure::Broken`] or [`Failure::TooMuch`].
    pub async fn ask(
        self,
        shared: &Shared,
        request: &Request<'_>,
        sent: impl FnOnce(),
    ) -> Result<Answer, Failure> {
        let broken = |_: h2::Error| Failure::Broken;
        let mut sender = self.sender.ready().await.map_err(broken)?;
        let (answer, mut body) =
            sender.send_request(head(shared, request)?, request.body.is_none()).map_err(broken)?;
        if let Some(form) = request.body {
            // It waits in h2 for the app's window. A form is small.
            body.send_data(Bytes::copy_from_slice(form), true).map_err(broken)?;
        }
        sent();
        let (parts, mut body) = answer.await.map_err(broken)?.into_parts();
        let mut head = Head::new(parts.status.as_u16());
        for (name, value) in &parts.headers {
            head.field(name.as_str(), value.as_bytes());
        }
        let (mut page, mut bytes, mut is_cut) = (Vec::new(), 0, false);
        while let Some(data) = body.data().await {
            let data = data.map_err(broken)?;
            bytes += data.len() as u64;
            if bytes > shared.body_limit {
                return Err(Failure::TooMuch);
            }
            keep(&mut page, request.wants, &head, &data);
            if request.wants.is_cut_at(bytes) {
                // To leave it is to reset the stream.
                is_cut = true;
                break;
            }
            body.flow_control().release_capacity(data.len()).map_err(broken)?;
        }
        // Of all that was read with it, the last; what belongs to others may have come a little later.
        Ok(Answer { head, arrived: self.arrived.last(), page, is_cut })
    }
}

fn head(shared: &Shared, request: &Request<'_>) -> Result<http::Request<()>, Failure> {
    let method = match request.method {
        Method::Get => http::Method::GET,
        Method::Head => http::Method::HEAD,
        Method::Post => http::Method::POST,
    };
    let base = format!("{}://{}", shared.scheme, shared.origin.authority);
    let mut builder = http::Request::builder()
        .method(method)
        .version(http::Version::HTTP_2)
        .uri(format!("{base}{}", request.path));
    for (name, value) in request.fields() {
        builder = builder.header(name, HeaderValue::from_static(value));
    }
    if let Some(from) = request.from {
        builder = builder.header(REFERER, format!("{base}{from}"));
    }
    if !request.cookies.is_empty() {
        builder = builder.header(COOKIE, request.cookies);
    }
    if let Some(body) = request.body {
        builder = builder.header(ORIGIN, base).header(CONTENT_LENGTH, body.len());
    }
    // Paths and cookies were looked at when they were taken; what http still does not take goes nowhere.
    builder.body(()).map_err(|_| Failure::Broken)
}

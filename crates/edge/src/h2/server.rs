//! A client's HTTP/2 connection: every stream is a task, the connection itself is one more.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::time::Instant;

use super::body::Incoming;
use super::prefixed::Prefixed;
use super::stream::ServerStream;
use super::{CONNECTION_WINDOW, SEND_BUFFER, STREAM_WINDOW, request};
use crate::exchange::{self, Downstream, Scratch};
use crate::h1::Stream;
use crate::server::{Peer, Thread, View};
use crate::watchdog::Watchdog;

/// After GOAWAY the client has this long to close when no stream is left.
const FAREWELL: Duration = Duration::from_secs(2);

/// Resets are counted anew after this long: whoever browses takes back a request now and then, for hours.
const RESETS_WITHIN: Duration = Duration::from_secs(10);

/// What the streams of one connection have in common.
#[derive(Debug)]
struct Counts {
    open: Cell<usize>,
    /// Streams that the client reset lately. A client that does so again and again makes us work for nothing
    /// (CVE-2023-44487).
    resets: Cell<usize>,
    counted_since: Cell<Instant>,
}

impl Counts {
    fn new() -> Counts {
        Counts { open: Cell::new(0), resets: Cell::new(0), counted_since: Cell::new(Instant::now()) }
    }

    fn count_reset(&self) {
        if self.counted_since.get().elapsed() >= RESETS_WITHIN {
            self.counted_since.set(Instant::now());
            self.resets.set(0);
        }
        self.resets.set(self.resets.get() + 1);
    }
}

/// Serves a connection until it closes. `read`: what was read of it already.
pub(crate) async fn serve<S: Stream + 'static>(
    thread: &Rc<Thread>,
    stream: S,
    read: Vec<u8>,
    peer: &Rc<Peer>,
) {
    let view = thread.snapshot();
    let limits = view.limits;
    let timeouts = view.timeouts;
    drop(view);
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.h2_concurrent_streams)
        .max_header_list_size(u32::try_from(limits.request_head.bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.h2_max_resets)
        .max_local_error_reset_streams(Some(limits.h2_max_resets))
        .max_send_buffer_size(SEND_BUFFER)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let mut watchdog = Watchdog::default();
    let handshake = builder.handshake::<_, Bytes>(Prefixed::new(read, stream, Arc::clone(&thread.recorder)));
    let Ok(Ok(mut connection)) = watchdog.within(timeouts.request_head, pin!(handshake)).await else {
        return;
    };
    let counts = Rc::new(Counts::new());
    let mut idle_limit = timeouts.request_head;
    let mut leaving = false;
    let mut last_active = Instant::now();
    let mut drain = pin!(thread.drain().cancelled());
    loop {
        let event = poll_fn(|cx| {
            if !leaving && drain.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Drain);
            }
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(Event::Accepted(accepted));
            }
            if counts.open.get() > 0 {
                last_active = Instant::now();
            }
            watchdog.poll_expired(cx, last_active + idle_limit).map(|()| Event::Idle)
        })
        .await;
        match event {
            Event::Accepted(Some(Ok(stream))) => {
                last_active = Instant::now();
                idle_limit = if leaving { FAREWELL } else { timeouts.keep_alive };
                let task = stream_task(Rc::clone(thread), Rc::clone(peer), Rc::clone(&counts), stream);
                thread.tasks.spawn_local(task);
                if counts.resets.get() > limits.h2_max_resets {
                    abuse(&mut connection);
                }
            }
            Event::Accepted(Some(Err(_)) | None) => return,
            Event::Drain => {
                leaving = true;
                idle_limit = FAREWELL;
                last_active = Instant::now();
                connection.graceful_shutdown();
            }
            Event::Idle if counts.open.get() > 0 => last_active = Instant::now(),
            Event::Idle if leaving => return,
            Event::Idle => {
                leaving = true;
                idle_limit = FAREWELL;
                last_active = Instant::now();
                connection.graceful_shutdown();
            }
        }
    }
}

/// A request and the means to answer it.
type NewStream = (Request<RecvStream>, SendResponse<Bytes>);

#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is moved once")]
enum Event {
    Accepted(Option<Result<NewStream, h2::Error>>),
    Drain,
    Idle,
}

fn abuse<S: Stream>(connection: &mut Connection<Prefixed<S>, Bytes>) {
    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
}

/// Keeps a stream counted.
struct Open(Rc<Counts>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

async fn stream_task(thread: Rc<Thread>, peer: Rc<Peer>, counts: Rc<Counts>, (request, respond): NewStream) {
    counts.open.set(counts.open.get() + 1);
    let _open = Open(Rc::clone(&counts));
    let view = thread.snapshot();
    let mut scratch = Scratch::default();
    let read = request::read(&request, &view.limits.request_head, &mut scratch.request);
    let (asked, body) = request.into_parts();
    let body = Incoming::new(body, view.limits.request_body);
    let mut stream = ServerStream::new(body, respond);
    let too_long = matches!(
        scratch.request.length, crate::head::BodyLength::Known(length) if length > view.limits.request_body
    );
    let refused = match read {
        Err(reject) => Some(reject.status()),
        Ok(()) if too_long => Some(413),
        Ok(()) => None,
    };
    match refused {
        Some(status) => {
            let sent = refuse(&view, &mut scratch, &mut stream, status).await;
            let known = exchange::Known {
                method: asked.method.as_str().as_bytes(),
                target: asked.uri.path_and_query().map_or("", |target| target.as_str()).as_bytes(),
                host: asked.uri.authority().map_or("", |authority| authority.as_str()).as_bytes(),
            };
            exchange::refused(&thread, &peer, "HTTP/2", status, known, sent);
        }
        None => exchange::run(&thread, &view, &peer, &mut scratch, &mut stream).await,
    }
    if stream.was_reset() {
        counts.count_reset();
    }
}

/// Returns the length of the body that was sent.
async fn refuse(view: &View, scratch: &mut Scratch, stream: &mut ServerStream, status: u16) -> u64 {
    let (_, mut sink) = stream.split();
    let persistence = crate::head::Persistence::KeepAlive;
    let answer = exchange::reply(&mut sink, &mut scratch.response, status, b"-", b"GET", persistence);
    // A client that does not take it has reset the stream or is about to lose the connection.
    let answered = scratch.watchdog.within(view.timeouts.write_idle, pin!(answer)).await;
    answered.ok().and_then(Result::ok).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A browser keeps its connection for as long as somebody browses: what he takes back adds up, and is no attack.
    #[tokio::test(start_paused = true)]
    async fn resets_count_together_only_where_they_come_together() {
        let counts = Counts::new();
        for _ in 0..20 {
            for _ in 0..50 {
                counts.count_reset();
                tokio::time::advance(Duration::from_millis(200)).await;
            }
            assert!(counts.resets.get() <= 50, "{}", counts.resets.get());
        }
        for _ in 0..200 {
            counts.count_reset();
        }
        assert!(counts.resets.get() >= 200);
    }
}

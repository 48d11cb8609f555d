//! A client's HTTP/1.1 connection: request after request until one side has had enough.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::body::{Incoming, Outgoing};
use super::buffer::Inbox;
use super::client::write_length;
use super::stream::{Outbox, Stream, Wire};
use super::{Reject, parse_request_head};
use crate::exchange::{self, Downstream, Next, Piece, ResponseSink, Sink, SinkError, Source, SourceError};
use crate::head::{
    BodyLength, HeaderList, Known, Persistence, RequestHead, ResponseHead, Version, write_line,
};
use crate::server::{Peer, Snapshot, Thread};
use crate::watchdog::Watchdog;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a closed connection may go on sending before it is cut, so that our last answer is not lost to a reset: who
/// uploads often reads it only when all is sent.
const LINGER: Duration = Duration::from_secs(30);
/// How long it may pause meanwhile.
const LINGER_PAUSE: Duration = Duration::from_secs(2);
/// How much it may send.
const LINGER_BYTES: usize = 256 * 1024 * 1024;

/// A client that has ended its direction may only have nothing more to ask. Where the answer pauses for longer it is taken to
/// be gone.
const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(5);

/// How serving HTTP/1.1 ended.
pub(crate) enum Served<S> {
    /// The connection is closed.
    Closed,
    /// The client began with the HTTP/2 preface; these bytes of it were read already.
    BecomesH2(S, Vec<u8>),
}

/// Serves a connection until it closes.
pub(crate) async fn serve<S: Stream>(thread: &Rc<Thread>, stream: S, peer: &Rc<Peer>) -> Served<S> {
    let snapshot = thread.snapshot();
    let mut connection = ServerConnection {
        wire: Wire::new(stream),
        inbox: Inbox::new(snapshot.limits.request_head.bytes),
        out: Outbox::default(),
        sending: Sending::default(),
        receiving: Incoming::default(),
        watchdog: Watchdog::default(),
    };
    drop(snapshot);
    let mut scratch = exchange::Scratch::default();
    let mut served: u64 = 0;
    loop {
        let waited = pin!(connection.next_head(thread, &mut scratch, served)).await;
        match waited {
            HeadWait::Request => {}
            HeadWait::Preface => {
                let ServerConnection { wire, inbox, .. } = connection;
                return Served::BecomesH2(wire.into_inner(), inbox.filled().to_vec());
            }
            HeadWait::Gone => return Served::Closed,
            HeadWait::Refuse(status, head) => {
                let sent = connection.refuse(status);
                let request = &scratch.request;
                let known = match head {
                    Head::Unread => exchange::Known::from_start(connection.inbox.filled()),
                    Head::Read => exchange::Known {
                        method: request.method(),
                        target: request.target(),
                        host: request.authority(),
                    },
                };
                exchange::refused(thread, peer, "HTTP/1.1", status, known, sent);
                break;
            }
        }
        served += 1;
        let snapshot = thread.snapshot();
        connection.begin(&scratch.request, &snapshot);
        let most = snapshot.limits.requests_per_connection;
        if most != 0 && served >= most {
            scratch.request.persistence = Persistence::Close;
        }
        pin!(exchange::run(thread, &snapshot, peer, &mut scratch, &mut connection)).await;
        connection.count(thread);
        if connection.sending.persistence == Persistence::Close || !connection.receiving.is_over() {
            break;
        }
    }
    pin!(connection.close(&mut scratch.watchdog)).await;
    connection.count(thread);
    Served::Closed
}

enum HeadWait {
    Request,
    Preface,
    Gone,
    Refuse(u16, Head),
}

/// How much is known of a request that is refused.
enum Head {
    /// Its bytes, which made no sense.
    Unread,
    /// All of it: it asks for too much.
    Read,
}

#[derive(Debug, Default)]
struct Sending {
    framing: Outgoing,
    persistence: Persistence,
    version: Version,
    aborted: bool,
    /// Since when the answer pauses.
    paused: Option<Instant>,
}

/// See the module.
pub(crate) struct ServerConnection<S> {
    wire: Wire<S>,
    inbox: Inbox,
    out: Outbox,
    sending: Sending,
    receiving: Incoming,
    /// Looks after clients that are gone.
    watchdog: Watchdog,
}

impl<S: Stream> ServerConnection<S> {
    async fn next_head(
        &mut self,
        thread: &Rc<Thread>,
        scratch: &mut exchange::Scratch,
        served: u64,
    ) -> HeadWait {
        let mut head_deadline = None;
        self.inbox.rest();
        loop {
            let filled = self.inbox.filled();
            let snapshot = thread.snapshot();
            if served == 0
                && !filled.is_empty()
                && H2_PREFACE.starts_with(&filled[..filled.len().min(H2_PREFACE.len())])
            {
                if filled.len() >= H2_PREFACE.len() {
                    return HeadWait::Preface;
                }
            } else {
                match parse_request_head(filled, &snapshot.limits.request_head, &mut scratch.request) {
                    Ok(Some(length)) => {
                        self.inbox.consume(length);
                        let too_long = matches!(scratch.request.length, BodyLength::Known(n) if n > snapshot.limits.request_body);
                        if too_long {
                            return HeadWait::Refuse(Reject::BodyTooLarge.status(), Head::Read);
                        }
                        return HeadWait::Request;
                    }
                    Ok(None) => {}
                    Err(reject) => return HeadWait::Refuse(reject.status(), Head::Unread),
                }
            }
            let idle = self.inbox.is_empty() && served > 0;
            let deadline = if idle {
                Instant::now() + snapshot.timeouts.keep_alive
            } else {
                *head_deadline.get_or_insert_with(|| Instant::now() + snapshot.timeouts.request_head)
            };
            drop(snapshot);
            let (wire, inbox, watchdog) = (&self.wire, &mut self.inbox, &mut scratch.watchdog);
            let filled = poll_fn(|cx| match inbox.poll_fill(wire, cx) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => watchdog.poll_expired(cx, deadline).map(|()| None),
            })
            .await;
            match filled {
                // Nothing was begun, so there is nothing to answer.
                None if self.inbox.is_empty() => return HeadWait::Gone,
                None => return HeadWait::Refuse(408, Head::Unread),
                Some(Ok(0) | Err(_)) => return HeadWait::Gone,
                Some(Ok(_)) => {}
            }
        }
    }

    fn count(&self, thread: &Thread) {
        let (read, written) = self.wire.take_counts();
        thread.recorder.received(read);
        thread.recorder.sent(written);
    }

    fn begin(&mut self, request: &RequestHead, snapshot: &Snapshot) {
        self.receiving = Incoming::new(request.length, snapshot.limits.request_body);
        self.sending = Sending { version: request.version, ..Sending::default() };
    }

    /// Answers a request that could not be read and whose end is therefore unknown. Returns the length of the body.
    fn refuse(&mut self, status: u16) -> u64 {
        use std::io::Write;
        let reason = exchange::reason_phrase(status);
        let length = reason.len() + 1;
        let _ = write!(
            self.out.bytes(),
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reason}\n",
            length,
        );
        length as u64
    }

    /// Sends what is left, ends our direction and reads on until the client has ended its own.
    async fn close(&mut self, watchdog: &mut Watchdog) {
        if self.sending.aborted {
            return;
        }
        let ended = pin!(async {
            self.out.flush(&self.wire).await?;
            self.wire.shutdown().await
        });
        if !matches!(watchdog.within(LINGER_PAUSE, ended).await, Ok(Ok(()))) {
            return;
        }
        let until = Instant::now() + LINGER;
        let mut discarded = 0;
        while discarded < LINGER_BYTES && Instant::now() < until {
            let pending = self.inbox.filled().len();
            self.inbox.consume(pending);
            let read = pin!(poll_fn(|cx| self.inbox.poll_fill(&self.wire, cx)));
            match watchdog.within(LINGER_PAUSE, read).await {
                Ok(Ok(count)) if count > 0 => discarded += count,
                _ => return,
            }
        }
    }
}

impl<S: Stream> Downstream for ServerConnection<S> {
    type Body<'a>
        = ServerBody<'a, S>
    where
        Self: 'a;
    type Response<'a>
        = ServerResponse<'a, S>
    where
        Self: 'a;

    fn split(&mut self) -> (ServerBody<'_, S>, ServerResponse<'_, S>) {
        (
            ServerBody { wire: &self.wire, inbox: &mut self.inbox, body: &mut self.receiving },
            ServerResponse {
                wire: &self.wire,
                out: &mut self.out,
                sending: &mut self.sending,
                watchdog: &mut self.watchdog,
            },
        )
    }
}

/// The request's body.
pub(crate) struct ServerBody<'a, S> {
    wire: &'a Wire<S>,
    inbox: &'a mut Inbox,
    body: &'a mut Incoming,
}

impl<S: Stream> Source for ServerBody<'_, S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, SourceError>> {
        self.body.poll_next(self.wire, self.inbox, cx)
    }

    fn piece(&mut self) -> Piece<'_> {
        self.body.piece(self.inbox)
    }

    fn trailers(&self) -> Option<&HeaderList> {
        self.body.trailers()
    }

    fn become_tunnel(&mut self) {
        *self.body = Incoming::tunnel();
    }
}

/// The response's direction.
pub(crate) struct ServerResponse<'a, S> {
    wire: &'a Wire<S>,
    out: &'a mut Outbox,
    sending: &'a mut Sending,
    watchdog: &'a mut Watchdog,
}

impl<S: Stream> ResponseSink for ServerResponse<'_, S> {
    async fn interim(&mut self, head: &ResponseHead) -> Result<(), SinkError> {
        if self.sending.version == Version::Http10 {
            return Ok(());
        }
        write_status_line(head, self.out.bytes());
        head.headers.write_lines(self.out.bytes(), |known| !known.is_hop_by_hop());
        self.out.bytes().extend_from_slice(b"\r\n");
        self.flush().await
    }

    async fn head(
        &mut self,
        head: &ResponseHead,
        length: BodyLength,
        persistence: Persistence,
    ) -> Result<(), SinkError> {
        let old = self.sending.version == Version::Http10;
        let out = self.out.bytes();
        write_status_line(head, out);
        let framed_here = length != BodyLength::None || head.status == 204 || head.status < 200;
        head.headers.write_lines(out, |known| {
            !known.is_hop_by_hop() && (known != Known::ContentLength || !framed_here)
        });
        self.sending.persistence = persistence;
        self.sending.framing = match length {
            BodyLength::None => Outgoing::Nothing,
            BodyLength::Known(length) => {
                write_length(out, length);
                Outgoing::Plain
            }
            // HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
            BodyLength::Framed | BodyLength::UntilClose if old => {
                self.sending.persistence = Persistence::Close;
                Outgoing::Plain
            }
            BodyLength::Framed | BodyLength::UntilClose => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                Outgoing::Chunked
            }
        };
        if head.status == 101 {
            out.extend_from_slice(b"Connection: Upgrade\r\n");
            if let Some(protocol) = head.headers.get(Known::Upgrade) {
                write_line(out, b"Upgrade", protocol);
            }
        } else if self.sending.persistence == Persistence::Close {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if old {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn abort(&mut self) {
        self.sending.persistence = Persistence::Close;
        self.sending.aborted = true;
    }
}

impl<S: Stream> Sink for ServerResponse<'_, S> {
    async fn send(&mut self, piece: Piece<'_>) -> Result<(), SinkError> {
        self.sending.paused = None;
        self.sending.framing.send(self.wire, self.out, piece).await
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        Ok(self.out.flush(self.wire).await?)
    }

    async fn end(&mut self, trailers: Option<&HeaderList>) -> Result<(), SinkError> {
        self.sending.framing.end(self.wire, self.out, trailers).await
    }

    fn become_tunnel(&mut self) {
        self.sending.framing = Outgoing::Tunnel;
        self.sending.persistence = Persistence::Close;
    }

    /// Only within an answer: before it a client that has ended its direction is waited with, for it may be one that asks no
    /// more.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.sending.framing == Outgoing::Nothing {
            return Poll::Pending;
        }
        loop {
            let paused = *self.sending.paused.get_or_insert_with(Instant::now);
            ready!(self.watchdog.poll_expired(cx, paused + HALF_CLOSED_PATIENCE));
            if self.wire.with(Stream::is_half_closed) {
                return Poll::Ready(());
            }
            self.sending.paused = None;
        }
    }
}

fn write_status_line(head: &ResponseHead, out: &mut Vec<u8>) {
    let status = head.status;
    let digits = [b'0' + (status / 100) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&digits);
    out.push(b' ');
    out.extend_from_slice(head.reason());
    out.extend_from_slice(b"\r\n");
}

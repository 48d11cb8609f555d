//! A connection to an upstream that speaks HTTP/1.1: one exchange at a time.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

use super::body::{Incoming, Outgoing};
use super::buffer::Inbox;
use super::stream::{Outbox, Wire};
use super::{Expected, HeadLimits, parse_response_head};
use crate::exchange::{
    HeadError, Next, Piece, RequestSink, ResponseSource, Sink, SinkError, Source, SourceError, Upstream,
};
use crate::head::{BodyLength, HeaderList, Known, Persistence, RequestHead, ResponseHead, write_line};

/// The stream of an upstream connection, shared with the pool so that the pool can cut it.
pub(crate) type ClientStream = Wire<TcpStream>;

impl ClientStream {
    /// Ends both directions at once: whoever reads or writes finds the connection closed.
    pub(crate) fn cut(&self) {
        // It may have ended by itself.
        let _ = self.with(|stream| socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Both));
    }
}

/// An upstream connection with the state of its current exchange. In a box: it goes in and out of the pool with every
/// request, and moving a pointer is cheaper.
#[derive(Debug)]
pub(crate) struct Client(Box<State>);

#[derive(Debug)]
struct State {
    wire: Rc<ClientStream>,
    inbox: Inbox,
    out: Outbox,
    limits: HeadLimits,
    sending: Sending,
    receiving: Receiving,
    reused: bool,
}

#[derive(Debug, Default)]
struct Sending {
    framing: Outgoing,
    ended: bool,
}

#[derive(Debug)]
struct Receiving {
    body: Incoming,
    expected: Expected,
    persistence: Persistence,
    began: bool,
    /// A final head was read.
    answered: bool,
}

impl Client {
    pub(crate) fn new(stream: TcpStream, limits: HeadLimits) -> Client {
        Client(Box::new(State {
            wire: Rc::new(Wire::new(stream)),
            inbox: Inbox::new(limits.bytes),
            out: Outbox::default(),
            limits,
            sending: Sending::default(),
            receiving: Receiving {
                body: Incoming::default(),
                expected: Expected::Body,
                persistence: Persistence::KeepAlive,
                began: false,
                answered: true,
            },
            reused: false,
        }))
    }

    /// Whether the exchange ended so that nothing of it can reach the next one: everything sent, everything read, no
    /// byte too many, and the upstream means to stay.
    pub(crate) fn is_reusable(&self) -> bool {
        self.0.sending.ended
            && self.0.sending.framing != Outgoing::Tunnel
            && self.0.receiving.answered
            && self.0.receiving.persistence == Persistence::KeepAlive
            && self.0.receiving.body.is_over()
            && self.0.inbox.is_empty()
    }

    /// Marks the connection as one that may be stale when it is taken again.
    pub(crate) fn mark_reused(&mut self) {
        self.0.reused = true;
    }

    /// Whether an idle connection is still open and silent. Anything readable (an end, or bytes nobody asked for)
    /// means that it must not be used again. Costs no system call while the runtime has not seen it readable.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        self.0.wire.with(|stream| {
            matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        })
    }

    pub(crate) fn stream(&self) -> &Rc<ClientStream> {
        &self.0.wire
    }
}

impl Upstream for Client {
    type Request<'a> = ClientRequest<'a>;
    type Response<'a> = ClientResponse<'a>;

    fn split(&mut self, expected: Expected) -> (ClientRequest<'_>, ClientResponse<'_>) {
        let state = &mut *self.0;
        state.sending = Sending::default();
        state.receiving.expected = expected;
        state.receiving.answered = false;
        state.receiving.began = false;
        (
            ClientRequest { wire: &state.wire, out: &mut state.out, sending: &mut state.sending },
            ClientResponse {
                wire: &state.wire,
                inbox: &mut state.inbox,
                limits: &state.limits,
                receiving: &mut state.receiving,
            },
        )
    }

    fn is_reused(&self) -> bool {
        self.0.reused
    }
}

/// The request's direction.
pub(crate) struct ClientRequest<'a> {
    wire: &'a Wire<TcpStream>,
    out: &'a mut Outbox,
    sending: &'a mut Sending,
}

impl RequestSink for ClientRequest<'_> {
    async fn head(&mut self, head: &RequestHead) -> Result<(), HeadError> {
        write_request_head(head, self.out.bytes());
        self.sending.framing = match head.length {
            BodyLength::None | BodyLength::Known(0) => Outgoing::Nothing,
            BodyLength::Known(_) => Outgoing::Plain,
            BodyLength::Framed | BodyLength::UntilClose => Outgoing::Chunked,
        };
        Ok(())
    }
}

impl Sink for ClientRequest<'_> {
    async fn send(&mut self, piece: Piece<'_>) -> Result<(), SinkError> {
        self.sending.framing.send(self.wire, self.out, piece).await
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        Ok(self.out.flush(self.wire).await?)
    }

    async fn end(&mut self, trailers: Option<&HeaderList>) -> Result<(), SinkError> {
        self.sending.framing.end(self.wire, self.out, trailers).await?;
        self.sending.ended = true;
        Ok(())
    }

    fn become_tunnel(&mut self) {
        self.sending.framing = Outgoing::Tunnel;
    }
}

/// The response's direction.
pub(crate) struct ClientResponse<'a> {
    wire: &'a Wire<TcpStream>,
    inbox: &'a mut Inbox,
    limits: &'a HeadLimits,
    receiving: &'a mut Receiving,
}

impl ResponseSource for ClientResponse<'_> {
    fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Poll<Result<(), SourceError>> {
        let receiving = &mut *self.receiving;
        loop {
            if !self.inbox.is_empty() {
                receiving.began = true;
                let parsed = parse_response_head(self.inbox.filled(), self.limits, receiving.expected, head)?;
                if let Some(length) = parsed {
                    self.inbox.consume(length);
                    receiving.body = Incoming::new(head.length, u64::MAX);
                    receiving.persistence = head.persistence;
                    receiving.answered = head.status >= 200;
                    return Poll::Ready(Ok(()));
                }
            }
            if ready!(self.inbox.poll_fill(self.wire, cx))? == 0 {
                return Poll::Ready(Err(SourceError::Truncated));
            }
        }
    }

    fn began(&self) -> bool {
        self.receiving.began
    }
}

impl Source for ClientResponse<'_> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, SourceError>> {
        self.receiving.body.poll_next(self.wire, self.inbox, cx)
    }

    fn piece(&mut self) -> Piece<'_> {
        self.receiving.body.piece(self.inbox)
    }

    fn trailers(&self) -> Option<&HeaderList> {
        self.receiving.body.trailers()
    }

    fn become_tunnel(&mut self) {
        self.receiving.body = Incoming::tunnel();
    }
}

fn write_request_head(head: &RequestHead, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method());
    out.push(b' ');
    out.extend_from_slice(head.target());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_line(out, b"Host", head.authority());
    head.headers.write_lines(out, |known| {
        let ours = known.is_hop_by_hop() || matches!(known, Known::Host | Known::ContentLength);
        // An expectation without a body has lost its meaning on the way.
        !ours && (known != Known::Expect || head.expects_continue)
    });
    match head.length {
        BodyLength::Known(length) => write_length(out, length),
        BodyLength::Framed => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        BodyLength::None | BodyLength::UntilClose => {}
    }
    if head.upgrade {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
        if let Some(protocols) = head.headers.get(Known::Upgrade) {
            write_line(out, b"Upgrade", protocols);
        }
    } else if head.accepts_trailers {
        out.extend_from_slice(b"Connection: TE\r\nTE: trailers\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_length(out: &mut Vec<u8>, length: u64) {
    use std::io::Write;
    // Writing to a Vec cannot fail.
    let _ = write!(out, "Content-Length: {length}\r\n");
}

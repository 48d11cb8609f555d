//! One stream of a client's connection: one exchange.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{Response, StatusCode};

use super::body::{Incoming, Outgoing};
use super::fields;
use crate::exchange::{Downstream, Next, Piece, ResponseSink, Sink, SinkError, Source, SourceError};
use crate::head::{BodyLength, HeaderList, Known, Persistence, ResponseHead};

/// The client's side.
pub(super) struct ServerStream {
    pub(super) body: Incoming,
    pub(super) answer: Answer,
}

/// The response's direction.
pub(super) struct Answer {
    respond: SendResponse<Bytes>,
    body: Outgoing,
    reset_by_client: bool,
}

impl ServerStream {
    pub(super) fn new(body: Incoming, respond: SendResponse<Bytes>) -> ServerStream {
        ServerStream { body, answer: Answer { respond, body: Outgoing::default(), reset_by_client: false } }
    }

    /// Whether the client took its request back.
    pub(super) fn was_reset(&self) -> bool {
        self.answer.reset_by_client
    }
}

impl Downstream for ServerStream {
    type Body<'a> = &'a mut Incoming;
    type Response<'a> = &'a mut Answer;

    fn split(&mut self) -> (&mut Incoming, &mut Answer) {
        (&mut self.body, &mut self.answer)
    }
}

impl Source for &mut Incoming {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, SourceError>> {
        Incoming::poll_next(self, cx)
    }

    fn piece(&mut self) -> Piece<'_> {
        Incoming::piece(self)
    }

    fn trailers(&self) -> Option<&HeaderList> {
        Incoming::trailers(self)
    }

    /// Upgrades do not exist in HTTP/2; the relay never asks for one.
    fn become_tunnel(&mut self) {}
}

impl ResponseSink for &mut Answer {
    async fn interim(&mut self, head: &ResponseHead) -> Result<(), SinkError> {
        let response = convert(head, |_| true)?;
        self.respond.send_informational(response).map_err(|_| SinkError)
    }

    async fn head(
        &mut self,
        head: &ResponseHead,
        length: BodyLength,
        _: Persistence,
    ) -> Result<(), SinkError> {
        let ends = matches!(length, BodyLength::None | BodyLength::Known(0));
        let mut response =
            convert(head, |known| known != Known::ContentLength || length == BodyLength::None)?;
        if let BodyLength::Known(length) = length {
            response.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
        }
        let stream = self.respond.send_response(response, ends).map_err(|_| SinkError)?;
        if !ends {
            self.body = Outgoing::new(stream);
        }
        Ok(())
    }

    fn abort(&mut self) {
        let cx = &mut Context::from_waker(Waker::noop());
        self.reset_by_client |= matches!(self.respond.poll_reset(cx), Poll::Ready(Ok(_)))
            || matches!(self.body.poll_reset(cx), Some(Poll::Ready(Ok(_))));
        self.body.reset(Reason::INTERNAL_ERROR);
        self.respond.send_reset(Reason::INTERNAL_ERROR);
    }
}

impl Sink for &mut Answer {
    async fn send(&mut self, piece: Piece<'_>) -> Result<(), SinkError> {
        self.body.send(piece).await
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        self.body.flush().await
    }

    async fn end(&mut self, trailers: Option<&HeaderList>) -> Result<(), SinkError> {
        self.body.end(trailers).await
    }

    /// See [`Source::become_tunnel`] above.
    fn become_tunnel(&mut self) {}

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Once a head was sent the body is asked.
        let gone = self.body.poll_reset(cx).unwrap_or_else(|| self.respond.poll_reset(cx));
        self.reset_by_client |= matches!(gone, Poll::Ready(Ok(_)));
        gone.map(|_| ())
    }
}

fn convert(head: &ResponseHead, wanted: impl Fn(Known) -> bool) -> Result<Response<()>, SinkError> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).map_err(|_| SinkError)?;
    *response.headers_mut() = fields::write(&head.headers, wanted);
    Ok(response)
}

//! One stream on a connection to an upstream: one exchange.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use h2::Reason;
use h2::client::ResponseFuture;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri};

use super::body::{Incoming, Outgoing};
use super::connector::OnConnection;
use super::fields;
use crate::exchange::{
    HeadError, Next, Piece, RequestSink, ResponseSource, Sink, SinkError, Source, SourceError, Upstream,
};
use crate::h1::{Expected, Reject, parse_content_length};
use crate::head::{BodyLength, HeaderList, Known, Persistence, RequestHead, ResponseHead, Version};

/// See the module.
#[derive(Debug)]
pub(crate) struct ClientStream {
    place: OnConnection,
    reused: bool,
    body: Outgoing,
    waiting: RefCell<Option<ResponseFuture>>,
    answer: Answer,
}

#[derive(Debug)]
struct Answer {
    body: Incoming,
    expected: Expected,
    began: bool,
}

impl ClientStream {
    pub(super) fn new(place: OnConnection, reused: bool) -> ClientStream {
        ClientStream {
            place,
            reused,
            body: Outgoing::default(),
            waiting: RefCell::new(None),
            answer: Answer { body: Incoming::nothing(), expected: Expected::Body, began: false },
        }
    }
}

impl Upstream for ClientStream {
    type Request<'a> = ClientRequest<'a>;
    type Response<'a> = ClientResponse<'a>;

    fn split(&mut self, expected: Expected) -> (ClientRequest<'_>, ClientResponse<'_>) {
        self.answer.expected = expected;
        (
            ClientRequest { place: &self.place, body: &mut self.body, waiting: &self.waiting },
            ClientResponse { place: &self.place, waiting: &self.waiting, answer: &mut self.answer },
        )
    }

    fn is_reused(&self) -> bool {
        self.reused
    }
}

/// The request's direction.
pub(crate) struct ClientRequest<'a> {
    place: &'a OnConnection,
    body: &'a mut Outgoing,
    waiting: &'a RefCell<Option<ResponseFuture>>,
}

impl RequestSink for ClientRequest<'_> {
    async fn head(&mut self, head: &RequestHead) -> Result<(), HeadError> {
        let request = convert(head).ok_or(HeadError::Unsayable)?;
        let mut sender = self.place.connection().sender();
        let opened = match poll_fn(|cx| sender.poll_ready(cx)).await {
            Ok(()) => sender.send_request(request, !head.has_body()),
            Err(error) => Err(error),
        };
        let Ok((response, stream)) = opened else {
            self.place.connection().retire();
            return Err(HeadError::Over);
        };
        *self.waiting.borrow_mut() = Some(response);
        if head.has_body() {
            *self.body = Outgoing::new(stream);
        }
        Ok(())
    }
}

impl Sink for ClientRequest<'_> {
    async fn send(&mut self, piece: Piece<'_>) -> Result<(), SinkError> {
        self.body.send(piece).await
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        self.body.flush().await
    }

    async fn end(&mut self, trailers: Option<&HeaderList>) -> Result<(), SinkError> {
        self.body.end(trailers).await
    }

    /// Upgrades do not exist in HTTP/2; an upstream cannot answer with 101.
    fn become_tunnel(&mut self) {}
}

/// The response's direction.
pub(crate) struct ClientResponse<'a> {
    place: &'a OnConnection,
    waiting: &'a RefCell<Option<ResponseFuture>>,
    answer: &'a mut Answer,
}

impl ResponseSource for ClientResponse<'_> {
    fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Poll<Result<(), SourceError>> {
        let mut waiting = self.waiting.borrow_mut();
        let Some(response) = waiting.as_mut() else {
            return Poll::Ready(Err(SourceError::Truncated));
        };
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            self.answer.began = true;
            begin(head, interim.status().as_u16(), interim.headers());
            return Poll::Ready(Ok(()));
        }
        let response = match ready!(std::pin::Pin::new(response).poll(cx)) {
            Ok(response) => response,
            Err(error) => {
                let failure = failure(&error);
                // Whatever ends the connection ends it for the next stream too, and where one stream was refused the next
                // would be.
                if !matches!(failure, SourceError::Reset) {
                    self.place.connection().retire();
                }
                return Poll::Ready(Err(failure));
            }
        };
        *waiting = None;
        self.answer.began = true;
        let (parts, body) = response.into_parts();
        begin(head, parts.status.as_u16(), &parts.headers);
        let mut lengths = head.headers.iter_known(Known::ContentLength);
        let length = lengths.next().map(|(_, value)| parse_content_length(value)).transpose()?;
        if lengths.next().is_some() {
            return Poll::Ready(Err(Reject::ContentLength.into()));
        }
        drop(lengths);
        let bodiless = matches!(head.status, 204 | 304) || self.answer.expected == Expected::HeadOnly;
        head.length = match (bodiless, length, body.is_end_stream()) {
            (true, ..) => BodyLength::None,
            (false, Some(length), _) => BodyLength::Known(length),
            (false, None, true) => BodyLength::Known(0),
            (false, None, false) => BodyLength::Framed,
        };
        self.answer.body = Incoming::new(body, u64::MAX);
        Poll::Ready(Ok(()))
    }

    fn began(&self) -> bool {
        self.answer.began
    }
}

impl Source for ClientResponse<'_> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, SourceError>> {
        self.answer.body.poll_next(cx)
    }

    fn piece(&mut self) -> Piece<'_> {
        self.answer.body.piece()
    }

    fn trailers(&self) -> Option<&HeaderList> {
        self.answer.body.trailers()
    }

    /// See above.
    fn become_tunnel(&mut self) {}
}

/// Why there is no answer. A stream above the last one that a GOAWAY names (only those get it for their error), and one
/// that was refused, were not processed in any way (RFC 9113, 6.8 and 8.7).
fn failure(error: &h2::Error) -> SourceError {
    let refused = error.reason() == Some(Reason::REFUSED_STREAM);
    if error.is_remote() && (error.is_go_away() || refused) {
        SourceError::Unprocessed
    } else if error.is_reset() {
        SourceError::Reset
    } else {
        SourceError::Truncated
    }
}

fn begin(head: &mut ResponseHead, status: u16, map: &http::HeaderMap) {
    head.clear();
    head.status = status;
    head.version = Version::Http2;
    head.persistence = Persistence::KeepAlive;
    let phrase = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    head.reason = head.headers.append_text(phrase.unwrap_or_default().as_bytes());
    fields::read(map, &mut head.headers);
}

/// `None`: HTTP/1 says more than HTTP/2 can, such as a target with `<` in it, or nothing of the authority.
fn convert(head: &RequestHead) -> Option<Request<()>> {
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(Authority::try_from(head.authority()).ok()?);
    uri.path_and_query = Some(PathAndQuery::try_from(head.target()).ok()?);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method()).ok()?;
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    let expects = head.expects_continue;
    let mut fields = fields::write(&head.headers, |known| {
        !matches!(known, Known::Host | Known::ContentLength) && (known != Known::Expect || expects)
    });
    if let BodyLength::Known(length) = head.length {
        fields.insert(http::header::CONTENT_LENGTH, length.into());
    }
    if head.accepts_trailers {
        fields.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    }
    *request.headers_mut() = fields;
    Some(request)
}

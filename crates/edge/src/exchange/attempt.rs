//! One attempt: the request to one endpoint over one connection, and its response back.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::ongoing::{Ongoing, State};
use super::pump::{Pace, PumpError, pump, upload};
use super::scratch::Scratch;
use super::seam::{
    Downstream, HeadError, RequestSink, ResponseSink, ResponseSource, Sink, Source, SourceError, Upstream,
};
use super::tunnel::tunnel;
use crate::balance::{Cluster, Lease};
use crate::forwarded;
use crate::h1::Expected;
use crate::head::{BodyLength, Persistence, RequestHead, ResponseHead};
use crate::marks::Marks;
use crate::server::{Thread, Timeouts};
use crate::watchdog::Watchdog;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The client has the whole response.
    Answered,
    /// The client has a part of it; the upstream failed.
    Broken,
    /// The client went away, or stopped taking or sending.
    ClientGone,
    /// The upstream did nothing with the request: it never left, or the upstream says so.
    Unsent,
    /// The connection failed and no byte of a response came.
    Lost,
    /// The upstream gave up on this request alone, and no byte of a response came.
    Reset,
    /// The endpoint was declared down while no byte of a response had come. The retry was taken from the budget already.
    Down,
    /// No response head in time.
    Late,
    /// The upstream answered what cannot be passed on.
    Unusable,
    /// The request is at fault, its body or what it asks for; answer this status.
    Refused(u16),
}

/// What the client has of a response so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    /// As the upstream gave it; 0 before a final head.
    pub(crate) status: u16,
    /// Of its body.
    pub(crate) bytes_out: u64,
}

/// Requests that wait longer than this for a response head begin to watch the health of their endpoint. Most never
/// wait so long, and watching costs a lock.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often it is asked whether a request may leave an endpoint that is down, while it has nowhere to go.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Everything around an attempt that does not change between attempts.
pub(crate) struct Terms<'a> {
    pub(crate) thread: &'a Thread,
    pub(crate) timeouts: &'a Timeouts,
    pub(crate) lease: &'a Lease,
    pub(crate) marks: Option<&'a Marks>,
    pub(crate) repeatable: Repeatable<'a>,
}

/// Whether the request may be sent again when the endpoint goes down meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Repeatable<'a> {
    /// As far as the budget of this cluster goes.
    Within(&'a Cluster),
    No,
}

/// Runs the attempt to its end.
pub(crate) async fn attempt<D: Downstream, U: Upstream>(
    terms: &Terms<'_>,
    scratch: &mut Scratch,
    down: &mut D,
    up: &mut U,
    sent: &mut Sent,
) -> Verdict {
    let Scratch { request, response, watchdog, upload: uploading, committed } = scratch;
    let timeouts = terms.timeouts;
    let expected = if request.method() == b"HEAD" { Expected::HeadOnly } else { Expected::Body };
    let (mut body, mut client) = down.split();
    let (mut request_sink, mut answer) = up.split(expected);
    *sent = Sent::default();
    let has_body = request.has_body();

    let passed_on = watchdog
        .within(
            timeouts.write_idle,
            pin!(async {
                request_sink.head(request).await?;
                // A failure to send says less than what the upstream may have answered before it closed: only reading
                // tells.
                let _ = if has_body { request_sink.flush().await } else { request_sink.end(None).await };
                Ok(())
            }),
        )
        .await;
    match passed_on {
        Ok(Ok(())) => {}
        Ok(Err(HeadError::Unsayable)) => return Verdict::Refused(400),
        Ok(Err(HeadError::Over)) => return Verdict::Unsent,
        Err(_) => return Verdict::Lost,
    }
    {
        let pace = Pace { read_idle: timeouts.request_body_idle, write_idle: timeouts.write_idle };
        let uploaded = pin!(async {
            if has_body { upload(&mut body, &mut request_sink, pace, uploading).await } else { Ok(()) }
        });
        let mut ongoing = Ongoing::new(uploaded, if has_body { State::Going } else { State::Done });
        if let Err(verdict) =
            pin!(final_head(terms, &mut answer, &mut client, response, watchdog, &mut ongoing)).await
        {
            return verdict;
        }
        if response.status == 101 && !request.upgrade {
            return Verdict::Unusable;
        }
        sent.status = response.status;
        forwarded::prepare_response(terms.thread, request, response);
        if let Some(marks) = terms.marks {
            marks.give(*committed, request, response);
        }
        if response.status != 101 {
            // With the body still on its way nobody knows whether it will arrive (after `Expect: 100-continue` and a
            // final answer it will not), so the connection cannot carry another request.
            let stays = ongoing.state() == State::Done && !terms.thread.is_draining();
            let persistence = if stays { request.persistence } else { Persistence::Close };
            let delivered = {
                let _lasting = is_event_stream(request, response).then(|| terms.lease.lasts());
                let bytes = &mut sent.bytes_out;
                let download =
                    deliver(timeouts, &mut answer, &mut client, response, persistence, watchdog, bytes);
                let mut download = pin!(download);
                poll_fn(|cx| {
                    // A failing upload no longer matters: the answer is there.
                    let _ = ongoing.advance(cx);
                    download.as_mut().poll(cx)
                })
                .await
            };
            let verdict = match delivered {
                Ok(()) => return Verdict::Answered,
                Err(PumpError::Source(_) | PumpError::SourceIdle) => Verdict::Broken,
                Err(PumpError::Sink | PumpError::SinkIdle) => Verdict::ClientGone,
            };
            client.abort();
            return verdict;
        }
    }
    let _lasting = terms.lease.lasts();
    let switched = watchdog
        .within(
            timeouts.write_idle,
            pin!(async {
                client.head(response, BodyLength::None, Persistence::Close).await?;
                client.flush().await
            }),
        )
        .await;
    if switched != Ok(Ok(())) {
        return Verdict::ClientGone;
    }
    body.become_tunnel();
    client.become_tunnel();
    request_sink.become_tunnel();
    answer.become_tunnel();
    let _open = terms.thread.tunnel_opened();
    // Boxed, as it is rare and every request would pay for its room.
    Box::pin(tunnel(timeouts, (body, request_sink), (answer, client), &mut sent.bytes_out)).await;
    Verdict::Answered
}

/// Whether the answer is one that only its client ends: of events, sent by the server (HTML, 9.2). Browsers GET those; the
/// events that a POST is answered with are work that ends.
fn is_event_stream(request: &RequestHead, response: &ResponseHead) -> bool {
    const TYPE: &[u8] = b"text/event-stream";
    let is_open = matches!(response.length, BodyLength::Framed | BodyLength::UntilClose);
    let mut fields = response.headers.iter();
    request.method() == b"GET"
        && is_open
        && fields.any(|(name, value)| {
            name.eq_ignore_ascii_case(b"content-type")
                && value.get(..TYPE.len()).is_some_and(|start| start.eq_ignore_ascii_case(TYPE))
        })
}

/// What the wait for a head ended with.
enum Waited {
    Head,
    Failed(SourceError),
    Over(Verdict),
}

/// Waits for a final head, passing interim ones on, while the body goes up.
async fn final_head<F: Future<Output = Result<(), PumpError>>>(
    terms: &Terms<'_>,
    answer: &mut impl ResponseSource,
    client: &mut impl ResponseSink,
    response: &mut ResponseHead,
    watchdog: &mut Watchdog,
    ongoing: &mut Ongoing<'_, F>,
) -> Result<(), Verdict> {
    let timeouts = terms.timeouts;
    let mut down = pin!(terms.lease.down());
    let mut is_down = false;
    let mut ask_at = None;
    loop {
        let mut began_waiting = None;
        let waited = poll_fn(|cx| {
            if let Err(verdict) = ongoing.advance(cx) {
                return Poll::Ready(Waited::Over(verdict));
            }
            match answer.poll_head(cx, response) {
                Poll::Ready(Ok(())) => return Poll::Ready(Waited::Head),
                Poll::Ready(Err(error)) => return Poll::Ready(Waited::Failed(error)),
                Poll::Pending => {}
            }
            if client.poll_gone(cx).is_ready() {
                return Poll::Ready(Waited::Over(Verdict::ClientGone));
            }
            // As long as the body goes up, its own limits rule.
            if ongoing.state() == State::Going {
                return Poll::Pending;
            }
            let began = *began_waiting.get_or_insert_with(Instant::now);
            if let Repeatable::Within(cluster) = terms.repeatable
                && timeouts.response_head > PATIENCE
            {
                if watchdog.poll_expired(cx, began + PATIENCE).is_pending() {
                    return Poll::Pending;
                }
                is_down = is_down || down.as_mut().poll(cx).is_ready();
                // Without another endpoint and a retry it is better off here: this one may only be slow. Sent to it once more,
                // the request would be done twice.
                while is_down
                    && !answer.began()
                    && watchdog.poll_expired(cx, ask_at.unwrap_or(began)).is_ready()
                {
                    let now = Instant::now();
                    let (endpoint, at) = (terms.lease.endpoint(), now.into_std());
                    if cluster.has_another_ready(endpoint, at) && cluster.retry_allowed(at) {
                        return Poll::Ready(Waited::Over(Verdict::Down));
                    }
                    ask_at = Some(now + ASK_AGAIN);
                }
            }
            let late = watchdog.poll_expired(cx, began + timeouts.response_head);
            late.map(|()| Waited::Over(Verdict::Late))
        })
        .await;
        match waited {
            Waited::Head if !response.is_interim() => return Ok(()),
            Waited::Head => {
                let passed_on = watchdog.within(timeouts.write_idle, pin!(client.interim(response))).await;
                if passed_on != Ok(Ok(())) {
                    return Err(Verdict::ClientGone);
                }
            }
            Waited::Over(verdict) => return Err(verdict),
            Waited::Failed(SourceError::Reject(_)) => return Err(Verdict::Unusable),
            Waited::Failed(_) if answer.began() => return Err(Verdict::Unusable),
            Waited::Failed(SourceError::Unprocessed) => return Err(Verdict::Unsent),
            Waited::Failed(SourceError::Reset) => return Err(Verdict::Reset),
            Waited::Failed(_) => return Err(Verdict::Lost),
        }
    }
}

/// Brings the response to the client.
async fn deliver(
    timeouts: &Timeouts,
    answer: &mut impl Source,
    client: &mut impl ResponseSink,
    response: &ResponseHead,
    persistence: Persistence,
    watchdog: &mut Watchdog,
    bytes: &mut u64,
) -> Result<(), PumpError> {
    let pace = Pace { read_idle: timeouts.response_body_idle, write_idle: timeouts.write_idle };
    client.head(response, response.length, persistence).await?;
    if !matches!(response.length, BodyLength::None | BodyLength::Known(0)) {
        return pin!(pump(answer, client, pace, watchdog, bytes)).await;
    }
    match watchdog.within(pace.write_idle, pin!(client.end(None))).await {
        Ok(ended) => Ok(ended?),
        Err(_) => Err(PumpError::SinkIdle),
    }
}

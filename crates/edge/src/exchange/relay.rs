//! From a request to the end of its answer: route, pick, try, try again within the budget, count.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use smallvec::SmallVec;

use super::attempt::{Repeatable, Sent, Terms, Verdict, attempt};
use super::reply::{reject_for, reply};
use super::scratch::{Replay, Scratch};
use super::seam::{Downstream, ResponseSink, Sink, Upstream};
use crate::access_log;
use crate::balance::{Endpoint, Lease, Outcome, Pick};
use crate::config::UpstreamProtocol;
use crate::forwarded::{self, Identity};
use crate::h1;
use crate::h2;
use crate::head::{BodyLength, Known, Persistence};
use crate::server::{Peer, Thread, UpstreamView, View};

/// No connection to the endpoint could be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to the endpoint")]
pub(crate) struct ConnectError;

/// Where the connections of one protocol come from and go to.
pub(crate) trait Connector {
    type Connection: Upstream;

    /// Whether an upstream may say afterwards that it did nothing with a request, which can then be sent again whatever it
    /// asks for, if its body is still there.
    const SAYS_WHAT_IT_DID_NOT_BEGIN: bool;

    /// A connection that is there and can take a request now.
    fn pooled(thread: &Rc<Thread>, view: &View, endpoint: &Arc<Endpoint>) -> Option<Self::Connection>;

    /// A connection that was not in the pool when this was called.
    async fn connect(
        thread: &Rc<Thread>,
        view: &View,
        endpoint: &Arc<Endpoint>,
    ) -> Result<Self::Connection, ConnectError>;

    /// Gives a connection back after an exchange; it is kept if it can take another.
    fn give_back(thread: &Rc<Thread>, view: &View, endpoint: &Arc<Endpoint>, connection: Self::Connection);
}

/// How the request ended, for the log and the counters; until then, how far it is.
struct Ending<'a> {
    upstream: Option<&'a UpstreamView>,
    endpoint: Option<Arc<Endpoint>>,
    sent: Sent,
    attempts: u32,
    upstream_time: Option<Duration>,
    outcome: access_log::Outcome,
}

impl Ending<'_> {
    /// As it stays where nobody sees the end of it: the edge ends before the request does.
    fn open() -> Self {
        Ending {
            upstream: None,
            endpoint: None,
            sent: Sent::default(),
            attempts: 0,
            upstream_time: None,
            outcome: access_log::Outcome::Cut,
        }
    }
}

/// A request that is being served. Dropped, whenever that is, it writes its line of the access log.
struct Serving<'a> {
    thread: &'a Thread,
    view: &'a View,
    peer: &'a Peer,
    scratch: &'a mut Scratch,
    identity: Identity,
    started: Instant,
    ending: Ending<'a>,
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if self.view.logs() {
            log(self.thread, self.peer, self.scratch, &self.identity, &self.ending, self.started);
        }
    }
}

/// Serves the request in `scratch.request` on the connection `down`.
pub(crate) async fn run<D: Downstream>(
    thread: &Rc<Thread>,
    view: &View,
    peer: &Peer,
    scratch: &mut Scratch,
    down: &mut D,
) {
    let started = Instant::now();
    let _in_flight = thread.request_started();
    let identity = forwarded::prepare_request(thread, view, peer, &mut scratch.request);
    if let Some(marks) = &view.marks {
        scratch.committed = marks.ask(&mut scratch.request);
    }
    scratch.upload.begin(Replay::Untouched);
    let mut serving = Serving { thread, view, peer, scratch, identity, started, ending: Ending::open() };
    let Serving { scratch, identity, ending, .. } = &mut serving;

    if scratch.request.target() == b"*" {
        Box::pin(refuse(thread, view, scratch, down, identity, ending, 204)).await;
        return;
    }
    let Some(upstream) = view.route(scratch.request.authority(), scratch.request.path()) else {
        Box::pin(refuse(thread, view, scratch, down, identity, ending, 404)).await;
        return;
    };
    upstream.recorder.request_started();
    ending.upstream = Some(upstream);
    match upstream.protocol {
        UpstreamProtocol::Http1 => {
            // Pinned where it is made: `.await` alone would move it twice, and it is large.
            pin!(relay::<h1::ClientConnector, D>(
                thread, view, upstream, scratch, down, identity, started, ending
            ))
            .await;
        }
        UpstreamProtocol::H2c => {
            Box::pin(relay::<h2::ClientConnector, D>(
                thread, view, upstream, scratch, down, identity, started, ending,
            ))
            .await;
        }
    }
    upstream.recorder.request_ended(scratch.request.method(), ending.sent.status, started.elapsed());
}

#[expect(clippy::too_many_arguments, reason = "a struct of them would be borrowed in parts at once")]
async fn relay<C: Connector, D: Downstream>(
    thread: &Rc<Thread>,
    view: &View,
    upstream: &UpstreamView,
    scratch: &mut Scratch,
    down: &mut D,
    identity: &Identity,
    started: Instant,
    ending: &mut Ending<'_>,
) {
    let cluster = &upstream.cluster;
    cluster.request_started(started);
    let idempotent = scratch.request.is_idempotent();
    if (idempotent || C::SAYS_WHAT_IT_DID_NOT_BEGIN) && scratch.request.has_body() {
        scratch.upload.begin(Replay::Kept { bytes: Vec::new(), limit: upstream.replay_body_bytes });
    }
    // One that is longer, or may be, could not be sent again where it is needed.
    let keeps_body = match scratch.request.length {
        BodyLength::None => true,
        BodyLength::Known(length) => length <= upstream.replay_body_bytes as u64,
        BodyLength::Framed | BodyLength::UntilClose => false,
    };
    let mut tried: SmallVec<[Arc<Endpoint>; 4]> = SmallVec::new();
    loop {
        let now = if tried.is_empty() { started } else { Instant::now() };
        let lease = match pick(scratch, upstream, down, now, &tried).await {
            Picked::Endpoint(lease) => lease,
            Picked::Nobody => {
                upstream.recorder.shed();
                // What the last endpoint did to the request says more than that there is no other one.
                let status = if tried.is_empty() { 503 } else { 502 };
                Box::pin(refuse(thread, view, scratch, down, identity, ending, status)).await;
                ending.outcome = access_log::Outcome::Shed;
                return;
            }
            Picked::ClientGone => {
                down.split().1.abort();
                ending.outcome = access_log::Outcome::ClientGone;
                return;
            }
        };
        let endpoint = Arc::clone(lease.endpoint());
        ending.attempts += 1;
        ending.endpoint = Some(Arc::clone(&endpoint));
        let repeats_left = ending.attempts < upstream.max_attempts;
        let repeatable = match idempotent && repeats_left && keeps_body {
            true => Repeatable::Within(cluster),
            false => Repeatable::No,
        };
        let began = Instant::now();
        let sent = &mut ending.sent;
        let tried_once =
            pin!(try_endpoint::<C, D>(thread, view, &lease, scratch, down, repeatable, sent)).await;
        let now = Instant::now();
        let latency = now - began;
        ending.upstream_time = Some(latency);

        let replayable = idempotent && scratch.upload.replay.is_possible();
        let (outcome, again, status) = match tried_once {
            Err(ConnectError) => (Outcome::ConnectFailed, scratch.upload.replay.is_possible(), 502),
            Ok(Verdict::Answered) => {
                lease.finish(Outcome::Status(ending.sent.status), latency, now);
                ending.outcome = access_log::Outcome::Ok;
                return;
            }
            Ok(Verdict::Broken) => {
                lease.finish(Outcome::Lost, latency, now);
                ending.outcome = access_log::Outcome::UpstreamLost;
                return;
            }
            Ok(Verdict::ClientGone) => {
                lease.finish(Outcome::ClientGone, latency, now);
                down.split().1.abort();
                ending.outcome = access_log::Outcome::ClientGone;
                return;
            }
            Ok(Verdict::Unsent) => (Outcome::Lost, scratch.upload.replay.is_possible(), 502),
            Ok(Verdict::Down) => (Outcome::Lost, true, 502),
            Ok(Verdict::Lost | Verdict::Reset) => (Outcome::Lost, replayable, 502),
            Ok(Verdict::Late) => (Outcome::TimedOut, false, 504),
            Ok(Verdict::Unusable) => (Outcome::Lost, false, 502),
            Ok(Verdict::Refused(status)) => (Outcome::ClientGone, false, status),
        };
        lease.finish(outcome, latency, now);
        let is_paid_for = matches!(tried_once, Ok(Verdict::Down));
        if again && repeats_left && (is_paid_for || cluster.retry_allowed(now)) {
            upstream.recorder.retried();
            tried.push(endpoint);
            continue;
        }
        Box::pin(refuse(thread, view, scratch, down, identity, ending, status)).await;
        match status {
            502 => ending.outcome = access_log::Outcome::UpstreamLost,
            504 => ending.outcome = access_log::Outcome::TimedOut,
            // As the refusal has left it.
            _ => {}
        }
        return;
    }
}

enum Picked {
    Endpoint(Lease),
    /// The queue is full, or its time was over.
    Nobody,
    /// The client has given up.
    ClientGone,
}

/// Takes an endpoint, waiting in the queue if there is room in it and nothing can be picked.
async fn pick<D: Downstream>(
    scratch: &mut Scratch,
    upstream: &UpstreamView,
    down: &mut D,
    now: Instant,
    tried: &[Arc<Endpoint>],
) -> Picked {
    if let Pick::Endpoint(lease) = upstream.cluster.pick(now, tried) {
        return Picked::Endpoint(lease);
    }
    let Some(place) = upstream.cluster.enqueue() else {
        return Picked::Nobody;
    };
    let (_, mut client) = down.split();
    let mut picking = Box::pin(place.pick(tried));
    // Under overload most of all nobody must work for who is gone.
    let waiting = poll_fn(|cx| match picking.as_mut().poll(cx) {
        Poll::Ready(lease) => Poll::Ready(Picked::Endpoint(lease)),
        Poll::Pending => client.poll_gone(cx).map(|()| Picked::ClientGone),
    });
    scratch.watchdog.within(upstream.queue_timeout, pin!(waiting)).await.unwrap_or(Picked::Nobody)
}

/// Sends the request to one endpoint; once more on a new connection when the pooled one turns out to be dead, which is
/// the pool's fault and neither the endpoint's nor the budget's.
async fn try_endpoint<C: Connector, D: Downstream>(
    thread: &Rc<Thread>,
    view: &View,
    lease: &Lease,
    scratch: &mut Scratch,
    down: &mut D,
    repeatable: Repeatable<'_>,
    sent: &mut Sent,
) -> Result<Verdict, ConnectError> {
    let endpoint = lease.endpoint();
    let mut pooled = C::pooled(thread, view, endpoint);
    let mut sent_twice = false;
    loop {
        let mut connection = match pooled.take() {
            Some(connection) => connection,
            None => {
                // Rare and large futures are boxed: every request would pay for their room, as futures are moved.
                let mut connect = Box::pin(C::connect(thread, view, endpoint));
                match scratch.watchdog.within(view.timeouts.connect, connect.as_mut()).await {
                    Ok(connected) => connected?,
                    Err(_) => return Err(ConnectError),
                }
            }
        };
        let marks = view.marks.as_ref();
        let terms = Terms { thread, timeouts: &view.timeouts, lease, marks, repeatable };
        let verdict = pin!(attempt(&terms, scratch, down, &mut connection, sent)).await;
        let harmless = match verdict {
            Verdict::Unsent => true,
            Verdict::Lost => scratch.request.is_idempotent(),
            _ => false,
        };
        let stale = harmless && connection.is_reused() && scratch.upload.replay.is_possible();
        C::give_back(thread, view, endpoint, connection);
        if !stale || sent_twice {
            return Ok(verdict);
        }
        sent_twice = true;
    }
}

/// Answers without an upstream.
async fn refuse<D: Downstream>(
    thread: &Thread,
    view: &View,
    scratch: &mut Scratch,
    down: &mut D,
    identity: &Identity,
    ending: &mut Ending<'_>,
    status: u16,
) {
    if status >= 400 {
        thread.recorder.rejected(reject_for(status));
    }
    let request = &scratch.request;
    // A body that was not read stands between this request and the next.
    let stays = !thread.is_draining() && !request.has_body();
    let persistence = if stays { request.persistence } else { Persistence::Close };
    let (_, mut sink) = down.split();
    let answer = reply(
        &mut sink,
        &mut scratch.response,
        status,
        identity.request_id(request),
        request.method(),
        persistence,
    );
    ending.sent = Sent { status, bytes_out: 0 };
    let answered = scratch.watchdog.within(view.timeouts.write_idle, pin!(answer)).await;
    match answered {
        Ok(Ok(bytes)) => ending.sent.bytes_out = bytes,
        Ok(Err(_)) | Err(_) => sink.abort(),
    }
    ending.outcome = match status {
        400.. => access_log::Outcome::Rejected(reject_for(status).as_str()),
        _ => access_log::Outcome::Ok,
    };
}

fn log(
    thread: &Thread,
    peer: &Peer,
    scratch: &Scratch,
    identity: &Identity,
    ending: &Ending<'_>,
    started: Instant,
) {
    let request = &scratch.request;
    let duration = started.elapsed();
    let release = ending.endpoint.as_ref().and_then(|endpoint| endpoint.release());
    thread.log(&access_log::Entry {
        time: SystemTime::now() - duration,
        request_id: identity.request_id(request),
        trace_id: identity.trace_id(request),
        client: identity.client,
        method: request.method(),
        scheme: peer.scheme,
        host: request.authority(),
        path: request.target(),
        protocol: request.version.as_str(),
        status: ending.sent.status,
        bytes_in: scratch.upload.bytes,
        bytes_out: ending.sent.bytes_out,
        duration,
        upstream: ending.upstream.map(|upstream| upstream.cluster.name()),
        endpoint: ending.endpoint.as_ref().map(|endpoint| endpoint.id()),
        release: release.as_deref(),
        upstream_time: ending.upstream_time,
        attempts: ending.attempts,
        outcome: ending.outcome,
        user_agent: request.headers.get(Known::UserAgent),
        referer: request.headers.get(Known::Referer),
    });
}

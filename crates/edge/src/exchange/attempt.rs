//! One attempt: the request to one endpoint over one connection, and its response back.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::pump::{Pace, PumpError, pump, upload};
use super::scratch::Scratch;
use super::seam::{
    Downstream, RequestSink, ResponseSink, ResponseSource, Sink, Source, SourceError, Upstream,
};
use super::tunnel::tunnel;
use crate::balance::Lease;
use crate::forwarded;
use crate::h1::Expected;
use crate::head::{BodyLength, Persistence};
use crate::server::{Thread, Timeouts};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The client has the whole response.
    Answered,
    /// The client has a part of it; the upstream failed.
    Broken,
    /// The client went away, or stopped taking or sending.
    ClientGone,
    /// The connection failed and no byte of a response came.
    Lost,
    /// The endpoint was declared down while no byte of a response had come.
    Down,
    /// No response head in time.
    Late,
    /// The upstream answered what cannot be passed on.
    Unusable,
    /// The client's body is at fault; answer this status.
    Refused(u16),
}

/// What is known after an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    /// As the upstream gave it; 0 before a final head.
    pub(crate) status: u16,
    pub(crate) bytes_out: u64,
}

/// Requests that wait longer than this for a response head begin to watch the health of their endpoint. Most never
/// wait so long, and watching costs a lock.
const PATIENCE: Duration = Duration::from_millis(100);

/// Everything around an attempt that does not change between attempts.
pub(crate) struct Terms<'a> {
    pub(crate) thread: &'a Thread,
    pub(crate) timeouts: &'a Timeouts,
    pub(crate) lease: &'a Lease,
    /// Whether the request may be sent again when the endpoint goes down meanwhile.
    pub(crate) repeatable: Repeatable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeatable {
    Yes,
    No,
}

/// Runs the attempt to its end.
pub(crate) async fn attempt<D: Downstream, U: Upstream>(
    terms: &Terms<'_>,
    scratch: &mut Scratch,
    down: &mut D,
    up: &mut U,
) -> Report {
    let Scratch { request, response, watchdog, upload: uploading } = scratch;
    let timeouts = terms.timeouts;
    let expected = if request.method() == b"HEAD" { Expected::HeadOnly } else { Expected::Body };
    let (mut body, mut client) = down.split();
    let (mut request_sink, mut answer) = up.split(expected);
    let mut report = Report { verdict: Verdict::Lost, status: 0, bytes_out: 0 };
    let has_body = request.has_body();

    let sent = async {
        request_sink.head(request).await?;
        if has_body { request_sink.flush().await } else { request_sink.end(None).await }
    };
    match watchdog.within(timeouts.write_idle, sent).await {
        Ok(Ok(())) => {}
        // The upstream may have answered before it closed; only reading tells.
        Ok(Err(_)) => {}
        Err(_) => return report,
    }

    let pace_up = Pace { read_idle: timeouts.request_body_idle, write_idle: timeouts.write_idle };
    let upgrade = request.upgrade;
    let mut upload_state = if has_body { Uploading::Going } else { Uploading::Done };
    {
        let mut uploaded = pin!(async {
            if has_body { upload(&mut body, &mut request_sink, pace_up, uploading).await } else { Ok(()) }
        });
        // Wait for a final head, passing interim ones on, while the body goes up.
        loop {
            let mut began_waiting = None;
            let mut down_watch = pin!(terms.lease.down());
            let waited = poll_fn(|cx| {
                if upload_state == Uploading::Going
                    && let Poll::Ready(result) = uploaded.as_mut().poll(cx)
                {
                    upload_state = match result {
                        Ok(()) => Uploading::Done,
                        Err(PumpError::Source(error)) => return Poll::Ready(Waited::Body(error)),
                        Err(PumpError::SourceIdle) => return Poll::Ready(Waited::BodyIdle),
                        // It may have answered early and closed: see what it said.
                        Err(PumpError::Sink | PumpError::SinkIdle) => Uploading::Stuck,
                    };
                }
                match answer.poll_head(cx, response) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Waited::Head),
                    Poll::Ready(Err(error)) => return Poll::Ready(Waited::Failed(error)),
                    Poll::Pending => {}
                }
                if client.poll_gone(cx).is_ready() {
                    return Poll::Ready(Waited::Gone);
                }
                if upload_state == Uploading::Going {
                    return Poll::Pending;
                }
                let began = *began_waiting.get_or_insert_with(Instant::now);
                let patience_over = began + PATIENCE;
                if terms.repeatable == Repeatable::Yes && timeouts.response_head > PATIENCE {
                    if watchdog.poll_expired(cx, patience_over).is_pending() {
                        return Poll::Pending;
                    }
                    if !answer.began() && down_watch.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Waited::Down);
                    }
                }
                watchdog.poll_expired(cx, began + timeouts.response_head).map(|()| Waited::Late)
            })
            .await;
            match waited {
                Waited::Head if response.is_interim() => {
                    if watchdog.within(timeouts.write_idle, client.interim(response)).await != Ok(Ok(())) {
                        report.verdict = Verdict::ClientGone;
                        return report;
                    }
                }
                Waited::Head => break,
                Waited::Body(error) => {
                    report.verdict = match error {
                        SourceError::Reject(reject) => Verdict::Refused(reject.status()),
                        _ => Verdict::ClientGone,
                    };
                    return report;
                }
                Waited::Gone => {
                    report.verdict = Verdict::ClientGone;
                    return report;
                }
                Waited::BodyIdle => {
                    report.verdict = Verdict::Refused(408);
                    return report;
                }
                Waited::Failed(error) => {
                    report.verdict = match error {
                        SourceError::Reject(_) => Verdict::Unusable,
                        _ if answer.began() => Verdict::Unusable,
                        _ => Verdict::Lost,
                    };
                    return report;
                }
                Waited::Down => {
                    report.verdict = Verdict::Down;
                    return report;
                }
                Waited::Late => {
                    report.verdict = Verdict::Late;
                    return report;
                }
            }
        }
        if response.status == 101 && !upgrade {
            report.verdict = Verdict::Unusable;
            return report;
        }
        report.status = response.status;
        let length = response.length;
        forwarded::prepare_response(terms.thread, request, response);
        // With the body still on its way nobody knows whether it will arrive (after `Expect: 100-continue` and a final
        // answer it will not), so the connection cannot carry another request.
        let stays = upload_state == Uploading::Done && !terms.thread.is_draining();
        let persistence = if stays { request.persistence } else { Persistence::Close };
        if response.status != 101 {
            let download = async {
                client.head(response, length, persistence).await?;
                let pace = Pace { read_idle: timeouts.response_body_idle, write_idle: timeouts.write_idle };
                if length == BodyLength::None || length == BodyLength::Known(0) {
                    return match watchdog.within(pace.write_idle, client.end(None)).await {
                        Ok(result) => Ok(result?),
                        Err(_) => Err(PumpError::SinkIdle),
                    };
                }
                pump(&mut answer, &mut client, pace, watchdog, &mut report.bytes_out).await
            };
            let mut download = pin!(download);
            let result = poll_fn(|cx| {
                if upload_state == Uploading::Going
                    && let Poll::Ready(result) = uploaded.as_mut().poll(cx)
                {
                    // A failing upload no longer matters: the answer is there.
                    upload_state = if result.is_ok() { Uploading::Done } else { Uploading::Stuck };
                }
                download.as_mut().poll(cx)
            })
            .await;
            report.verdict = match result {
                Ok(()) => Verdict::Answered,
                Err(PumpError::Source(_) | PumpError::SourceIdle) => Verdict::Broken,
                Err(PumpError::Sink | PumpError::SinkIdle) => Verdict::ClientGone,
            };
        }
    }
    if report.status == 101 {
        report.verdict = Verdict::Answered;
        if client.head(response, BodyLength::None, Persistence::Close).await.is_err()
            || client.flush().await.is_err()
        {
            report.verdict = Verdict::ClientGone;
            return report;
        }
        body.become_tunnel();
        client.become_tunnel();
        request_sink.become_tunnel();
        answer.become_tunnel();
        let _tunnel = terms.thread.tunnel_opened();
        tunnel(
            timeouts.tunnel_idle,
            timeouts.write_idle,
            body,
            &mut request_sink,
            answer,
            &mut client,
            &mut report.bytes_out,
        )
        .await;
        return report;
    }
    if report.verdict != Verdict::Answered {
        client.abort();
    }
    report
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Uploading {
    Going,
    Done,
    /// The upstream stopped taking the body.
    Stuck,
}

enum Waited {
    Head,
    Body(SourceError),
    BodyIdle,
    Gone,
    Failed(SourceError),
    Down,
    Late,
}

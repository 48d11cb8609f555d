//! One timer for all the limits of a connection.
//!
//! Every wait has a limit, but hardly any wait reaches it, and arming a timer for each would cost more than parsing
//! the request. The timer is therefore left where it is as long as it rings no later than the limit in question; when
//! it rings too early it is moved. A keep-alive connection under load touches the timer wheel a few times a minute.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A limit that is never reached.
pub(crate) const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A wait took longer than its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// The timer of one task, or of one of two directions within it.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Watchdog {
    /// Awaits `future`, but no longer than `limit`. The limit counts from the first time the future has to wait. The
    /// future comes pinned where the caller has it: these are large, and moving them would be most of the cost.
    pub(crate) async fn within<F: Future>(
        &mut self,
        limit: Duration,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Elapsed> {
        let mut deadline = None;
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
            self.poll_expired(cx, deadline).map(|()| Err(Elapsed))
        })
        .await
    }

    /// Ready once `deadline` has passed.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            // A timer that is set to what has passed wakes this task at once, and so for ever where two limits are asked in
            // turn.
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_has_passed_beside_one_that_has_not_wakes_nobody() {
        let began = Instant::now();
        let (short, long) = (began + Duration::from_millis(100), began + Duration::from_secs(60));
        let mut watchdog = Watchdog::default();
        // It wakes the task as what comes from a client would.
        let mut event = std::pin::pin!(tokio::time::sleep(Duration::from_millis(200)));
        let (mut polls, mut is_over) = (0, false);
        poll_fn(|cx| {
            polls += 1;
            assert!(polls <= 4, "once at first, and once for each of what happens");
            is_over = is_over || event.as_mut().poll(cx).is_ready();
            if watchdog.poll_expired(cx, short).is_pending() {
                return Poll::Pending;
            }
            watchdog.poll_expired(cx, long)
        })
        .await;
        assert_eq!(began.elapsed(), Duration::from_secs(60));
    }
}

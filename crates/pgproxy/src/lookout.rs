//! A cancellation that a task looks out for whenever it runs.
//!
//! To wait for one again and again takes two locks each time, even to ask whether it has happened takes one, and a session
//! runs twice for each query. But what waits keeps its waker. So it is waited for once, by a waker that leaves a note, and
//! after that only the note is looked at.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

pub(crate) struct Lookout {
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    /// By which it is waited for.
    bell: Option<Arc<Bell>>,
}

struct Bell {
    has_rung: AtomicBool,
    /// Of the task that is to hear it.
    waker: Waker,
}

impl Lookout {
    pub fn of(token: CancellationToken) -> Lookout {
        Lookout { cancelled: Box::pin(token.cancelled_owned()), bell: None }
    }

    pub fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_waiting = self.bell.as_ref().is_some_and(|bell| bell.is_silent_for(cx));
        if is_waiting {
            return Poll::Pending;
        }
        self.wait(cx)
    }

    #[cold]
    fn wait(&mut self, cx: &Context<'_>) -> Poll<()> {
        let bell = Arc::new(Bell { has_rung: AtomicBool::new(false), waker: cx.waker().clone() });
        self.bell = Some(bell.clone());
        self.cancelled.as_mut().poll(&mut Context::from_waker(&bell.into()))
    }

    /// Drops `future` where it stands once it is cancelled.
    pub async fn cut(mut self, future: impl Future<Output = ()>) {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.poll_cancelled(cx),
        })
        .await;
    }
}

impl Bell {
    fn is_silent_for(&self, cx: &Context<'_>) -> bool {
        !self.has_rung.load(Ordering::Acquire) && self.waker.will_wake(cx.waker())
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        self.has_rung.store(true, Ordering::Release);
        self.waker.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn whoever_has_looked_once_is_woken() {
        let token = CancellationToken::new();
        let cut = tokio::spawn(Lookout::of(token.clone()).cut(pending()));
        tokio::task::yield_now().await;
        token.cancel();
        timeout(Duration::from_secs(5), cut).await.expect("it is woken").unwrap();
    }

    /// As in a `select!` that is not the same each time.
    #[tokio::test]
    async fn another_task_that_looks_is_woken_in_its_place() {
        let token = CancellationToken::new();
        let mut lookout = Lookout::of(token.clone());
        assert!(lookout.poll_cancelled(&mut Context::from_waker(Waker::noop())).is_pending());
        let other = tokio::spawn(async move { poll_fn(|cx| lookout.poll_cancelled(cx)).await });
        tokio::task::yield_now().await;
        token.cancel();
        timeout(Duration::from_secs(5), other).await.expect("it is woken").unwrap();
    }
}

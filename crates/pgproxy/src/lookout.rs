//! A cancellation that a task looks out for whenever it runs.
//!
//! To wait for one again and again takes two locks each time, and a session runs twice for each query. But what waits
//! keeps its waker. So it is waited for once, and after that only asked whether it has happened.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

pub(crate) struct Lookout {
    token: CancellationToken,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Of whoever is woken by it.
    waker: Option<Waker>,
}

impl Lookout {
    pub fn of(token: CancellationToken) -> Lookout {
        Lookout { cancelled: Box::pin(token.clone().cancelled_owned()), token, waker: None }
    }

    pub fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_waiting = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if is_waiting && !self.token.is_cancelled() {
            return Poll::Pending;
        }
        self.waker = Some(cx.waker().clone());
        self.cancelled.as_mut().poll(cx)
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

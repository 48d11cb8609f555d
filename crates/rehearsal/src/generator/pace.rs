//! When a thread works and when it sleeps: once in each interval of the grid, all at once.
//!
//! To wake a thread costs about as much as a request does, and answers come one by one. So while somebody is under way the
//! thread wakes at the moments of the grid ([`Moment::next_on_grid`]) alone: it lets go whoever's moment has come, takes all
//! answers that have come meanwhile, and sleeps again. What an answer took is not measured by when it is taken
//! (`crate::client::socket`). A visitor's next request, however, goes out when the answer before it was taken: up to an interval
//! later than without a grid.
//!
//! Patience is looked after here too, for all at once and now and then: hardly anybody's ends, and a timer for each request is
//! set and taken back for nothing.
//!
//! While nobody is under way, the runtime sleeps until a moment is near or a socket has something to say. tokio's timers round
//! up to whole milliseconds, which would be most of the schedule error; the last of the way is a sleep of the thread.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout_at;

use super::clock::{Clock, Moment};

/// Of a moment that is nearer the runtime's timers are not asked. They are late by one millisecond, and a little.
const NEAR: Duration = Duration::from_millis(2);
/// By how much the kernel may let a thread sleep longer than it wants to. By default 50 µs, all of which would be schedule error.
const SLACK: NonZeroU64 = NonZeroU64::MIN;

/// How often those who are under way are looked at: by how much somebody may be more patient than is meant.
const PATIENCE_CHECK: Duration = Duration::from_millis(20);

pub struct Pace {
    clock: Clock,
    waiting: RefCell<BinaryHeap<Reverse<Waiting>>>,
    /// Until when they have patience.
    under_way: RefCell<Slab<Waiting>>,
    /// When they are looked at next.
    patience_check: Cell<Moment>,
    /// [`Pace::keep`] looks no earlier, unless it is disturbed.
    rests_until: Cell<Moment>,
    disturbed: Notify,
}

struct Waiting {
    at: Moment,
    waker: Waker,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.at == other.at
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Pace {
    /// Of this thread.
    ///
    /// # Errors
    /// When the kernel does not let it sleep exactly.
    pub fn new(clock: Clock) -> io::Result<Pace> {
        rustix::thread::set_current_timer_slack(Some(SLACK))?;
        Ok(Pace {
            clock,
            waiting: RefCell::default(),
            under_way: RefCell::default(),
            patience_check: Cell::new(Moment(0)),
            rests_until: Cell::new(Moment(0)),
            disturbed: Notify::new(),
        })
    }

    /// Waits for a moment; not at all if it is past. A task of its own must [`keep`](Pace::keep) the pace meanwhile.
    ///
    /// Cancel safe.
    pub fn until(&self, at: Moment) -> Until<'_> {
        Until { pace: self, at, is_waiting: false }
    }

    /// Waits for an answer until `patience_ends`, or a little longer. `None`: somebody gave up. As with [`Pace::until`], a task
    /// must [`keep`](Pace::keep) the pace.
    ///
    /// Cancel safe, if `answer` is.
    pub fn answer<'a, F: Future>(&'a self, answer: Pin<&'a mut F>, patience_ends: Moment) -> Answer<'a, F> {
        Answer { pace: self, answer, patience_ends, under_way: None }
    }

    /// Wakes those whose moment has come, and puts the thread to sleep in between, for ever. Of a task of its own, which nothing
    /// else wakes, in a runtime of this thread alone.
    pub async fn keep(&self) -> Infallible {
        loop {
            self.wake();
            self.check_patience();
            // The runtime comes back here last: when those who were woken have run, it has looked at its sockets, and those
            // who were answered have run too.
            yield_now().await;
            let now = self.clock.now();
            let due = self.waiting.borrow().peek().map_or(Moment(u64::MAX), |Reverse(first)| first.at);
            if !self.under_way.borrow().is_empty() {
                std::thread::sleep(now.until(due.min(now.next_on_grid())));
            } else if due < now.after(NEAR) {
                std::thread::sleep(now.until(due));
            } else {
                self.rest(due).await;
            }
        }
    }

    fn wake(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let now = self.clock.now();
        while waiting.peek().is_some_and(|Reverse(first)| first.at <= now) {
            waiting.pop().into_iter().for_each(|Reverse(first)| first.waker.wake());
        }
    }

    fn check_patience(&self) {
        let now = self.clock.now();
        if now < self.patience_check.get() {
            return;
        }
        self.patience_check.set(now.after(PATIENCE_CHECK));
        let under_way = self.under_way.borrow();
        let ended = under_way.iter().filter(|(_, waiting)| waiting.at <= now);
        ended.for_each(|(_, waiting)| waiting.waker.wake_by_ref());
    }

    /// Lets the runtime sleep until `due` is near, or there is something to do before.
    async fn rest(&self, due: Moment) {
        self.rests_until.set(due);
        // Either is a reason to look.
        let _ = timeout_at((self.clock.instant(due) - NEAR).into(), self.disturbed.notified()).await;
        self.rests_until.set(Moment(0));
    }

    fn no_rest_beyond(&self, moment: Moment) {
        if moment < self.rests_until.get() {
            self.disturbed.notify_one();
        }
    }
}

pub struct Until<'a> {
    pace: &'a Pace,
    at: Moment,
    is_waiting: bool,
}

impl Future for Until<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.pace.clock.now() >= self.at {
            return Poll::Ready(());
        }
        if !self.is_waiting {
            self.is_waiting = true;
            let waiting = Waiting { at: self.at, waker: cx.waker().clone() };
            self.pace.waiting.borrow_mut().push(Reverse(waiting));
            self.pace.no_rest_beyond(self.at);
        }
        Poll::Pending
    }
}

pub struct Answer<'a, F> {
    pace: &'a Pace,
    answer: Pin<&'a mut F>,
    patience_ends: Moment,
    /// Where it is in [`Pace::under_way`].
    under_way: Option<usize>,
}

impl<F: Future> Future for Answer<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        if let Poll::Ready(answer) = self.answer.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        if self.under_way.is_none() {
            let waiting = Waiting { at: self.patience_ends, waker: cx.waker().clone() };
            self.under_way = Some(self.pace.under_way.borrow_mut().insert(waiting));
            self.pace.no_rest_beyond(Moment(0));
        } else if self.pace.clock.now() >= self.patience_ends {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

impl<F> Drop for Answer<'_, F> {
    fn drop(&mut self) {
        if let Some(at) = self.under_way {
            self.pace.under_way.borrow_mut().remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::rc::Rc;
    use std::time::Instant;

    use tokio::runtime::{Builder, LocalOptions};
    use tokio::sync::oneshot;
    use tokio::task::JoinSet;

    use super::*;

    /// Long enough for whoever is not woken by what should have woken them to be told from whoever is.
    const FAR: Duration = Duration::from_secs(10);

    /// In a runtime in which the pace is kept.
    fn paced(work: impl AsyncFnOnce(Rc<Pace>, Clock) + 'static) {
        let began = Instant::now();
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        let all = runtime.spawn_local(async move {
            let clock = Clock::beginning(began);
            let pace = Rc::new(Pace::new(clock).unwrap());
            let mut keeping = JoinSet::new();
            let kept = Rc::clone(&pace);
            keeping.spawn_local(async move { kept.keep().await });
            work(pace, clock).await;
        });
        runtime.block_on(all).unwrap();
        assert!(began.elapsed() < FAR);
    }

    fn ms(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    /// Said by another thread, a little later.
    fn word() -> oneshot::Receiver<()> {
        let (say, hear) = oneshot::channel();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            say.send(()).unwrap();
        });
        hear
    }

    async fn while_somebody_is_under_way(pace: &Pace, work: impl Future<Output = ()>) {
        let never = pin!(std::future::pending::<()>());
        tokio::select! {
            _ = pace.answer(never, Moment(u64::MAX)) => panic!("there is no answer"),
            () = work => {}
        }
    }

    async fn wake_in_order(pace: &Pace, clock: Clock) {
        let woken = RefCell::new(Vec::new());
        let wait = async |ms: u64| {
            let at = Moment(ms * 1_000_000);
            pace.until(at).await;
            assert!(clock.now() >= at);
            woken.borrow_mut().push(ms);
        };
        tokio::join!(wait(120), wait(3), wait(3), wait(1), wait(0), wait(70));
        assert_eq!(*woken.borrow(), [0, 1, 3, 3, 70, 120]);
    }

    #[test]
    fn those_who_wait_are_woken_in_order_and_never_early() {
        paced(async |pace, clock| wake_in_order(&pace, clock).await);
        paced(async |pace, clock| {
            while_somebody_is_under_way(&pace, wake_in_order(&pace, clock)).await;
        });
    }

    #[test]
    fn a_word_from_outside_is_heard_whether_the_thread_rests_or_not() {
        paced(async |pace, clock| {
            let far = pace.until(clock.now().after(FAR * 2));
            tokio::select! {
                () = far => panic!("nobody said anything"),
                said = word() => said.unwrap(),
            }
            while_somebody_is_under_way(&pace, async { word().await.unwrap() }).await;
        });
    }

    #[test]
    fn whoever_has_less_time_than_the_thread_rests_is_woken_in_time() {
        paced(async |pace, clock| {
            let far = pace.until(ms(0).after(FAR * 2));
            let near = async {
                word().await.unwrap();
                pace.until(clock.now().after_ns(5_000_000)).await;
            };
            tokio::select! {
                () = far => panic!("it rested on"),
                () = near => {}
            }
        });
    }

    #[test]
    fn whoever_is_not_answered_gives_up_when_patience_ends_and_not_before() {
        paced(async |pace, clock| {
            let give_up = async |ms: u64| {
                let ends = clock.now().after_ns(ms * 1_000_000);
                let never = pin!(std::future::pending::<()>());
                assert_eq!(pace.answer(never, ends).await, None);
                let late = ends.until(clock.now());
                assert!(clock.now() >= ends && late < FAR / 10, "{late:?}");
            };
            tokio::join!(give_up(0), give_up(50), give_up(50), give_up(120));
            assert!(pace.under_way.borrow().is_empty());
        });
    }

    #[test]
    fn an_answer_that_comes_in_time_is_taken() {
        paced(async |pace, clock| {
            let answer = pin!(async { word().await.is_ok() });
            assert_eq!(pace.answer(answer, clock.now().after(FAR)).await, Some(true));
            assert!(pace.under_way.borrow().is_empty());
        });
    }

    #[test]
    fn a_thread_without_anybody_under_way_works_only_when_somebody_is_due() {
        paced(async |pace, clock| {
            let before = cpu();
            pace.until(clock.now().after_ns(500_000_000)).await;
            // A thousand turns would be some milliseconds.
            let rested = cpu() - before;
            let before = cpu();
            let half_a_second = pace.until(clock.now().after_ns(500_000_000));
            while_somebody_is_under_way(&pace, half_a_second).await;
            let turned = cpu() - before;
            assert!(rested < turned, "{rested:?} and {turned:?}");
        });
    }

    /// Of this thread.
    fn cpu() -> Duration {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
    }
}

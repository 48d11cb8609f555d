//! Waiting for a moment, more exactly than a runtime's timers do, and for many at once.
//!
//! tokio's timers round up to whole milliseconds, which would be most of the schedule error. These wait in a heap in front of
//! one timerfd, which goes off at moments of the grid ([`Moment::on_grid_behind`]).

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::clock::{Clock, Moment};

pub struct Timers {
    clock: Clock,
    waiting: RefCell<BinaryHeap<Reverse<Waiting>>>,
    /// What the timer is set to; `u64::MAX`: it is not.
    armed_ns: Cell<u64>,
    timer: AsyncFd<OwnedFd>,
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

impl Timers {
    /// Of one thread. Within a runtime.
    ///
    /// # Errors
    /// When the kernel gives no timer.
    pub fn new(clock: Clock) -> io::Result<Timers> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: an `OwnedFd` is open until it is dropped, is always the same one, and nobody else has this one.
        let timer = unsafe { AsyncFd::register(timer) }?;
        Ok(Timers { clock, waiting: RefCell::default(), armed_ns: Cell::new(u64::MAX), timer })
    }

    /// Waits for a moment; not at all if it is past. [`Timers::drive`] must be polled meanwhile.
    ///
    /// Cancel safe.
    pub fn until(&self, at: Moment) -> Until<'_> {
        Until { timers: self, at, is_waiting: false }
    }

    /// Wakes those whose moment has come, for ever.
    ///
    /// # Errors
    /// When the timer cannot be set or waited for.
    pub async fn drive(&self) -> io::Result<std::convert::Infallible> {
        loop {
            self.wake()?;
            let mut ready = self.timer.readable().await?;
            // It is set anew before it is waited for again, which also makes it unreadable; nothing needs to be read.
            ready.clear_ready();
        }
    }

    fn wake(&self) -> io::Result<()> {
        let mut waiting = self.waiting.borrow_mut();
        let now = self.clock.now();
        while waiting.peek().is_some_and(|Reverse(first)| first.at <= now) {
            waiting.pop().into_iter().for_each(|Reverse(first)| first.waker.wake());
        }
        self.armed_ns.set(u64::MAX);
        waiting.peek().map_or(Ok(()), |Reverse(first)| self.arm(first.at, now))
    }

    /// Sets the timer, if it would go off too late.
    fn arm(&self, at: Moment, now: Moment) -> io::Result<()> {
        let on_grid = at.on_grid_behind().0;
        if on_grid >= self.armed_ns.get() {
            return Ok(());
        }
        // Zero would turn it off.
        let from_now = on_grid.saturating_sub(now.0).max(1);
        let span = Timespec {
            tv_sec: i64::try_from(from_now / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (from_now % 1_000_000_000) as i64,
        };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timer = Itimerspec { it_interval: never, it_value: span };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &timer)?;
        self.armed_ns.set(on_grid);
        Ok(())
    }
}

pub struct Until<'a> {
    timers: &'a Timers,
    at: Moment,
    is_waiting: bool,
}

impl Future for Until<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.timers.clock.now();
        if now >= self.at {
            return Poll::Ready(());
        }
        if !self.is_waiting {
            self.is_waiting = true;
            let waiting = Waiting { at: self.at, waker: cx.waker().clone() };
            self.timers.waiting.borrow_mut().push(Reverse(waiting));
            // If it cannot be set now, `drive` finds that out at its next turn, which is not far.
            if self.timers.arm(self.at, now).is_err() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn those_who_wait_are_woken_in_order_and_never_early() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let clock = Clock::beginning(Instant::now());
            let timers = Timers::new(clock).unwrap();
            let woken = RefCell::new(Vec::new());
            let wait = async |ms: u64| {
                let at = Moment(ms * 1_000_000);
                timers.until(at).await;
                assert!(clock.now() >= at);
                woken.borrow_mut().push(ms);
            };
            let all = async { tokio::join!(wait(12), wait(3), wait(3), wait(1), wait(0), wait(7)) };
            tokio::select! {
                _ = timers.drive() => unreachable!("the kernel gives timers"),
                _ = all => {}
            }
            assert_eq!(*woken.borrow(), [0, 1, 3, 3, 7, 12]);
        });
    }
}

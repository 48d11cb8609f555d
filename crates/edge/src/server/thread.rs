//! One thread's own things, reached by every task on it.

use std::cell::RefCell;
use std::io::Write;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::Accepted;
use super::pool::Pool;
use super::shared::Shared;
use super::view::View;
use crate::access_log::{Buffer, Entry};
use crate::metrics::Recorder;

/// What others ask of a thread.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve a connection that another thread accepted.
    Adopt(Accepted),
    /// The configuration changed.
    Reconfigured,
    /// Cut what is in flight on the endpoint with this id.
    Cut(Arc<str>),
}

/// Who is at the other end of a client connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// The address as text, for `X-Forwarded-For`.
    pub(crate) text: Vec<u8>,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(super) shared: Arc<Shared>,
    pub(super) index: usize,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) pool: Pool,
    /// The clients' connections and whatever runs for them. Draining waits for them.
    pub(crate) tasks: TaskTracker,
    /// What drives connections to upstreams. They end with their last use or with the thread.
    pub(crate) drivers: TaskTracker,
    pub(super) connections: Arc<AtomicU32>,
    pub(super) in_flight: Arc<AtomicU64>,
    view: RefCell<Rc<View>>,
    log: RefCell<Option<Buffer>>,
    date: RefCell<DateCache>,
    random: RefCell<fastrand::Rng>,
}

#[derive(Debug)]
struct DateCache {
    until: Instant,
    text: Vec<u8>,
}

impl Thread {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Thread {
        let recorder = shared.metrics.recorder();
        let snapshot = shared.snapshot.load_full();
        let log = snapshot.access_log.as_ref().map(|log| log.buffer());
        let mut seed = [0; 8];
        // Request ids must not repeat between threads or restarts; the clock will do where the kernel gives nothing.
        let seed = match getrandom::fill(&mut seed) {
            Ok(()) => u64::from_ne_bytes(seed),
            Err(_) => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(1, |now| now.as_nanos() as u64),
        };
        Thread {
            index,
            connections: Arc::clone(&shared.threads[index].connections),
            in_flight: Arc::clone(&shared.threads[index].in_flight),
            view: RefCell::new(Rc::new(View::new(snapshot, &recorder))),
            log: RefCell::new(log),
            recorder,
            pool: Pool::default(),
            tasks: TaskTracker::new(),
            drivers: TaskTracker::new(),
            date: RefCell::new(DateCache { until: Instant::now(), text: Vec::new() }),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            shared,
        }
    }

    /// The configuration in force at this instant.
    pub(crate) fn snapshot(&self) -> Rc<View> {
        let current = self.shared.snapshot.load();
        if !self.view.borrow().is_of(&current) {
            let mut log = self.log.borrow_mut();
            if let Some(old) = log.as_mut() {
                old.flush();
            }
            *log = current.access_log.as_ref().map(|log| log.buffer());
            *self.view.borrow_mut() = Rc::new(View::new(Arc::clone(&current), &self.recorder));
        }
        Rc::clone(&self.view.borrow())
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.is_draining()
    }

    /// Cancelled when draining begins.
    pub(crate) fn drain(&self) -> &CancellationToken {
        &self.shared.drain
    }

    /// Counts a request in flight until the guard is dropped.
    pub(crate) fn request_started(&self) -> Counted<'_> {
        Counted::new(&self.in_flight)
    }

    /// Counts an upgraded connection until the guard is dropped.
    pub(crate) fn tunnel_opened(&self) -> Tunnel<'_> {
        self.recorder.tunnel_opened();
        Tunnel(&self.recorder)
    }

    pub(crate) fn log(&self, entry: &Entry<'_>) {
        if let Some(log) = self.log.borrow_mut().as_mut() {
            log.push(entry);
        }
    }

    pub(super) fn flush_log(&self) {
        if let Some(log) = self.log.borrow_mut().as_mut() {
            log.flush();
        }
    }

    /// 128 bits for ids. Not for secrets.
    pub(crate) fn random(&self) -> u128 {
        self.random.borrow_mut().u128(..)
    }

    /// Now, as in the `Date` field; made anew once a second.
    pub(crate) fn with_date(&self, with: impl FnOnce(&[u8])) {
        let mut cache = self.date.borrow_mut();
        let now = Instant::now();
        if now >= cache.until {
            let wall = SystemTime::now();
            let second = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let left = 1_000_000_000 - second.subsec_nanos();
            cache.until = now + std::time::Duration::from_nanos(left.into());
            cache.text.clear();
            let stamp = jiff::Timestamp::from_second(second.as_secs() as i64).unwrap_or_default();
            // Writing to a Vec cannot fail.
            let _ = write!(cache.text, "{}", stamp.strftime("%a, %d %b %Y %H:%M:%S GMT"));
        }
        with(&cache.text);
    }
}

/// Adds one to a counter that only this thread writes, until dropped.
#[derive(Debug)]
pub(crate) struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicU64) -> Counted<'a> {
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Counted(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.store(self.0.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }
}

/// See [`Thread::tunnel_opened`].
#[derive(Debug)]
pub(crate) struct Tunnel<'a>(&'a Recorder);

impl Drop for Tunnel<'_> {
    fn drop(&mut self) {
        self.0.tunnel_closed();
    }
}

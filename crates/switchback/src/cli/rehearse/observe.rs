//! The tiers of the app, looked at once a second beside a rehearsal.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rehearsal::record::{Event, Tier, TierSecond};

use crate::api::client::CallError;
use crate::rehearse::evidence::Watch;

const INTERVAL: Duration = Duration::from_secs(1);

/// Looks on a thread of its own until it is ended or dropped.
pub struct Observer {
    watch: Arc<Mutex<Seen>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Seen {
    watch: Watch,
    latest: Vec<(String, TierSecond)>,
    events: Vec<Event>,
    /// Whether the last look failed. Said once, and once when it is over.
    is_blind: bool,
}

impl Observer {
    /// Seconds count from `began`.
    pub fn start(socket: &Path, began: Instant) -> Observer {
        let seen = Seen {
            watch: Watch::new(socket, Vec::new(), began),
            latest: Vec::new(),
            events: Vec::new(),
            is_blind: false,
        };
        let watch = Arc::new(Mutex::new(seen));
        let (stop, stopped) = channel::<()>();
        let looked = Arc::clone(&watch);
        let thread = std::thread::spawn(move || {
            let mut next = began + INTERVAL;
            loop {
                let wait = next.saturating_duration_since(Instant::now());
                if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                locked(&looked).look(began);
                // A look that took longer leaves out the seconds that it took.
                while next <= Instant::now() {
                    next += INTERVAL;
                }
            }
        });
        Observer { watch, stop: Some(stop), thread: Some(thread) }
    }

    /// Whose processor time is the generator's.
    pub fn generator(&self, pid: Option<u32>) {
        locked(&self.watch).watch.watch_generator(pid);
    }

    /// What each tier did in the last second that was looked at.
    pub fn latest(&self) -> Vec<(String, TierSecond)> {
        locked(&self.watch).latest.clone()
    }

    pub fn tiers(&self) -> Vec<Tier> {
        locked(&self.watch).watch.tiers()
    }

    /// See [`Watch::top_statement`].
    pub fn top_statement(&self) -> Option<String> {
        locked(&self.watch).watch.top_statement().map(str::to_owned)
    }

    /// What was seen, and what happened.
    pub fn end(mut self) -> (Vec<Tier>, Vec<Event>) {
        self.stop_looking();
        let mut seen = locked(&self.watch);
        (seen.watch.tiers(), std::mem::take(&mut seen.events))
    }

    fn stop_looking(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop_looking();
    }
}

impl Seen {
    fn look(&mut self, began: Instant) {
        let at_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match self.watch.look() {
            Ok(look) => {
                self.latest =
                    look.seconds.into_iter().map(|(name, second)| (name.to_owned(), second)).collect();
                self.events.extend(look.changes.into_iter().map(|text| Event { at_ms, text }));
                if std::mem::take(&mut self.is_blind) {
                    self.events.push(Event { at_ms, text: "the daemon answers again".to_owned() });
                }
            }
            Err(_) if self.is_blind => {}
            Err(error) => {
                let why = match error {
                    CallError::NoDaemon(_) => "no daemon answers",
                    CallError::Lost(_) => "the daemon went away",
                    CallError::Failed(_) => "the daemon does not say what its tiers do",
                };
                self.is_blind = true;
                self.events.push(Event { at_ms, text: why.to_owned() });
            }
        }
    }
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

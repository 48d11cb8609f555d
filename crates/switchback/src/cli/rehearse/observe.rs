//! The tiers of the app, looked at once a second beside a rehearsal.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use local::machine::Observation;
use rehearsal::record::{Event, Tier, TierSecond};

use crate::api::client::CallError;
use crate::rehearse::evidence::{Seen, Watch};

const INTERVAL: Duration = Duration::from_secs(1);

/// Looks on a thread of its own until it is ended or dropped.
pub struct Observer {
    watch: Arc<Mutex<State>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What was seen last.
pub struct Looks(Arc<Mutex<State>>);

impl Looks {
    /// See [`Watch::last_two`].
    pub fn last_two(&self) -> Option<(Observation, Observation)> {
        let state = locked(&self.0);
        let (before, now) = state.watch.last_two()?;
        Some((before.clone(), now.clone()))
    }
}

struct State {
    watch: Watch,
    latest: Vec<(String, TierSecond)>,
    events: Vec<Event>,
    /// Whether the last look failed. Said once, and once when it is over.
    is_blind: bool,
}

impl Observer {
    /// Seconds count from `began`.
    pub fn start(socket: &Path, began: Instant) -> Observer {
        let watch = Arc::new(Mutex::new(State::new(socket, began)));
        let (stop, stopped) = channel::<()>();
        let looked = Arc::clone(&watch);
        let thread = std::thread::spawn(move || {
            let mut next = began + INTERVAL;
            loop {
                let wait = next.saturating_duration_since(Instant::now());
                if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                // Nobody waits for the daemon but this thread.
                let question = locked(&looked).watch.question();
                let seen = question.ask();
                locked(&looked).hear(seen, began);
                // A look that took longer leaves out the seconds that it took.
                while next <= Instant::now() {
                    next += INTERVAL;
                }
            }
        });
        Observer { watch, stop: Some(stop), thread: Some(thread) }
    }

    /// Sees nothing: what is asked is an app whose tiers are not ours to look at.
    pub fn of_nobody(began: Instant) -> Observer {
        Observer { watch: Arc::new(Mutex::new(State::new(Path::new(""), began))), stop: None, thread: None }
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

    /// For whoever needs the last looks while this is somebody else's.
    pub fn looks(&self) -> Looks {
        Looks(Arc::clone(&self.watch))
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

impl State {
    fn new(socket: &Path, began: Instant) -> State {
        let watch = Watch::new(socket, Vec::new(), began);
        State { watch, latest: Vec::new(), events: Vec::new(), is_blind: false }
    }

    fn hear(&mut self, seen: Result<Seen, CallError>, began: Instant) {
        let at_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match seen {
            Ok(seen) => {
                let look = self.watch.hear(seen);
                self.latest =
                    look.seconds.into_iter().map(|(name, second)| (name.to_owned(), second)).collect();
                self.events.extend(look.changes.into_iter().map(|text| Event { at_ms, text }));
                if std::mem::take(&mut self.is_blind) {
                    let text =
                        "the daemon answers again; what the tiers did meanwhile was not seen".to_owned();
                    self.events.push(Event { at_ms, text });
                }
            }
            Err(_) if self.is_blind => {}
            Err(error) => {
                self.is_blind = true;
                self.latest.clear();
                self.events.push(Event { at_ms, text: why(&error).to_owned() });
            }
        }
    }
}

fn why(error: &CallError) -> &'static str {
    match error {
        CallError::NoDaemon(error) | CallError::Lost(error)
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
        {
            "the daemon does not answer in time"
        }
        CallError::NoDaemon(_) => "no daemon answers",
        CallError::Lost(_) => "the daemon went away",
        CallError::Failed(_) => "the daemon does not say what its tiers do",
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Who is interrupted, or has finished, does not wait for a daemon that hangs; and what was not seen is said.
    #[test]
    fn a_daemon_that_hangs_holds_up_nobody_and_is_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("daemon.sock");
        let _hangs = UnixListener::bind(&socket).unwrap();
        let observer = Observer::start(&socket, Instant::now());
        // It is being asked by now, and will be for two seconds more.
        std::thread::sleep(INTERVAL + INTERVAL / 2);
        let began = Instant::now();
        observer.generator(Some(1));
        assert!(observer.latest().is_empty() && observer.tiers().is_empty());
        assert!(began.elapsed() < INTERVAL, "it waits for the daemon: {:?}", began.elapsed());
        let (tiers, events) = observer.end();
        assert!(tiers.is_empty());
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let said: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
        assert_eq!(said, ["the daemon does not answer in time"]);
    }
}

//! `up`: the app runs; in a terminal with a live view, until Ctrl-C.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use local::machine::{Event, Phase, ProcessStatus, StopMode};
use model::{ResourceGraph, ResourceId};

use super::connect::{App, Running};
use super::progress::Progress;
use super::say::{self, BOLD, GREEN, Problem, Stream, paint};
use super::{Place, manifest, status};
use crate::api::{Outcome, Request, Status, client};

/// How soon an interrupt is heard while the daemon works.
const INTERRUPT_POLL: Duration = Duration::from_millis(50);
/// Events that are not shown yet. With more of them the daemon is read no faster than they are shown.
const EVENTS_WAITING: usize = 64;
/// How often the live view looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub struct Options {
    pub detach: bool,
    pub destroy: BTreeSet<ResourceId>,
    pub crash_at: Option<String>,
}

/// Who ends the app when this command is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attachment {
    /// We brought it up: Ctrl-C brings it down.
    Owner,
    /// It was up before: Ctrl-C only stops looking.
    Visitor,
}

pub fn up(place: &Place, options: &Options) -> Result<(), Problem> {
    let app = place.app()?;
    let manifest = manifest::read(&app.dir)?;
    for note in &manifest.notes {
        say::talk(&format!("{} {note}", paint(Stream::Err, BOLD, "note:")));
    }
    let graph = manifest.graph();
    let interrupts = Interrupts::listen()?;
    app.ensure_daemon(&graph.app, options.crash_at.as_deref())?;
    // An app whose daemon had died was up all the same.
    let was_up = app.ask::<Status>(&Request::Status, |_| {})?.machine.running;
    let attachment = if was_up { Attachment::Visitor } else { Attachment::Owner };
    let outcome = match bring_up(&app, graph, options, &interrupts) {
        Ok(outcome) => outcome,
        Err(problem) => return Err(given_up(&app, attachment, problem, &interrupts)),
    };
    for note in &outcome.notes {
        say::talk(&format!("{} {note}", paint(Stream::Err, BOLD, "note:")));
    }
    for url in &outcome.front {
        say::talk(&format!("{} {} answers at {url}", paint(Stream::Err, GREEN, "up:"), graph.app));
    }
    if options.detach {
        return Ok(());
    }
    say::talk(match attachment {
        Attachment::Owner => "Ctrl-C stops it; `switchback up --detach` leaves it running",
        Attachment::Visitor => "it was up before: Ctrl-C leaves it running, `switchback down` stops it",
    });
    watch(&app, graph, &interrupts)?;
    if attachment == Attachment::Visitor {
        return Ok(());
    }
    bring_down(&app, &interrupts)
}

/// Waits for the daemon's work on another thread, so that Ctrl-C is heard meanwhile.
fn bring_up(
    app: &App,
    graph: &ResourceGraph,
    options: &Options,
    interrupts: &Interrupts,
) -> Result<Outcome, Problem> {
    let request = Request::Up { graph: graph.clone(), destroy: options.destroy.clone() };
    wait_for(app, request, interrupts, 1)
}

/// What the daemon answers. `limit`: the interrupt at which waiting ends.
///
/// # Errors
/// When it fails, or there are so many interrupts: [`INTERRUPTED`], or [`Problem::NotBegun`] where the daemon does not know of
/// it yet.
pub fn wait_for<T>(app: &App, request: Request, interrupts: &Interrupts, limit: u32) -> Result<T, Problem>
where
    T: serde::de::DeserializeOwned + Send + 'static,
{
    // On this thread, so that it is known whether the daemon has it.
    let sent = app.send(&request, || interrupts.count() >= limit)?;
    let call = sent.ok_or(Problem::NotBegun)?;
    let (tell, heard) = sync_channel(EVENTS_WAITING);
    let asking = app.clone();
    std::thread::spawn(move || {
        // Nobody listens any more after an interrupt.
        let answer = asking.hear(call, |event| drop(tell.send(Heard::Event(event))));
        let _ = tell.send(Heard::Answer(answer));
    });
    // Here, so that it is gone from the terminal before anything else is said.
    let progress = Progress::new();
    while interrupts.count() < limit {
        match heard.recv_timeout(INTERRUPT_POLL) {
            Ok(Heard::Event(event)) => progress.hear(event),
            Ok(Heard::Answer(answer)) => return answer,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Problem::failed("the answer was lost")),
        }
    }
    Err(Problem::Said(INTERRUPTED))
}

/// What comes from the thread that waits for the daemon.
enum Heard<T> {
    Event(Event),
    Answer(Result<T, Problem>),
}

/// As a shell says it of SIGINT.
pub const INTERRUPTED: u8 = 130;

/// An app that did not come up is not left half up by the command that was to bring it up.
fn given_up(app: &App, attachment: Attachment, problem: Problem, interrupts: &Interrupts) -> Problem {
    match problem {
        // What comes up is somebody else's, such as another `up`.
        Problem::Busy { .. } => return problem,
        Problem::NotBegun => {
            // A daemon that was started for this has nothing to hold up.
            let _ = client::send(&app.state.daemon_socket(), &Request::Leave);
            return problem;
        }
        _ => {}
    }
    let interrupted = matches!(problem, Problem::Said(INTERRUPTED));
    match (attachment, interrupted) {
        (Attachment::Visitor, true) => {
            say::talk("interrupted: the daemon goes on with it; `switchback status` shows how far it is");
        }
        (Attachment::Visitor, false) => {}
        (Attachment::Owner, true) => {
            say::talk("interrupted: stopping what was started");
            stop_what_was_started(app, StopMode::Now, interrupts);
        }
        (Attachment::Owner, false) => match what_stands(app) {
            Stands::Nothing => stop_what_was_started(app, StopMode::Graceful, interrupts),
            Stands::Maimed => {
                say::talk("stopping what was started; `switchback up` brings it up when that is mended");
                stop_what_was_started(app, StopMode::Graceful, interrupts);
            }
            // Otherwise nothing but `up` could be said, and that fails.
            Stands::Starting(names) => say::talk(&format!(
                "still being started: {}; mend it and `switchback deploy`, or go back with `switchback rollback`; \
                 `switchback down` stops it",
                names.join(", ")
            )),
            Stands::Whole => say::talk("the app is up as it was before; `switchback down` stops it"),
            Stands::BeingChanged => {}
        },
    }
    problem
}

/// One interrupt more ends the waiting: the daemon may hang.
fn stop_what_was_started(app: &App, mode: StopMode, interrupts: &Interrupts) {
    // A daemon that went away has said so already.
    let daemon = app.hello().and_then(|daemon| Running::find(daemon.pid).ok().flatten());
    let down = Request::Down { mode, destroy: false };
    if wait_for::<()>(app, down, interrupts, interrupts.count() + 1).is_err() {
        return;
    }
    // Whoever looks next must not meet one that is about to end.
    let _ = daemon.map(|daemon| daemon.wait());
}

/// What there is of an app that could not be brought up as the manifest says.
enum Stands {
    /// It never served.
    Nothing,
    /// Something could not even be begun, such as a front door whose address somebody has, and nobody tries again.
    Maimed,
    /// These are not ready and are tried again and again.
    Starting(Vec<String>),
    /// All that served before.
    Whole,
    /// Somebody else is at it by now; it is theirs to say what comes of it.
    BeingChanged,
}

fn what_stands(app: &App) -> Stands {
    let Ok(status) = app.ask::<Status>(&Request::Status, |_| {}) else { return Stands::Nothing };
    let Status { machine, operation, .. } = status;
    if operation.is_some() {
        return Stands::BeingChanged;
    }
    if machine.releases.is_empty() {
        return Stands::Nothing;
    }
    let is_idle = |process: &ProcessStatus| matches!(process.state, Phase::Stopped | Phase::Failed);
    if machine.processes.iter().any(is_idle) {
        return Stands::Maimed;
    }
    let unready = machine.processes.into_iter().filter(|process| process.state != Phase::Ready);
    let names: Vec<String> = unready.map(|process| process.name).collect();
    if names.is_empty() { Stands::Whole } else { Stands::Starting(names) }
}

/// Shows what runs until interrupted. A daemon that dies is started again: what it ran goes on meanwhile.
fn watch(app: &App, graph: &ResourceGraph, interrupts: &Interrupts) -> Result<(), Problem> {
    let view = status::LiveView::new();
    while interrupts.count() == 0 {
        match app.ask_at_once::<Status>(&Request::Status) {
            Ok(status) => view.show(&status),
            Err(_) => {
                let went_down = !app.state.daemon_socket().exists();
                if went_down {
                    view.clear();
                    say::talk("the app was brought down elsewhere");
                    return Err(Problem::Said(0));
                }
                say::talk("the daemon is gone; starting a new one, the app goes on meanwhile");
                app.ensure_daemon(&graph.app, None)?;
            }
        }
        interrupts.wait(LOOK_INTERVAL);
    }
    view.clear();
    Ok(())
}

fn bring_down(app: &App, interrupts: &Interrupts) -> Result<(), Problem> {
    say::talk("stopping; Ctrl-C again stops at once");
    let down = |mode| Request::Down { mode, destroy: false };
    match wait_for::<()>(app, down(StopMode::Graceful), interrupts, 2) {
        Err(Problem::Said(INTERRUPTED) | Problem::NotBegun) => {
            say::talk("stopping at once");
            match wait_for::<()>(app, down(StopMode::Now), interrupts, 3) {
                // The daemon may hang.
                Err(Problem::Said(INTERRUPTED) | Problem::NotBegun) => {
                    say::talk("not waiting any longer; `switchback status` shows what still runs");
                    return Err(Problem::Said(INTERRUPTED));
                }
                result => result?,
            }
        }
        result => result?,
    }
    say::talk(&format!("{} everything is stopped; the data is kept", paint(Stream::Err, GREEN, "down:")));
    Ok(())
}

/// Counts SIGINT, SIGTERM and SIGHUP from now on; the first no longer ends this process.
#[derive(Clone)]
pub struct Interrupts {
    count: Arc<AtomicU32>,
}

impl Interrupts {
    /// # Errors
    /// When signals cannot be listened for.
    pub fn listen() -> Result<Interrupts, Problem> {
        use tokio::signal::unix::{SignalKind, signal};
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Problem::failed(error.to_string()))?;
        let entered = runtime.enter();
        let listen = |kind| signal(kind).map_err(|error| Problem::failed(error.to_string()));
        let (mut int, mut term, mut hup) = (
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        );
        drop(entered);
        // Lives as long as the process; there is nothing to wait for at its end.
        std::thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = int.recv() => {}
                        _ = term.recv() => {}
                        _ = hup.recv() => {}
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            });
        });
        Ok(Interrupts { count })
    }

    pub fn count(&self) -> u32 {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits for the first interrupt.
    pub async fn heard(&self) {
        while self.count() == 0 {
            tokio::time::sleep(INTERRUPT_POLL).await;
        }
    }

    /// As if a signal had come.
    pub fn interrupt(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits, but no longer than until the first interrupt.
    pub fn pause(&self, limit: Duration) {
        let start = std::time::Instant::now();
        while self.count() == 0 && start.elapsed() < limit {
            std::thread::sleep(INTERRUPT_POLL.min(limit.saturating_sub(start.elapsed())));
        }
    }

    /// Waits, but no longer than until the next interrupt.
    fn wait(&self, limit: Duration) {
        let (before, start) = (self.count(), std::time::Instant::now());
        while self.count() == before && start.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::AtomicUsize;

    use local::paths::StateDir;

    use super::*;
    use crate::api::Failure;

    /// How often a daemon was asked for something, which hangs up on everybody.
    fn asked(meanwhile: impl FnOnce(&App)) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let daemon = UnixListener::bind(state.daemon_socket()).unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        // Until the test ends.
        std::thread::spawn(move || {
            for _ in daemon.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        meanwhile(&App { dir: folder.path().to_owned(), state });
        count.load(Ordering::SeqCst)
    }

    /// Of two at once one is refused. By the time it looks, the other may have come to a state that looks maimed.
    #[test]
    fn an_up_that_was_refused_because_of_another_asks_for_nothing_to_be_stopped() {
        let count = asked(|app| {
            let busy = Failure::busy("up is in progress").into();
            let problem = given_up(app, Attachment::Owner, busy, &Interrupts::listen().unwrap());
            assert_eq!(problem.message(), "up is in progress");
        });
        assert_eq!(count, 0);
    }

    /// Nobody can be made to look at a program that does not end.
    #[test]
    fn a_third_interrupt_ends_up_although_the_daemon_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        // It takes connections, and answers none.
        let _daemon = UnixListener::bind(state.daemon_socket()).unwrap();
        let app = App { dir: folder.path().to_owned(), state };
        let interrupts = Interrupts::listen().unwrap();
        interrupts.interrupt();
        let person = interrupts.clone();
        let pressing = std::thread::spawn(move || {
            for _ in 0..2 {
                std::thread::sleep(4 * INTERRUPT_POLL);
                person.interrupt();
            }
        });
        let ended = bring_down(&app, &interrupts);
        assert!(matches!(ended, Err(Problem::Said(INTERRUPTED))), "{ended:?}");
        pressing.join().unwrap();
    }

    #[test]
    fn what_is_interrupted_before_the_daemon_knows_of_it_was_not_begun() {
        let count = asked(|app| {
            let interrupts = Interrupts::listen().unwrap();
            interrupts.interrupt();
            let answer = wait_for::<()>(app, Request::ReplaceEdge, &interrupts, 1);
            assert!(matches!(answer, Err(Problem::NotBegun)), "{answer:?}");
        });
        assert_eq!(count, 0);
    }
}

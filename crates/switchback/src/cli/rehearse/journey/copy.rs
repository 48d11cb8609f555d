//! The app once more, beside itself: the same code and the same manifest, in a state folder of its own below the app's.
//!
//! Its daemon is bound to the process of the journey: when that ends, however it does, the daemon takes everything down and
//! deletes it. What is left where both were killed at once is cleared by the next journey, or by `down`.

use std::cell::RefCell;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use local::paths::{StateDir, StateError};
use model::AppName;
use serde::Serialize;

use crate::api::{Request, Status};
use crate::cli::connect::{App, Lifeline, Running};
use crate::cli::down::take_down;
use crate::cli::manifest as file;
use crate::cli::say::{self, Problem};
use crate::cli::up::Interrupts;

/// For a daemon whose journey is gone to stop and delete everything.
const CLEARING: Duration = Duration::from_secs(30);
/// For a journey whose copy is gone to write down what it has.
const TELLING: Duration = Duration::from_secs(30);

/// What there is of a journey beside an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Beside {
    UnderWay,
    /// A copy whose journey is gone.
    Left,
}

impl Beside {
    pub fn of(app: &App) -> Option<Beside> {
        match app.state.journey_is_under_way() {
            true => Some(Beside::UnderWay),
            false => copy_of(app).state.root().exists().then_some(Beside::Left),
        }
    }

    /// For people, as a whole sentence.
    pub fn words(self) -> &'static str {
        match self {
            Beside::UnderWay => "a journey is under way beside the app, with a copy of it",
            Beside::Left => {
                "a journey that was killed has left its copy of the app; the next journey and `switchback down` delete it"
            }
        }
    }
}

/// Ends the journey of an app that is under way, and deletes the copy that one has left. The next cannot begin before what is
/// given here is dropped. `None`: there was nothing.
///
/// # Errors
/// When it does not end, or something cannot be stopped or deleted.
pub fn end(app: &App) -> Result<Option<fs::File>, Problem> {
    let Some(beside) = Beside::of(app) else { return Ok(None) };
    say::talk(match beside {
        Beside::UnderWay => "ending the journey that is under way",
        Beside::Left => "deleting the copy that a journey has left",
    });
    let name = file::read(&app.dir)?.graph().app.clone();
    let copy = copy_of(app);
    if beside == Beside::UnderWay
        && let Some(daemon) = copy.hello()
    {
        // It ends itself when its copy is gone. What this may leave is looked for below.
        let _ = take_down(&copy, &daemon);
    }
    let lock = app.state.lock_journey(TELLING).map_err(refused)?;
    clear(&copy, &name)?;
    Ok(Some(lock))
}

/// Stops and deletes a copy. Others may be about to do the same: its own daemon, where its journey is gone.
fn clear(copy: &App, name: &AppName) -> Result<(), Problem> {
    if let Some(daemon) = copy.hello() {
        let _ = take_down(copy, &daemon);
    }
    let begun = Instant::now();
    while copy.state.is_held() && begun.elapsed() < CLEARING {
        std::thread::sleep(Duration::from_millis(20));
    }
    if copy.state.is_held() {
        say::talk("the daemon of the copy does not answer: it is killed, and a new one stops what it ran");
        copy.kill_daemon()?;
    }
    if copy.state.database().exists() {
        // It was killed. A new one takes over what still runs, and stops it in order.
        let (daemon, _lifeline) = copy.ensure_bound_daemon(name)?;
        take_down(copy, &daemon)?;
    }
    let folder = copy.state.root();
    // The folder is the copy's alone, whatever else has come to be in it.
    let removed = copy.state.remove().and_then(|()| match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    });
    removed.map_err(|error| {
        Problem::failed(format!("the copy cannot be deleted: {error}"))
            .hint(format!("{} can be deleted by hand", folder.display()))
    })
}

fn copy_of(app: &App) -> App {
    App { dir: app.dir.clone(), state: StateDir::at(&app.state.journey()) }
}

fn refused(error: StateError) -> Problem {
    Problem::refused(local::chain(&error)).hint(error.hint())
}

/// The copy of this journey. Taken down and deleted when dropped.
pub struct Copy {
    pub app: App,
    name: AppName,
    /// Its daemon has ended although we wanted it.
    is_gone: Arc<AtomicBool>,
    is_removed: bool,
    /// Of this journey, which end when the daemon has.
    threads: RefCell<Vec<JoinHandle<()>>>,
    _lifeline: Option<Lifeline>,
    /// Held until there is nothing any more.
    _lock: fs::File,
}

impl Copy {
    /// Starts its daemon, which holds up nothing yet. When that ends before its time, that is an interrupt.
    ///
    /// # Errors
    /// When another journey is under way, or what an earlier one has left cannot be deleted.
    pub fn make(app: &App, name: &AppName, interrupts: &Interrupts) -> Result<Copy, Problem> {
        // What stands in the app's own state folder must be whole, or this one would seem to be all of it.
        StateDir::open(app.state.root()).map_err(refused)?;
        let lock = app.state.lock_journey(Duration::ZERO).map_err(refused)?;
        let copy = copy_of(app);
        if copy.state.root().exists() {
            say::talk("deleting the copy that an earlier journey has left");
            clear(&copy, name)?;
        }
        let started = copy.ensure_bound_daemon(name).inspect_err(|_| {
            // One that could not begin leaves nothing but its folder.
            if !copy.state.is_held() {
                let _ = copy.state.remove();
            }
        });
        let (daemon, lifeline) = started?;
        let is_gone = Arc::new(AtomicBool::new(false));
        let made = Copy {
            app: copy,
            name: name.clone(),
            is_gone: Arc::clone(&is_gone),
            is_removed: false,
            threads: RefCell::default(),
            _lifeline: lifeline,
            _lock: lock,
        };
        let daemon = Running::find(daemon.pid)?;
        let interrupts = interrupts.clone();
        made.spawn(move || {
            if let Some(daemon) = daemon {
                daemon.outlast();
            }
            is_gone.store(true, Ordering::SeqCst);
            interrupts.interrupt();
        });
        Ok(made)
    }

    /// Runs `work`, which ends by itself once the daemon is gone. It is waited for when the copy is removed.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.threads.borrow_mut().push(std::thread::spawn(work));
    }

    /// # Errors
    /// When its daemon does not answer.
    pub fn status(&self) -> Result<Status, Problem> {
        self.app.ask(&Request::Status, |_| {})
    }

    /// Why an interrupted journey goes no further.
    pub fn why_interrupted(&self) -> &'static str {
        match self.is_gone.load(Ordering::SeqCst) {
            true => "the copy of the app was taken down by somebody else, or its daemon was killed",
            false => "it was interrupted",
        }
    }

    /// What is behind a problem: without the copy nothing goes.
    pub fn because(&self, problem: Problem) -> Problem {
        match self.is_gone.load(Ordering::SeqCst) {
            true => Problem::failed(self.why_interrupted()),
            false => problem,
        }
    }

    /// # Errors
    /// When something cannot be stopped or deleted.
    pub fn remove(mut self) -> Result<(), Problem> {
        self.is_removed = true;
        self.clear()
    }

    fn clear(&self) -> Result<(), Problem> {
        clear(&self.app, &self.name)?;
        // Where the daemon could not be ended, they would be waited for in vain.
        for thread in self.threads.take() {
            // One that has panicked has said so.
            let _ = thread.join();
        }
        Ok(())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if !self.is_removed
            && let Err(problem) = self.clear()
        {
            problem.report();
        }
    }
}

//! `down`: everything stops in order; data is deleted only when its name is given.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use local::machine::StopMode;
use model::AppName;

use super::connect::{App, Running};
use super::progress::{self, Progress};
use super::rehearse::journey;
use super::say::{self, GREEN, Problem, Stream, paint};
use super::{Place, manifest};
use crate::api::{Hello, Request};

/// A daemon that stops everything at once says what it stops. PostgreSQL has a minute for its last checkpoint.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

pub fn down(place: &Place, destroy: bool, name: Option<&str>, now: bool) -> Result<(), Problem> {
    let app = place.app()?;
    if destroy {
        confirm(&app, name)?;
    }
    // What is somebody else's cannot be seen from here, and is not to be called down.
    app.must_be_ours()?;
    // Before the folder that it is in is deleted. Its lock is kept until then.
    let _journey = if destroy { journey::end(&app)? } else { None };
    let daemon = match app.hello() {
        Some(daemon) => daemon,
        None if !destroy && app.is_down() => {
            say::talk("nothing is up here");
            return journey::end(&app).map(drop);
        }
        // A daemon that was killed leaves the app running: a new one takes it over and stops it in order.
        None => app.ensure_daemon(&manifest::read(&app.dir)?.graph().app, None)?.0,
    };
    let mode = if now { StopMode::Now } else { StopMode::Graceful };
    let running = Running::find(daemon.pid)?;
    progress::ask::<()>(&app, Request::Down { mode, destroy })?;
    see_it_end(&app, running, destroy)?;
    let what =
        if destroy { "everything is stopped and deleted" } else { "everything is stopped; the data is kept" };
    say::talk(&format!("{} {what}", paint(Stream::Err, GREEN, "down:")));
    // After the app, which it must not keep up.
    if destroy { Ok(()) } else { journey::end(&app).map(drop) }
}

/// Stops everything at once, waits for the daemon's end, and deletes all there is of it.
///
/// # Errors
/// When something does not stop, or is not to be deleted, or the daemon hangs.
pub fn take_down(app: &App, daemon: &Hello) -> Result<(), Problem> {
    let running = Running::find(daemon.pid)?;
    let progress = Progress::new();
    let down = Request::Down { mode: StopMode::Now, destroy: true };
    app.ask_while_heard::<()>(&down, SILENCE_LIMIT, |event| progress.hear(event))?;
    drop(progress);
    see_it_end(app, running, true)
}

fn see_it_end(app: &App, daemon: Option<Running>, destroy: bool) -> Result<(), Problem> {
    if let Some(daemon) = daemon {
        daemon.wait()?;
    }
    if destroy {
        let failed = |error: std::io::Error| {
            Problem::failed(format!("the data is deleted, and something else is not: {error}"))
                .hint(format!("{} can be deleted by hand", app.state.root().display()))
        };
        app.state.remove().map_err(failed)?;
    }
    Ok(())
}

fn confirm(app: &App, given: Option<&str>) -> Result<(), Problem> {
    let name: AppName = manifest::read(&app.dir)?.graph().app.clone();
    let typed = match given {
        Some(given) => given.to_owned(),
        None if std::io::stdin().is_terminal() => {
            let mut err = std::io::stderr();
            let _ = write!(err, "This deletes the data of {name}. Type its name to go on: ")
                .and_then(|()| err.flush());
            let mut line = String::new();
            std::io::stdin()
                .lock()
                .read_line(&mut line)
                .map_err(|error| Problem::failed(error.to_string()))?;
            line.trim().to_owned()
        }
        None => {
            return Err(Problem::refused(
                "deleting the data needs the app's name, and there is no terminal to ask",
            )
            .hint(format!("`switchback down --destroy --yes {name}`")));
        }
    };
    if typed == name.as_str() {
        return Ok(());
    }
    Err(Problem::refused(format!("`{typed}` is not the app's name, {name}; nothing was deleted")))
}

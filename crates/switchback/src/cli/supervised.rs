//! `up --supervised`: this process is the daemon, for a service manager that starts it again whenever it ends.

use super::connect::cache_dir;
use super::say::{self, Problem};
use super::{Place, manifest};
use crate::daemon::{self, DaemonArgs, End, Life};

/// Exit code when the app was brought down: starting it again is not wanted.
const BROUGHT_DOWN: u8 = 4;

/// Runs until SIGTERM, which ends nothing but this process, or until the app is brought down.
pub fn up(place: &Place) -> Result<(), Problem> {
    let app = place.app()?;
    app.must_be_ours()?;
    let manifest = manifest::read(&app.dir)?;
    for note in &manifest.notes {
        say::talk(&format!("note: {note}"));
    }
    if let Some(running) = app.hello() {
        if running.supervised {
            return Err(Problem::refused(format!("another supervised daemon (pid {}) runs", running.pid))
                .hint("`switchback status` shows what it runs; `switchback down` stops it"));
        }
        // Left to itself by `up --detach`, or by a command that found none: from now on somebody looks after it.
        app.end_daemon(running.pid)?;
    }
    let graph = manifest.graph().clone();
    let args = DaemonArgs {
        app_dir: app.dir.clone(),
        state_dir: app.state.root().to_owned(),
        cache_dir: cache_dir(),
        app: graph.app.clone(),
        crash_at: None,
        bound: false,
    };
    say::log_to_stderr();
    match daemon::run(args, Life::Supervised(graph))? {
        End::Signal => Ok(()),
        End::Down => Err(Problem::Said(BROUGHT_DOWN)),
    }
}

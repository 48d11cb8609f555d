//! `upgrade`: the program this is takes the place of the one that runs, without a failed request.
//!
//! First the daemon, which takes everything over without a restart; then the edge, whose successor shares its sockets
//! while it finishes what it has; then `pgproxy`, which keeps the sessions it has beside its successor.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use local::machine::{ProcessKind, ProcessStatus};
use local::paths::StateDir;
use model::counted;

use super::connect::App;
use super::say::{self, GREEN, Problem, Stream, paint};
use super::up::{INTERRUPTED, Interrupts, wait_for};
use super::{Place, manifest};
use crate::api::{Hello, Request, Status};

/// For a service manager to start the daemon again.
const RESTART_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

pub fn upgrade(place: &Place) -> Result<(), Problem> {
    let app = place.app()?;
    let manifest = manifest::read(&app.dir)?;
    app.must_be_ours()?;
    let before: Status = app.ask(&Request::Status, |_| {})?;
    if let Some(operation) = &before.operation {
        return Err(Problem::refused(format!("{} is in progress", operation.name))
            .hint("wait for it to end; `switchback status` shows it"));
    }
    // Before anything ends: what this program cannot read it must not take over.
    StateDir::open(app.state.root())
        .map_err(|error| Problem::refused(error.to_string()).hint(error.hint()))?;
    // Between its steps only: an app shall not be left without a daemon.
    let interrupts = Interrupts::listen()?;

    if is_this_program(Some(before.daemon.pid)) {
        say::talk("daemon: runs this program already");
    } else {
        let new = replace_daemon(&app, manifest.graph(), &before.daemon)?;
        let kept = counted(before.machine.processes.len(), "process");
        say::talk(&format!(
            "daemon: {} (pid {}) took over from {} (pid {}), and {kept} without a restart",
            new.version, new.pid, before.daemon.version, before.daemon.pid
        ));
    }
    go_on(&interrupts)?;
    let of_kind =
        |kind| before.machine.processes.iter().filter(move |process: &&ProcessStatus| process.kind == kind);
    if of_kind(ProcessKind::Edge).all(|edge| is_this_program(edge.pid)) {
        say::talk("edge: runs this program already");
    } else {
        replace(&app, Request::ReplaceEdge, &interrupts)?;
        say::talk("edge: a new process serves; the one before finishes what it has, and ends");
    }
    go_on(&interrupts)?;
    let mut proxies = of_kind(ProcessKind::Pgproxy).peekable();
    if proxies.peek().is_none() {
        // An app without a database has none.
    } else if proxies.all(|proxy| is_this_program(proxy.pid)) {
        say::talk("pgproxy: runs this program already");
    } else {
        replace(&app, Request::ReplaceProxies, &interrupts)?;
        say::talk("pgproxy: a new process serves; the one before keeps the sessions it has until they end");
    }
    say::talk(&format!("{} done", paint(Stream::Err, GREEN, "upgrade:")));
    Ok(())
}

fn go_on(interrupts: &Interrupts) -> Result<(), Problem> {
    if interrupts.count() == 0 {
        return Ok(());
    }
    Err(interrupted())
}

fn interrupted() -> Problem {
    say::talk("interrupted: what was replaced stays so, and `switchback upgrade` goes on with the rest");
    Problem::Said(INTERRUPTED)
}

/// A first interrupt waits for this step, and a second one for nothing: the daemon may hang.
fn replace(app: &App, request: Request, interrupts: &Interrupts) -> Result<(), Problem> {
    match wait_for::<()>(app, request, interrupts, 2) {
        Err(Problem::Said(INTERRUPTED) | Problem::NotBegun) => Err(interrupted()),
        replaced => replaced,
    }
}

fn replace_daemon(app: &App, graph: &model::ResourceGraph, old: &Hello) -> Result<Hello, Problem> {
    // Asked while it is there: the way back, should there be one to go.
    let program = std::fs::read_link(format!("/proc/{}/exe", old.pid)).unwrap_or_default();
    app.end_daemon(old.pid)?;
    let new = if old.supervised {
        say::talk("daemon: waiting for the service manager to start it again");
        restarted(app, old)?
    } else {
        let started = app.ensure_daemon(&graph.app, None);
        let (new, _) = started.map_err(|problem| {
            say::talk("the app serves on, and nothing is restarted until a daemon runs");
            problem.hint(format!("`{} up --detach` starts the one before again", program.display()))
        })?;
        new
    };
    if is_this_program(Some(new.pid)) {
        return Ok(new);
    }
    Err(Problem::failed(format!("the daemon that was started (pid {}) is another program", new.pid))
        .hint("put this program where the service manager, or whoever else starts it, looks for it"))
}

fn restarted(app: &App, old: &Hello) -> Result<Hello, Problem> {
    let deadline = Instant::now() + RESTART_TIMEOUT;
    loop {
        match app.hello() {
            Some(new) if new.pid != old.pid => return Ok(new),
            _ if Instant::now() >= deadline => {
                return Err(Problem::failed("the service manager did not start the daemon again")
                    .hint("the app serves on; see that the service restarts always, and what its log says"));
            }
            _ => std::thread::sleep(POLL),
        }
    }
}

/// Whether the process runs the very file that this one does. One that is gone, or may not be looked at, does not.
fn is_this_program(pid: Option<u32>) -> bool {
    let identity = |process: &str| {
        let program = std::fs::metadata(format!("/proc/{process}/exe")).ok()?;
        Some((program.dev(), program.ino()))
    };
    let theirs = pid.and_then(|pid| identity(&pid.to_string()));
    theirs.is_some() && theirs == identity("self")
}

//! The daemon: holds one app up and answers the command line.
//!
//! It may be killed at any instant. What it runs goes on; the next daemon takes everything over, finishes or takes
//! back the plan that was in progress, and goes on from there. SIGTERM ends it the same way: stopping the app is what
//! `switchback down` is for.
//!
//! A command starts it and leaves it to itself, or a service manager runs it and starts it again, or what it holds up is
//! nobody's any more when the command ends: see [`Life`].

mod bound;
mod operations;
mod ready;
mod restore;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use local::cgroup::Cgroups;
use local::chain;
use local::machine::{
    self, ApplyError, CrashPoint, Event, FailoverMoment, Machine, Moment, Phase, ProcessKind, Report,
    StopMode,
};
use local::output::{Budget, Logs, Tailer};
use local::paths::{StateDir, StateError};
use local::process::{BaseEnv, Processes};
use local::setup::Setup;
use local::user::{self, Identity};
use model::{AppName, ResourceGraph};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api::{Failure, Operation};
use serve::Access;

#[derive(Debug, clap::Args)]
pub struct DaemonArgs {
    /// The app's folder.
    #[arg(long)]
    pub app_dir: PathBuf,
    #[arg(long)]
    pub state_dir: PathBuf,
    #[arg(long)]
    pub cache_dir: PathBuf,
    #[arg(long)]
    pub app: AppName,
    /// STEP:before|after|committed ends the daemon by SIGKILL there, to prove that the next one goes on. STEP:full lets it
    /// live, and write nothing down any more.
    #[arg(long, value_parser = crash_point)]
    pub crash_at: Option<CrashPoint>,
    /// Standard input is a pipe: when it ends, everything is stopped and deleted, and the daemon ends.
    #[arg(long)]
    pub bound: bool,
}

/// Who looks after the daemon.
#[derive(Debug, Clone, PartialEq)]
pub enum Life {
    /// Nobody. Whoever started it asks it for what is wanted.
    Detached,
    /// A service manager, which starts it again when it ends. It brings the app up as this says by itself.
    Supervised(ResourceGraph),
    /// Whoever started it, as long as they live: what it holds up is theirs alone.
    Bound,
}

/// How a daemon ended in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to; what it ran goes on.
    Signal,
    /// The app was brought down.
    Down,
}

fn crash_point(text: &str) -> Result<CrashPoint, String> {
    let (step, moment) = text.split_once(':').ok_or("expected STEP:MOMENT or failover:MOMENT")?;
    if step == "failover" {
        let moment = match moment {
            "chosen" => FailoverMoment::Chosen,
            "written" => FailoverMoment::WrittenDown,
            "promoted" => FailoverMoment::Promoted,
            _ => return Err("the moment is one of chosen, written, promoted".to_owned()),
        };
        return Ok(CrashPoint::Failover(moment));
    }
    let moment = match moment {
        "before" => Moment::BeforeEffect,
        "after" => Moment::AfterEffect,
        "committed" => Moment::AfterCommit,
        "full" => Moment::DiskFull,
        _ => return Err("the moment is one of before, after, full, committed".to_owned()),
    };
    Ok(CrashPoint::Step(step.parse().map_err(|_| "the step is not a number")?, moment))
}

/// What every connection shares.
#[derive(Clone)]
struct Daemon {
    machine: Machine,
    /// The one operation that may change things; `None` when there is none.
    operation: Arc<Mutex<Option<(String, Instant)>>>,
    life: Arc<Life>,
    /// Cancelled when everything that ran is taken over and a plan in progress has ended.
    taken_over: CancellationToken,
    /// The daemon is to end, once everybody who asked for it has an answer.
    leaving: CancellationToken,
    /// Who waits for everything to be stopped, and has no answer yet.
    downs: Arc<AtomicUsize>,
    /// Ends the daemon.
    end: CancellationToken,
}

/// Runs until told to go down, or SIGTERM.
///
/// # Errors
/// When the state folder is held by another daemon, is of a newer format, or cannot be read; supervised, also when the
/// app does not come up and nothing of it served before, or its front door cannot be opened.
pub fn run(args: DaemonArgs, life: Life) -> Result<End, Failure> {
    let failed = |error: StateError| Failure::refused(chain(&error)).hint(error.hint());
    let state = StateDir::open(&args.state_dir).map_err(failed)?;
    let _lock = state.lock().map_err(failed)?;
    // Nobody needs what is left of it, and whoever brought it down may be gone.
    let own = (life == Life::Bound).then(|| state.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(error.to_string()))?;
    let setup = setup(args, state, &life);
    let result = runtime.block_on(serve_until_end(setup, life));
    // Keepers end with the runtime; what they kept runs on.
    runtime.shutdown_background();
    if let Some(state) = own.filter(|_| result == Ok(End::Down)) {
        state.remove().map_err(|error| Failure::failed(format!("{}: {error}", state.root().display())))?;
    }
    result
}

fn setup(args: DaemonArgs, state: StateDir, life: &Life) -> (Setup, Option<CrashPoint>) {
    let tag = format!("{}-{}", args.app, state.tag());
    let cgroups = match life {
        Life::Detached | Life::Bound => Cgroups::detect(&tag),
        Life::Supervised(_) => Cgroups::detect_in_place(&tag),
    };
    if let Some(why) = cgroups.unavailable() {
        tracing::warn!(reason = why.reason, hint = why.hint, "sizes are not enforced");
    }
    let processes = Processes::new(state.run(), cgroups, BaseEnv::pick(std::env::vars_os()));
    let logs = Logs::at(state.logs());
    let cores = std::thread::available_parallelism()
        .map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX));
    let setup = Setup {
        app: args.app,
        app_dir: args.app_dir,
        state,
        cache_dir: args.cache_dir,
        program: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("switchback")),
        processes,
        logs,
        build_env: machine::build_environment(std::env::vars_os()),
        cores,
        memory: machine::memory(),
    };
    (setup, args.crash_at)
}

async fn serve_until_end((setup, crash_at): (Setup, Option<CrashPoint>), life: Life) -> Result<End, Failure> {
    let socket = setup.state.daemon_socket();
    let logs = setup.logs.clone();
    let state_file = setup.state.database();
    let machine = Machine::open(setup, crash_at).map_err(|error| {
        let hint = format!(
            "see that the disk is not full; if the file is damaged, move it away: `mv {file} {file}.damaged`. The next \
             `switchback up` takes the databases up with what is in data/postgres, and makes everything else anew",
            file = state_file.display()
        );
        Failure::failed(format!("{}: {}", state_file.display(), chain(&error))).hint(hint)
    })?;
    let daemon = Daemon {
        machine,
        operation: Arc::default(),
        life: Arc::new(life),
        leaving: CancellationToken::new(),
        downs: Arc::default(),
        taken_over: CancellationToken::new(),
        end: CancellationToken::new(),
    };
    let listener =
        bind(&socket).map_err(|error| Failure::failed(format!("{}: {error}", socket.display())))?;
    let looking = looking_socket(&daemon.machine).unwrap_or_else(|error| {
        tracing::warn!(%error, "the owner of the app's folder cannot look at it");
        None
    });
    let tailer = Tailer::open(&logs, Budget::default(), Instant::now())
        .map_err(|error| Failure::failed(format!("the logs cannot be opened: {error}")))?;
    let end_tailing = CancellationToken::new();
    let tailing = tokio::spawn(tailer.run(end_tailing.clone()));
    let mut term = signal(SignalKind::terminate()).map_err(|error| Failure::failed(error.to_string()))?;
    let mut int = signal(SignalKind::interrupt()).map_err(|error| Failure::failed(error.to_string()))?;
    let daemon_left = daemon.leaving.clone();
    let is_supervised = daemon.is_supervised();
    let lifeline = matches!(*daemon.life, Life::Bound).then(bound::lifeline).transpose()?;
    let beginning = daemon.begin(if is_supervised { "up" } else { "take over what runs" });
    let begun = daemon.take_over();
    let serving = serve::serve(listener, Access::Full, daemon.clone());
    let looked_at = async {
        match looking {
            Some(listener) => serve::serve(listener, Access::Looking, daemon.clone()).await,
            None => std::future::pending().await,
        }
    };
    let supervising = daemon.machine.supervise();
    let guarding = daemon.machine.guard();
    let backing_up = daemon.machine.keep_backups();
    let ended = tokio::select! {
        never = serving => match never {},
        never = looked_at => match never {},
        () = supervising => Ok(End::Signal),
        () = guarding => Ok(End::Signal),
        () = backing_up => Ok(End::Signal),
        failure = async {
            begun.await;
            // Whoever asks for something waits until it is up.
            if let Err(failure) = daemon.come_up().await {
                return failure;
            }
            drop(beginning);
            daemon.taken_over.cancel();
            std::future::pending().await
        } => Err(failure),
        _ = term.recv() => Ok(End::Signal),
        outlived = daemon.outlive(lifeline) => outlived.map(|()| End::Down),
        // In a session of its own nobody presses Ctrl-C.
        _ = int.recv(), if is_supervised => Ok(End::Signal),
        () = daemon.end.cancelled() => Ok(End::Down),
    };
    if matches!(ended, Ok(End::Signal)) {
        tracing::info!("the daemon was told to end, what it runs goes on");
    }
    end_tailing.cancel();
    // A panic in it has been printed; the daemon is ending anyway.
    let _ = tailing.await;
    // Its absence says that the app was brought down; a daemon that merely ends leaves it for the next.
    if daemon_left.is_cancelled() {
        let _ = fs::remove_file(socket);
        let _ = fs::remove_file(daemon.machine.setup().state.looking_socket());
    }
    ended
}

fn bind(path: &Path) -> std::io::Result<UnixListener> {
    // We hold the lock: a socket file that is there belongs to nobody.
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Where the owner of the app's folder may look at what root runs for them. Nobody else reaches it: it gets its owner
/// in the folder that is root's alone, and is moved out of it then.
fn looking_socket(machine: &Machine) -> std::io::Result<Option<UnixListener>> {
    let Setup { state, app_dir, .. } = machine.setup();
    let owner = Identity::owner_of(app_dir).map_err(std::io::Error::other)?;
    if !user::running_as_root() || owner.is_root() {
        return Ok(None);
    }
    let beside = state.control_socket("look");
    let listener = bind(&beside)?;
    user::give_to(&beside, &owner)?;
    fs::rename(beside, state.looking_socket())?;
    Ok(Some(listener))
}

impl Daemon {
    /// Adopts, resumes and restores, in this order.
    async fn take_over(&self) {
        let started = Instant::now();
        let report: Report = Arc::new(log_event);
        let adopted = self.machine.adopt(&report).await;
        let took_ms = started.elapsed().as_millis();
        tracing::info!(adopted, took_ms, "took over what runs");
        let running = self.machine.world().running;
        if running && let Err(error) = self.machine.restore(&report).await {
            tracing::warn!(reason = error.reason, "not everything is ready");
        }
        if running && let Some(Err(error)) = self.machine.resume(&report).await {
            tracing::warn!(error = chain(&error), hint = error.hint(), "{}", not_carried_out(&error));
        }
        self.machine.clear_strays(&report).await;
    }

    /// What a supervised daemon does first. What stands already is left to serve when it cannot be as the manifest says.
    async fn come_up(&self) -> Result<(), Failure> {
        let Life::Supervised(graph) = &*self.life else { return Ok(()) };
        let report: Report = Arc::new(log_event);
        match self.up(graph, &BTreeSet::new(), &report).await {
            Ok(outcome) => tracing::info!(front = outcome.front.join(" "), "the app answers"),
            Err(failure) if self.machine.world().topology.instances.is_empty() => {
                // Nothing half up is left for the next try.
                let _ = self.machine.stop(StopMode::Graceful, &report).await;
                return Err(failure);
            }
            // Nobody but the next daemon tries it again. What runs goes on until then.
            Err(failure) if self.front_door_is_shut().await => return Err(failure),
            Err(Failure { message, hint, last_lines, .. }) => {
                tracing::error!(
                    reason = message,
                    hint,
                    ?last_lines,
                    "the app is not up as the manifest says"
                );
            }
        }
        ready::say();
        Ok(())
    }

    /// Whether it could not even be opened, because somebody else has its address, for one.
    async fn front_door_is_shut(&self) -> bool {
        let status = self.machine.status().await;
        let mut edges = status.processes.iter().filter(|process| process.kind == ProcessKind::Edge);
        edges.any(|edge| matches!(edge.state, Phase::Stopped | Phase::Failed))
    }

    fn is_supervised(&self) -> bool {
        matches!(*self.life, Life::Supervised(_))
    }

    /// Claims the right to change things; `None` when somebody else has it.
    fn begin(&self, name: &str) -> Option<Claim> {
        let mut operation = self.operation.lock().unwrap_or_else(PoisonError::into_inner);
        if operation.is_some() {
            return None;
        }
        *operation = Some((name.to_owned(), Instant::now()));
        Some(Claim { operation: Arc::clone(&self.operation) })
    }

    fn current_operation(&self) -> Option<Operation> {
        let operation = self.operation.lock().unwrap_or_else(PoisonError::into_inner);
        operation.as_ref().map(|(name, since)| Operation {
            name: name.clone(),
            running_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// The right to change things, until dropped.
struct Claim {
    operation: Arc<Mutex<Option<(String, Instant)>>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        *self.operation.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What has become of a plan that the daemon before was carrying out.
fn not_carried_out(error: &ApplyError) -> &'static str {
    match error {
        ApplyError::RolledBack { .. } => "the plan in progress was taken back",
        ApplyError::BackupUnderWay(_) => "the restore in progress waits for its turn",
        ApplyError::Interrupted
        | ApplyError::DiskLow(_)
        | ApplyError::Store(_)
        | ApplyError::Stale { .. }
        | ApplyError::OtherApp(_)
        | ApplyError::Busy => "the plan in progress stays to be carried out",
    }
}

fn log_event(event: Event) {
    match event {
        Event::Started { step, of, what } => tracing::info!(step, of, what, "step"),
        Event::Done { step, of, what, took_ms } => tracing::info!(step, of, what, took_ms, "step done"),
        Event::Failed { step, of, what, reason, .. } => tracing::warn!(step, of, what, reason, "step failed"),
        Event::Undone { what } => tracing::info!(what, "taking back"),
        Event::BuildLine { line } => tracing::debug!(line, "build"),
        Event::Note { text } => tracing::info!("{text}"),
    }
}

/// Names of the services and the releases they serve.
fn serving(machine: &Machine) -> BTreeMap<String, String> {
    let releases = machine.world().topology.releases;
    releases.into_iter().map(|(service, release)| (service.to_string(), release.id.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use local::machine::StepError;

    use super::*;

    #[test]
    fn a_restore_that_waits_for_its_turn_is_not_said_to_be_taken_back() {
        let error = StepError {
            reason: "a backup is being made or proven for too long".to_owned(),
            hint: None,
            last_lines: Vec::new(),
            damaged: false,
        };
        let waits = ApplyError::BackupUnderWay(error.clone());
        assert_eq!(not_carried_out(&waits), "the restore in progress waits for its turn");
        let back = ApplyError::RolledBack { what: "restore db".to_owned(), error };
        assert_eq!(not_carried_out(&back), "the plan in progress was taken back");
    }
}

//! A role: this program as the edge or as a pgproxy, with inherited sockets, steered over its control socket.
//!
//! The daemon starts roles and configures them; they keep serving by their last configuration when it dies. A role
//! ends when it is told to drain, or by SIGTERM.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, ValueEnum};
use local::chain;
use local::control::{Reply, Request, serve};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::scrape::scrape;

/// After SIGTERM: what is in flight gets this long.
const TERM_DRAIN: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct RoleArgs {
    kind: RoleKind,
    /// Where to listen for the daemon.
    #[arg(long)]
    control: PathBuf,
    /// An inherited file with the configuration to begin with, JSON.
    #[arg(long, value_parser = descriptor)]
    config_fd: i32,
    /// An inherited listening socket, NAME=FD.
    #[arg(long = "socket", value_parser = inherited)]
    sockets: Vec<(String, i32)>,
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    threads: NonZeroUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleKind {
    Edge,
    Pgproxy,
}

fn inherited(text: &str) -> Result<(String, i32), String> {
    let (name, fd) = text.split_once('=').ok_or("expected NAME=FD")?;
    Ok((name.to_owned(), descriptor(fd)?))
}

fn descriptor(text: &str) -> Result<i32, String> {
    let fd = text.parse().map_err(|_| "the descriptor is not a number")?;
    if fd < 3 {
        return Err("descriptors below 3 are standard input and output".to_owned());
    }
    Ok(fd)
}

/// Runs until drained.
///
/// # Errors
/// When the configuration does not hold, or a socket is not what it should be.
pub fn run(args: RoleArgs) -> Result<(), String> {
    // SAFETY: the daemon started us with this descriptor open, and it is taken once.
    let config = File::from(unsafe { OwnedFd::from_raw_fd(args.config_fd) });
    let config = serde_json::from_reader(BufReader::new(config))
        .map_err(|error| format!("the configuration to begin with: {error}"))?;
    let mut sockets: BTreeMap<String, TcpListener> = BTreeMap::new();
    for (name, fd) in &args.sockets {
        // SAFETY: the daemon started us with exactly these descriptors open, and each is taken once.
        let socket = TcpListener::from(unsafe { OwnedFd::from_raw_fd(*fd) });
        socket
            .local_addr()
            .map_err(|error| format!("{name}: descriptor {fd} is no listening socket: {error}"))?;
        sockets.insert(name.clone(), socket);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(run_role(args, config, sockets))
}

async fn run_role(
    args: RoleArgs,
    config: Value,
    mut sockets: BTreeMap<String, TcpListener>,
) -> Result<(), String> {
    let metrics_socket = sockets.remove("metrics");
    let service = match args.kind {
        RoleKind::Edge => {
            let config: edge::Config = decode(config)?;
            let version = env!("CARGO_PKG_VERSION").to_owned();
            let options = edge::Options { threads: args.threads, version };
            let handle = edge::start(config, sockets, options).map_err(|error| chain(&error))?;
            Service::Edge(handle)
        }
        RoleKind::Pgproxy => {
            let config: pgproxy::Config = decode(config)?;
            let handle = pgproxy::start(config, sockets).map_err(|error| chain(&error))?;
            Service::Pgproxy(Arc::new(handle))
        }
    };
    let kept =
        metrics_socket.as_ref().map(|socket| socket.try_clone()).transpose().map_err(|e| e.to_string())?;
    let drain = DrainOrder::default();
    let control =
        bind_control(&args.control).map_err(|error| format!("{}: {error}", args.control.display()))?;
    let handler = {
        let (service, drain, kept) = (service.clone(), drain.clone(), Arc::new(kept));
        move |request| {
            let (service, drain, kept) = (service.clone(), drain.clone(), Arc::clone(&kept));
            async move { answer(&service, &drain, kept.as_ref().as_ref(), request).await }
        }
    };
    let mut term = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    // Whoever presses Ctrl-C in the terminal means the command in front, not its daemon's roles.
    let _ignored = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let until_drained = async {
        let deadline = tokio::select! {
            scraped = scrape(metrics_socket, || service.metrics()) => return scraped.map_err(|error| error.to_string()),
            _ = term.recv() => TERM_DRAIN,
            deadline = drain.given() => deadline,
        };
        tokio::select! {
            () = service.drain(deadline) => {}
            _ = term.recv() => service.drain(TERM_DRAIN).await,
        }
        Ok(())
    };
    tokio::select! {
        // Also while it drains: what it still serves follows every change.
        never = serve(control, handler) => match never {},
        ended = until_drained => ended,
    }
}

#[derive(Clone)]
enum Service {
    Edge(edge::Handle),
    Pgproxy(Arc<pgproxy::Handle>),
}

impl Service {
    async fn drain(&self, deadline: Duration) {
        match self {
            Service::Edge(handle) => handle.drain(deadline).await,
            Service::Pgproxy(handle) => {
                handle.drain(deadline).await;
            }
        }
    }

    fn configure(&self, config: Value) -> Result<(), String> {
        match self {
            Service::Edge(handle) => handle.configure(decode(config)?).map_err(|error| chain(&error)),
            Service::Pgproxy(handle) => handle.configure(decode(config)?).map_err(|error| chain(&error)),
        }
    }

    fn status(&self) -> Result<Value, String> {
        match self {
            Service::Edge(handle) => serde_json::to_value(handle.status()),
            Service::Pgproxy(handle) => serde_json::to_value(handle.status()),
        }
        .map_err(|error| error.to_string())
    }

    fn load(&self) -> Result<Value, String> {
        match self {
            Service::Edge(_) => Err("an edge has no databases".to_owned()),
            Service::Pgproxy(handle) => {
                serde_json::to_value(handle.watch_load()).map_err(|error| error.to_string())
            }
        }
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        match self {
            Service::Edge(handle) => handle.metrics(&mut text),
            Service::Pgproxy(handle) => handle.metrics(&mut text),
        }
        text
    }

    fn listeners(&self) -> io::Result<BTreeMap<String, OwnedFd>> {
        match self {
            Service::Edge(handle) => handle.listener_fds(),
            Service::Pgproxy(handle) => handle.listener_fds(),
        }
    }
}

async fn answer(
    service: &Service,
    drain: &DrainOrder,
    metrics_socket: Option<&TcpListener>,
    request: Request,
) -> Result<Reply, String> {
    let value = match request {
        Request::Configure { config } => service.configure(config).map(|()| Value::Null)?,
        Request::Status => service.status()?,
        Request::Load => service.load()?,
        Request::Metrics => Value::String(service.metrics()),
        Request::Listeners => {
            let mut sockets = service.listeners().map_err(|error| error.to_string())?;
            if let Some(socket) = metrics_socket {
                sockets
                    .insert("metrics".into(), socket.try_clone().map_err(|error| error.to_string())?.into());
            }
            return Ok(Reply::Sockets(sockets));
        }
        Request::EndpointIdle { id } => {
            if let Service::Edge(handle) = service {
                handle.endpoint_idle(&id).await;
            }
            Value::Null
        }
        Request::CloseEndpoint { id } => {
            if let Service::Edge(handle) = service {
                handle.close_endpoint(&id);
            }
            Value::Null
        }
        Request::Drain { deadline_ms } => {
            drain.give(Duration::from_millis(deadline_ms));
            Value::Null
        }
    };
    Ok(Reply::Value(value))
}

/// The first order to drain; later ones change nothing.
#[derive(Clone, Default)]
struct DrainOrder {
    deadline: Arc<Mutex<Option<Duration>>>,
    given: CancellationToken,
}

impl DrainOrder {
    fn give(&self, deadline: Duration) {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(deadline);
        self.given.cancel();
    }

    async fn given(&self) -> Duration {
        self.given.cancelled().await;
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_default()
    }
}

fn bind_control(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn decode<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

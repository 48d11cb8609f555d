//! The listeners, the sessions they begot, and the handle by which the caller steers them.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, ConfigError, Database};
use crate::metrics;
use crate::session::{Context, serve};
use crate::status::{Counters, Status};

/// Connections beyond `max_clients` that may be at the door at once, to be told so or to cancel something. More are
/// closed without a word.
const AT_THE_DOOR: usize = 128;
/// After a failed accept, which mostly means that the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running proxy. Dropping the handle ends it at once, sessions included.
pub struct Handle {
    state: Mutex<State>,
    /// Stops the listeners.
    stop: CancellationToken,
    /// Cuts the sessions.
    cut: CancellationToken,
    tasks: TaskTracker,
}

struct State {
    generation: u64,
    draining: bool,
    databases: BTreeMap<String, Served>,
}

struct Served {
    settings: watch::Sender<Database>,
    counters: Arc<Counters>,
    /// `None` once draining: a socket that is open but not accepted from would let clients hang.
    listener: Option<Arc<TcpListener>>,
    stop: CancellationToken,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open at the deadline and were cut.
    pub cut: usize,
}

/// Serves `config` on the runtime this is called from, until [`Handle::drain`]. The listeners come by the names that
/// the databases give them; sockets that nobody names are closed.
///
/// # Errors
/// When a listener has no socket, two databases share one, or a socket cannot be used. Nothing is served then.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn start(config: Config, sockets: BTreeMap<String, StdListener>) -> Result<Handle, ConfigError> {
    let handle = Handle {
        state: Mutex::new(State { generation: 0, draining: false, databases: BTreeMap::new() }),
        stop: CancellationToken::new(),
        cut: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    handle.configure_with(config, sockets)?;
    Ok(handle)
}

impl Handle {
    /// Replaces the configuration, for databases that are already served. See [`Handle::configure_with`].
    ///
    /// # Errors
    /// As [`Handle::configure_with`].
    pub fn configure(&self, config: Config) -> Result<(), ConfigError> {
        self.configure_with(config, BTreeMap::new())
    }

    /// Replaces the configuration as a whole, with sockets for the databases that are new in it. Open sessions stay;
    /// waiting clients follow the new upstream; a database that is gone accepts nothing more, while its open sessions
    /// may end by themselves.
    ///
    /// # Errors
    /// When the configuration is older than the one in force, or sockets do not fit. The one in force stays.
    pub fn configure_with(
        &self,
        config: Config,
        mut sockets: BTreeMap<String, StdListener>,
    ) -> Result<(), ConfigError> {
        config.check()?;
        let mut state = self.state();
        if state.draining {
            return Err(ConfigError::Draining);
        }
        if config.generation < state.generation {
            return Err(ConfigError::Stale { given: config.generation, in_force: state.generation });
        }
        let mut added = Vec::new();
        for (name, database) in &config.databases {
            match state.databases.get(name) {
                Some(served) if served.settings.borrow().listener == database.listener => {}
                Some(_) => {
                    return Err(ConfigError::ListenerChanged { database: name.clone() });
                }
                None => {
                    let socket = sockets.remove(&database.listener).ok_or_else(|| ConfigError::NoSocket {
                        database: name.clone(),
                        listener: database.listener.clone(),
                    })?;
                    let listener = listener(socket).map_err(|cause| ConfigError::Socket {
                        database: name.clone(),
                        cause: cause.to_string(),
                    })?;
                    added.push((name.clone(), Arc::new(listener)));
                }
            }
        }
        // Nothing can fail from here on.
        state.databases.retain(|name, served| {
            let kept = config.databases.contains_key(name);
            if !kept {
                served.stop.cancel();
            }
            kept
        });
        for (name, listener) in added {
            let database = config.databases[&name].clone();
            let served = self.serve(&name, database, listener);
            state.databases.insert(name, served);
        }
        for (name, served) in &state.databases {
            let database = &config.databases[name];
            served.settings.send_if_modified(|current| {
                let changed = current != database;
                if changed {
                    current.clone_from(database);
                }
                changed
            });
        }
        state.generation = config.generation;
        Ok(())
    }

    /// A snapshot of what is served.
    pub fn status(&self) -> Status {
        let state = self.state();
        let databases = state.databases.iter();
        Status {
            generation: state.generation,
            draining: state.draining,
            databases: databases.map(|(name, served)| (name.clone(), served.counters.snapshot())).collect(),
        }
    }

    /// Appends the metrics to `text` in the Prometheus text format.
    pub fn metrics(&self, text: &mut String) {
        metrics::expose(&self.status(), text);
    }

    /// Duplicates of the listening sockets by listener name, for a successor to accept from. While both accept, the
    /// kernel gives each connection to one of them; none is refused. Empty once draining.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn listener_fds(&self) -> io::Result<BTreeMap<String, OwnedFd>> {
        let state = self.state();
        let mut fds = BTreeMap::new();
        for served in state.databases.values() {
            let name = served.settings.borrow().listener.clone();
            if let Some(listener) = &served.listener {
                fds.insert(name, listener.as_fd().try_clone_to_owned()?);
            }
        }
        Ok(fds)
    }

    /// Stops accepting, lets sessions end by themselves for as long as `grace`, and cuts the rest.
    ///
    /// Cancel safe: called again, it goes on, with a grace of its own.
    pub async fn drain(&self, grace: Duration) -> Drained {
        self.stop.cancel();
        {
            let mut state = self.state();
            state.draining = true;
            for served in state.databases.values_mut() {
                served.listener = None;
            }
        }
        self.tasks.close();
        if timeout(grace, self.tasks.wait()).await.is_ok() {
            return Drained { cut: 0 };
        }
        let cut = self.tasks.len();
        self.cut.cancel();
        self.tasks.wait().await;
        Drained { cut }
    }

    fn serve(&self, name: &str, database: Database, listener: Arc<TcpListener>) -> Served {
        let (settings, receiver) = watch::channel(database);
        let served = Served {
            settings,
            counters: Arc::default(),
            listener: Some(listener.clone()),
            stop: self.stop.child_token(),
        };
        let acceptor = Acceptor {
            name: name.to_owned(),
            settings: receiver,
            counters: served.counters.clone(),
            cut: self.cut.clone(),
            tasks: self.tasks.clone(),
            sessions: TaskTracker::new(),
        };
        self.tasks.spawn(acceptor.run(listener, served.stop.clone()));
        served
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is made whole before the lock is released, so a panic elsewhere left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.cancel();
        self.cut.cancel();
    }
}

fn listener(socket: StdListener) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// Accepts the clients of one database.
struct Acceptor {
    name: String,
    settings: watch::Receiver<Database>,
    counters: Arc<Counters>,
    cut: CancellationToken,
    tasks: TaskTracker,
    /// Of this database alone, to know how many are at the door.
    sessions: TaskTracker,
}

impl Acceptor {
    async fn run(self, listener: Arc<TcpListener>, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((client, _)) => self.accepted(client),
                Err(cause) => {
                    tracing::warn!(database = self.name, %cause, "a client could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn accepted(&self, client: TcpStream) {
        use std::sync::atomic::Ordering::Relaxed;
        self.counters.connections.fetch_add(1, Relaxed);
        let max_clients = self.settings.borrow().max_clients as usize;
        if self.sessions.len() >= max_clients.saturating_add(AT_THE_DOOR) {
            self.counters.refused_full.fetch_add(1, Relaxed);
            return;
        }
        let context = Context {
            name: self.name.clone(),
            settings: self.settings.clone(),
            counters: self.counters.clone(),
        };
        let cut = self.cut.clone();
        let session = self.sessions.track_future(async move {
            cut.run_until_cancelled(serve(client, context)).await;
        });
        self.tasks.spawn(session);
    }
}

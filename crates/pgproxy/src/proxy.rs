//! The listeners, the sessions they begot, and the handle by which the caller steers them.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use freshness::Freshness;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Notify, watch};
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin;
use crate::cancel::{Meeting, hear_others};
use crate::catalog::keep_catalog;
use crate::config::{Config, ConfigError, Database};
use crate::credentials::{AdminLogin, Credentials};
use crate::door::{self, Door};
use crate::judge::Known;
use crate::load::{Load, LoadStatus};
use crate::login::serve;
use crate::lookout::Lookout;
use crate::metrics;
use crate::pool::Pool;
use crate::prepared::Statement;
use crate::replicas::{Positions, Replica, Replicas, configured, watch_primary, watch_standby};
use crate::scram::Pretender;
use crate::session::{DEALLOCATE, REPLAYED, SET_CONFIG, XID};
use crate::shared::{Clients, Served, Shared};
use crate::status::{Counters, DatabaseStatus, Status};
use crate::tls;

/// Between two looks at the idle connections.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);
/// After a failed accept, which mostly means that the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is under way when a drain's grace is over gets this much more.
pub const LAST_GRACE: Duration = Duration::from_secs(60);

/// A running proxy. Dropping the handle ends it at once, sessions included.
pub struct Handle {
    state: Mutex<State>,
    /// Stops the listeners.
    stop: CancellationToken,
    /// Ends the sessions, each when nothing of it is under way.
    ending: CancellationToken,
    /// Cuts the sessions.
    cut: CancellationToken,
    tasks: TaskTracker,
    /// Ends what watches the databases.
    unwatch: CancellationToken,
    watches: TaskTracker,
}

struct State {
    generation: u64,
    draining: bool,
    databases: BTreeMap<String, Running>,
}

/// A database that is served.
struct Running {
    served: watch::Sender<Arc<Served>>,
    shared: Arc<Shared>,
    /// `None` once draining: a socket that is open but not accepted from would let clients hang.
    listener: Option<Arc<TcpListener>>,
    stop: CancellationToken,
    unwatch: CancellationToken,
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
        ending: CancellationToken::new(),
        cut: CancellationToken::new(),
        tasks: TaskTracker::new(),
        unwatch: CancellationToken::new(),
        watches: TaskTracker::new(),
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

    /// Replaces the configuration as a whole, with sockets for the databases that are new in it. Open sessions stay, and
    /// follow the primary to where it is now; a database that is gone accepts nothing more, while its open sessions may
    /// end by themselves. Reads the files that the configuration names. While draining, what is new in it is passed over.
    ///
    /// # Errors
    /// When the configuration is older than the one in force, contradicts itself, or names sockets or files that cannot
    /// be used. The one in force stays.
    pub fn configure_with(
        &self,
        config: Config,
        mut sockets: BTreeMap<String, StdListener>,
    ) -> Result<(), ConfigError> {
        config.check()?;
        let mut state = self.state();
        if config.generation < state.generation {
            return Err(ConfigError::Stale { given: config.generation, in_force: state.generation });
        }
        let mut prepared = Vec::new();
        for (name, database) in &config.databases {
            let running = state.databases.get(name);
            if state.draining && running.is_none() {
                continue;
            }
            let served = Arc::new(prepare(name, database, running)?);
            let added = match running {
                Some(_) => None,
                None => {
                    let socket = sockets.remove(&database.listener).ok_or_else(|| ConfigError::NoSocket {
                        database: name.clone(),
                        listener: database.listener.clone(),
                    })?;
                    let cannot = |cause: String| ConfigError::Socket { database: name.clone(), cause };
                    let listener = listener(socket).map_err(|cause| cannot(cause.to_string()))?;
                    let pretender = Pretender::new().map_err(|cause| cannot(cause.to_string()))?;
                    let marks = Marks::of(name, database)?;
                    Some((Arc::new(listener), pretender, marks))
                }
            };
            prepared.push((name.clone(), served, added));
        }
        // Nothing can fail from here on.
        state.databases.retain(|name, running| {
            let kept = config.databases.contains_key(name);
            if !kept {
                running.stop.cancel();
                running.unwatch.cancel();
            }
            kept
        });
        for (name, served, added) in prepared {
            match (state.databases.get(&name), added) {
                (Some(running), _) => {
                    running.shared.pool.with_horizons(|horizons| horizons.hear(&served.config));
                    // The fence before the news: whoever hears of the new primary finds the old one shut off.
                    running.shared.pool.retarget(served.target(), served.limits());
                    running.served.send_replace(served.clone());
                    running.configure_replicas(&self.watches, &served);
                }
                (None, Some((listener, pretender, marks))) => {
                    let running = self.serve(&name, served, listener, pretender, marks);
                    state.databases.insert(name, running);
                }
                (None, None) => {}
            }
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
            databases: databases.map(|(name, running)| (name.clone(), running.status())).collect(),
        }
    }

    /// What the nodes of each database had to do while somebody watched. Whoever asks watches, for [`crate::WATCHED_FOR`].
    pub fn watch_load(&self) -> BTreeMap<String, LoadStatus> {
        let state = self.state();
        let watch = |shared: &Shared| {
            let is_new = !shared.load.is_watched();
            let status = shared.load.watch();
            if is_new {
                shared.definitions_changed.notify_one();
            }
            status
        };
        state.databases.iter().map(|(name, running)| (name.clone(), watch(&running.shared))).collect()
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
        for running in state.databases.values() {
            let name = running.served.borrow().config.listener.clone();
            if let Some(listener) = &running.listener {
                fds.insert(name, listener.as_fd().try_clone_to_owned()?);
            }
        }
        Ok(fds)
    }

    /// Stops accepting and lets sessions end by themselves for as long as `grace`. Then those are ended that have nothing
    /// under way, the others when they have nothing more, and cut when that takes as long again, or [`LAST_GRACE`].
    /// Configurations are taken meanwhile: the sessions follow the primary.
    ///
    /// Cancel safe: called again, it goes on, with a grace of its own.
    pub async fn drain(&self, grace: Duration) -> Drained {
        self.stop.cancel();
        {
            let mut state = self.state();
            state.draining = true;
            for running in state.databases.values_mut() {
                running.listener = None;
            }
        }
        let drained = self.sessions_end(grace).await;
        // Until here sessions read on replicas, as long as those are watched.
        self.unwatch.cancel();
        self.watches.close();
        self.watches.wait().await;
        drained
    }

    async fn sessions_end(&self, grace: Duration) -> Drained {
        self.tasks.close();
        if timeout(grace, self.tasks.wait()).await.is_ok() {
            return Drained { cut: 0 };
        }
        self.ending.cancel();
        if timeout(grace.min(LAST_GRACE), self.tasks.wait()).await.is_ok() {
            return Drained { cut: 0 };
        }
        let cut = self.tasks.len();
        self.cut.cancel();
        self.tasks.wait().await;
        Drained { cut }
    }

    fn serve(
        &self,
        name: &str,
        served: Arc<Served>,
        listener: Arc<TcpListener>,
        pretender: Pretender,
        marks: Marks,
    ) -> Running {
        let pool = Pool::new(served.limits());
        pool.with_horizons(|horizons| horizons.hear(&served.config));
        pool.retarget(served.target(), served.limits());
        let (cancels, others) = join(name, &served.config).unzip();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            pool,
            counters: Counters::default(),
            load: Load::default(),
            cache: Mutex::default(),
            xid: Arc::new(Statement::new(XID)),
            deallocate: Arc::new(Statement::new(DEALLOCATE)),
            set_config: Arc::new(Statement::new(SET_CONFIG)),
            replayed: Arc::new(Statement::new(REPLAYED)),
            definitions_changed: Notify::new(),
            replicas: watch::Sender::new(Replicas::default()),
            positions: Positions::default(),
            freshness: marks.freshness,
            shares_marks: marks.are_shared,
            known: watch::Sender::new(Known::nothing()),
            paths: Arc::default(),
            clients: Clients::default(),
            cancels,
            pretender,
            ending: self.ending.clone(),
        });
        let (sender, receiver) = watch::channel(served.clone());
        let stop = self.stop.child_token();
        let acceptor = Acceptor {
            shared: shared.clone(),
            served: receiver,
            cut: self.cut.clone(),
            tasks: self.tasks.clone(),
            door: Arc::default(),
        };
        self.tasks.spawn(acceptor.run(listener.clone(), stop.clone()));
        let unwatch = self.unwatch.child_token();
        let running = Running { served: sender, shared, listener: Some(listener), stop, unwatch };
        running.watch(&self.watches, watch_primary(running.shared.clone(), running.served.subscribe()));
        running.watch(&self.watches, keep_catalog(running.shared.clone(), running.served.subscribe()));
        if let Some(others) = others {
            running.watch(&self.watches, hear_others(others, running.shared.clone()));
        }
        running.configure_replicas(&self.watches, &served);
        running
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is made whole before the lock is released, so a panic elsewhere left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn status(&self) -> DatabaseStatus {
        self.shared.status(&self.served.borrow().clone())
    }

    /// Runs what watches the database, until nobody uses it.
    fn watch(&self, watches: &TaskTracker, watch: impl Future<Output = ()> + Send + 'static) {
        let unwatch = self.unwatch.clone();
        watches.spawn(async move {
            unwatch.run_until_cancelled(watch).await;
        });
    }

    /// Follows a new configuration: read replicas that are gone are let go of, and those that are new watched.
    fn configure_replicas(&self, watches: &TaskTracker, served: &Arc<Served>) {
        let before = self.shared.replicas.borrow().clone();
        let now = configured(served, &before);
        let has = |replicas: &Replicas, replica: &Arc<Replica>| {
            replicas.iter().any(|there| Arc::ptr_eq(there, replica))
        };
        self.shared.replicas.send_replace(now.clone());
        // What a lone one has shown, or the primary where there was none, stands behind no position that was noted.
        if before.len() < 2 && now.iter().any(|replica| !has(&before, replica)) {
            self.shared.freshness.require_all();
        }
        for gone in before.iter().filter(|replica| !has(&now, replica)) {
            gone.gone.cancel();
            gone.lost();
            gone.pool.close();
        }
        for new in now.iter().filter(|replica| !has(&before, replica)) {
            let (replica, unwatch) = (new.clone(), self.unwatch.clone());
            let watch = watch_standby(self.shared.clone(), self.served.subscribe(), replica.clone());
            watches.spawn(async move {
                tokio::select! {
                    () = unwatch.cancelled() => {}
                    () = replica.gone.cancelled() => {}
                    () = watch => {}
                }
                // Nobody asks any more, so nobody shall wait for an answer.
                replica.lost();
            });
        }
    }
}

/// That some cancel requests would be lost must not keep the database from being served.
fn join(name: &str, database: &Database) -> Option<(Meeting, UnixListener)> {
    let folder = database.cancels.as_ref()?;
    let joined = Meeting::join(folder);
    joined
        .inspect_err(|cause| {
            let folder = folder.display();
            tracing::warn!(database = name, %cause, %folder, "cancel requests are not handed on: the folder cannot be used");
        })
        .ok()
}

/// Where a database has its marks, for as long as it is served.
struct Marks {
    freshness: Freshness,
    are_shared: bool,
}

impl Marks {
    /// A file that cannot be used must not keep the database from being served: then marks are the proxy's own.
    fn of(name: &str, database: &Database) -> Result<Marks, ConfigError> {
        if let Some(path) = &database.freshness {
            match Freshness::create(path) {
                Ok(freshness) => return Ok(Marks { freshness, are_shared: true }),
                Err(cause) => {
                    tracing::warn!(database = name, %cause, "marks are not shared: the file cannot be used");
                }
            }
        }
        let cannot = |cause: freshness::FreshnessError| ConfigError::Marks {
            database: name.to_owned(),
            cause: cause.to_string(),
        };
        Ok(Marks { freshness: Freshness::private().map_err(cannot)?, are_shared: false })
    }
}

/// Reads the files of a database, and compares it with what is in force.
fn prepare(name: &str, database: &Database, running: Option<&Running>) -> Result<Served, ConfigError> {
    let in_force = running.map(|running| running.served.borrow().clone());
    if let Some(in_force) = &in_force {
        if in_force.config.listener != database.listener {
            return Err(ConfigError::ListenerChanged { database: name.to_owned() });
        }
        if database.epoch < in_force.config.epoch {
            return Err(ConfigError::StaleEpoch {
                database: name.to_owned(),
                given: database.epoch,
                in_force: in_force.config.epoch,
            });
        }
    }
    let credentials = credentials(name, database, in_force.as_deref())?;
    let tls = database
        .tls
        .as_ref()
        .map(tls::acceptor)
        .transpose()
        .map_err(|cause| ConfigError::Certificate { database: name.to_owned(), cause })?;
    let admin = admin(name, database, &credentials, in_force.as_deref())?;
    let config = database.clone();
    let login = match in_force {
        Some(old) if Arc::ptr_eq(&old.credentials, &credentials) => old.login,
        old => old.map_or(0, |old| old.login + 1),
    };
    Ok(Served { config, credentials, admin, tls, login })
}

/// As [`credentials`].
fn admin(
    name: &str,
    database: &Database,
    credentials: &Credentials,
    in_force: Option<&Served>,
) -> Result<Option<Arc<AdminLogin>>, ConfigError> {
    let Some(path) = &database.admin else { return Ok(None) };
    let cannot = |cause| Err(ConfigError::Admin { database: name.to_owned(), cause });
    if credentials.database == admin::DATABASE {
        return cannot(format!("the app's own database is called `{}`", admin::DATABASE));
    }
    let known = in_force.and_then(|in_force| in_force.admin.as_ref());
    match (AdminLogin::load(path, known), in_force) {
        (Ok(login), _) => Ok(Some(login)),
        (Err(cause), Some(in_force)) if in_force.config.admin == database.admin => {
            tracing::warn!(
                database = name,
                cause,
                "the login for views cannot be read; the one in force stays"
            );
            Ok(in_force.admin.clone())
        }
        (Err(cause), _) => cannot(cause),
    }
}

/// A file that is gone for a moment must not stand in the way of a new primary: then what was read from it holds.
fn credentials(
    name: &str,
    database: &Database,
    in_force: Option<&Served>,
) -> Result<Arc<Credentials>, ConfigError> {
    let known = in_force.map(|in_force| &in_force.credentials);
    match (Credentials::load(&database.credentials, known), in_force) {
        (Ok(credentials), _) => Ok(credentials),
        (Err(cause), Some(in_force)) if in_force.config.credentials == database.credentials => {
            tracing::warn!(database = name, cause, "the credentials cannot be read; those in force stay");
            Ok(in_force.credentials.clone())
        }
        (Err(cause), _) => Err(ConfigError::Credentials { database: name.to_owned(), cause }),
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.cancel();
        self.unwatch.cancel();
        self.cut.cancel();
    }
}

fn listener(socket: StdListener) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// Accepts the clients of one database.
struct Acceptor {
    shared: Arc<Shared>,
    served: watch::Receiver<Arc<Served>>,
    cut: CancellationToken,
    tasks: TaskTracker,
    door: Arc<Door>,
}

impl Acceptor {
    async fn run(self, listener: Arc<TcpListener>, stop: CancellationToken) {
        let mut tidy = interval(TIDY_INTERVAL);
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
                _ = tidy.tick() => {
                    self.shared.pool.tidy();
                    continue;
                }
            };
            match accepted {
                Ok((client, _)) => self.accepted(client),
                Err(cause) => {
                    tracing::warn!(database = self.shared.name, %cause, "a client could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn accepted(&self, client: TcpStream) {
        let counters = &self.shared.counters;
        counters.connections.fetch_add(1, Relaxed);
        let (place, closed) = self.door.come(door::capacity(self.served.borrow().config.max_clients));
        counters.refused_full.fetch_add(closed as u64, Relaxed);
        let session = serve(client, self.shared.clone(), self.served.clone(), place);
        self.tasks.spawn(Lookout::of(self.cut.clone()).cut(session));
    }
}

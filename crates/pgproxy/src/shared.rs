//! What all sessions of one database share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use freshness::Freshness;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::cancel::Meeting;
use crate::config::{Database, Role};
use crate::credentials::{AdminLogin, Credentials};
use crate::judge::{Known, Paths};
use crate::load::Load;
use crate::pool::{Limits, Pool, Serves, Target};
use crate::prepared::{Cache, Statement};
use crate::replicas::{Positions, Replicas};
use crate::scram::{Pretender, is_equal};
use crate::server::CancelKey;
use crate::status::{Counters, DatabaseStatus, NodeStatus};

/// The configuration in force, with what was read from the files it names.
pub(crate) struct Served {
    pub config: Database,
    pub credentials: Arc<Credentials>,
    pub admin: Option<Arc<AdminLogin>>,
    pub tls: Option<TlsAcceptor>,
    /// Counts the credentials of a database.
    pub login: u64,
}

pub(crate) struct Shared {
    pub name: String,
    pub pool: Arc<Pool>,
    pub counters: Counters,
    pub load: Load,
    pub cache: Mutex<Cache>,
    /// What asks for the id of a transaction.
    pub xid: Arc<Statement>,
    /// What is run in place of a client's DEALLOCATE.
    pub deallocate: Arc<Statement>,
    /// What sets again what a client has reset.
    pub set_config: Arc<Statement>,
    /// What asks a replica how far it has replayed.
    pub replayed: Arc<Statement>,
    pub known: watch::Sender<Arc<Known>>,
    pub paths: Arc<Paths>,
    /// A client may have changed what names stand for, or somebody has begun to watch the load.
    pub definitions_changed: Notify,
    pub replicas: watch::Sender<Replicas>,
    pub positions: Positions,
    pub freshness: Freshness,
    /// With those who know which client comes back.
    pub shares_marks: bool,
    pub clients: Clients,
    /// Others that serve clients of this database, who may have the one that a cancel request is meant for.
    pub cancels: Option<Meeting>,
    pub pretender: Pretender,
    /// Sessions are to end, each when nothing of it is under way.
    pub ending: CancellationToken,
}

impl Served {
    /// Where the primary is, if there is one.
    pub fn target(&self) -> Option<Target> {
        let (node, at) = self.config.primary()?;
        Some(Target {
            node: node.to_owned(),
            serves: Serves::Everything,
            upstream: at.upstream.clone(),
            epoch: self.config.epoch,
            login: self.login,
        })
    }

    pub fn limits(&self) -> Limits {
        Limits {
            size: self.config.pool_size as usize,
            queue: self.config.max_queue as usize,
            idle_timeout: Duration::from_millis(self.config.idle_timeout_ms),
            server_lifetime: Duration::from_millis(self.config.server_lifetime_ms),
        }
    }
}

impl Shared {
    pub fn status(&self, served: &Served) -> DatabaseStatus {
        let primary = served.config.primary().map(|(name, _)| name.to_owned());
        let (census, epoch) = (self.pool.census(), served.config.epoch);
        let nodes = served.config.nodes.iter();
        let nodes = nodes.map(|(name, node)| (name.clone(), self.node_status(name, node.role, served)));
        let (user, pinned) = (&served.credentials.role, self.clients.pinned());
        DatabaseStatus {
            pool_size: u64::from(served.config.pool_size),
            ..self.counters.snapshot(user, census, pinned, primary, epoch, nodes.collect())
        }
    }

    fn node_status(&self, name: &str, role: Role, served: &Served) -> NodeStatus {
        let replicas = self.replicas.borrow().clone();
        match (role, replicas.iter().find(|replica| replica.target.node == name)) {
            (Role::ReadReplica, Some(replica)) => replica.status(self.freshness.now(), &served.config),
            (Role::Primary, _) => NodeStatus::of_primary(self.pool.census(), &self.counters.statements),
            (Role::Standby | Role::ReadReplica, _) => NodeStatus::unused(role),
        }
    }

    /// Of each connection that nobody uses.
    pub fn idle_keys(&self) -> Vec<Arc<CancelKey>> {
        let replicas = self.replicas.borrow().clone();
        let of_replicas = replicas.iter().flat_map(|replica| replica.pool.idle_keys());
        self.pool.idle_keys().into_iter().chain(of_replicas).collect()
    }
}

/// The clients that are logged in, by the key they were given to cancel with.
#[derive(Default)]
pub(crate) struct Clients {
    slots: Mutex<HashMap<u32, Arc<Slot>>>,
    next: AtomicU32,
}

/// What a client can cancel, and what there is to be seen of it.
pub(crate) struct Slot {
    pub id: u32,
    secret: [u8; 4],
    pub arrival: Arrival,
    /// It keeps its connection to PostgreSQL for what only that one has.
    pub is_pinned: AtomicBool,
    doing: Mutex<Doing>,
    /// A cancel request came while it waited.
    cancelled: Notify,
}

/// What became of a cancel request.
pub(crate) enum Cancelled {
    /// No client of ours has this key.
    Unknown,
    /// The client waited and does not any more, or there was nothing to cancel.
    Itself,
    /// It is to be passed on.
    Served { by: Arc<CancelKey> },
}

/// How a client came in.
pub(crate) struct Arrival {
    pub at: Instant,
    pub address: Option<SocketAddr>,
    pub is_encrypted: bool,
    pub application_name: Option<String>,
}

#[derive(Clone)]
pub(crate) enum Doing {
    Nothing,
    /// For a connection.
    Waiting {
        since: Instant,
    },
    Served {
        by: Arc<CancelKey>,
    },
}

/// A client's place, for as long as it is connected.
pub(crate) struct Registered {
    shared: Arc<Shared>,
    pub slot: Arc<Slot>,
}

impl Clients {
    /// # Errors
    /// When the system gives no random numbers.
    pub fn register(shared: &Arc<Shared>, arrival: Arrival) -> Result<Registered, getrandom::Error> {
        let mut secret = [0; 4];
        getrandom::fill(&mut secret)?;
        let clients = &shared.clients;
        let mut slots = clients.slots();
        let id = loop {
            let id = clients.next.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff;
            if id != 0 && !slots.contains_key(&id) {
                break id;
            }
        };
        let slot = Arc::new(Slot {
            id,
            secret,
            arrival,
            is_pinned: AtomicBool::new(false),
            doing: Mutex::new(Doing::Nothing),
            cancelled: Notify::new(),
        });
        slots.insert(id, slot.clone());
        drop(slots);
        Ok(Registered { shared: shared.clone(), slot })
    }

    /// Cancels what the holder of this key waits for now. `key`: as in BackendKeyData and CancelRequest.
    pub fn cancel(&self, key: &[u8]) -> Cancelled {
        let Some(slot) = self.holder(key) else { return Cancelled::Unknown };
        let doing = slot.lock();
        match &*doing {
            Doing::Nothing => {}
            Doing::Waiting { .. } => slot.cancelled.notify_waiters(),
            Doing::Served { by } => {
                // Counted while the lock keeps the connection from being given back.
                by.under_way.fetch_add(1, Ordering::AcqRel);
                by.was_asked.store(true, Ordering::Release);
                return Cancelled::Served { by: by.clone() };
            }
        }
        Cancelled::Itself
    }

    fn holder(&self, key: &[u8]) -> Option<Arc<Slot>> {
        let (id, secret) = key.split_first_chunk::<4>()?;
        let secret = secret.first_chunk::<4>()?;
        let slot = self.slots().get(&u32::from_be_bytes(*id))?.clone();
        is_equal(secret, &slot.secret).then_some(slot)
    }

    /// In the order in which they came, as long as numbers last.
    pub fn all(&self) -> Vec<Arc<Slot>> {
        let mut all: Vec<Arc<Slot>> = self.slots().values().cloned().collect();
        all.sort_unstable_by_key(|slot| slot.id);
        all
    }

    /// How many keep their connection for what only that one has.
    pub fn pinned(&self) -> u64 {
        self.slots().values().filter(|slot| slot.is_pinned.load(Ordering::Relaxed)).count() as u64
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<u32, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The body of BackendKeyData.
    pub fn key(&self) -> Vec<u8> {
        [self.id.to_be_bytes(), self.secret].concat()
    }

    pub fn serve_by(&self, key: Option<Arc<CancelKey>>) {
        *self.lock() = key.map_or(Doing::Nothing, |by| Doing::Served { by });
    }

    /// Resolves when this wait is cancelled.
    pub fn wait(&self) -> Notified<'_> {
        // Made first: it hears of everything from then on.
        let cancelled = self.cancelled.notified();
        *self.lock() = Doing::Waiting { since: Instant::now() };
        cancelled
    }

    pub fn doing(&self) -> Doing {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.clients.slots().remove(&self.slot.id);
    }
}

//! What all sessions of one database share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use freshness::Freshness;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::Database;
use crate::credentials::Credentials;
use crate::judge::{Known, Paths};
use crate::pool::{Limits, Pool, Serves, Target};
use crate::prepared::{Cache, Statement};
use crate::replicas::{Positions, Replicas};
use crate::scram::{Pretender, is_equal};
use crate::server::CancelKey;
use crate::status::Counters;

/// The configuration in force, with what was read from the files it names.
pub(crate) struct Served {
    pub config: Database,
    pub credentials: Arc<Credentials>,
    pub tls: Option<TlsAcceptor>,
    /// Counts the credentials of a database.
    pub login: u64,
}

pub(crate) struct Shared {
    pub name: String,
    pub pool: Arc<Pool>,
    pub counters: Counters,
    pub cache: Mutex<Cache>,
    /// What asks for the id of a transaction.
    pub xid: Arc<Statement>,
    pub known: watch::Sender<Arc<Known>>,
    pub paths: Arc<Paths>,
    /// A client may have changed what names stand for.
    pub definitions_changed: Notify,
    pub replicas: watch::Sender<Replicas>,
    pub positions: Positions,
    pub freshness: Freshness,
    /// With those who know which client comes back.
    pub shares_marks: bool,
    pub clients: Clients,
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

/// The clients that are logged in, by the key they were given to cancel with.
#[derive(Default)]
pub(crate) struct Clients {
    slots: Mutex<HashMap<u32, Arc<Slot>>>,
    next: AtomicU32,
}

/// What a client can cancel.
pub(crate) struct Slot {
    pub id: u32,
    secret: [u8; 4],
    serving: Mutex<Option<CancelKey>>,
}

/// A client's place, for as long as it is connected.
pub(crate) struct Registered {
    shared: Arc<Shared>,
    pub slot: Arc<Slot>,
}

impl Clients {
    /// # Errors
    /// When the system gives no random numbers.
    pub fn register(shared: &Arc<Shared>) -> Result<Registered, getrandom::Error> {
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
        let slot = Arc::new(Slot { id, secret, serving: Mutex::default() });
        slots.insert(id, slot.clone());
        drop(slots);
        Ok(Registered { shared: shared.clone(), slot })
    }

    /// What the holder of this key is served by now. `key`: as in BackendKeyData and CancelRequest.
    pub fn serving(&self, key: &[u8]) -> Option<CancelKey> {
        let (id, secret) = key.split_first_chunk::<4>()?;
        let secret = secret.first_chunk::<4>()?;
        let slot = self.slots().get(&u32::from_be_bytes(*id))?.clone();
        if !is_equal(secret, &slot.secret) {
            return None;
        }
        let serving = slot.serving();
        let key = serving.clone()?;
        // Counted while the lock keeps the connection from being given back.
        key.under_way.fetch_add(1, Ordering::AcqRel);
        Some(key)
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

    pub fn serve_by(&self, key: Option<CancelKey>) {
        *self.serving() = key;
    }

    fn serving(&self) -> MutexGuard<'_, Option<CancelKey>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.clients.slots().remove(&self.slot.id);
    }
}

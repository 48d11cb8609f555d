//! The upstream connections of one thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::balance::Endpoint;
use crate::h1::{Client, ClientStream};
use crate::h2::Multiplexed;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    endpoints: RefCell<HashMap<Key, Connections>>,
}

/// An endpoint's address in memory: the entry holds it, so the address is its own for as long as the entry lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key(usize);

impl Key {
    fn of(endpoint: &Arc<Endpoint>) -> Key {
        Key(Arc::as_ptr(endpoint) as usize)
    }
}

#[derive(Debug)]
struct Connections {
    endpoint: Arc<Endpoint>,
    /// The most recently used last: it is the least likely to have been closed.
    idle: Vec<Idle>,
    /// Every HTTP/1.1 connection, idle or not, so that they can be cut.
    open: Vec<Weak<ClientStream>>,
    multiplexed: Vec<Rc<Multiplexed>>,
    gate: Rc<Mutex<()>>,
}

#[derive(Debug)]
struct Idle {
    client: Client,
    since: Instant,
}

impl Pool {
    /// An idle connection that still seems to be open.
    pub(crate) fn take(&self, endpoint: &Arc<Endpoint>, idle_limit: Duration) -> Option<Client> {
        let mut endpoints = self.endpoints.borrow_mut();
        let connections = endpoints.get_mut(&Key::of(endpoint))?;
        let now = Instant::now();
        while let Some(Idle { client, since }) = connections.idle.pop() {
            if now.duration_since(since) < idle_limit && client.is_quiet() {
                return Some(client);
            }
        }
        None
    }

    /// Keeps a connection for the next request, unless enough are kept.
    pub(crate) fn give_back(&self, endpoint: &Arc<Endpoint>, client: Client, most: usize) {
        if endpoint.is_removed() {
            return;
        }
        self.with(endpoint, |connections| {
            if connections.idle.len() < most {
                connections.idle.push(Idle { client, since: Instant::now() });
            }
        });
    }

    /// Remembers a new connection for [`Pool::cut`].
    pub(crate) fn opened(&self, endpoint: &Arc<Endpoint>, stream: &Rc<ClientStream>) {
        self.with(endpoint, |connections| {
            if connections.open.len() == connections.open.capacity() {
                connections.open.retain(|stream| stream.strong_count() > 0);
            }
            connections.open.push(Rc::downgrade(stream));
        });
    }

    /// Of those that `suits` takes, the connection with the fewest streams that takes another one.
    pub(crate) fn multiplexed(
        &self,
        endpoint: &Arc<Endpoint>,
        suits: impl Fn(&Multiplexed) -> bool,
    ) -> Option<Rc<Multiplexed>> {
        self.with(endpoint, |connections| {
            // One that takes no more stays for as long as it has streams, so that they can be cut.
            connections.multiplexed.retain(|connection| connection.streams() > 0 || connection.is_usable());
            let open = connections
                .multiplexed
                .iter()
                .filter(|connection| suits(connection) && connection.is_usable() && connection.has_room());
            open.min_by_key(|connection| connection.streams()).cloned()
        })
    }

    /// Held while a multiplexed connection is being opened, so that a burst of requests opens one and not a hundred.
    pub(crate) fn gate(&self, endpoint: &Arc<Endpoint>) -> Rc<Mutex<()>> {
        self.with(endpoint, |connections| Rc::clone(&connections.gate))
    }

    /// Shares a new multiplexed connection.
    pub(crate) fn share(&self, endpoint: &Arc<Endpoint>, connection: Rc<Multiplexed>) {
        self.with(endpoint, |connections| connections.multiplexed.push(connection));
    }

    /// Drops idle connections that are too old, have ended, or lead to an endpoint that left the configuration.
    pub(super) fn sweep(&self, idle_limit: Duration) {
        let now = Instant::now();
        self.endpoints.borrow_mut().retain(|_, connections| {
            let removed = connections.endpoint.is_removed();
            connections.idle.retain(|idle| {
                !removed && now.duration_since(idle.since) < idle_limit && idle.client.is_quiet()
            });
            connections.open.retain(|stream| stream.strong_count() > 0);
            connections
                .multiplexed
                .retain(|connection| connection.streams() > 0 || (connection.is_usable() && !removed));
            !(removed && connections.open.is_empty() && connections.multiplexed.is_empty())
        });
    }

    /// Ends every connection to the endpoint, whatever is in flight on it.
    pub(super) fn cut(&self, id: &str) {
        for connections in self.endpoints.borrow_mut().values_mut() {
            if connections.endpoint.id() != id {
                continue;
            }
            connections.idle.clear();
            for stream in connections.open.drain(..).filter_map(|stream| stream.upgrade()) {
                stream.cut();
            }
            for connection in connections.multiplexed.drain(..) {
                connection.cut();
            }
        }
    }

    fn with<R>(&self, endpoint: &Arc<Endpoint>, change: impl FnOnce(&mut Connections) -> R) -> R {
        let mut endpoints = self.endpoints.borrow_mut();
        change(endpoints.entry(Key::of(endpoint)).or_insert_with(|| Connections {
            endpoint: Arc::clone(endpoint),
            idle: Vec::new(),
            open: Vec::new(),
            multiplexed: Vec::new(),
            gate: Rc::default(),
        }))
    }
}

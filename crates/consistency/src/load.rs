//! The clients: each does one thing after the other, over two connections in turn, and writes down what it was told.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use freshness::Freshness;
use tokio::task::JoinSet;
use tokio_postgres::Config;

use crate::bank::Banking;
use crate::client::PROTOCOLS;
use crate::history::{Operation, Outcome};
use crate::lists::{Lists, Transaction};
use crate::session::{Ended, Session};

const LIST_CLIENTS: u32 = 6;
const BANK_CLIENTS: u32 = 2;
/// Of one client: a client that gets there stops, so that a history always fits into memory.
const MOST_OPERATIONS: usize = 100_000;
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(20);

/// What all clients were told.
#[derive(Debug, Default)]
pub struct Heard {
    pub lists: Vec<Operation<Transaction>>,
    pub bank: Vec<Operation<Banking>>,
    /// What clients were told that could not connect.
    pub not_connected: Vec<(Duration, String)>,
}

/// What the clients share.
#[derive(Clone)]
struct Shared {
    config: Config,
    marks: Option<Arc<Freshness>>,
    lists: Arc<Mutex<Lists>>,
    transfers: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    began: Instant,
}

pub struct Load {
    shared: Shared,
    clients: JoinSet<Heard>,
}

impl Load {
    /// Must be called within a runtime.
    pub fn start(config: &Config, marks: Option<Arc<Freshness>>, rng: &mut Rng, began: Instant) -> Load {
        let shared = Shared {
            config: config.clone(),
            marks,
            lists: Arc::default(),
            transfers: Arc::new(AtomicU32::new(1)),
            stop: Arc::default(),
            began,
        };
        let mut clients = JoinSet::new();
        for client in 0..LIST_CLIENTS {
            clients.spawn(list_client(shared.clone(), client, rng.fork()));
        }
        for client in 0..BANK_CLIENTS {
            clients.spawn(bank_client(shared.clone(), client, rng.fork()));
        }
        Load { shared, clients }
    }

    /// Everybody finishes what it does.
    pub async fn stop(mut self) -> Heard {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Heard::default();
        while let Some(heard) = self.clients.join_next().await {
            let heard = heard.expect("a client does not panic");
            all.lists.extend(heard.lists);
            all.bank.extend(heard.bank);
            all.not_connected.extend(heard.not_connected);
        }
        all.lists.sort_by_key(|op| op.invoked);
        all.bank.sort_by_key(|op| op.invoked);
        all
    }
}

/// A client's two connections, and its name in the history.
struct Client {
    shared: Shared,
    sessions: [Option<Session>; 2],
    client: u32,
    process: u32,
    /// A new name must be nobody else's.
    clients: u32,
    not_connected: Vec<(Duration, String)>,
    done: usize,
}

impl Client {
    fn new(shared: Shared, client: u32, clients: u32) -> Client {
        let (sessions, not_connected) = ([None, None], Vec::new());
        Client { shared, sessions, client, process: client, clients, not_connected, done: 0 }
    }

    fn goes_on(&self) -> bool {
        self.done < MOST_OPERATIONS && !self.shared.stop.load(Ordering::Relaxed)
    }

    /// One of the two connections. `None`: there is none to be had before the end.
    async fn session(&mut self, which: usize) -> Option<&mut Session> {
        while self.sessions[which].is_none() {
            match Session::open(&self.shared.config, self.shared.marks.clone()).await {
                Ok(session) => self.sessions[which] = Some(session),
                Err(error) => {
                    self.not_connected.push((self.shared.began.elapsed(), error));
                    if !self.goes_on() {
                        return None;
                    }
                    tokio::time::sleep(RECONNECT).await;
                }
            }
        }
        self.sessions[which].as_mut()
    }

    /// Writes an operation down that has ended.
    fn heard<A>(&mut self, which: usize, act: A, invoked: Duration, ended: Ended) -> Operation<A> {
        let completed = self.shared.began.elapsed();
        let Ended { outcome, error, connected } = ended;
        let operation =
            Operation { client: self.client, process: self.process, invoked, completed, outcome, error, act };
        if !connected {
            self.sessions[which] = None;
        }
        if outcome == Outcome::Info {
            self.process += self.clients;
        }
        self.done += 1;
        operation
    }
}

async fn list_client(shared: Shared, client: u32, mut rng: Rng) -> Heard {
    let mut client = Client::new(shared, client, LIST_CLIENTS);
    let mut history = Vec::new();
    while client.goes_on() {
        let (which, protocol) = (rng.usize(..2), PROTOCOLS[rng.usize(..PROTOCOLS.len())]);
        let mut transaction =
            client.shared.lists.lock().unwrap_or_else(PoisonError::into_inner).transaction(&mut rng);
        let began = client.shared.began;
        let Some(session) = client.session(which).await else { break };
        let invoked = began.elapsed();
        let ended = session.transact(protocol, &mut transaction).await;
        history.push(client.heard(which, transaction, invoked, ended));
    }
    Heard { lists: history, bank: Vec::new(), not_connected: client.not_connected }
}

async fn bank_client(shared: Shared, client: u32, mut rng: Rng) -> Heard {
    let mut client = Client::new(shared, client, BANK_CLIENTS);
    let mut history = Vec::new();
    while client.goes_on() {
        let (which, protocol) = (rng.usize(..2), PROTOCOLS[rng.usize(..PROTOCOLS.len())]);
        let in_block = rng.bool();
        let mut banking = Banking::any(client.shared.transfers.fetch_add(1, Ordering::Relaxed), &mut rng);
        let began = client.shared.began;
        let Some(session) = client.session(which).await else { break };
        let invoked = began.elapsed();
        let ended = session.bank(protocol, in_block, &mut banking).await;
        history.push(client.heard(which, banking, invoked, ended));
    }
    Heard { lists: Vec::new(), bank: history, not_connected: client.not_connected }
}

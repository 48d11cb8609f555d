//! The connections to one node: who has one, who waits for one, and the fence.
//!
//! A database has one pool for its primary, because one role enters it, and one for each read replica. When the primary
//! moves, every connection of the epoch before is shut down under whoever uses it, before anybody gets one to the new
//! primary.

use std::collections::{HashMap, VecDeque};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::config::Upstream;
use crate::horizon::Horizons;
use crate::server::{CancelKey, Parameters, Server};
use crate::settings::Settings;

/// Sets of parameters, and of settings, that are remembered.
const MAX_KNOWN: usize = 16;

/// Where connections go: the primary, for as long as it is that, or a read replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub node: String,
    pub serves: Serves,
    pub upstream: Upstream,
    /// Of the primary. A read replica stays what it is when that changes.
    pub epoch: u64,
    /// Counts the logins that were configured: a connection of another is not used either.
    pub login: u64,
}

/// What a node must be for its connections to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serves {
    /// The primary.
    Everything,
    /// A hot standby.
    Reads,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub size: usize,
    pub queue: usize,
    pub idle_timeout: Duration,
    pub server_lifetime: Duration,
}

pub(crate) struct Pool(Mutex<State>);

struct State {
    limits: Limits,
    target: Option<Arc<Target>>,
    /// The one before, or the same: its connections may be used while nobody is primary.
    last: Option<Arc<Target>>,
    open: usize,
    #[expect(clippy::vec_box, reason = "they come and go with every transaction, and are large to be moved")]
    idle: Vec<Box<Server>>,
    queue: VecDeque<oneshot::Sender<Turn>>,
    fences: HashMap<u64, OwnedFd>,
    next_fence: u64,
    horizons: Horizons,
    /// As connections have told them, the newest first: equal ones are one, so that they compare quickly.
    parameters: VecDeque<Arc<Parameters>>,
    /// As the connection told them that was made last: no session has changed them.
    defaults: Option<Arc<Parameters>>,
    /// Of sessions, for the same reason.
    settings: VecDeque<Settings>,
}

/// What comes to the head of the queue.
pub(crate) enum Turn {
    Server(Box<Server>),
    Connect(Permit),
}

/// What there is for somebody who needs a connection.
pub(crate) enum Offer {
    Now(Turn),
    Wait(oneshot::Receiver<Turn>),
    NoPrimary,
    QueueFull { length: usize },
}

/// The right to have one connection, given back when dropped.
pub(crate) struct Permit {
    pool: Arc<Pool>,
    target: Arc<Target>,
    fence: Option<u64>,
}

/// For status and metrics.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Census {
    pub open: usize,
    pub idle: usize,
}

impl Pool {
    pub fn new(limits: Limits) -> Arc<Pool> {
        Arc::new(Pool(Mutex::new(State {
            limits,
            target: None,
            last: None,
            open: 0,
            idle: Vec::new(),
            queue: VecDeque::new(),
            fences: HashMap::new(),
            next_fence: 0,
            horizons: Horizons::default(),
            parameters: VecDeque::new(),
            defaults: None,
            settings: VecDeque::new(),
        })))
    }

    /// From now on connections go to `target`, and to nobody while it is `None`. Connections to any other are shut down
    /// before this returns; without a target those in use may finish what they do.
    pub fn retarget(self: &Arc<Self>, target: Option<Target>, limits: Limits) {
        let mut state = self.state();
        state.limits = limits;
        let is_same = target.is_some() && state.last.as_deref() == target.as_ref();
        let stale = match target {
            Some(_) if is_same => {
                state.target = state.last.clone();
                Vec::new()
            }
            Some(target) => {
                state.fences.values().for_each(shut_down);
                let target = Arc::new(target);
                state.target = Some(target.clone());
                state.last = Some(target);
                std::mem::take(&mut state.idle)
            }
            None => {
                state.target = None;
                std::mem::take(&mut state.idle)
            }
        };
        drop(state);
        // Each gives its permit back, for which it needs the lock.
        drop(stale);
        self.wake();
    }

    /// Shuts every connection down, under whoever uses it. New ones may be made.
    pub fn sever(&self) {
        let mut state = self.state();
        state.fences.values().for_each(shut_down);
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        drop(idle);
    }

    /// From now on there is nothing to connect to, and nobody waits for it.
    pub fn close(&self) {
        let mut state = self.state();
        (state.target, state.last) = (None, None);
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        drop(queue);
        self.sever();
    }

    /// Whether connections go there at this moment.
    pub fn leads_to(&self, target: &Target) -> bool {
        self.state().target.as_deref() == Some(target)
    }

    /// An idle connection that has the `wanted` settings already: of those, the one that was used last.
    pub fn take(&self, wanted: &Settings) -> Option<Box<Server>> {
        let mut state = self.state();
        let place = state.idle.iter().rposition(|server| server.settings == *wanted)?;
        let server = state.idle.remove(place);
        drop(state);
        server.is_quiet().then_some(server)
    }

    /// An idle connection, the right to open one, or a place in the queue. Connections that have the `wanted` settings
    /// already are preferred, then the one that was used last: its process is warmest.
    pub fn offer(self: &Arc<Self>, wanted: &Settings) -> Offer {
        let mut dead = Vec::new();
        let mut state = self.state();
        let Some(target) = state.target.clone() else { return Offer::NoPrimary };
        while !state.idle.is_empty() {
            let fitting = state.idle.iter().rposition(|server| server.settings == *wanted);
            let place = fitting.unwrap_or(state.idle.len() - 1);
            let server = state.idle.remove(place);
            if server.is_quiet() {
                drop(state);
                return Offer::Now(Turn::Server(server));
            }
            dead.push(server);
        }
        let offer = if state.open - dead.len() < state.limits.size {
            state.open += 1;
            Offer::Now(Turn::Connect(self.permit(target)))
        } else if state.queue.len() >= state.limits.queue {
            Offer::QueueFull { length: state.queue.len() }
        } else {
            let (sender, receiver) = oneshot::channel();
            state.queue.push_back(sender);
            Offer::Wait(receiver)
        };
        drop(state);
        drop(dead);
        offer
    }

    /// Takes a connection back that has nothing of a client left in it, and gives it to whoever waits longest.
    pub fn put(&self, mut server: Box<Server>) {
        server.wire.shrink();
        let now = Instant::now();
        server.last_used = now;
        let mut state = self.state();
        let usable = state.target.as_ref() == Some(server.permit.target())
            && now.duration_since(server.key.opened) < state.limits.server_lifetime
            && state.open <= state.limits.size
            && server.key.under_way.load(std::sync::atomic::Ordering::Acquire) == 0
            && !server.may_say_more
            && server.wire.input.is_empty();
        if !usable {
            drop(state);
            return;
        }
        let mut turn = Turn::Server(server);
        while let Some(waiting) = state.queue.pop_front() {
            match waiting.send(turn) {
                Ok(()) => return,
                Err(back) => turn = back,
            }
        }
        if let Turn::Server(server) = turn {
            state.idle.push(server);
        }
    }

    /// A connection has told its parameters.
    pub fn told(&self, server: &mut Server) {
        unify(&mut self.state().parameters, &mut server.parameters);
    }

    /// A connection was made, and has told its parameters.
    pub fn begun(&self, server: &mut Server) {
        let mut state = self.state();
        unify(&mut state.parameters, &mut server.parameters);
        state.defaults = Some(server.parameters.clone());
    }

    /// A session has these settings.
    pub fn has_set(&self, settings: &mut Settings) {
        unify(&mut self.state().settings, settings);
    }

    /// Of a connection on which nothing was set, for clients that begin.
    pub fn defaults(&self) -> Option<Arc<Parameters>> {
        self.state().defaults.clone()
    }

    pub fn with_horizons<T>(&self, look: impl FnOnce(&mut Horizons) -> T) -> T {
        look(&mut self.state().horizons)
    }

    /// Closes what is too old, unused for too long, or dead.
    pub fn tidy(&self) {
        let mut state = self.state();
        let limits = state.limits;
        let closed: Vec<_> = state
            .idle
            .extract_if(.., |server| {
                server.key.opened.elapsed() >= limits.server_lifetime
                    || server.last_used.elapsed() >= limits.idle_timeout
                    || !server.is_quiet()
            })
            .collect();
        drop(state);
        drop(closed);
    }

    /// Of each connection that nobody uses.
    pub fn idle_keys(&self) -> Vec<Arc<CancelKey>> {
        self.state().idle.iter().map(|server| server.key.clone()).collect()
    }

    pub fn census(&self) -> Census {
        let state = self.state();
        Census { open: state.open, idle: state.idle.len() }
    }

    fn permit(self: &Arc<Self>, target: Arc<Target>) -> Permit {
        Permit { pool: self.clone(), target, fence: None }
    }

    /// Lets those at the head of the queue connect, as far as there is room.
    fn wake(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            let Some(target) = state.target.clone() else { return };
            if state.open >= state.limits.size {
                return;
            }
            let Some(waiting) = state.queue.pop_front() else { return };
            if waiting.is_closed() {
                continue;
            }
            state.open += 1;
            drop(state);
            // One that has left this moment gives its permit back by dropping it.
            drop(waiting.send(Turn::Connect(self.permit(target))));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The connection that this permit was used for.
    pub fn fence_with(&mut self, fence: OwnedFd) {
        let mut state = self.pool.state();
        if state.last.as_ref() != Some(&self.target) {
            shut_down(&fence);
        }
        state.next_fence += 1;
        let number = state.next_fence;
        state.fences.insert(number, fence);
        self.fence = Some(number);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.open -= 1;
        let fence = self.fence.take().and_then(|number| state.fences.remove(&number));
        drop(state);
        drop(fence);
        self.pool.wake();
    }
}

/// Puts a known one in the place of one that is equal to it.
fn unify<T: Clone + PartialEq>(known: &mut VecDeque<T>, one: &mut T) {
    if let Some(equal) = known.iter().find(|known| *known == one) {
        *one = equal.clone();
        return;
    }
    known.truncate(MAX_KNOWN - 1);
    known.push_front(one.clone());
}

fn shut_down(fence: &OwnedFd) {
    // One that is closed already is what we want.
    let _ = socket2::SockRef::from(fence).shutdown(Shutdown::Both);
}

//! What the proxy says of itself: the counters, and a snapshot of them for supervisors and people.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::Role;
use crate::pool::Census;
use crate::statement::Kind;
use serde::{Deserialize, Serialize};

/// Each figure is exact at some instant during the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the configuration in force.
    pub generation: u64,
    /// Accepts nothing new; open sessions may finish.
    pub draining: bool,
    pub databases: BTreeMap<String, DatabaseStatus>,
}

/// Totals only grow for the life of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseStatus {
    /// The role that clients log in as.
    #[serde(default)]
    pub user: String,
    /// Sessions open or waiting.
    pub clients: u64,
    /// Of those, how many wait for a connection.
    pub waiting: u64,
    /// From clients that came in, logins included, as they were before encryption. Startup packets are not counted.
    pub received_bytes_total: u64,
    /// To clients that came in, as they were before encryption.
    pub sent_bytes_total: u64,
    /// Client connections accepted, cancel requests included.
    pub connections_total: u64,
    pub cancel_requests_total: u64,
    /// Clients that were served when their connection was lost, and wait for the next.
    pub held: u64,
    /// Connections to the primary that there may be.
    #[serde(default)]
    pub pool_size: u64,
    /// Connections to PostgreSQL, those being made included.
    pub servers: u64,
    /// Of those, how many nobody uses.
    pub servers_idle: u64,
    /// Requests answered to their end.
    pub requests_total: u64,
    /// Of those, how many the primary answered.
    #[serde(default)]
    pub primary_requests_total: u64,
    /// Statements sent, by what they may do.
    pub statements_total: BTreeMap<String, u64>,
    /// Requests and transactions run again after their connection was lost.
    pub replays_total: u64,
    /// Commits whose answer was lost and whose fate was found to be good.
    pub settled_commits_total: u64,
    /// Errors 08007: whether a statement was done could not be found out.
    pub unknown_outcomes_total: u64,
    /// Clients with state that only their connection to PostgreSQL has: they are disconnected when that is lost.
    #[serde(default)]
    pub pinned: u64,
    /// Those to whom it happened: errors 57P01.
    #[serde(default)]
    pub pinned_lost_total: u64,
    /// Refused with 28P01.
    pub refused_login_total: u64,
    /// Requests refused with 53300 because the pool was busy for too long, or too many waited.
    pub refused_queue_total: u64,
    /// The node that is the primary, if there is one.
    pub primary: Option<String>,
    pub epoch: u64,
    /// By name.
    #[serde(default)]
    pub nodes: BTreeMap<String, NodeStatus>,
    /// Reads that waited for a read replica to have what they must see.
    #[serde(default)]
    pub reads_waited_total: u64,
    /// Reads that went to the primary because no read replica had this in time, or could be expected to.
    #[serde(default)]
    pub reads_too_late_total: u64,
    /// Refused with 53300 because `max_clients` was reached, or closed before it had logged in, or cancelled anything,
    /// because too many others were about to.
    pub refused_full_total: u64,
    /// Refused with 57P03 after waiting for the database.
    pub refused_unavailable_total: u64,
    /// Closed because what they sent is no beginning of a PostgreSQL session.
    pub refused_protocol_total: u64,
}

/// One node, as the proxy sees it. Totals begin anew when it changes its role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub role: Role,
    pub state: NodeState,
    /// Connections to it, those being made included.
    pub servers: u64,
    /// Of those, how many nobody uses.
    pub servers_idle: u64,
    /// Statements sent there, by what they may do.
    pub statements_total: BTreeMap<String, u64>,
    /// Requests that it could not answer as a replica, and the primary did.
    pub repaired_total: u64,
    /// How long ago the time is as of which a read replica is known to have everything.
    pub fresh_age_ms: Option<u64>,
    /// What it had not replayed when it was last asked.
    pub lag_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    Serving,
    /// A read replica that lacks more than it may.
    Lagging,
    Unreachable,
    /// A standby: it serves nobody.
    Waiting,
}

impl NodeStatus {
    pub(crate) fn of_primary(census: Census, statements: &Statements) -> NodeStatus {
        NodeStatus {
            state: NodeState::Serving,
            servers: census.open as u64,
            servers_idle: census.idle as u64,
            statements_total: by_kind(statements),
            ..NodeStatus::unused(Role::Primary)
        }
    }

    /// Of a node to which there are no connections.
    pub(crate) fn unused(role: Role) -> NodeStatus {
        NodeStatus {
            role,
            state: NodeState::Waiting,
            servers: 0,
            servers_idle: 0,
            statements_total: BTreeMap::new(),
            repaired_total: 0,
            fresh_age_ms: None,
            lag_bytes: None,
        }
    }
}

impl NodeState {
    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            NodeState::Serving => "serving",
            NodeState::Lagging => "lagging",
            NodeState::Unreachable => "unreachable",
            NodeState::Waiting => "waiting",
        }
    }
}

/// Counts statements by [`Kind`].
pub(crate) type Statements = [AtomicU64; Kind::ALL.len()];

pub(crate) fn by_kind(statements: &Statements) -> BTreeMap<String, u64> {
    Kind::ALL.map(|kind| (kind.name().to_owned(), statements[kind as usize].load(Relaxed))).into()
}

/// The live side of [`DatabaseStatus`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub clients: AtomicU64,
    pub waiting: AtomicU64,
    /// Sessions that look at the proxy itself.
    pub admins: AtomicU64,
    /// Cancel requests that are worked on.
    pub cancelling: AtomicU64,
    pub received_bytes: AtomicU64,
    pub sent_bytes: AtomicU64,
    pub connections: AtomicU64,
    pub cancel_requests: AtomicU64,
    pub held: AtomicU64,
    pub requests: AtomicU64,
    pub primary_requests: AtomicU64,
    /// Of the primary.
    pub statements: Statements,
    pub replays: AtomicU64,
    pub settled_commits: AtomicU64,
    pub unknown_outcomes: AtomicU64,
    pub pinned_lost: AtomicU64,
    pub refused_login: AtomicU64,
    pub refused_queue: AtomicU64,
    pub refused_full: AtomicU64,
    pub refused_unavailable: AtomicU64,
    pub refused_protocol: AtomicU64,
    pub reads_waited: AtomicU64,
    pub reads_too_late: AtomicU64,
}

impl Counters {
    pub fn snapshot(
        &self,
        user: &str,
        census: Census,
        pinned: u64,
        primary: Option<String>,
        epoch: u64,
        nodes: BTreeMap<String, NodeStatus>,
    ) -> DatabaseStatus {
        let mut statements = by_kind(&self.statements);
        for node in nodes.values().filter(|node| node.role == Role::ReadReplica) {
            for (kind, sent) in &node.statements_total {
                *statements.entry(kind.clone()).or_default() += sent;
            }
        }
        DatabaseStatus {
            user: user.to_owned(),
            primary_requests_total: self.primary_requests.load(Relaxed),
            held: self.held.load(Relaxed),
            pool_size: 0,
            servers: census.open as u64,
            servers_idle: census.idle as u64,
            requests_total: self.requests.load(Relaxed),
            statements_total: statements,
            replays_total: self.replays.load(Relaxed),
            settled_commits_total: self.settled_commits.load(Relaxed),
            unknown_outcomes_total: self.unknown_outcomes.load(Relaxed),
            pinned,
            pinned_lost_total: self.pinned_lost.load(Relaxed),
            refused_login_total: self.refused_login.load(Relaxed),
            refused_queue_total: self.refused_queue.load(Relaxed),
            primary,
            epoch,
            nodes,
            reads_waited_total: self.reads_waited.load(Relaxed),
            reads_too_late_total: self.reads_too_late.load(Relaxed),
            clients: self.clients.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            received_bytes_total: self.received_bytes.load(Relaxed),
            sent_bytes_total: self.sent_bytes.load(Relaxed),
            connections_total: self.connections.load(Relaxed),
            cancel_requests_total: self.cancel_requests.load(Relaxed),
            refused_full_total: self.refused_full.load(Relaxed),
            refused_unavailable_total: self.refused_unavailable.load(Relaxed),
            refused_protocol_total: self.refused_protocol.load(Relaxed),
        }
    }
}

/// Counts one while it lives.
pub(crate) struct Gauge<'a>(&'a AtomicU64);

impl<'a> Gauge<'a> {
    pub fn enter(gauge: &'a AtomicU64) -> Gauge<'a> {
        gauge.fetch_add(1, Relaxed);
        Gauge(gauge)
    }

    /// `None` when `limit` are already inside.
    pub fn enter_below(gauge: &'a AtomicU64, limit: u64) -> Option<Gauge<'a>> {
        gauge
            .fetch_update(Relaxed, Relaxed, |inside| (inside < limit).then_some(inside + 1))
            .ok()
            .map(|_| Gauge(gauge))
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

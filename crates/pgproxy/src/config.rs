//! What the proxy is told: which databases there are, of which nodes each consists, and how clients are served.
//!
//! A configuration replaces the one before as a whole, while clients are connected. What a session needs to know of a
//! change is small: whether its database has a primary, where, and of which epoch. A higher epoch is the fence: no
//! connection of an older one is used again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything the proxy needs to serve. Immutable once given.
///
/// Keys that it does not know are passed over: a proxy that was replaced is told of changes by a supervisor that may be
/// newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Counts configurations; one with a lower generation than the one in force is refused.
    pub generation: u64,
    /// By name. The name stands in status, metrics and messages to clients.
    pub databases: BTreeMap<String, Database>,
}

/// One database cluster and its stable address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// The socket that clients connect to, by the name under which the caller hands it over. Two databases cannot
    /// share one, and it cannot change while the database exists.
    pub listener: String,
    /// Grows with every change of primary, and never shrinks. Raising it closes every connection of an older epoch.
    pub epoch: u64,
    /// By the epoch that it began. See [`Promotion`]. An epoch may be missing: then what became of a commit that it has lost
    /// the answer of is told by the proxy's own connections, where they can.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub promotions: BTreeMap<u64, Promotion>,
    /// By name. At most one is the primary; without one, whoever needs it waits for [`Database::hold_ms`].
    pub nodes: BTreeMap<String, Node>,
    /// A JSON file `{"app": {"role", "password"}, "database", ...}`: the one login that may enter, and the database it
    /// enters. Read anew with each configuration.
    pub credentials: PathBuf,
    /// The file of marks (see the crate `freshness`) that is shared with those who know which client comes back: every
    /// acknowledgement of a write is marked there, and reads on replicas are as fresh as is required there. Unset: marks
    /// are this proxy's own, and a session is all that is known of a client. Read when the database is first served.
    #[serde(default)]
    pub freshness: Option<PathBuf>,
    /// A folder in which the processes that serve this database meet, each with a Unix socket of its own: a cancel request
    /// for a client of another one is handed on there. Made where it is missing, and closed to others. Unset: such a
    /// request is lost. Read when the database is first served.
    #[serde(default)]
    pub cancels: Option<PathBuf>,
    /// A JSON file `{"role", "password"}`: the one login that may look at the proxy itself, in the database `switchback`.
    /// Read anew with each configuration. Unset: there is no such database.
    #[serde(default)]
    pub admin: Option<PathBuf>,
    /// TLS for clients that ask for it. Unset: such a request is declined, and the client decides whether to go on.
    #[serde(default)]
    pub tls: Option<Tls>,
    #[serde(default)]
    pub pool_mode: PoolMode,
    /// Connections to one node at once. Above it clients queue.
    #[serde(default = "defaults::pool_size")]
    pub pool_size: u32,
    /// Sessions open or waiting at once, from the proof of the password on. Above it a client gets SQLSTATE 53300. Cancel
    /// requests do not count. As many logins and 128 more may be under way; above that the one that began first is closed.
    #[serde(default = "defaults::max_clients")]
    pub max_clients: u32,
    /// How long a client may queue for a connection while all of them are in use. Then its request fails with 53300.
    #[serde(default = "defaults::queue_wait_ms")]
    pub queue_wait_ms: u64,
    /// Clients that may queue at once. Above it a request fails with 53300 at once.
    #[serde(default = "defaults::max_queue")]
    pub max_queue: u32,
    /// How long what has not started is held while there is no primary or it cannot be reached. Then 57P03.
    #[serde(default = "defaults::hold_ms")]
    pub hold_ms: u64,
    /// A connection that nobody used for so long is closed.
    #[serde(default = "defaults::idle_timeout_ms")]
    pub idle_timeout_ms: u64,
    /// A connection older than this is closed when it is next free: it may have grown large.
    #[serde(default = "defaults::server_lifetime_ms")]
    pub server_lifetime_ms: u64,
    /// Another proxy serves the same database. Then a primary may have given the id of a transaction that was lost to one of
    /// the other's, so a commit whose answer was lost is 08007 wherever [`Database::promotions`] does not tell its fate.
    #[serde(default)]
    pub is_shared: bool,
    /// Where the proxy runs. Read replicas in the same zone are preferred, unless they have more than twice as much to do.
    #[serde(default)]
    pub zone: Option<String>,
    /// A read replica that lacks what was written so long ago serves nobody until it has it.
    #[serde(default = "defaults::max_replica_lag_ms")]
    pub max_replica_lag_ms: u64,
    /// Nor does one that has more than this to replay. Unset: no such bound.
    #[serde(default)]
    pub max_replica_lag_bytes: Option<u64>,
    /// How long a read that must see an earlier write waits for a read replica that has it. Then the primary serves it.
    #[serde(default = "defaults::read_wait_ms")]
    pub read_wait_ms: u64,
}

/// A standby that became the primary, and since when its transaction ids are its own.
///
/// Only for a caller who begins an epoch also when a primary that has crashed comes back in its place, and names no
/// promotion for that one: a primary is taken to have given each id once in its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// Of the log, as the node names it from then on. It tells who the node is, whatever a proxy has heard by then.
    pub timeline: u32,
    /// Above the id of every transaction whose end the node had replayed, and at or below every id that it gives itself.
    pub first_xid: u64,
}

/// One PostgreSQL of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub upstream: Upstream,
    #[serde(default)]
    pub zone: Option<String>,
    pub role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Primary,
    /// Takes over when the primary is lost. Serves nobody through the proxy.
    Standby,
    /// Serves reads outside of transactions, and transactions that say that they only read.
    ReadReplica,
}

/// When a client lets go of its connection to PostgreSQL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolMode {
    /// At the end of each transaction, unless the session has state that only this connection knows.
    #[default]
    Transaction,
    /// At the end of the session.
    Session,
}

/// Where PostgreSQL listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// The socket file itself, such as `/run/x/.s.PGSQL.5432`.
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// PEM files of the certificate that clients see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    pub certificate_chain: PathBuf,
    pub private_key: PathBuf,
}

/// Why a configuration was refused. The one in force stays.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("generation {given} is older than generation {in_force}, which is in force")]
    Stale { given: u64, in_force: u64 },
    #[error("database `{database}`: epoch {given} is older than epoch {in_force}, which is in force")]
    StaleEpoch { database: String, given: u64, in_force: u64 },
    #[error("database `{database}` has two primaries, `{first}` and `{second}`")]
    TwoPrimaries { database: String, first: String, second: String },
    #[error("database `{database}`: `{limit}` must be at least 1")]
    Zero { database: String, limit: &'static str },
    #[error("database `{database}` names the listener `{listener}`, for which no socket was handed over")]
    NoSocket { database: String, listener: String },
    #[error("the databases `{first}` and `{second}` share the listener `{listener}`")]
    SharedListener { first: String, second: String, listener: String },
    #[error("database `{database}` cannot move to another listener while it is served")]
    ListenerChanged { database: String },
    #[error("the socket for database `{database}` cannot be used: {cause}")]
    Socket { database: String, cause: String },
    #[error("the credentials of database `{database}` cannot be used: {cause}")]
    Credentials { database: String, cause: String },
    #[error("there is no memory for the marks of database `{database}`: {cause}")]
    Marks { database: String, cause: String },
    #[error("the credentials for the views of database `{database}` cannot be used: {cause}")]
    Admin { database: String, cause: String },
    #[error("the certificate of database `{database}` cannot be used: {cause}")]
    Certificate { database: String, cause: String },
}

impl Config {
    /// What can be judged without sockets and files.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, database) in &self.databases {
            if let Some(first) = owners.insert(&database.listener, name) {
                return Err(ConfigError::SharedListener {
                    first: first.to_owned(),
                    second: name.clone(),
                    listener: database.listener.clone(),
                });
            }
            database.check(name)?;
        }
        Ok(())
    }
}

impl Database {
    fn check(&self, name: &str) -> Result<(), ConfigError> {
        let mut primaries = self.primaries();
        if let (Some((first, _)), Some((second, _))) = (primaries.next(), primaries.next()) {
            return Err(ConfigError::TwoPrimaries {
                database: name.to_owned(),
                first: first.to_owned(),
                second: second.to_owned(),
            });
        }
        for (limit, value) in [("pool_size", self.pool_size), ("max_clients", self.max_clients)] {
            if value == 0 {
                return Err(ConfigError::Zero { database: name.to_owned(), limit });
            }
        }
        Ok(())
    }

    /// The node that takes writes, if there is one now.
    pub fn primary(&self) -> Option<(&str, &Node)> {
        self.primaries().next()
    }

    /// The nodes that serve reads.
    pub(crate) fn read_replicas(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.nodes.iter().filter(|(_, node)| node.role == Role::ReadReplica)
    }

    fn primaries(&self) -> impl Iterator<Item = (&str, &Node)> {
        let is_primary = |(_, node): &(&String, &Node)| node.role == Role::Primary;
        self.nodes.iter().filter(is_primary).map(|(name, node)| (name.as_str(), node))
    }
}

mod defaults {
    pub(super) fn pool_size() -> u32 {
        20
    }
    pub(super) fn max_clients() -> u32 {
        1_000
    }
    pub(super) fn queue_wait_ms() -> u64 {
        30_000
    }
    pub(super) fn max_queue() -> u32 {
        1_000
    }
    pub(super) fn hold_ms() -> u64 {
        30_000
    }
    pub(super) fn idle_timeout_ms() -> u64 {
        600_000
    }
    pub(super) fn server_lifetime_ms() -> u64 {
        3_600_000
    }
    pub(super) fn max_replica_lag_ms() -> u64 {
        10_000
    }
    pub(super) fn read_wait_ms() -> u64 {
        10
    }
}

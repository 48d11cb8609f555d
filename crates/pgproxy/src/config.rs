//! What the proxy is told: which databases there are, and where each can be reached now.
//!
//! A configuration replaces the one before as a whole. Open sessions stay where they are; clients that still wait for
//! their database follow the new upstream, which is how a database can move under clients that are connecting.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything the proxy needs to serve. Immutable once given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Counts configurations; one with a lower generation than the one in force is refused.
    pub generation: u64,
    /// By name. The name stands in status, metrics and messages to clients.
    pub databases: BTreeMap<String, Database>,
}

/// One database cluster and its stable address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// The socket that clients connect to, by the name under which the caller hands it over. Two databases cannot
    /// share one, and it cannot change while the database exists.
    pub listener: String,
    pub upstream: Upstream,
    /// Sessions open or waiting at once. Above it a client gets SQLSTATE 53300. Cancel requests do not count.
    #[serde(default = "defaults::max_clients")]
    pub max_clients: u32,
    /// How long a new client may wait for a database that cannot be reached or is starting. Then it gets 57P03.
    #[serde(default = "defaults::connect_wait_ms")]
    pub connect_wait_ms: u64,
}

/// Where PostgreSQL listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// The socket file itself, such as `/run/x/.s.PGSQL.5432`.
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// Why a configuration was refused. The one in force stays.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("generation {given} is older than generation {in_force}, which is in force")]
    Stale { given: u64, in_force: u64 },
    #[error("database `{database}` names the listener `{listener}`, for which no socket was handed over")]
    NoSocket { database: String, listener: String },
    #[error("the databases `{first}` and `{second}` share the listener `{listener}`")]
    SharedListener { first: String, second: String, listener: String },
    #[error("database `{database}` cannot move to another listener while it is served")]
    ListenerChanged { database: String },
    #[error("the socket for database `{database}` cannot be used: {cause}")]
    Socket { database: String, cause: String },
    #[error("the proxy is draining and takes no new configuration")]
    Draining,
}

impl Config {
    /// What can be judged without sockets.
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
        }
        Ok(())
    }
}

mod defaults {
    pub(super) fn max_clients() -> u32 {
        1_000
    }
    pub(super) fn connect_wait_ms() -> u64 {
        30_000
    }
}

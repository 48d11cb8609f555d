//! The stable address of every PostgreSQL: a pooling proxy whose clients do not see a failover.
//!
//! Apps connect here for as long as they live; PostgreSQL behind may restart, move or be replaced. A client logs in at
//! the proxy and is given a connection for a transaction at a time. While there is no primary, what has not started
//! waits. What was in flight when the primary was lost is run again, or settled, or refused with the SQLSTATE that says
//! which; nothing that may have been committed is ever run twice.
//!
//! What this crate deliberately does not know: manifests, plans, processes. Callers own the sockets, the signals and
//! the runtime: see [`start`].

pub mod config;
pub mod frame;
pub mod status;

mod acquire;
mod admin;
mod cancel;
mod catalog;
mod connection;
mod credentials;
mod door;
mod horizon;
mod judge;
mod latest;
mod load;
mod login;
mod lookout;
mod lsn;
mod message;
mod metrics;
mod opening;
mod pool;
mod prepared;
mod proxy;
mod replicas;
mod scram;
mod server;
mod session;
mod settings;
mod shared;
mod startup;
mod statement;
mod tls;
mod unix;
mod wire;

pub use config::{Config, ConfigError, Database, Node, PoolMode, Promotion, Role, Tls, Upstream};
pub use load::{LoadStatus, NodeLoad, StatementLoad, WATCHED_FOR};
pub use proxy::{Drained, Handle, LAST_GRACE, start};
pub use status::{DatabaseStatus, NodeState, NodeStatus, Status};

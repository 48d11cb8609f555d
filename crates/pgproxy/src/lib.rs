//! The stable address of every PostgreSQL.
//!
//! Apps connect here for as long as they live; PostgreSQL behind may restart, move or be replaced. For now this is a
//! relay that understands only how a connection begins: it takes the startup packet, waits for a database that is
//! restarting instead of passing its refusal on, and from the first answer on copies bytes.
//!
//! What this crate deliberately does not know: manifests, plans, processes, passwords. Callers own the sockets, the
//! signals and the runtime: see [`start`].

pub mod config;
pub mod status;

mod metrics;
mod opening;
mod relay;
mod server;
mod session;
mod upstream;

pub use config::{Config, ConfigError, Database, Upstream};
pub use server::{Drained, Handle, start};
pub use status::{DatabaseStatus, Status};

//! The front door: TLS, HTTP/1.1 and HTTP/2, balancing, health and drain.
//!
//! A client connection lives on one of a few threads, each with its own runtime, its own pool of upstream connections
//! and its own counters; what all threads must agree on (configuration, health, weights, in-flight counts) is shared.
//! Both protocols on both sides meet in one relay ([`exchange`]), so that routing, retries, header rules, the access
//! log and metrics are written once.
//!
//! What this crate deliberately does not know: manifests, plans, stages, processes. Callers own the sockets, the
//! signals and the clock: see [`start`].

pub mod config;
pub mod local_ca;
pub mod prior_knowledge;
pub mod status;

mod access_log;
mod balance;
mod exchange;
mod forwarded;
mod h1;
mod h2;
mod head;
mod health;
mod marks;
mod metrics;
mod server;
pub mod tls;
mod watchdog;

#[doc(hidden)]
pub mod fuzzing;

pub use config::Config;
pub use server::{ConfigError, Handle, Options, StartError, start};
pub use status::Status;

//! What the processes of Switchback say of themselves: log records, and metrics with their exposition.
//!
//! Values and text only: no runtime, no sockets, no files, no global registry. Whoever counts owns its counters, and
//! whoever is asked writes them into an [`metrics::Exposition`].

pub mod log;
pub mod metrics;

//! The threads, the sockets they accept from, the configuration in force and the handle that rules them.
//!
//! Every thread has its own runtime and registers its own duplicate of each listening socket, so that the sockets
//! survive this edge: a successor process accepts from the same ones while this edge drains. What threads share is
//! in [`Shared`]; everything else is theirs alone.

mod accept;
mod compile;
mod connection;
mod handle;
mod lifecycle;
mod pool;
mod shared;
mod snapshot;
mod thread;
mod view;

pub use compile::ConfigError;
pub use handle::Handle;
pub use lifecycle::{Options, StartError, start};
pub(crate) use snapshot::{Snapshot, Timeouts};
pub(crate) use thread::{Peer, Thread};
pub(crate) use view::{UpstreamView, View};

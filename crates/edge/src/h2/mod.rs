//! HTTP/2 on both sides, by the `h2` crate: frames, flow control and header compression are its affair; limits,
//! resets and the meaning of messages are ours.

mod client;
mod server;

pub(crate) use client::{ClientConnector, Multiplexed};
pub(crate) use server::serve;

//! HTTP/2 on both sides, by the `h2` crate: frames, flow control and header compression are its affair; limits,
//! resets and the meaning of messages are ours.

mod body;
mod client;
mod connector;
mod fields;
mod prefixed;
mod request;
mod server;
mod stream;

pub(crate) use connector::{ClientConnector, Multiplexed};
pub(crate) use server::serve;

/// Flow control window of a stream: what one sender may have under way to us.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Of a client's whole connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes that may wait in a stream for the other side's window.
const SEND_BUFFER: usize = 128 * 1024;

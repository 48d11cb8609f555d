//! HTTP/1.1 on the wire (RFC 9112): strict reading, framing, and the two kinds of connection.
//!
//! Every rule that tolerance would turn into request smuggling is enforced here, once, before anything else sees the
//! message: a head or chunk that two implementations could read differently is refused, not repaired.

mod body;
mod buffer;
mod chunked;
mod client;
mod connector;
mod fields;
mod reject;
mod request;
mod response;
mod server;
mod stream;

pub use chunked::{ChunkDecoder, Step};
pub(crate) use client::{Client, ClientStream};
pub(crate) use connector::ClientConnector;
pub(crate) use fields::{is_authority, is_target, is_token, parse_content_length};
pub use reject::Reject;
pub(crate) use request::parse_request_head;
pub(crate) use response::{Expected, parse_response_head};
pub(crate) use server::{Served, serve};
pub(crate) use stream::Stream;

/// What one message may cost, cut from [`crate::config::Limits`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Bytes of the whole head.
    pub(crate) bytes: usize,
    /// Number of fields.
    pub(crate) fields: usize,
    /// Bytes of the request target.
    pub(crate) target: usize,
}

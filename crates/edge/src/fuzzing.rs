//! The parsers of client bytes as plain functions, for fuzz targets and table tests. Not an interface.

pub use crate::h1::{ChunkDecoder, Reject, Step};
use crate::h1::{Expected, HeadLimits};
use crate::head::{BodyLength, Known, RequestHead, ResponseHead};

const LIMITS: HeadLimits = HeadLimits { bytes: 32 * 1024, fields: 100, target: 8 * 1024 };

/// What a request head means, in plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Bytes of the head.
    pub length: usize,
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub authority: Vec<u8>,
    pub chunked: bool,
    pub content_length: Option<u64>,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads a request head with the default limits.
///
/// # Errors
/// As the server would refuse it.
pub fn parse_request_head(input: &[u8]) -> Result<Option<Request>, Reject> {
    let mut head = RequestHead::default();
    let Some(length) = crate::h1::parse_request_head(input, &LIMITS, &mut head)? else {
        return Ok(None);
    };
    Ok(Some(Request {
        length,
        method: head.method().to_vec(),
        target: head.target().to_vec(),
        authority: head.authority().to_vec(),
        chunked: head.length == BodyLength::Framed,
        content_length: match head.length {
            BodyLength::Known(length) => Some(length),
            _ => None,
        },
        fields: head.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
    }))
}

/// Takes the marks out of a `Cookie` field: the other cookies (`None`: no field is left), and the latest mark.
pub fn take_marks(cookies: &[u8]) -> (Option<Vec<u8>>, u64) {
    let mut head = RequestHead::default();
    head.headers.push(b"Cookie", cookies);
    let mark = crate::marks::take(&mut head.headers);
    (head.headers.get(Known::Cookie).map(<[u8]>::to_vec), mark.as_micros())
}

/// Reads a response head: its length and status.
///
/// # Errors
/// As the relay would refuse it.
pub fn parse_response_head(input: &[u8]) -> Result<Option<(usize, u16)>, Reject> {
    let mut head = ResponseHead::default();
    let length = crate::h1::parse_response_head(input, &LIMITS, Expected::Body, &mut head)?;
    Ok(length.map(|length| (length, head.status)))
}

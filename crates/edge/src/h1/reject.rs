//! Why a message was refused.

/// The reason, which is also the metric label and decides the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    #[error("the start line is malformed")]
    StartLine,
    #[error("the HTTP version is not 1.0 or 1.1")]
    Version,
    #[error("a line does not end in CRLF")]
    LineEnd,
    #[error("a field line is folded over several lines")]
    Folded,
    #[error("a field name or value is malformed")]
    Field,
    #[error("the request target is malformed")]
    Target,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("the head is too large")]
    HeadTooLarge,
    #[error("there are too many fields")]
    TooManyFields,
    #[error("the host is missing, repeated or malformed")]
    Host,
    #[error("the content length is malformed or repeated")]
    ContentLength,
    #[error("the transfer coding is not exactly `chunked`")]
    TransferEncoding,
    #[error("both a content length and a transfer coding are given")]
    AmbiguousLength,
    #[error("`Connection` nominates a field that must not be removed")]
    Nominated,
    #[error("an expectation other than `100-continue` is given")]
    Expectation,
    #[error("a chunk is malformed")]
    Chunk,
    #[error("the trailers are malformed or too large")]
    Trailers,
    #[error("the body is too large")]
    BodyTooLarge,
    #[error("tunnels by CONNECT are not offered")]
    Connect,
    #[error("the status line is malformed")]
    StatusLine,
}

impl Reject {
    /// What a client is answered. Between the edge and an upstream every reason is a 502.
    pub(crate) fn status(self) -> u16 {
        match self {
            Reject::TargetTooLong => 414,
            Reject::HeadTooLarge | Reject::TooManyFields => 431,
            Reject::BodyTooLarge => 413,
            Reject::Version => 505,
            Reject::Expectation => 417,
            Reject::Connect => 405,
            _ => 400,
        }
    }
}

//! Message heads in the one form that both protocols share.
//!
//! A head keeps its bytes in one buffer and its fields as ranges into it. Heads are reused for every message on a
//! connection, so a request costs no allocation for its fields however many there are, and a field that the edge adds
//! goes to the end of the same buffer. Whatever is in a head has been validated by the protocol that read it.

mod known;
mod list;

pub(crate) use known::Known;
pub(crate) use list::{HeaderList, write_line};

/// Bytes of a head's text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    #[inline]
    pub(crate) fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.end as usize]
    }
}

/// How the length of a body is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// There is no body; what follows is the next message.
    #[default]
    None,
    Known(u64),
    /// It ends when its framing says so (chunked, or an HTTP/2 stream without a length).
    Framed,
    /// It ends with the connection. Responses only.
    UntilClose,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

impl Version {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
        }
    }
}

/// What happens to the connection after the message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Persistence {
    #[default]
    KeepAlive,
    Close,
}

/// A validated request.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestHead {
    pub(crate) headers: HeaderList,
    pub(crate) method: Span,
    /// Path and query as they go upstream: origin-form, or `*`.
    pub(crate) target: Span,
    /// Host and port, from the target when it carries them, otherwise from `Host`. Empty in HTTP/1.0 without `Host`.
    pub(crate) authority: Span,
    pub(crate) version: Version,
    pub(crate) length: BodyLength,
    pub(crate) persistence: Persistence,
    /// The client waits for a 100 before it sends the body.
    pub(crate) expects_continue: bool,
    /// The client asks to leave HTTP for another protocol (never `h2c`, which RFC 9113 has withdrawn).
    pub(crate) upgrade: bool,
    /// `TE: trailers` was said.
    pub(crate) accepts_trailers: bool,
}

impl RequestHead {
    pub(crate) fn method(&self) -> &[u8] {
        self.method.of(self.headers.text())
    }

    pub(crate) fn target(&self) -> &[u8] {
        self.target.of(self.headers.text())
    }

    pub(crate) fn authority(&self) -> &[u8] {
        self.authority.of(self.headers.text())
    }

    /// The path alone, without the query.
    pub(crate) fn path(&self) -> &[u8] {
        let target = self.target();
        match memchr::memchr(b'?', target) {
            Some(at) => &target[..at],
            None => target,
        }
    }

    /// RFC 9110, 9.2.2.
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(self.method(), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
    }

    /// RFC 9110, 9.2.1: the client does not ask for a change.
    pub(crate) fn is_safe(&self) -> bool {
        matches!(self.method(), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE")
    }

    pub(crate) fn has_body(&self) -> bool {
        !matches!(self.length, BodyLength::None | BodyLength::Known(0))
    }

    /// Makes room for the next message, keeping the allocations.
    pub(crate) fn clear(&mut self) {
        let RequestHead {
            headers,
            method,
            target,
            authority,
            version,
            length,
            persistence,
            expects_continue,
            upgrade,
            accepts_trailers,
        } = self;
        headers.clear();
        (*method, *target, *authority) = Default::default();
        (*version, *length, *persistence) = Default::default();
        (*expects_continue, *upgrade, *accepts_trailers) = Default::default();
    }
}

/// A validated response, final or interim.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResponseHead {
    pub(crate) headers: HeaderList,
    pub(crate) status: u16,
    pub(crate) reason: Span,
    pub(crate) version: Version,
    pub(crate) length: BodyLength,
    pub(crate) persistence: Persistence,
}

impl ResponseHead {
    pub(crate) fn reason(&self) -> &[u8] {
        self.reason.of(self.headers.text())
    }

    pub(crate) fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Makes room for the next message, keeping the allocations.
    pub(crate) fn clear(&mut self) {
        let ResponseHead { headers, status, reason, version, length, persistence } = self;
        headers.clear();
        (*status, *reason, *version, *length, *persistence) = Default::default();
    }
}

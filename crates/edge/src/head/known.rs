//! The field names that mean something to the edge itself.

/// A field name, recognised once when the head is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Other,
    Authorization,
    CacheControl,
    Connection,
    ContentLength,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    ProxyConnection,
    Referer,
    SetCookie,
    SwitchbackFresh,
    Te,
    Traceparent,
    Tracestate,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRequestId,
}

/// Bytes of the longest name that is known.
const LONGEST: usize = 17;

impl Known {
    pub(crate) fn of(name: &[u8]) -> Known {
        let (known, spelling): (Known, &[u8]) = match (name.len(), name[0] | 0x20) {
            (2, b't') => (Known::Te, b"te"),
            (4, b'd') => (Known::Date, b"date"),
            (4, b'h') => (Known::Host, b"host"),
            (6, b'c') => (Known::Cookie, b"cookie"),
            (6, b'e') => (Known::Expect, b"expect"),
            (7, b't') => (Known::Trailer, b"trailer"),
            (7, b'u') => (Known::Upgrade, b"upgrade"),
            (7, b'r') => (Known::Referer, b"referer"),
            (9, b'f') => (Known::Forwarded, b"forwarded"),
            (10, b'u') => (Known::UserAgent, b"user-agent"),
            (10, b'c') => (Known::Connection, b"connection"),
            (10, b's') => (Known::SetCookie, b"set-cookie"),
            (10, b'k') => (Known::KeepAlive, b"keep-alive"),
            (10, b't') => (Known::Tracestate, b"tracestate"),
            (11, b't') => (Known::Traceparent, b"traceparent"),
            (12, b'x') => (Known::XRequestId, b"x-request-id"),
            (13, b'a') => (Known::Authorization, b"authorization"),
            (13, b'c') => (Known::CacheControl, b"cache-control"),
            (14, b'c') => (Known::ContentLength, b"content-length"),
            (15, b'x') => (Known::XForwardedFor, b"x-forwarded-for"),
            (16, b'p') => (Known::ProxyConnection, b"proxy-connection"),
            (16, b's') => (Known::SwitchbackFresh, b"switchback-fresh"),
            (16, b'x') => (Known::XForwardedHost, b"x-forwarded-host"),
            (17, b't') => (Known::TransferEncoding, b"transfer-encoding"),
            (17, b'x') => (Known::XForwardedProto, b"x-forwarded-proto"),
            _ => return Known::Other,
        };
        if name.eq_ignore_ascii_case(spelling) { known } else { Known::Other }
    }

    /// What a reader takes the name for to whom `_` and `-` are the same, as they are in the variables of CGI and its heirs.
    pub(crate) fn of_look_alike(name: &[u8]) -> Known {
        let mut dashed = [0; LONGEST];
        let Some(dashed) = dashed.get_mut(..name.len()) else {
            return Known::Other;
        };
        for (to, from) in dashed.iter_mut().zip(name) {
            *to = if *from == b'_' { b'-' } else { *from };
        }
        Known::of(dashed)
    }

    /// Fields of one connection that are never passed on (RFC 9110, 7.6.1), apart from what `Connection` nominates.
    #[inline]
    pub(crate) fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::Te
                | Known::TransferEncoding
                | Known::Upgrade
        )
    }

    /// Fields that have no business after the body, since they frame, route or authenticate (RFC 9110, 6.5.1).
    pub(crate) fn is_no_trailer(self) -> bool {
        self.must_reach_upstream() || self.is_hop_by_hop() || self == Known::Trailer
    }

    /// Fields that `Connection` must not nominate: were they stripped, the two sides would read different requests,
    /// or the upstream would miss who asks.
    pub(crate) fn must_reach_upstream(self) -> bool {
        matches!(
            self,
            Known::Authorization
                | Known::ContentLength
                | Known::Cookie
                | Known::Expect
                | Known::Forwarded
                | Known::Host
                | Known::Traceparent
                | Known::Tracestate
                | Known::TransferEncoding
                | Known::XForwardedFor
                | Known::XForwardedHost
                | Known::XForwardedProto
                | Known::XRequestId
        )
    }
}

//! The fixed words that label series. A list is an enum, so that a counter can be an array field and a new word
//! cannot be forgotten in the exposition.

/// Makes an enum of words with its list and their text.
macro_rules! words {
    ($(#[$doc:meta])* $visibility:vis enum $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $name { $($(#[$word_doc])* $word,)* }

        impl $name {
            pub(super) const ALL: &'static [$name] = &[$($name::$word,)*];

            /// The label.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$word => $text,)* }
            }
        }
    };
}

words! {
    /// Why a connection was closed before it was served.
    pub enum ConnectionReject {
        /// `max_connections` are open.
        Limit = "limit",
        Draining = "draining",
    }
}

words! {
    /// Why the edge answered by itself; also the reason in the access log.
    pub enum Reject {
        /// 400
        BadRequest = "bad_request",
        /// 404
        NoRoute = "no_route",
        /// 405
        MethodNotAllowed = "method_not_allowed",
        /// 408
        RequestTimeout = "request_timeout",
        /// 413
        BodyTooLarge = "body_too_large",
        /// 414
        TargetTooLong = "target_too_long",
        /// 417
        ExpectationFailed = "expectation_failed",
        /// 421
        Misdirected = "misdirected",
        /// 431
        HeadTooLarge = "head_too_large",
        /// 501
        NotImplemented = "not_implemented",
        /// 502
        BadGateway = "bad_gateway",
        /// 503
        Unavailable = "unavailable",
        /// 504
        GatewayTimeout = "gateway_timeout",
        /// 505
        VersionNotSupported = "version_not_supported",
    }
}

words! {
    /// The methods that are told apart; clients may invent others without limit.
    pub(super) enum Method {
        Get = "get",
        Head = "head",
        Post = "post",
        Put = "put",
        Delete = "delete",
        Patch = "patch",
        Options = "options",
        Other = "other",
    }
}

words! {
    pub(super) enum StatusClass {
        Informational = "1xx",
        Success = "2xx",
        Redirection = "3xx",
        ClientError = "4xx",
        ServerError = "5xx",
        /// The client went away before there was an answer.
        None = "none",
    }
}

impl Method {
    pub(super) fn of(method: &[u8]) -> Method {
        match method {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"PATCH" => Method::Patch,
            b"OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }
}

impl StatusClass {
    pub(super) fn of(status: u16) -> StatusClass {
        match status {
            100..=199 => StatusClass::Informational,
            200..=299 => StatusClass::Success,
            300..=399 => StatusClass::Redirection,
            400..=499 => StatusClass::ClientError,
            500..=599 => StatusClass::ServerError,
            _ => StatusClass::None,
        }
    }
}

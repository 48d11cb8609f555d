//! What comes back, by whichever protocol.

/// Of one answer; more are not taken.
const COOKIES: usize = 50;
/// Of one cookie with its attributes, and of a location: longer ones are passed over, as browsers do.
const VALUE_BYTES: usize = 4096;

/// What a visitor wants to know of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub location: Option<Box<str>>,
    /// Values of `Set-Cookie`.
    pub cookies: Vec<Box<str>>,
    /// It has a `Retry-After`.
    pub asks_to_retry: bool,
    pub is_html: bool,
    /// HTTP/1: the next request may go the same way.
    pub keeps_connection: bool,
}

impl Head {
    pub fn new(status: u16) -> Head {
        Head {
            status,
            location: None,
            cookies: Vec::new(),
            asks_to_retry: false,
            is_html: false,
            keeps_connection: true,
        }
    }

    /// Takes note of a header field, if it is of interest.
    pub fn field(&mut self, name: &str, value: &[u8]) {
        if value.len() > VALUE_BYTES {
            return;
        }
        let text = || std::str::from_utf8(value).ok().map(|text| text.trim().into());
        if name.eq_ignore_ascii_case("set-cookie") {
            if self.cookies.len() < COOKIES {
                self.cookies.extend(text());
            }
        } else if name.eq_ignore_ascii_case("location") {
            self.location = text();
        } else if name.eq_ignore_ascii_case("retry-after") {
            self.asks_to_retry = true;
        } else if name.eq_ignore_ascii_case("content-type") {
            const HTML: &[u8] = b"text/html";
            self.is_html = value.len() >= HTML.len() && value[..HTML.len()].eq_ignore_ascii_case(HTML);
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Could not connect.
    Refused,
    /// The connection ended within the answer, or the answer was not HTTP.
    Broken,
    /// The body is larger than a visitor takes.
    TooMuch,
    /// The generator has no connection left for it.
    NotOffered,
}

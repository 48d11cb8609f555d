//! Read-your-writes for clients that come back over another connection: what they bring, and what they take home.
//!
//! A write that was acknowledged may not have reached the replica that serves the client's next request. The edge knows
//! both requests for the same client's, by a mark (see the crate `freshness`) that it gives with the answer to the one
//! and is brought by the other. It requires that mark of every database before the request is passed on; the proxy in
//! front of the database does the rest.
//!
//! One mark stands for all databases. It is a time: required of a database that was not written to, it asks for no more
//! than what was acknowledged there by then, which its replicas have long seen.
//!
//! ```text
//! Set-Cookie: switchback-fresh=1.64a1f3c9d2b40; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax
//! Switchback-Fresh: 1.64a1f3c9d2b40
//!                   | mark in hexadecimal digits
//!                   version
//! ```
//!
//! Anybody can bring any mark. None can ask for more than that reads are as fresh as now.

use freshness::{Freshness, Mark};

use crate::head::{HeaderList, Known, RequestHead, ResponseHead};

const COOKIE: &str = "switchback-fresh";
const FIELD: &str = "Switchback-Fresh";
const VERSION: &str = "1.";
/// Of a number of 64 bits.
const MOST_DIGITS: usize = 16;
/// What a replica lacks for longer, the proxy must not read from it anyway.
const MAX_AGE_SECONDS: u32 = 3_600;

/// The marks of the databases behind the app. There is at least one.
#[derive(Debug)]
pub(crate) struct Marks {
    databases: Vec<Freshness>,
}

/// How much was committed when a request began: another number once more is, as each of the marks only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Committed(u64);

impl Marks {
    pub(crate) fn of(databases: Vec<Freshness>) -> Option<Marks> {
        (!databases.is_empty()).then_some(Marks { databases })
    }

    /// Takes what the client brings out of the request, which is none of the app's business, and requires it.
    pub(crate) fn ask(&self, request: &mut RequestHead) -> Committed {
        let brought = take(&mut request.headers);
        if brought > Mark::default() {
            self.databases.iter().for_each(|database| database.require(brought));
        }
        self.committed()
    }

    /// Adds the newest mark to an answer whose client may have written: something was, since the request began, and the
    /// request asked for a change or the answer looks like that of one that made it.
    pub(crate) fn give(&self, before: Committed, request: &RequestHead, response: &mut ResponseHead) {
        // After a switch of protocols there is no next request that would bring it.
        if response.status == 101 || self.committed() == before {
            return;
        }
        let headers = &mut response.headers;
        // Whoever is given a cookie has made a session. What a shared cache may store must stay storable.
        let looks_changed = headers.get(Known::SetCookie).is_some()
            || matches!(response.status, 302 | 303 | 307) && !is_for_shared_caches(headers);
        if request.is_safe() && !looks_changed {
            return;
        }
        let newest = self.databases.iter().map(Freshness::committed).max().unwrap_or_default();
        let mark = format!("{VERSION}{:x}", newest.as_micros());
        let secure = match request.headers.get(Known::XForwardedProto) {
            Some(b"https") => "; Secure",
            _ => "",
        };
        let cookie =
            format!("{COOKIE}={mark}; Path=/; Max-Age={MAX_AGE_SECONDS}; HttpOnly; SameSite=Lax{secure}");
        headers.push(b"Set-Cookie", cookie.as_bytes());
        headers.drop_where(|known| known == Known::SwitchbackFresh);
        headers.push(FIELD.as_bytes(), mark.as_bytes());
    }

    fn committed(&self) -> Committed {
        let marks = self.databases.iter().map(|database| database.committed().as_micros());
        Committed(marks.fold(0, u64::wrapping_add))
    }
}

/// Takes cookie and field out of a request. The latest mark among them; the default where there is none.
pub(crate) fn take(headers: &mut HeaderList) -> Mark {
    let mut latest = Mark::default();
    let mut found = |value: &[u8]| latest = latest.max(read(value).unwrap_or_default());
    for (_, value) in headers.iter_known(Known::SwitchbackFresh) {
        found(value);
    }
    headers.take_cookies(COOKIE.as_bytes(), found);
    headers.drop_where(|known| known == Known::SwitchbackFresh);
    latest
}

/// Nothing but what we write ourselves is a mark.
fn read(value: &[u8]) -> Option<Mark> {
    let digits = value.strip_prefix(VERSION.as_bytes())?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if !(1..=MOST_DIGITS).contains(&digits.len()) || !digits.iter().all(is_digit) {
        return None;
    }
    let digits = std::str::from_utf8(digits).ok()?;
    u64::from_str_radix(digits, 16).ok().map(Mark::from_micros)
}

/// Whether `Cache-Control` lets a cache that serves several clients keep a temporary redirect (RFC 9111, 3).
fn is_for_shared_caches(headers: &HeaderList) -> bool {
    let mut stored = false;
    for (_, value) in headers.iter_known(Known::CacheControl) {
        for directive in value.split(|byte| *byte == b',') {
            let directive = directive.trim_ascii().to_ascii_lowercase();
            match directive.as_slice() {
                b"private" | b"no-store" | b"no-cache" => return false,
                b"public" => stored = true,
                other => {
                    let age = other.strip_prefix(b"s-maxage=").or_else(|| other.strip_prefix(b"max-age="));
                    stored |= age.is_some_and(|age| age != b"0");
                }
            }
        }
    }
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_edge_writes_is_a_mark() {
        assert_eq!(read(b"1.64a1f3c9d2b40"), Some(Mark::from_micros(0x6_4a1f_3c9d_2b40)));
        assert_eq!(read(b"1.ffffffffffffffff"), Some(Mark::from_micros(u64::MAX)));
        for odd in [
            "",
            "1",
            "1.",
            "2.5",
            "1.G",
            "1.+5",
            "1.-5",
            "1.A",
            "1.5 ",
            " 1.5",
            "\"1.5\"",
            "1.5.5",
            "0x5",
            "1.00000000000000001",
        ] {
            assert_eq!(read(odd.as_bytes()), None, "{odd}");
        }
    }

    #[test]
    fn a_redirect_that_a_shared_cache_may_keep_is_recognised() {
        let check = |value: &str, expected: bool| {
            let mut headers = HeaderList::default();
            headers.push(b"Cache-Control", value.as_bytes());
            assert_eq!(is_for_shared_caches(&headers), expected, "{value}");
        };
        check("public", true);
        check("Max-Age=60", true);
        check("max-age=0, s-maxage=5", true);
        check("max-age=0, must-revalidate", false);
        check("public, no-cache", false);
        check("private, max-age=60", false);
        check("no-store", false);
        assert!(!is_for_shared_caches(&HeaderList::default()));
    }
}

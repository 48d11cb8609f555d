//! The cookies of one visitor to one origin (RFC 6265, as far as that goes).
//!
//! `Domain` says nothing here, because there is one host; `Secure` neither, because a visitor who comes without TLS would
//! otherwise never be logged in to an app that believes itself behind TLS. A cookie that expires later than now lives as long
//! as the visit.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

/// Of a visitor; the oldest makes room for one more.
const COOKIES: usize = 30;

#[derive(Debug, Clone, Default)]
pub struct Jar(Vec<Cookie>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cookie {
    name: Box<str>,
    value: Box<str>,
    path: Box<str>,
}

impl Jar {
    /// Takes the value of a `Set-Cookie` in the answer for `path`. What is no cookie is passed over.
    pub fn set(&mut self, field: &str, path: &str, now: Timestamp) {
        let mut parts = field.split(';');
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || !is_clean(name) || !is_clean(value) {
            return;
        }
        let mut scope = default_path(path);
        // Max-Age goes before Expires (RFC 6265, 5.3).
        let (mut by_age, mut by_date) = (None, None);
        for attribute in parts {
            let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            let (key, value) = (key.trim(), value.trim());
            if key.eq_ignore_ascii_case("path") {
                scope = if value.starts_with('/') { value } else { default_path(path) };
            } else if key.eq_ignore_ascii_case("max-age") {
                by_age = value.parse::<i64>().ok().map(|seconds| seconds <= 0).or(by_age);
            } else if key.eq_ignore_ascii_case("expires") {
                by_date = date(value).map(|at| at <= now).or(by_date);
            }
        }
        self.0.retain(|cookie| *cookie.name != *name || *cookie.path != *scope);
        if by_age.or(by_date).unwrap_or(false) {
            return;
        }
        if self.0.len() == COOKIES {
            self.0.remove(0);
        }
        self.0.push(Cookie { name: name.into(), value: value.into(), path: scope.into() });
    }

    /// Writes what `Cookie` says in a request for `path`. Whether there is anything.
    pub fn write(&self, path: &str, out: &mut Vec<u8>) -> bool {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let mut is_first = true;
        for cookie in self.0.iter().filter(|cookie| covers(&cookie.path, path)) {
            if !is_first {
                out.extend_from_slice(b"; ");
            }
            is_first = false;
            out.extend_from_slice(cookie.name.as_bytes());
            out.push(b'=');
            out.extend_from_slice(cookie.value.as_bytes());
        }
        !is_first
    }
}

/// Whether it can be sent without breaking a header field.
fn is_clean(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b';')
}

/// The folder of the path that set it (RFC 6265, 5.1.4).
fn default_path(path: &str) -> &str {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => &path[..at],
    }
}

fn covers(scope: &str, path: &str) -> bool {
    path.strip_prefix(scope)
        .is_some_and(|rest| rest.is_empty() || scope.ends_with('/') || rest.starts_with('/'))
}

/// A date as servers write them: `Thu, 01 Jan 1970 00:00:00 GMT`, with dashes, or with two digits of the year.
fn date(text: &str) -> Option<Timestamp> {
    let mut words = text.split([' ', '-', ',']).filter(|word| !word.is_empty());
    let _weekday = words.next()?;
    let day: i8 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let month = months.iter().position(|name| month.eq_ignore_ascii_case(name))?;
    let year: i16 = words.next()?.parse().ok()?;
    let year = match year {
        0..=69 => year + 2000,
        70..=99 => year + 1900,
        _ => year,
    };
    let mut time = words.next()?.split(':').map(|part| part.parse::<i8>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let moment =
        civil::DateTime::new(year, i8::try_from(month + 1).ok()?, day, hour, minute, second, 0).ok()?;
    TimeZone::UTC.to_timestamp(moment).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(set: &[&str], at: &str, path: &str) -> String {
        let mut jar = Jar::default();
        set.iter().for_each(|field| jar.set(field, at, Timestamp::now()));
        let mut out = Vec::new();
        jar.write(path, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_was_set_last_is_sent_back() {
        assert_eq!(
            sent(&["a=1; HttpOnly", "b=x=y; Secure; SameSite=Lax", "a=2"], "/", "/shop"),
            "b=x=y; a=2"
        );
        assert_eq!(sent(&["no cookie", "=x", "a=\"1 2\"", "b=1\u{1}2"], "/", "/"), "a=\"1 2\"");
    }

    #[test]
    fn a_path_says_where_a_cookie_belongs() {
        for (set, at, path, expected) in [
            ("a=1; Path=/admin", "/", "/admin/users", "a=1"),
            ("a=1; Path=/admin", "/", "/admin?x=/", "a=1"),
            ("a=1; Path=/admin", "/", "/administrator", ""),
            ("a=1", "/shop/login?next=/", "/shop/cart", "a=1"),
            ("a=1", "/shop/login", "/", ""),
            ("a=1; Path=relative", "/login", "/", "a=1"),
        ] {
            assert_eq!(sent(&[set], at, path), expected, "{set} at {at} for {path}");
        }
    }

    #[test]
    fn a_cookie_that_has_expired_is_gone() {
        let later = "expires=Fri, 01 Jan 2999 00:00:00 GMT";
        for (last, expected) in [
            ("a=; Max-Age=0", ""),
            ("a=; max-age=-1; ", ""),
            ("a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT", ""),
            ("a=; Expires=Thu, 01-Jan-70 00:00:00 GMT", ""),
            ("a=2; Expires=not a date", "a=2"),
            ("a=2; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "a=2"),
            (&format!("a=2; {later}"), "a=2"),
            (&format!("a=; Max-Age=0; {later}"), ""),
        ] {
            assert_eq!(sent(&["a=1", last], "/", "/"), expected, "{last}");
        }
        // Of another path it is another cookie.
        assert_eq!(sent(&["a=1; Path=/", "a=; Path=/x; Max-Age=0"], "/", "/"), "a=1");
    }

    #[test]
    fn the_oldest_makes_room() {
        let many: Vec<String> = (0..100).map(|at| format!("c{at}=1")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let sent = sent(&many, "/", "/");
        assert_eq!(sent.matches("=1").count(), COOKIES);
        assert!(sent.contains("c99=1") && !sent.contains("c1=1"));
    }
}

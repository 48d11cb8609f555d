//! The answer to an HTTP/1.1 request, read as it arrives (RFC 9112).
//!
//! Takes bytes in whatever pieces a socket has, keeps of them only a head that is not whole yet, and says when the answer is.
//! Bodies are counted, not kept; who wants one is given it piece by piece.

use std::mem::MaybeUninit;

use super::answer::{Failure, Head};
use super::chunked::{self, Chunks};
use crate::load::Method;

/// Of a head; a larger one is not HTTP as anybody speaks it.
pub const HEAD_BYTES: usize = 64 * 1024;
const HEAD_FIELDS: usize = 100;
/// 100 Continue, 103 Early Hints; more before one answer is a server that never comes to it.
const INTERIM_ANSWERS: u32 = 16;

/// One answer, or as much of it as has come.
#[derive(Debug)]
pub struct Response {
    method: Method,
    state: State,
    /// Of a head that is not whole.
    partial: Vec<u8>,
    interim: u32,
    /// Of the body so far, without its framing.
    body_bytes: u64,
}

#[derive(Debug)]
enum State {
    Head,
    Body(Box<Head>, Body),
    Over,
}

#[derive(Debug)]
enum Body {
    /// So much is left of it.
    Length(u64),
    Chunked(Chunks),
    UntilClose,
}

impl Response {
    /// The answer to a request by `method`, which decides whether it has a body.
    pub fn to(method: Method) -> Response {
        Response { method, state: State::Head, partial: Vec::new(), interim: 0, body_bytes: 0 }
    }

    /// Of its body, so far.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Takes what came next. `Some`: it is whole. `body` is given what is of the body.
    ///
    /// # Errors
    /// When it is not HTTP, or more came than belongs to it.
    pub fn take(
        &mut self,
        mut bytes: &[u8],
        body: &mut dyn FnMut(&Head, &[u8]),
    ) -> Result<Option<Head>, Failure> {
        while matches!(self.state, State::Head) {
            let Some(rest) = self.take_head(bytes)? else { return Ok(None) };
            bytes = rest;
        }
        let State::Body(head, framing) = &mut self.state else { return Err(Failure::Broken) };
        let (rest, is_over) = match framing {
            Body::Length(left) => {
                let (now, rest) =
                    bytes.split_at(bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX)));
                *left -= now.len() as u64;
                self.body_bytes += now.len() as u64;
                if !now.is_empty() {
                    body(head, now);
                }
                (rest, *left == 0)
            }
            Body::Chunked(chunks) => {
                let count = &mut self.body_bytes;
                let taken = chunks.take(bytes, &mut |data| {
                    *count += data.len() as u64;
                    body(head, data);
                });
                let taken = taken.map_err(|chunked::Malformed| Failure::Broken)?;
                (&bytes[taken..], chunks.is_over())
            }
            Body::UntilClose => {
                self.body_bytes += bytes.len() as u64;
                body(head, bytes);
                (&[][..], false)
            }
        };
        if !is_over {
            return Ok(None);
        }
        // We never ask for two things at once: what follows was not asked for.
        if !rest.is_empty() {
            return Err(Failure::Broken);
        }
        Ok(self.finish())
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// When the answer was not whole.
    pub fn end(&mut self) -> Result<Head, Failure> {
        match &self.state {
            State::Body(_, Body::UntilClose) => self.finish().ok_or(Failure::Broken),
            _ => Err(Failure::Broken),
        }
    }

    /// Takes no more of the body. `None`: it has not begun, or was over.
    pub fn leave(&mut self) -> Option<Head> {
        self.finish().map(|head| Head { keeps_connection: false, ..head })
    }

    fn finish(&mut self) -> Option<Head> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Body(head, _) => Some(*head),
            State::Head | State::Over => None,
        }
    }

    /// Reads a head; `None`: it is not whole. Otherwise what follows it.
    fn take_head<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Failure> {
        let before = self.partial.len();
        let whole = if before == 0 {
            parse(bytes, self.method)?
        } else {
            self.partial.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES)]);
            parse(&self.partial, self.method)?
        };
        let Some((length, parsed)) = whole else {
            if before == 0 {
                self.partial.extend_from_slice(bytes);
            }
            return if self.partial.len() >= HEAD_BYTES { Err(Failure::Broken) } else { Ok(None) };
        };
        if length > HEAD_BYTES {
            return Err(Failure::Broken);
        }
        self.partial = Vec::new();
        match parsed {
            Parsed::Interim => {
                self.interim += 1;
                if self.interim > INTERIM_ANSWERS {
                    return Err(Failure::Broken);
                }
            }
            Parsed::Final(head, body) => self.state = State::Body(Box::new(head), body),
        }
        bytes.get(length.saturating_sub(before)..).map(Some).ok_or(Failure::Broken)
    }
}

enum Parsed {
    Interim,
    Final(Head, Body),
}

/// Reads a head from the beginning of `bytes`: how long it is, and what it says. `None`: it is not whole.
fn parse(bytes: &[u8], method: Method) -> Result<Option<(usize, Parsed)>, Failure> {
    // Most answers have few: the room for the others is not even written to.
    let mut fields = [MaybeUninit::uninit(); HEAD_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Failure::Broken),
    };
    let status = response.code.ok_or(Failure::Broken)?;
    if (100..200).contains(&status) {
        // Nobody asked to switch protocols.
        return if status == 101 { Err(Failure::Broken) } else { Ok(Some((length, Parsed::Interim))) };
    }
    let mut head = Head::new(status);
    head.keeps_connection = response.version == Some(1);
    let (mut content_length, mut is_chunked, mut has_encoding) = (None, false, false);
    for field in response.headers.iter() {
        let value = field.value;
        if field.name.eq_ignore_ascii_case("content-length") {
            let said = decimal(value).ok_or(Failure::Broken)?;
            if content_length.replace(said).is_some_and(|before| before != said) {
                return Err(Failure::Broken);
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            has_encoding = true;
            is_chunked = last_word_is(value, b"chunked");
        } else if field.name.eq_ignore_ascii_case("connection") {
            if has_word(value, b"close") {
                head.keeps_connection = false;
            } else if has_word(value, b"keep-alive") {
                head.keeps_connection = true;
            }
        } else {
            head.field(field.name, value);
        }
    }
    let body = if method == Method::Head || matches!(status, 204 | 304) {
        Body::Length(0)
    } else if is_chunked {
        Body::Chunked(Chunks::default())
    } else if has_encoding {
        Body::UntilClose
    } else {
        content_length.map_or(Body::UntilClose, Body::Length)
    };
    if matches!(body, Body::UntilClose) {
        head.keeps_connection = false;
    }
    Ok(Some((length, Parsed::Final(head, body))))
}

fn decimal(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn has_word(value: &[u8], word: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
}

fn last_word_is(value: &[u8], word: &[u8]) -> bool {
    value.rsplit(|byte| *byte == b',').next().is_some_and(|part| part.trim_ascii().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, body, whether the connection is kept; or that it is broken. `pieces` of the wire, then its end.
    fn read(method: Method, pieces: &[&[u8]]) -> Result<(u16, String, bool), Failure> {
        let mut response = Response::to(method);
        let mut body = Vec::new();
        let mut whole = None;
        for piece in pieces {
            if let Some(head) = response.take(piece, &mut |_, data| body.extend_from_slice(data))? {
                whole = Some(head);
            }
        }
        let head = whole.map_or_else(|| response.end(), Ok)?;
        assert_eq!(response.body_bytes(), body.len() as u64);
        Ok((head.status, String::from_utf8(body).unwrap(), head.keeps_connection))
    }

    fn check(method: Method, wire: &str, expected: Result<(u16, &str, bool), Failure>) {
        let expected = expected.map(|(status, body, keeps)| (status, body.to_owned(), keeps));
        assert_eq!(read(method, &[wire.as_bytes()]), expected, "{wire:?}");
        // However it arrives.
        let bytes: Vec<&[u8]> = wire.as_bytes().chunks(1).collect();
        assert_eq!(read(method, &bytes), expected, "{wire:?}, byte by byte");
    }

    #[test]
    fn each_way_to_say_where_a_body_ends_is_understood() {
        let get = Method::Get;
        check(get, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Ok((200, "hi", true)));
        check(get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok((200, "", true)));
        check(get, "HTTP/1.1 200 OK\r\n\r\nuntil the end", Ok((200, "until the end", false)));
        check(
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;x=y\r\n yo\r\n0\r\nA: b\r\n\r\n",
            Ok((200, "hi yo", true)),
        );
        check(get, "HTTP/1.1 204 No Content\r\n\r\n", Ok((204, "", true)));
        check(get, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Ok((304, "", true)));
        check(Method::Head, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Ok((200, "", true)));
    }

    #[test]
    fn interim_answers_are_passed_over_but_not_for_ever() {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        check(Method::Get, &format!("{interim}{interim}{last}"), Ok((200, "hi", true)));
        check(Method::Get, &format!("{}{last}", interim.repeat(17)), Err(Failure::Broken));
    }

    #[test]
    fn a_connection_is_kept_when_both_sides_mean_to() {
        let answer =
            |version: &str, field: &str| format!("{version} 200 OK\r\n{field}Content-Length: 0\r\n\r\n");
        check(Method::Get, &answer("HTTP/1.1", "Connection: Close\r\n"), Ok((200, "", false)));
        check(Method::Get, &answer("HTTP/1.0", ""), Ok((200, "", false)));
        check(Method::Get, &answer("HTTP/1.0", "Connection: keep-alive\r\n"), Ok((200, "", true)));
    }

    #[test]
    fn what_is_cut_short_or_no_http_is_broken() {
        for wire in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Le",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
        ] {
            check(Method::Get, wire, Err(Failure::Broken));
        }
        let more = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi there";
        assert_eq!(read(Method::Get, &[more]), Err(Failure::Broken), "nobody asked for more");
    }

    #[test]
    fn a_head_without_end_is_not_kept_for_ever() {
        let mut response = Response::to(Method::Get);
        let field = b"Header: more and more and more and more\r\n".repeat(20);
        let mut taken = response.take(b"HTTP/1.1 200 OK\r\n", &mut |_, _| {});
        let mut bytes = 0;
        while taken.is_ok() {
            bytes += field.len();
            assert!(bytes < 2 * HEAD_BYTES);
            taken = response.take(&field, &mut |_, _| {});
        }
        assert!(response.partial.len() <= 2 * HEAD_BYTES);
    }

    #[test]
    fn what_a_visitor_wants_of_a_head_is_kept() {
        let wire = "HTTP/1.1 303 See Other\r\nLocation: /welcome\r\nSet-Cookie: a=1; Path=/\r\nset-cookie: b=2\r\n\
                    Retry-After: 3\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 0\r\n\r\n";
        let head = Response::to(Method::Get).take(wire.as_bytes(), &mut |_, _| {}).unwrap().unwrap();
        assert_eq!(head.location.as_deref(), Some("/welcome"));
        assert_eq!(head.cookies, ["a=1; Path=/".into(), "b=2".into()]);
        assert!(head.asks_to_retry && head.is_html);
    }
}

//! Where what begins at a position ends. `None` says that we do not know: it has no end, or servers of different
//! versions read it differently.

use memchr::{memchr, memchr2, memmem};

use super::bytes::{Kind, continues_word, kind};

/// The end of a string that opens at `at`, in which `''` is a quote and a backslash is a backslash.
pub fn string(sql: &[u8], at: usize) -> Option<usize> {
    quoted(sql, at, b'\'')
}

/// The end of a quoted identifier that opens at `at`.
pub fn identifier(sql: &[u8], at: usize) -> Option<usize> {
    quoted(sql, at, b'"')
}

fn quoted(sql: &[u8], at: usize, quote: u8) -> Option<usize> {
    let mut from = at + 1;
    loop {
        from += memchr(quote, &sql[from..])? + 1;
        if sql.get(from) != Some(&quote) {
            return Some(from);
        }
        from += 1;
    }
}

/// The end of the string of `E'...'`, which opens at `at`: a backslash takes the next byte with it.
pub fn escape_string(sql: &[u8], at: usize) -> Option<usize> {
    let mut from = at + 1;
    loop {
        from += memchr2(b'\'', b'\\', sql.get(from..)?)? + 1;
        if sql[from - 1] == b'\\' || sql.get(from) == Some(&b'\'') {
            from += 1;
        } else {
            return Some(from);
        }
    }
}

/// The end of the string that `$$` or `$tag$` at `at` opens.
pub fn dollar_string(sql: &[u8], at: usize) -> Option<usize> {
    let tag =
        sql[at + 1..].iter().take_while(|byte| matches!(kind(**byte), Kind::Word | Kind::Digit)).count();
    let body = at + 1 + tag + 1;
    let closed = sql.get(body - 1) == Some(&b'$');
    if !closed || sql[at + 1].is_ascii_digit() {
        return None;
    }
    let delimiter = &sql[at..body];
    Some(body + memmem::find(&sql[body..], delimiter)? + delimiter.len())
}

/// The end of the number at `at`, and `None` where what follows could belong to it: `0x1f`, `1_000` and `123abc` are
/// a number, a number with an alias or an error, depending on the server.
pub fn number(sql: &[u8], at: usize) -> Option<usize> {
    let digits = |from: usize| from + sql[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut end = digits(at);
    if sql.get(end) == Some(&b'.') {
        end = digits(end + 1);
    }
    if matches!(sql.get(end), Some(b'e' | b'E')) {
        let exponent = end + 1 + usize::from(matches!(sql.get(end + 1), Some(b'+' | b'-')));
        end = digits(exponent.min(sql.len()));
        if end == exponent {
            return None;
        }
    }
    ends_cleanly(sql, end).then_some(end)
}

/// The end of the parameter `$1` at `at`.
pub fn parameter(sql: &[u8], at: usize) -> Option<usize> {
    let end = at + 1 + sql[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    ends_cleanly(sql, end).then_some(end)
}

fn ends_cleanly(sql: &[u8], end: usize) -> bool {
    sql.get(end).is_none_or(|byte| !continues_word(*byte) && *byte != b'.')
}

/// The end of the comment that `--` opens at `at`: the end of its line.
pub fn line_comment(sql: &[u8], at: usize) -> usize {
    memchr2(b'\n', b'\r', &sql[at..]).map_or(sql.len(), |length| at + length)
}

/// The end of the comment that `/*` opens at `at`. Comments nest.
pub fn block_comment(sql: &[u8], at: usize) -> Option<usize> {
    let (mut from, mut depth) = (at + 2, 1_usize);
    while depth > 0 {
        from += memchr2(b'*', b'/', sql.get(from..)?)?;
        match (sql[from], sql.get(from + 1)) {
            (b'*', Some(b'/')) => (from, depth) = (from + 2, depth - 1),
            (b'/', Some(b'*')) => (from, depth) = (from + 2, depth + 1),
            _ => from += 1,
        }
    }
    Some(from)
}

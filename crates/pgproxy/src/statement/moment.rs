//! Literals that stand for the moment in which they are read, such as `'today'`.

const WORDS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];

/// Whether PostgreSQL may read the text otherwise later on, because a literal says `'now'` or the like. A name or a comment
/// that says so is taken for one, and a call of `now` is none.
pub(crate) fn is_of_a_moment(sql: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_' || *byte >= 0x80;
    let mut rest = sql;
    while let Some(begin) = rest.iter().position(is_letter) {
        let length = rest[begin..].iter().position(|byte| !is_letter(byte));
        let (word, after) = rest[begin..].split_at(length.unwrap_or(rest.len() - begin));
        let is_call = after.trim_ascii_start().starts_with(b"(");
        if !is_call && WORDS.iter().any(|known| known.eq_ignore_ascii_case(word)) {
            return true;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::is_of_a_moment;

    #[test]
    fn a_literal_of_the_moment_is_found_and_the_function_now_is_none() {
        for sql in [
            "select timestamptz 'now'",
            "select 'Today'::date",
            "select ' tomorrow 10:00'::timestamp",
            "select 'today10:00'::timestamp",
            "select $$yesterday$$::date",
        ] {
            assert!(is_of_a_moment(sql.as_bytes()), "{sql}");
        }
        for sql in ["select now()", "select NOW ( )", "select known, today_s, nowhere from t", ""] {
            assert!(!is_of_a_moment(sql.as_bytes()), "{sql}");
        }
    }
}

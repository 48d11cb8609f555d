//! A plain `SET` that can be repeated on another connection, and a `RESET`.

use super::words::{Word, Words};

/// `SET name TO value`, where the value is nothing but names, numbers and texts, or `RESET name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub name: &'static str,
    /// As it was written. `None`: back to what the session began with.
    pub value: Option<String>,
}

/// Settings whose value does not depend on the connection, and for which nothing else in a session depends on when
/// they were set. `TIME ZONE` and `NAMES` have a grammar of their own.
const CARRIED: &[&str] = &[
    "application_name",
    "backslash_quote",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "enable_seqscan",
    "escape_string_warning",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "row_security",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "switchback.reads",
    "synchronous_commit",
    "timezone",
    "work_mem",
    "xmloption",
];

/// Longer values are not carried: the session is pinned.
const MAX_VALUE_BYTES: usize = 256;

pub(super) fn assignment(sql: &[u8], words: &Words) -> Option<Assignment> {
    if !matches!(words.first(), Some(Word::Set | Word::Reset)) || words.has_inner_semicolon {
        return None;
    }
    let text = std::str::from_utf8(sql).ok()?.trim_end_matches(|c: char| c.is_ascii_whitespace() || c == ';');
    if let Some(name) = keyword(text.trim_start(), "reset") {
        return Some(Assignment { name: carried(name)?, value: None });
    }
    let rest = keyword(text.trim_start(), "set")?;
    let rest = keyword(rest, "session").unwrap_or(rest);
    let (name, value) = if let Some(value) = keyword(rest, "time").and_then(|rest| keyword(rest, "zone")) {
        ("timezone", value)
    } else if let Some(value) = keyword(rest, "names") {
        ("client_encoding", value)
    } else {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.')))?;
        let name = carried(&rest[..end])?;
        let rest = rest[end..].trim_start();
        (name, rest.strip_prefix('=').or_else(|| keyword(rest, "to"))?)
    };
    let value = value.trim();
    let is_local_zone = name == "timezone" && value.eq_ignore_ascii_case("local");
    if value.eq_ignore_ascii_case("default") || is_local_zone {
        return Some(Assignment { name, value: None });
    }
    (value.len() <= MAX_VALUE_BYTES && is_list_of_values(value))
        .then(|| Assignment { name, value: Some(value.to_owned()) })
}

fn carried(name: &str) -> Option<&'static str> {
    CARRIED.iter().copied().find(|carried| carried.eq_ignore_ascii_case(name))
}

/// What follows the word at the front.
fn keyword<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let front = text.get(..word.len())?;
    let rest = &text[word.len()..];
    (front.eq_ignore_ascii_case(word) && rest.starts_with(|c: char| c.is_ascii_whitespace()))
        .then(|| rest.trim_start())
}

fn is_list_of_values(text: &str) -> bool {
    let mut rest = text;
    loop {
        let Some(after) = after_value(rest.trim_start()) else { return false };
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return rest.is_empty(),
        }
    }
}

/// Behind a text without backslashes, a quoted name, or a run of letters and digits.
fn after_value(text: &str) -> Option<&str> {
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let end = text[1..].find(quote)? + 1;
        let inside = &text[1..end];
        let after = &text[end + 1..];
        return (!inside.contains('\\') && !after.starts_with(quote)).then_some(after);
    }
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '.')))
        .unwrap_or(text.len());
    // `--` would begin a comment.
    (end > 0 && !text[..end].contains("--")).then(|| &text[end..])
}

#[cfg(test)]
mod tests {
    use super::super::judge;

    fn sets(sql: &str) -> Option<(&'static str, Option<String>)> {
        judge(sql.as_bytes()).sets.map(|set| (set.name, set.value))
    }

    #[test]
    fn what_drivers_set_is_carried() {
        for (sql, name, value) in [
            ("SET client_encoding TO 'UTF8'", "client_encoding", "'UTF8'"),
            ("set names 'utf8';", "client_encoding", "'utf8'"),
            ("SET SESSION timezone TO 'UTC'", "timezone", "'UTC'"),
            ("SET TIME ZONE 'Europe/Berlin'", "timezone", "'Europe/Berlin'"),
            ("set search_path = \"$user\", public", "search_path", "\"$user\", public"),
            ("SET statement_timeout=5000", "statement_timeout", "5000"),
            ("SET extra_float_digits = 3", "extra_float_digits", "3"),
            ("set switchback.reads to 'primary'", "switchback.reads", "'primary'"),
            ("SET standard_conforming_strings TO on", "standard_conforming_strings", "on"),
        ] {
            assert_eq!(sets(sql), Some((name, Some(value.to_owned()))), "{sql}");
        }
        for (sql, name) in [
            ("SET statement_timeout TO DEFAULT", "statement_timeout"),
            ("set time zone default;", "timezone"),
            ("set time zone LOCAL", "timezone"),
            ("RESET search_path;", "search_path"),
        ] {
            assert_eq!(sets(sql), Some((name, None)), "{sql}");
        }
    }

    #[test]
    fn what_is_more_than_values_is_not() {
        for sql in [
            "set search_path to a; drop table t",
            "set search_path to 'a\\'",
            "set search_path to 'a''b'",
            "set search_path to E'a'",
            "set search_path to a -- b",
            "set search_path to a--b",
            "set search_path to f()",
            "set search_path to",
            "set role to x",
            "reset all",
            "reset role",
            "set local search_path to a",
            "set unknown.setting to 1",
            "set time zone interval '1' hour to minute",
        ] {
            assert_eq!(sets(sql), None, "{sql}");
        }
    }
}

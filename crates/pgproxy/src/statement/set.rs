//! Plain `SET`s that can be repeated on another connection, and `RESET`s.

use super::words::{Word, Words};
use crate::settings::{Setting, has_meaning};

/// `SET name TO value`, where the value is nothing but names, numbers and texts, or `RESET name`. Or the same as a function,
/// as Django says it for each connection: `SELECT set_config('TimeZone', 'UTC', false)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// In lower case. Or [`ALL`].
    pub name: String,
    /// `None`: back to what the session began with.
    pub value: Option<Setting>,
}

impl Assignment {
    /// `value`: as it was written.
    fn to(name: &str, value: &str) -> Assignment {
        Assignment { name: name.to_owned(), value: Some(Setting::Sql(value.to_owned())) }
    }
}

/// The name in `RESET ALL`.
pub(crate) const ALL: &str = "all";

/// With what the pool of asyncpg clears a session before the next may have it. Of a session that has a connection only while it
/// asks, there is nothing to clear but settings.
const CLEARS: [&str; 4] = ["select pg_advisory_unlock_all()", "close all", "unlisten *", "reset all"];

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

/// Of these `set_config` takes a list as one text, and `SET` as several.
const LISTS: &[&str] = &["search_path", "datestyle"];

/// Longer values are not carried: the session is pinned.
const MAX_VALUE_BYTES: usize = 256;

/// `None`: it is something else, or more.
pub(super) fn assignments(sql: &[u8], words: &Words) -> Option<Vec<Assignment>> {
    match words.first() {
        Some(Word::Set | Word::Reset) => {}
        // Most have no such call, and nothing more is done for them.
        Some(Word::Select) if words.names_state() => {}
        _ => return None,
    }
    // A semicolon in a text makes two pieces of it, of which neither is a SET.
    let text = std::str::from_utf8(sql).ok()?;
    let pieces: Vec<&str> = text.split(';').map(str::trim).filter(|piece| !piece.is_empty()).collect();
    let is_cleared = pieces.len() == CLEARS.len()
        && pieces.iter().zip(CLEARS).all(|(piece, clear)| piece.eq_ignore_ascii_case(clear));
    match *pieces {
        _ if is_cleared => Some(vec![Assignment { name: ALL.to_owned(), value: None }]),
        [piece] if words.first() == Some(Word::Select) => call(piece).map(|set| vec![set]),
        _ => pieces.into_iter().map(assignment).collect(),
    }
}

fn assignment(text: &str) -> Option<Assignment> {
    // Of any name: what is not there any more need not be carried. But this one ends the role, too.
    let reset = |name: &str| {
        let name = name.to_ascii_lowercase();
        (name != "session_authorization").then_some(Assignment { name, value: None })
    };
    if let Some(name) = keyword(text, "reset") {
        let is_zone = keyword(name, "time").is_some_and(|rest| rest.eq_ignore_ascii_case("zone"));
        let name = if is_zone { "timezone" } else { name };
        return if end_of_name(name) == name.len() { reset(name) } else { None };
    }
    let rest = keyword(text, "set")?;
    let rest = keyword(rest, "session").unwrap_or(rest);
    let (name, value) = if let Some(value) = keyword(rest, "time").and_then(|rest| keyword(rest, "zone")) {
        ("timezone", value)
    } else if let Some(value) = keyword(rest, "names") {
        ("client_encoding", value)
    } else {
        let (name, rest) = rest.split_at(end_of_name(rest));
        let rest = rest.trim_start();
        (name, rest.strip_prefix('=').or_else(|| keyword(rest, "to"))?)
    };
    let value = value.trim();
    let is_local_zone = name == "timezone" && value.eq_ignore_ascii_case("local");
    if value.eq_ignore_ascii_case("default") || is_local_zone {
        return reset(name);
    }
    let name = carried(name)?;
    let is_carried = is_list_of_values(value) || name == "timezone" && is_interval(value);
    (value.len() <= MAX_VALUE_BYTES && is_carried).then(|| Assignment::to(name, value))
}

/// Of one without quotes.
fn end_of_name(text: &str) -> usize {
    text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))).unwrap_or(text.len())
}

/// Whether a text may set what others mean, as far as it says so itself.
pub(super) fn alters(sql: &[u8], words: &Words, sets: Option<&[Assignment]>) -> bool {
    if let Some(sets) = sets {
        return sets.iter().any(|set| has_meaning(&set.name));
    }
    if words.has_inner_semicolon && (words.has(Word::Set) || words.has(Word::Reset)) {
        return true;
    }
    match (words.first(), words.second()) {
        (Some(Word::Set), Some(Word::Transaction | Word::Constraints)) => false,
        (Some(Word::Set), Some(Word::Local)) => name_of_local(sql).is_none_or(has_meaning),
        (Some(Word::Set | Word::Reset), _) => true,
        _ => words.names_state() && !calls_set_nothing_of_meaning(sql),
    }
}

/// In `SET LOCAL name ...`.
fn name_of_local(sql: &[u8]) -> Option<&str> {
    let rest = keyword(keyword(std::str::from_utf8(sql).ok()?.trim_start(), "set")?, "local")?;
    Some(&rest[..end_of_name(rest)])
}

/// Whether a text names state because it calls `set_config` and surely for nothing else, with names that are there to read.
fn calls_set_nothing_of_meaning(sql: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(sql) else { return false };
    let text = text.to_ascii_lowercase();
    let mut calls = text.split("set_config");
    let before = calls.next().unwrap_or_default();
    let is_of_no_meaning = |call: &str| {
        let name = call.trim_start().strip_prefix('(').and_then(|rest| rest.trim_start().strip_prefix('\''));
        name.is_some_and(|name| {
            let (name, rest) = name.split_at(end_of_name(name));
            rest.starts_with('\'') && !has_meaning(name) && !Words::of(rest.as_bytes()).names_state()
        })
    };
    before.len() < text.len() && !Words::of(before.as_bytes()).names_state() && calls.all(is_of_no_meaning)
}

/// `INTERVAL '+00:00' HOUR TO MINUTE`, as Sequelize writes a time zone.
fn is_interval(text: &str) -> bool {
    let Some(after) = keyword(text, "interval").filter(|text| text.starts_with('\'')).and_then(after_value)
    else {
        return false;
    };
    let unit: Vec<&str> = after.split_ascii_whitespace().collect();
    unit.join(" ").eq_ignore_ascii_case("hour to minute")
}

/// Three texts and nothing else.
fn call(text: &str) -> Option<Assignment> {
    let rest = keyword(text, "select")?;
    let rest = rest.strip_prefix("pg_catalog.").unwrap_or(rest);
    let (function, arguments) = rest.strip_suffix(')')?.split_once('(')?;
    let mut arguments = arguments.split(',').map(str::trim);
    let (name, value, is_local) = (arguments.next()?, arguments.next()?, arguments.next()?);
    let is_plain = arguments.next().is_none()
        && function.trim_end().eq_ignore_ascii_case("set_config")
        && is_local.eq_ignore_ascii_case("false")
        && value.len() <= MAX_VALUE_BYTES;
    let is_text = |text: &str| text.starts_with('\'') && after_value(text) == Some("");
    if !is_plain || !is_text(name) || !is_text(value) {
        return None;
    }
    let name = carried(name.trim_matches('\''))?;
    (!LISTS.contains(&name)).then(|| Assignment::to(name, value))
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
    use super::Setting;

    fn sets(sql: &str) -> Option<(String, Option<String>)> {
        let mut sets = all_sets(sql)?;
        assert_eq!(sets.len(), 1, "{sql}");
        sets.pop()
    }

    fn all_sets(sql: &str) -> Option<Vec<(String, Option<String>)>> {
        let text = |setting| match setting {
            Setting::Sql(text) => text,
            Setting::Raw(text) => panic!("{text} was written in {sql}"),
        };
        let sets = judge(sql.as_bytes()).sets?.into_iter();
        Some(sets.map(|set| (set.name, set.value.map(text))).collect())
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
            (
                "SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE",
                "timezone",
                "INTERVAL '+02:00' HOUR TO MINUTE",
            ),
            ("SELECT set_config('TimeZone', 'UTC', false)", "timezone", "'UTC'"),
            ("select pg_catalog.set_config('statement_timeout','5s',FALSE);", "statement_timeout", "'5s'"),
        ] {
            assert_eq!(sets(sql), Some((name.to_owned(), Some(value.to_owned()))), "{sql}");
        }
        for (sql, name) in [
            ("SET statement_timeout TO DEFAULT", "statement_timeout"),
            ("set time zone default;", "timezone"),
            ("set time zone LOCAL", "timezone"),
            ("RESET search_path;", "search_path"),
            ("reset all", "all"),
            ("Reset Role", "role"),
            ("reset time zone", "timezone"),
            ("RESET app.tenant", "app.tenant"),
            ("set app.tenant to default", "app.tenant"),
            ("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;", "all"),
        ] {
            assert_eq!(sets(sql), Some((name.to_owned(), None)), "{sql}");
        }
    }

    /// Sequelize begins each connection so.
    #[test]
    fn several_in_one_request_are_carried_together_or_not_at_all() {
        let sets = "SET client_min_messages TO warning;SET TIME ZONE INTERVAL '+00:00' HOUR TO MINUTE;";
        let expected = [
            ("client_min_messages".to_owned(), Some("warning".to_owned())),
            ("timezone".to_owned(), Some("INTERVAL '+00:00' HOUR TO MINUTE".to_owned())),
        ];
        assert_eq!(all_sets(sets).unwrap(), expected);
        assert_eq!(all_sets("reset all; set search_path to a").unwrap().len(), 2);
        assert_eq!(all_sets("set search_path to a; set role to b"), None);
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
            "reset session authorization",
            "reset session_authorization",
            "reset \"role\"",
            "set session authorization default",
            "select pg_advisory_unlock_all(); reset all",
            "set search_path to a; select 1",
            "set search_path to 'a;b'",
            "set local search_path to a",
            "set unknown.setting to 1",
            "set time zone interval '1' hour",
            "set time zone interval '1' hour to minute to second",
            "set search_path to interval '1' hour to minute",
            "select set_config('timezone', 'UTC', true)",
            "select set_config('timezone', $1, false)",
            "select set_config('timezone', lower('UTC'), false)",
            "select set_config('timezone', 'a''b', false)",
            "select set_config('timezone', 'UTC', false) from t where (a)",
            "select set_config('timezone', 'UTC', false), set_config('timezone', 'GMT', false)",
            "select set_config('search_path', 'a, b', false)",
            "select set_config('search_path', 'a', false)",
            "select set_config('role', 'x', false)",
            "select 'set_config(''timezone'', ''UTC'', false)'",
            "select other('timezone', 'UTC', false)",
        ] {
            assert_eq!(sets(sql), None, "{sql}");
        }
    }
}

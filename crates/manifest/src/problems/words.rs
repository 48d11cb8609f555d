//! The words that problems share: what the user wrote, what was probably meant, and where things belong.

use crate::keys::{TOP, Table};

/// Words of the user's text longer than this are cut where a message repeats them.
const MAX_QUOTED_CHARS: usize = 40;

/// Longer than any name of ours could be misspelt; comparing costs the product of both lengths.
const MAX_COMPARED_BYTES: usize = 64;

/// The user's own words, safe to print and short.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_QUOTED_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_QUOTED_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The candidate that was probably meant.
pub(super) fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > MAX_COMPARED_BYTES {
        return None;
    }
    let text = text.to_ascii_lowercase();
    // A third of the letters may be wrong; below that anything resembles anything.
    let allowed = (text.chars().count() / 3).max(1);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&text, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The table that has the key, when `not_in` does not: one inside it if there is one.
pub(super) fn home_of(key: &str, not_in: &'static Table) -> Option<&'static Table> {
    let mut others: Vec<&Table> = TOP.all().into_iter().filter(|table| table.card(key).is_some()).collect();
    others.sort_by_key(|table| not_in.name.is_empty() || !table.name.starts_with(not_in.name));
    others.first().copied()
}

pub(super) fn within(table: &Table) -> String {
    format!("{} {}", if table.name.is_empty() { "at" } else { "in" }, place_of(table))
}

pub(super) fn place_of(table: &Table) -> String {
    if table.name.is_empty() { "the top of the manifest".to_owned() } else { format!("[{}]", table.name) }
}

//! Text to a spanned tree. A broken line is a problem of its own and does not hide the others.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problems::Problems;

/// A manifest is a few lines; what is longer is another file.
pub const MAX_TEXT_BYTES: usize = 256 * 1024;

/// Deeper than any table of ours; bounds the recursion over what was parsed.
const MAX_KEY_PARTS: usize = 32;

#[derive(Debug)]
pub(crate) struct Document<'a> {
    pub tree: Spanned<DeTable<'a>>,
    text: &'a str,
    /// Lines that could not be read, from start to end. What the parser made of them means nothing.
    broken: BTreeMap<usize, usize>,
}

impl<'a> Document<'a> {
    /// The problems are those of the syntax. `None` when the text is not even looked at.
    pub(crate) fn parse(text: &'a str, problems: &mut Problems) -> Option<Document<'a>> {
        if text.len() > MAX_TEXT_BYTES {
            problems.too_long(text.len(), MAX_TEXT_BYTES);
            return None;
        }
        if let Some(line) = line_with_endless_key(text) {
            problems.syntax(line, "a key with far too many parts");
            return None;
        }
        let (tree, errors) = DeTable::parse_recoverable(text);
        let mut broken = BTreeMap::new();
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            if error.message() == "duplicate key" {
                // To look for the first is a walk over everything, so not for problems that are only counted.
                let first = (!problems.is_full()).then(|| first_of(text, tree.get_ref(), &span));
                problems.duplicate_key(span, first.flatten());
                continue;
            }
            let line = line_around(text, span.start);
            // One mistake often makes several errors; the first of a line is the one to mend.
            if broken.insert(line.start, line.end).is_none() {
                problems.syntax(span, error.message());
            }
        }
        Some(Document { tree, text, broken })
    }

    /// Whether what stands here could not be read, so that nothing can be said about its value.
    pub(crate) fn is_broken(&self, span: &Range<usize>) -> bool {
        // Lines do not overlap: of those that begin before the end, the last reaches furthest.
        self.broken.range(..=span.end).next_back().is_some_and(|(_, end)| span.start <= *end)
    }

    /// Whether a key follows a header that could not be read, so that nobody knows its table.
    pub(crate) fn is_homeless(&self, key: &Range<usize>) -> bool {
        let before = self.text.get(..key.start).unwrap_or_default();
        let header = before.rfind("\n[").map(|at| at + 1).or_else(|| before.starts_with('[').then_some(0));
        header.is_some_and(|header| self.broken.contains_key(&header))
    }

    /// Whether some line could not be read: then a key that seems to be missing may stand in it.
    pub(crate) fn has_broken_lines(&self) -> bool {
        !self.broken.is_empty()
    }
}

fn line_around(text: &str, offset: usize) -> Range<usize> {
    let (before, after) = text.split_at_checked(offset).unwrap_or((text, ""));
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let end = after.find('\n').map_or(text.len(), |at| offset + at);
    start..end
}

/// Every part of a dotted key is a table in a table. The parser does not bound them, so they are bounded before it.
/// Dots in texts and comments count as well: harmless, since no line that means something has as many in a row.
fn line_with_endless_key(text: &str) -> Option<Range<usize>> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let key = line.split(['=', '#']).next().unwrap_or_default();
        if key.matches('.').count() > MAX_KEY_PARTS {
            return Some(start..start + key.trim_end().len());
        }
        start += line.len();
    }
    None
}

/// Where the key that is given again at `again` was given first. The parser does not tell, so the nearest earlier key
/// of the same name is taken: it is wrong only when a table between the two has the name as well.
fn first_of(text: &str, tree: &DeTable<'_>, again: &Range<usize>) -> Option<Range<usize>> {
    let name = text.get(again.clone())?;
    let bare = name.trim_matches(['"', '\'']);
    let mut earlier: Vec<Range<usize>> = Vec::new();
    keys_named(tree, bare, &mut earlier);
    let nearest = earlier.into_iter().filter(|span| span.end <= again.start).max_by_key(|span| span.start);
    nearest.or_else(|| {
        // Of a header given twice the parser keeps the second.
        let header = format!("[{name}]");
        let at = text.get(..again.start)?.find(&header)?;
        Some(at + 1..at + 1 + name.len())
    })
}

fn keys_named(tree: &DeTable<'_>, name: &str, found: &mut Vec<Range<usize>>) {
    for (key, value) in tree.iter() {
        if key.get_ref() == name {
            found.push(key.span());
        }
        if let DeValue::Table(table) = value.get_ref() {
            keys_named(table, name, found);
        }
    }
}

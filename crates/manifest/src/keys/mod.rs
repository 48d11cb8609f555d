//! The cards: one static definition of every key.
//!
//! From a card come the list of accepted keys, the check of its value, its default, its part of the JSON Schema and
//! its entry in the reference, so that these cannot disagree. A key that has a card works; nothing else is accepted.

mod db;
mod edge;
mod kind;
mod rehearsal;
mod top;
mod web;

pub(crate) use kind::{Kind, Shape};
pub use top::TOP;

/// A table of the manifest and the keys that may stand in it.
#[derive(Debug)]
pub struct Table {
    /// Dotted, as in a header; empty for what stands before the first header.
    pub name: &'static str,
    pub about: &'static str,
    pub cards: &'static [Card],
}

/// Everything there is to say about one key.
#[derive(Debug)]
pub struct Card {
    pub key: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Default,
    pub does: &'static str,
    /// How to choose a value.
    pub choose: &'static str,
    /// What happens when the key is left out.
    pub without: &'static str,
    /// Dotted paths of other keys.
    pub see_also: &'static [&'static str],
    /// The key with a sensible value, as it would stand in its table.
    pub example: &'static str,
}

/// Where a value comes from when the manifest does not give one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Default {
    /// Nowhere: the table cannot do without the key.
    Required,
    /// TOML text, read by the same rules as the manifest.
    Value(&'static str),
    /// The preset of the stage.
    Preset,
    /// There is no value; the words say what that means.
    Absent(&'static str),
}

impl Table {
    pub fn card(&self, key: &str) -> Option<&'static Card> {
        self.cards.iter().find(|card| card.key == key)
    }

    /// `grace` of `[web]` is `web.grace`.
    pub fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// This table and those below it, in the order of the reference.
    pub fn all(&'static self) -> Vec<&'static Table> {
        let below = self.cards.iter().filter_map(|card| card.kind.table());
        std::iter::once(self).chain(below.flat_map(Table::all)).collect()
    }
}

impl Card {
    /// The default as the reference shows it.
    pub fn default_text(&self) -> String {
        match self.default {
            Default::Required => "none; the key is required".to_owned(),
            Default::Value(text) => format!("`{text}`"),
            Default::Preset => "by stage".to_owned(),
            Default::Absent(words) => words.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_card_says_everything_and_points_to_keys_that_exist() {
        let tables = TOP.all();
        let paths: Vec<String> =
            tables.iter().flat_map(|table| table.cards.iter().map(|card| table.path(card.key))).collect();
        for table in tables {
            for card in table.cards {
                let path = table.path(card.key);
                for text in [card.does, card.choose, card.without, card.example] {
                    assert!(!text.is_empty(), "{path} leaves something unsaid");
                }
                for text in [card.does, card.choose, card.without] {
                    assert!(text.ends_with('.'), "{path}: {text:?} is not a sentence");
                }
                for other in card.see_also {
                    assert!(paths.iter().any(|path| path == other), "{path} points to {other}");
                }
            }
        }
    }
}

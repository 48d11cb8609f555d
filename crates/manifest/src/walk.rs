//! From the spanned tree to settings: which keys are known, and which table a value belongs to.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::check;
use crate::document::Document;
use crate::keys::{Card, Default, Kind, TOP, Table};
use crate::presets::{self, Preset};
use crate::problems::{At, Problems};
use crate::settings::{Setting, Settings, Source, Value};

/// Reads what a document says, in the name of `source`.
pub(crate) fn walk(document: &Document<'_>, source: Source, problems: &mut Problems) -> Settings {
    let mut walk = Walk { document, source, problems, settings: Settings::default() };
    walk.table(&TOP, document.tree.get_ref());
    walk.settings
}

/// What the preset says, then what the cards say.
pub(crate) fn defaults_of_stage(written: &Settings) -> Settings {
    let defaults = defaults();
    let stage = written.number("stage").or_else(|| defaults.number("stage"));
    let mut settings = stage.and_then(presets::of_stage).map(Preset::settings).unwrap_or_default();
    settings.fill_from(defaults);
    settings
}

fn defaults() -> Settings {
    let mut settings = Settings::default();
    for table in TOP.all() {
        for card in table.cards {
            if let Default::Value(text) = card.default {
                settings.offer(table.path(card.key), default_of(table, card, text));
            }
        }
    }
    settings
}

fn default_of(table: &'static Table, card: &'static Card, text: &str) -> Setting {
    let mut problems = Problems::none_yet(card.key, text);
    let (value, _) = DeValue::parse_recoverable(text);
    let at = At { table, card, span: value.span() };
    let value = check::value(&at, value.get_ref(), &mut problems);
    debug_assert!(problems.is_empty(), "the default of {} is not a value of its own key", at.path());
    Setting { value, source: Source::Default, span: None }
}

/// Says which required keys are missing. A table that is not there needs nothing, but for the web service, which every
/// app has.
pub(crate) fn require(document: &Document<'_>, settings: &Settings, problems: &mut Problems) {
    // The key may stand in the line that could not be read.
    if document.has_broken_lines() {
        return;
    }
    for table in TOP.all() {
        let written = settings.get(table.name);
        let needed = table.name.is_empty()
            || table.name == "web"
            || written.is_some_and(|setting| setting.value == Some(Value::Table));
        let refused = written.is_some_and(|setting| setting.value.is_none());
        for card in table.cards.iter().filter(|_| needed && !refused) {
            if matches!(card.default, Default::Required) && !settings.has(&table.path(card.key)) {
                let place = written.and_then(|setting| setting.span.clone()).unwrap_or(0..0);
                problems.missing_key(table, card, place);
            }
        }
    }
}

struct Walk<'a> {
    document: &'a Document<'a>,
    source: Source,
    problems: &'a mut Problems,
    settings: Settings,
}

impl Walk<'_> {
    fn table(&mut self, table: &'static Table, tree: &DeTable<'_>) {
        for (key, value) in tree.iter() {
            let Some(card) = table.card(key.get_ref()) else {
                if !self.document.is_broken(&key.span()) && !self.document.is_homeless(&key.span()) {
                    self.problems.unknown_key(key.span(), key.get_ref(), table);
                }
                continue;
            };
            let span = place_of(key.span(), value);
            let at = At { table, card, span: span.clone() };
            let value = self.value(&at, key.span(), value);
            self.settings.offer(at.path(), Setting { value, source: self.source, span: Some(span) });
        }
    }

    fn value(&mut self, at: &At, key: Range<usize>, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        match (at.card.kind, value.get_ref()) {
            (Kind::Table(table) | Kind::ChoiceOrTable(_, table), DeValue::Table(tree)) => {
                self.table(table, tree);
                Some(Value::Table)
            }
            // Of a missing value and of `[[web]]` alike the parser knows no place; only the latter is a value.
            (_, value_read) if value.span().is_empty() && !value_read.is_array() => None,
            _ if self.document.is_broken(&(key.start..at.span.end.max(key.end))) => None,
            (_, value) => check::value(at, value, self.problems),
        }
    }
}

/// Where the value is. Of an absent one the parser only knows an empty place at the beginning: then the key stands in.
fn place_of(key: Range<usize>, value: &Spanned<DeValue<'_>>) -> Range<usize> {
    if value.span().is_empty() { key } else { value.span() }
}

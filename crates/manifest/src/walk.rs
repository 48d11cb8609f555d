//! From the spanned tree to settings: which keys are known, and which table a value belongs to.

use std::collections::BTreeMap;
use std::ops::Range;

use model::{RehearsedMethod, RehearsedStep, RehearsedVisit};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

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

/// Of one manifest.
const MAX_VISITS: usize = 50;

/// Of one visit.
const MAX_STEPS: usize = 50;

const MAX_NAME_BYTES: usize = 40;

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
            (Kind::Named(table), DeValue::Table(tree)) => self.visits(at, table, tree).map(Value::Visits),
            (Kind::Steps(table), DeValue::Table(tree)) => {
                self.step(at, table, tree).map(|step| Value::Steps(vec![step]))
            }
            (Kind::Steps(table), DeValue::Array(list)) => self.steps(at, table, list).map(Value::Steps),
            // Of a missing value and of `[[web]]` alike the parser knows no place; only the latter is a value.
            (_, value_read) if value.span().is_empty() && !value_read.is_array() => None,
            _ if self.document.is_broken(&(key.start..at.span.end.max(key.end))) => None,
            (_, value) => check::value(at, value, self.problems),
        }
    }
}

impl Walk<'_> {
    /// What is said in a table that there may be several of, under the paths of its cards.
    fn apart(&mut self, table: &'static Table, tree: &DeTable<'_>) -> Settings {
        let others = std::mem::take(&mut self.settings);
        self.table(table, tree);
        std::mem::replace(&mut self.settings, others)
    }

    fn visits(
        &mut self,
        at: &At,
        table: &'static Table,
        tree: &DeTable<'_>,
    ) -> Option<BTreeMap<String, RehearsedVisit>> {
        if tree.len() > MAX_VISITS {
            self.problems.too_many(at, tree.len(), MAX_VISITS);
            return None;
        }
        let mut visits = Some(BTreeMap::new());
        for (name, value) in tree.iter() {
            let at = At { span: place_of(name.span(), value), ..at.clone() };
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if name.get_ref().len() > MAX_NAME_BYTES || !name.get_ref().bytes().all(plain) {
                let why = "a visit is named by letters, digits, `-` and `_`, at most 40";
                self.problems.malformed(&At { span: name.span(), ..at.clone() }, why, None);
            }
            let visit = match value.get_ref() {
                DeValue::Table(tree) => self.visit(table, name.span(), tree),
                _ if self.document.is_broken(&name.span()) => None,
                other => {
                    self.problems.wrong_type(&at, &format!("a table with {}", check::kind_of(other)), None);
                    None
                }
            };
            visits = visits.zip(visit).map(|(mut visits, visit)| {
                visits.insert(name.get_ref().to_string(), visit);
                visits
            });
        }
        let together: u32 = visits.iter().flatten().map(|(_, visit)| visit.weight).sum();
        if together > 100 {
            self.problems.malformed(at, &format!("together they are {together} of a hundred visits"), None);
            return None;
        }
        visits
    }

    fn visit(
        &mut self,
        table: &'static Table,
        name: Range<usize>,
        tree: &DeTable<'_>,
    ) -> Option<RehearsedVisit> {
        let said = self.apart(table, tree);
        for card in table.cards {
            let is_required = matches!(card.default, Default::Required) && !self.document.has_broken_lines();
            if is_required && !said.has(&table.path(card.key)) {
                self.problems.missing_key(table, card, name.clone());
            }
        }
        let weight = said.number(&table.path("weight"))?;
        Some(RehearsedVisit { weight, steps: said.steps(&table.path("steps"))? })
    }

    fn steps(&mut self, at: &At, table: &'static Table, list: &DeArray<'_>) -> Option<Vec<RehearsedStep>> {
        if list.len() > MAX_STEPS {
            self.problems.too_many(at, list.len(), MAX_STEPS);
            return None;
        }
        if list.is_empty() {
            self.problems.malformed(at, "a visit has at least one step", None);
            return None;
        }
        let mut steps = Some(Vec::new());
        for entry in list.iter() {
            // Of `[[..]]` the parser knows no place.
            let span = if entry.span().is_empty() { at.span.clone() } else { entry.span() };
            let at = At { span, ..at.clone() };
            let step = match entry.get_ref() {
                DeValue::Table(tree) => self.step(&at, table, tree),
                _ if self.document.is_broken(&at.span) => None,
                other => {
                    self.problems.wrong_type(&at, &format!("a list with {}", check::kind_of(other)), None);
                    None
                }
            };
            steps = steps.zip(step).map(|(mut steps, step)| {
                steps.push(step);
                steps
            });
        }
        steps
    }

    fn step(&mut self, at: &At, table: &'static Table, tree: &DeTable<'_>) -> Option<RehearsedStep> {
        let said = self.apart(table, tree);
        if !said.are_whole() {
            return None;
        }
        let (get, post) = (said.text(&table.path("get")), said.text(&table.path("post")));
        let form = said.get(&table.path("form")).and_then(|form| form.span.clone());
        if let (None, Some(span), Some(card)) = (&post, form, table.card("post")) {
            self.problems.needs(span, "form", card);
            return None;
        }
        let (method, path) = match (get, post) {
            (Some(path), None) => (RehearsedMethod::Get, path),
            (None, Some(path)) => (RehearsedMethod::Post, path),
            _ if self.document.has_broken_lines() => return None,
            _ => {
                self.problems.malformed(at, "a step has either `get` or `post`", None);
                return None;
            }
        };
        Some(RehearsedStep {
            method,
            path,
            form: said.fields(&table.path("form")).unwrap_or_default(),
            think_ms: said.millis(&table.path("think")).unwrap_or_default(),
            expect: said.number(&table.path("expect")),
        })
    }
}

/// Where the value is. Of an absent one the parser only knows an empty place at the beginning: then the key stands in.
fn place_of(key: Range<usize>, value: &Spanned<DeValue<'_>>) -> Range<usize> {
    if value.span().is_empty() { key } else { value.span() }
}

//! Values by path, each with where it came from.
//!
//! Manifest, Procfile, preset and defaults are read by the same rules into the same form; whoever comes first wins. So
//! expansion needs to know nothing but paths, and `explain` can tell the origin of every value.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;

use model::{ByteSize, Cpu, RehearsedStep, RehearsedVisit};

/// A value that passed the check of its card.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Flag(bool),
    Millis(u64),
    Bytes(ByteSize),
    Cores(Cpu),
    Address(SocketAddr),
    List(Vec<String>),
    Environment(BTreeMap<String, String>),
    /// Fields of a form.
    Fields(BTreeMap<String, String>),
    Steps(Vec<RehearsedStep>),
    Visits(BTreeMap<String, RehearsedVisit>),
    /// The table is there; its keys have paths of their own.
    Table,
}

/// Who said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Manifest,
    Procfile,
    /// The preset of the stage.
    Preset,
    Default,
}

#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// `None`: a value was given and refused, so nothing may stand in for it and nothing more need be said.
    pub value: Option<Value>,
    pub source: Source,
    /// In the manifest's text.
    pub span: Option<Range<usize>>,
}

#[derive(Debug, Default)]
pub(crate) struct Settings {
    by_path: BTreeMap<String, Setting>,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Manifest => "manifest",
            Source::Procfile => "procfile",
            Source::Preset => "preset",
            Source::Default => "default",
        }
    }
}

impl Settings {
    /// Whoever comes first wins.
    pub(crate) fn offer(&mut self, path: String, setting: Setting) {
        self.by_path.entry(path).or_insert(setting);
    }

    /// Takes from a weaker layer what is not said yet. A table that only the weaker layer has does not come to be by
    /// that: what a preset says of the database is for apps that have one.
    pub(crate) fn fill_from(&mut self, weaker: Settings) {
        for (path, setting) in weaker.by_path {
            if setting.value != Some(Value::Table) {
                self.offer(path, Setting { span: None, ..setting });
            }
        }
    }

    /// Whether no value was refused. One that was always has a problem that says why.
    pub(crate) fn are_whole(&self) -> bool {
        self.by_path.values().all(|setting| setting.value.is_some())
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.by_path.contains_key(path)
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Setting> {
        self.by_path.get(path)
    }

    fn value(&self, path: &str) -> Option<&Value> {
        self.get(path).and_then(|setting| setting.value.as_ref())
    }

    pub(crate) fn sources(&self) -> impl Iterator<Item = (&str, Source)> {
        self.by_path.iter().map(|(path, setting)| (path.as_str(), setting.source))
    }

    pub(crate) fn text(&self, path: &str) -> Option<String> {
        match self.value(path) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    pub(crate) fn number<T: TryFrom<i64>>(&self, path: &str) -> Option<T> {
        match self.value(path) {
            Some(Value::Integer(number)) => T::try_from(*number).ok(),
            _ => None,
        }
    }

    pub(crate) fn flag(&self, path: &str) -> Option<bool> {
        match self.value(path) {
            Some(Value::Flag(flag)) => Some(*flag),
            _ => None,
        }
    }

    pub(crate) fn millis(&self, path: &str) -> Option<u64> {
        match self.value(path) {
            Some(Value::Millis(ms)) => Some(*ms),
            _ => None,
        }
    }

    pub(crate) fn bytes(&self, path: &str) -> Option<ByteSize> {
        match self.value(path) {
            Some(Value::Bytes(bytes)) => Some(*bytes),
            _ => None,
        }
    }

    pub(crate) fn cores(&self, path: &str) -> Option<Cpu> {
        match self.value(path) {
            Some(Value::Cores(cpu)) => Some(*cpu),
            _ => None,
        }
    }

    pub(crate) fn address(&self, path: &str) -> Option<SocketAddr> {
        match self.value(path) {
            Some(Value::Address(address)) => Some(*address),
            _ => None,
        }
    }

    pub(crate) fn list(&self, path: &str) -> Option<Vec<String>> {
        match self.value(path) {
            Some(Value::List(list)) => Some(list.clone()),
            _ => None,
        }
    }

    pub(crate) fn fields(&self, path: &str) -> Option<BTreeMap<String, String>> {
        match self.value(path) {
            Some(Value::Fields(fields)) => Some(fields.clone()),
            _ => None,
        }
    }

    pub(crate) fn steps(&self, path: &str) -> Option<Vec<RehearsedStep>> {
        match self.value(path) {
            Some(Value::Steps(steps)) => Some(steps.clone()),
            _ => None,
        }
    }

    pub(crate) fn visits(&self, path: &str) -> Option<BTreeMap<String, RehearsedVisit>> {
        match self.value(path) {
            Some(Value::Visits(visits)) => Some(visits.clone()),
            _ => None,
        }
    }

    pub(crate) fn environment(&self, path: &str) -> Option<BTreeMap<String, String>> {
        match self.value(path) {
            Some(Value::Environment(variables)) => Some(variables.clone()),
            _ => None,
        }
    }
}

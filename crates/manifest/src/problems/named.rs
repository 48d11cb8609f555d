//! The constructors. Each takes spans and says one kind of problem; together they are the voice of `check`.

use std::ops::Range;

use super::words::{home_of, nearest, place_of, quoted, within};
use super::{Label, Problem, Problems};
use crate::keys::{Card, Table};
use crate::presets;
use crate::units::listed;

/// A value of a known key.
#[derive(Debug, Clone)]
pub(crate) struct At {
    pub table: &'static Table,
    pub card: &'static Card,
    pub span: Range<usize>,
}

impl At {
    pub(crate) fn path(&self) -> String {
        self.table.path(self.card.key)
    }
}

fn label(span: Range<usize>, text: impl Into<String>) -> Label {
    Label { span, text: text.into() }
}

impl Problems {
    fn add(&mut self, code: &'static str, message: String, labels: Vec<Label>, help: String) {
        self.push(Problem { code, message, labels, help });
    }

    pub(crate) fn too_long(&mut self, bytes: usize, max_bytes: usize) {
        self.add(
            "manifest::too_long",
            format!("the manifest has {bytes} bytes, more than the {max_bytes} that are read"),
            Vec::new(),
            "check that this is the right file; a manifest is a few lines".to_owned(),
        );
    }

    pub(crate) fn syntax(&mut self, span: Range<usize>, what: &str) {
        let word = self.text().get(span.clone()).unwrap_or_default();
        let is_bare_word = word.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
        let help = match is_bare_word {
            true => format!("if this is a text, put it in quotes: \"{}\"", quoted(word)),
            false => {
                "a line is `key = value` with texts in quotes, or a `[table]` header; see https://toml.io"
                    .to_owned()
            }
        };
        let what_is_wrong = what.split(", expected").next().unwrap_or(what);
        self.add(
            "manifest::syntax",
            format!("this line cannot be read: {what_is_wrong}"),
            vec![label(span, what)],
            help,
        );
    }

    pub(crate) fn duplicate_key(&mut self, span: Range<usize>, first: Option<Range<usize>>) {
        let key = quoted(self.text().get(span.clone()).unwrap_or_default());
        let is_header = self.text().get(..span.start).is_some_and(|before| before.ends_with('['));
        let help = if is_header { "put the keys of both under one header" } else { "keep one of the two" };
        let mut labels = vec![label(span, "given again here")];
        labels.extend(first.map(|first| label(first, "first given here")));
        self.add("manifest::duplicate_key", format!("`{key}` is given twice"), labels, help.to_owned());
    }

    pub(crate) fn unknown_key(&mut self, span: Range<usize>, key: &str, table: &'static Table) {
        if self.is_full() {
            self.beyond += 1;
            return;
        }
        let known = || table.cards.iter().map(|card| card.key);
        let (mark, help) = if let Some(other) = home_of(key, table) {
            let home = place_of(other);
            (format!("`{}` is a key of {home}", quoted(key)), format!("move the line to {home}"))
        } else if let Some(meant) = nearest(key, known()) {
            (format!("did you mean `{meant}`?"), format!("write `{meant}`"))
        } else {
            ("not a key of this version".to_owned(), "remove the line".to_owned())
        };
        let keys: Vec<String> = known().map(|key| format!("`{key}`")).collect();
        self.add(
            "manifest::unknown_key",
            format!("there is no key `{}` {}", quoted(key), within(table)),
            vec![label(span, mark)],
            format!("{help}; known here: {}", listed(&keys, "and")),
        );
    }

    /// `place` is where the key belongs: its table's header, or the beginning of the text.
    pub(crate) fn missing_key(&mut self, table: &'static Table, card: &'static Card, place: Range<usize>) {
        let owner = if table.name.is_empty() { "the manifest".to_owned() } else { place_of(table) };
        let instead = if table.path(card.key) == "web.run" { ", or a `web:` line in a Procfile" } else { "" };
        self.add(
            "manifest::missing_key",
            format!("{owner} needs `{}`", card.key),
            vec![label(place, format!("`{}` is missing", card.key))],
            format!("add a line such as `{}`{instead}; expected: {}", card.example, card.kind.expects()),
        );
    }

    /// A value that neither the manifest nor its preset nor a default gives.
    pub(crate) fn nothing_gives(&mut self, path: &str) {
        self.add(
            "manifest::missing_key",
            format!("nothing gives `{path}` a value"),
            vec![label(0..0, format!("`{path}` is missing"))],
            format!("add `{path}` to the manifest"),
        );
    }

    /// `found` with its article: `a text`.
    pub(crate) fn wrong_type(&mut self, at: &At, found: &str, meant: Option<String>) {
        let expects = at.card.kind.expects_briefly();
        let help = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("write {expects}, such as `{}`", at.card.example),
        };
        self.add(
            "manifest::wrong_type",
            format!("`{}` cannot be {found}", at.path()),
            vec![label(at.span.clone(), format!("expected {expects}"))],
            help,
        );
    }

    pub(crate) fn out_of_range(&mut self, at: &At, found: &str) {
        self.add(
            "manifest::out_of_range",
            format!("`{}` cannot be {}", at.path(), quoted(found)),
            vec![label(at.span.clone(), format!("expected {}", at.card.kind.expects()))],
            format!("write a value within these limits, such as `{}`", at.card.example),
        );
    }

    /// The type is right, but the value means nothing. `why` completes "this is not allowed: ..".
    pub(crate) fn malformed(&mut self, at: &At, why: &str, meant: Option<String>) {
        let help = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("write {}, such as `{}`", at.card.kind.expects(), at.card.example),
        };
        self.add(
            "manifest::malformed",
            format!("`{}` has a value that cannot be used", at.path()),
            vec![label(at.span.clone(), why)],
            help,
        );
    }

    pub(crate) fn not_filled_in(&mut self, at: &At) {
        self.add(
            "manifest::not_filled_in",
            format!("`{}` is still to be filled in", at.path()),
            vec![label(at.span.clone(), "`init` could not tell, and left this in its place")],
            format!("write {}, such as `{}`", at.card.kind.expects(), at.card.example),
        );
    }

    pub(crate) fn unknown_choice(&mut self, at: &At, found: &str, choices: &[&'static str]) {
        let mark = match nearest(found, choices.iter().copied()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => "not one of the choices".to_owned(),
        };
        self.add(
            "manifest::unknown_choice",
            format!("`{}` cannot be \"{}\"", at.path(), quoted(found)),
            vec![label(at.span.clone(), mark)],
            format!("write {}", at.card.kind.expects()),
        );
    }

    pub(crate) fn stage_not_here_yet(&mut self, at: &At, stage: i64) {
        self.add(
            "manifest::stage_not_here_yet",
            format!("stage {stage} is not in this version yet; {} are", presets::stages("and")),
            vec![label(at.span.clone(), format!("expected {}", presets::stages("or")))],
            format!("write one of them, such as `{}`", at.card.example),
        );
    }

    /// A stage that was asked for, not written: the manifest itself is sound. `now` is where its stage stands.
    pub(crate) fn no_such_stage(&mut self, now: Range<usize>, stage: u8) {
        self.add(
            "manifest::no_such_stage",
            format!("stage {stage} is not in this version; {} are", presets::stages("and")),
            vec![label(now, "left as it is")],
            format!("run `switchback stage N`, N being {}", presets::stages("or")),
        );
    }

    pub(crate) fn reserved_variable(&mut self, span: Range<usize>, name: &str) {
        let help = match name {
            "PORT" => "remove the line: every instance is given a port of its own in `PORT`",
            "DATABASE_URL" => "remove the line: a `[db]` table sets `DATABASE_URL`",
            _ => "choose another name: those beginning with `SWITCHBACK_` are kept for Switchback",
        };
        self.add(
            "manifest::reserved_variable",
            format!("the variable `{}` is set by Switchback", quoted(name)),
            vec![label(span, "cannot be set here")],
            help.to_owned(),
        );
    }

    pub(crate) fn bad_variable_name(&mut self, span: Range<usize>, name: &str) {
        self.add(
            "manifest::bad_variable_name",
            format!("`{}` cannot be the name of an environment variable", quoted(name)),
            vec![label(span, "expected letters, digits and `_`, not beginning with a digit")],
            "rename the variable, such as `LOG_LEVEL`".to_owned(),
        );
    }

    pub(crate) fn too_many(&mut self, at: &At, found: usize, max: usize) {
        self.add(
            "manifest::too_many",
            format!("`{}` has {found} entries, more than {max}", at.path()),
            vec![label(at.span.clone(), format!("at most {max}"))],
            "shorten the list; a folder can stand for what is in it".to_owned(),
        );
    }

    /// A key that means nothing without another.
    pub(crate) fn needs(&mut self, span: Range<usize>, key: &str, needed: &Card) {
        self.add(
            "manifest::needs",
            format!("`{key}` has no meaning without `{}`", needed.key),
            vec![label(span, format!("`{}` is not set", needed.key))],
            format!("add `{}`, or remove this line", needed.example),
        );
    }

    pub(crate) fn reserved_database_name(&mut self, span: Range<usize>, database: &str) {
        self.add(
            "manifest::reserved_database_name",
            format!("the database cannot be called `{database}` as the app is: PostgreSQL keeps this name for itself"),
            vec![label(span, format!("would name the database `{database}`"))],
            "give the database a name of its own with `name = \"app_data\"` in [db]".to_owned(),
        );
    }

    /// Two keys that want the same address. A key that was left out has no place, only its default.
    pub(crate) fn same_address(
        &mut self,
        key: &str,
        span: Range<usize>,
        other: &str,
        other_span: Option<Range<usize>>,
    ) {
        let mark = match other_span {
            Some(_) => "the same address".to_owned(),
            None => format!("the same address as `{other}` has when it is left out"),
        };
        let mut labels = vec![label(span, mark)];
        labels.extend(other_span.map(|other_span| label(other_span, format!("taken by `{other}`"))));
        self.add(
            "manifest::same_address",
            format!("`{key}` and `{other}` cannot share an address"),
            labels,
            format!("give `{key}` another port"),
        );
    }
}

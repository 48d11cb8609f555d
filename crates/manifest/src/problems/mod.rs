//! What is wrong with a manifest, all of it at once.
//!
//! A problem underlines the exact key or value, labels the other place when two are involved, and ends in something to
//! do. They are made by the named constructors in `named`, nowhere else, so that their words stay alike.

mod named;
mod words;

use std::fmt;
use std::ops::Range;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};
use serde_json::{Value, json};

pub(crate) use named::At;
pub(crate) use words::quoted;

/// More are counted but not kept: nobody reads further, and a binary file would give thousands.
pub const MAX_PROBLEMS: usize = 100;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: &'static str,
    message: String,
    /// The first is where the problem is, the others are places involved.
    labels: Vec<Label>,
    help: String,
}

/// A place in the text and what to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Bytes.
    pub span: Range<usize>,
    pub text: String,
}

/// Every problem of one manifest, in the order of the text. Never empty when it is returned as an error.
#[derive(Debug)]
pub struct Problems {
    source: NamedSource<String>,
    list: Vec<Problem>,
    beyond: usize,
}

/// A place as editors count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl Position {
    /// Of the byte `offset` of `text`.
    pub(crate) fn of(offset: usize, text: &str) -> Position {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Position { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

impl Problem {
    /// A stable name such as `manifest::unknown_key`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn help(&self) -> &str {
        &self.help
    }

    /// Where the problem is; then the other places involved.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    fn start(&self) -> usize {
        self.labels.first().map_or(0, |label| label.span.start)
    }
}

impl Problems {
    pub(crate) fn none_yet(source_name: &str, text: &str) -> Problems {
        Problems { source: NamedSource::new(source_name, text.to_owned()), list: Vec::new(), beyond: 0 }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    pub fn len(&self) -> usize {
        self.list.len() + self.beyond
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The file the problems are in, as the caller named it.
    pub fn source_name(&self) -> &str {
        self.source.name()
    }

    /// Where the byte `offset` of the text is.
    pub fn position(&self, offset: usize) -> Position {
        Position::of(offset, self.text())
    }

    /// For `check --json`.
    pub fn to_json(&self) -> Value {
        let label = |label: &Label| {
            let (start, end) = (self.position(label.span.start), self.position(label.span.end));
            json!({
                "text": label.text,
                "start": { "offset": label.span.start, "line": start.line, "column": start.column },
                "end": { "offset": label.span.end, "line": end.line, "column": end.column },
            })
        };
        let problem = |problem: &Problem| {
            json!({
                "code": problem.code,
                "message": problem.message,
                "help": problem.help,
                "labels": problem.labels.iter().map(label).collect::<Vec<_>>(),
            })
        };
        json!({
            "file": self.source_name(),
            "count": self.len(),
            "problems": self.iter().map(problem).collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> &str {
        self.source.inner()
    }

    /// Further problems are only counted, so that nothing need be worked out for them.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() == MAX_PROBLEMS
    }

    fn push(&mut self, problem: Problem) {
        if self.is_full() {
            self.beyond += 1;
        } else {
            self.list.push(problem);
        }
    }

    pub(crate) fn sorted(mut self) -> Problems {
        // Stable, so that problems of one place stay in the order in which they were found.
        self.list.sort_by_key(Problem::start);
        self
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len() {
            1 => write!(f, "{} has a problem", self.source_name()),
            count => write!(f, "{} has {count} problems", self.source_name()),
        }
    }
}

impl std::error::Error for Problems {}

impl Diagnostic for Problems {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (self.beyond > 0).then(|| {
            Box::new(format!("the first {MAX_PROBLEMS} are shown; is this the right file?"))
                as Box<dyn fmt::Display>
        })
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.list.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().enumerate().map(|(at, label)| {
            let text = (!label.text.is_empty()).then(|| label.text.clone());
            match at {
                0 => LabeledSpan::new_primary_with_span(text, label.span.clone()),
                _ => LabeledSpan::new_with_span(text, label.span.clone()),
            }
        })))
    }
}

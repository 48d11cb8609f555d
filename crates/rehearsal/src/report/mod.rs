//! The report of a rehearsal, or of a journey of several: one page that opens without a network, and the same as JSON.
//!
//! What a [`Document`] says comes from its caller: the verdict, its evidence, what was changed between two records. What its
//! records measured is counted and drawn here. A record that is invalid or was cut short is said before anything else.
//!
//! The page is one file: style, script, charts' library and data stand in it, and its content security policy forbids
//! everything else. What came from outside (names of phases, classes and tiers, events) is escaped as text in the page
//! and as JSON in the data, which is no script. The page stays below [`MOST_BYTES`]: a longer run is drawn in coarser columns.

mod columns;
mod drawing;
mod heat;
mod html;
pub mod journey;
pub mod live;
mod numbers;
mod page;
pub mod staircase;
mod words;

use std::io;

use serde::{Deserialize, Serialize};

use crate::record::Record;
pub use words::how_it_failed;
pub(crate) use words::shortened;

/// Of a page, as long as what its caller says of it is no book.
pub const MOST_BYTES: usize = 1_000_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Such as `frontpage: rehearsal of a front page`.
    pub title: String,
    pub verdict: Verdict,
    /// What the verdict rests on, a sentence each.
    pub evidence: Vec<String>,
    pub tables: Vec<Table>,
    /// One for a rehearsal, one for each stage of a journey.
    pub parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub passed: Passed,
    /// One sentence.
    pub sentence: String,
}

/// Whether what was asked of the app was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Passed {
    Yes,
    No,
    NotAsked,
}

/// Figures as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub title: String,
    pub head: Vec<String>,
    /// Each as long as the head.
    pub rows: Vec<Vec<String>>,
    pub note: Option<String>,
}

/// One record, with what is to be said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Such as `Stage 2: two zones`.
    pub title: String,
    /// What is another since the part before.
    pub change: Option<String>,
    /// What was found, a sentence each.
    pub findings: Vec<String>,
    /// What a search found, with all that it rests on, for programs. The page has it in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<serde_json::Value>,
    pub record: Record,
}

impl Part {
    /// Why what it measured must not be relied on, or not wholly. Empty: nothing speaks against it.
    pub fn doubts(&self) -> Vec<String> {
        let record = &self.record;
        let faults = record.validity.faults.iter().map(|fault| format!("Invalid: {fault}"));
        let cut_short = record.cut_short.iter().map(|why| format!("Cut short: {why}"));
        let empty = record.seconds.is_empty().then(|| "Empty: nothing was measured".to_owned());
        faults.chain(cut_short).chain(empty).collect()
    }
}

/// The page.
pub fn html(document: &Document) -> String {
    let longest = document.parts.iter().map(|part| part.record.seconds.len()).max().unwrap_or(0);
    let mut coarseness = 1;
    loop {
        let page = page::page(document, coarseness);
        // A page whose texts alone are too long gets no shorter by coarser columns.
        if page.len() <= MOST_BYTES || coarseness >= longest {
            return page;
        }
        coarseness *= 2;
    }
}

/// The same for programs, records whole: of hours that is half a gigabyte, and never all in memory.
///
/// # Errors
/// Those of `to`.
pub fn json(document: &Document, to: impl io::Write) -> io::Result<()> {
    serde_json::to_writer(to, document).map_err(io::Error::from)
}

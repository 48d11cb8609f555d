//! What is said of a report when it is written, and with which code the command ends.

use std::path::Path;

use rehearsal::report::{Document, Passed, Table};

use super::write::{self, Written};
use crate::cli::connect::App;
use crate::cli::say::{self, GREEN, Problem, RED, Stream, YELLOW, paint};

/// Writes the report. On a disk that is full by now it is said instead: nobody should be left with nothing.
///
/// # Errors
/// When it cannot be written.
pub fn written(app: &App, out: Option<&Path>, document: &Document) -> Result<Written, Problem> {
    write::document(app, out, document).inspect_err(|_| {
        std::iter::once(&document.verdict.sentence)
            .chain(&document.evidence)
            .for_each(|line| say::talk(line));
    })
}

/// For people: the verdict, the tables, what it rests on, and where the page is.
///
/// # Errors
/// When nobody can be told.
pub fn text(document: &Document, written: &Written) -> Result<(), Problem> {
    let colour = match document.verdict.passed {
        Passed::Yes => GREEN,
        Passed::No => RED,
        Passed::NotAsked => YELLOW,
    };
    say::data(&format!("{}\n", paint(Stream::Out, colour, &document.verdict.sentence)))?;
    for table in &document.tables {
        say::data(&columns(table))?;
    }
    for line in &document.evidence {
        say::data(&format!("  {line}\n"))?;
    }
    say::talk(&format!("{} {}", paint(Stream::Err, GREEN, "report:"), written.page.display()));
    Ok(())
}

/// # Errors
/// The exit code, where what was asked of the app was not kept, or what was measured is no proof.
pub fn outcome(document: &Document) -> Result<(), Problem> {
    match document.verdict.passed {
        Passed::Yes | Passed::NotAsked if is_sound(document) => Ok(()),
        _ => Err(Problem::Said(1)),
    }
}

/// Whether all of it was measured, and says something of the app.
pub fn is_sound(document: &Document) -> bool {
    document.parts.iter().all(|part| part.record.is_proof())
}

fn columns(table: &Table) -> String {
    let width = |column: usize| {
        let cells = std::iter::once(&table.head).chain(&table.rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    std::iter::once(line(&table.head)).chain(table.rows.iter().map(line)).collect()
}

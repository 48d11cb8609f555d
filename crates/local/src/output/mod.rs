//! What the children say: from the files they append to, into one store that people read.
//!
//! ```text
//! logs/current/web.1.out   as the child writes it; what was read is freed again (a hole in the file)
//! logs/current/web.1.err
//! logs/current/web.1.closed  nobody writes to them any more: they are read to their end and deleted
//! logs/store/TIME.jsonl    segments in the order of time, one record a line; the oldest go first
//! logs/store/offsets.json  up to where each file was read, as of some moment
//! ```
//!
//! A child writes to files of its own, so neither the death of the daemon nor its slowness can stop it or
//! lose a line. The [`Tailer`] belongs to the daemon and moves lines to the store. **Each line enters the
//! store once**, wherever the daemon is killed: every stored record carries the offset in the child's file
//! that follows it, so a new daemon reads in the store itself how far the old one came. What may be lost is
//! said here:
//!
//! - An app that truncates its own output (`echo > /dev/stderr` in a shell does) takes away what was not read
//!   in the last 100 ms.
//! - Faster than [`Budget::rate_bytes`] for longer than a burst, lines are dropped, counted, and the count is
//!   logged.
//! - On a file system without holes a file that was read to its end and is larger than
//!   16 MiB is emptied; what is written in that very instant is lost.

mod lines;
mod offsets;
mod reader;
mod store;
mod tailed;
pub mod tailer;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use telemetry::log::Stream;

pub use reader::{Follow, Query, Stranger};
pub use store::Budget;
pub use tailer::Tailer;

use crate::process::OutputFiles;

/// What follows the name of a process whose files are closed.
const CLOSED: &str = ".closed";

/// The folder of all logs of one app. Cheap; reading needs no daemon.
#[derive(Debug, Clone)]
pub struct Logs {
    root: PathBuf,
}

impl Logs {
    /// `root` is made when the first is written.
    pub fn at(root: impl Into<PathBuf>) -> Logs {
        Logs { root: root.into() }
    }

    /// Where the process `name` (`web.1`) appends its output, for [`crate::process::Spec`].
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn files(&self, name: &str) -> io::Result<OutputFiles> {
        std::fs::create_dir_all(self.current())?;
        let file = |stream| self.current().join(file_name(name, stream));
        Ok(OutputFiles { stdout: file(Stream::Stdout), stderr: file(Stream::Stderr) })
    }

    /// Whoever has files that are written to, or were.
    ///
    /// # Errors
    /// When the folder is there but cannot be read.
    pub fn open(&self) -> io::Result<BTreeSet<String>> {
        let entries = match std::fs::read_dir(self.current()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            other => other?,
        };
        let paths = entries.flatten().map(|entry| entry.path());
        Ok(paths.filter_map(|path| Some(source_of(&path)?.0.to_owned())).collect())
    }

    /// Says that nobody writes to the files of `name` any more, now or ever. The [`Tailer`] reads them to their end and
    /// deletes them; until then they would be looked at for as long as there is a daemon.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn close(&self, name: &str) -> io::Result<()> {
        std::fs::File::create(self.closed_file(name)).map(drop)
    }

    fn closed_file(&self, name: &str) -> PathBuf {
        self.current().join(format!("{name}{CLOSED}"))
    }

    fn current(&self) -> PathBuf {
        self.root.join("current")
    }

    fn store(&self) -> PathBuf {
        self.root.join("store")
    }
}

fn file_name(name: &str, stream: Stream) -> String {
    match stream {
        Stream::Stdout => format!("{name}.out"),
        Stream::Stderr => format!("{name}.err"),
    }
}

/// The process and stream that a file of `current` belongs to.
fn source_of(path: &Path) -> Option<(&str, Stream)> {
    let file = path.file_name()?.to_str()?;
    match file.rsplit_once('.')? {
        (name, "out") => Some((name, Stream::Stdout)),
        (name, "err") => Some((name, Stream::Stderr)),
        _ => None,
    }
}

/// The process that a file of `current` says to be closed.
fn closed_by(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_suffix(CLOSED)
}

/// `web` of `web.1`.
fn service_of(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(service, _)| service)
}

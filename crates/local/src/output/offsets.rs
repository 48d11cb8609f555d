//! How far each file of `current` was read.
//!
//! The truth is in the store: the last record of a file says where it ended. Reading the whole store at each
//! start would take long, so a checkpoint is written now and then, and only what was stored since is read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::file_name;
use super::store::{Mark, Position, segments};

const FILE: &str = "offsets.json";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offsets {
    /// Everything in the store before this is accounted for.
    pub position: Position,
    /// By file name (`web.1.out`).
    pub files: BTreeMap<String, ReadUpTo>,
    /// No record is stamped earlier, so that the order of the store is the order of time even when the clock
    /// is set back.
    pub last_time: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReadUpTo {
    pub offset: u64,
    /// `None` when only the store remembers the file.
    pub inode: Option<u64>,
}

impl Offsets {
    /// The checkpoint, brought up to date from the store. A missing or damaged checkpoint only takes longer.
    pub(super) fn recover(store: &Path) -> io::Result<Offsets> {
        let checkpoint = fs::read(store.join(FILE)).ok();
        let mut offsets: Offsets =
            checkpoint.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let since = offsets.position.clone();
        offsets.position = each_line(store, &since, |line| {
            let Ok(mark) = serde_json::from_slice::<Mark>(line) else { return };
            let file = offsets.files.entry(file_name(&mark.instance, mark.stream)).or_default();
            file.offset = mark.end;
            offsets.last_time = offsets.last_time.max(Some(mark.time));
        })?;
        Ok(offsets)
    }

    /// Whole or not at all.
    pub(super) fn save(&self, store: &Path) -> io::Result<()> {
        let temporary = store.join(format!("{FILE}.new"));
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        fs::rename(&temporary, store.join(FILE))
    }
}

/// Every whole line after `since`, without its line end; returns where the last one ended.
pub(super) fn each_line(store: &Path, since: &Position, mut line: impl FnMut(&[u8])) -> io::Result<Position> {
    let mut position = since.clone();
    for segment in segments(store)? {
        if segment < since.segment {
            continue;
        }
        let from = if segment == since.segment { since.length } else { 0 };
        let length = each_line_of(store, &segment, from, &mut line)?;
        position = Position { segment, length };
    }
    Ok(position)
}

/// Every whole line of one segment; returns where the last one ended. One deleted meanwhile has none.
pub(super) fn each_line_of(
    store: &Path,
    segment: &str,
    from: u64,
    line: &mut impl FnMut(&[u8]),
) -> io::Result<u64> {
    let mut file = match File::open(store.join(segment)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(from),
        other => other?,
    };
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let (mut at, mut bytes) = (from, Vec::new());
    while reader.read_until(b'\n', &mut bytes)? > 0 && bytes.ends_with(b"\n") {
        at += bytes.len() as u64;
        line(&bytes[..bytes.len() - 1]);
        bytes.clear();
    }
    Ok(at)
}

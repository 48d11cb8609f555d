//! Which copies lead to where. Each failover and each restore begins a new timeline; a copy is of use to those that
//! branched off after it was made, and to no other.

use model::Lsn;

use super::{Archive, ArchiveError, BaseBackup, WalName};

/// The only one that comes from no other.
const FIRST_TIMELINE: u32 = 1;

/// A timeline and those it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    pub timeline: u32,
    /// By timeline, the position where it was left for the next; the oldest first.
    ancestors: Vec<(u32, Lsn)>,
}

impl Lineage {
    /// Of the newest timeline that the archive knows: where no primary can be asked which one it writes.
    ///
    /// # Errors
    /// When its history cannot be read.
    pub fn newest(archive: &Archive) -> Result<Option<Lineage>, ArchiveError> {
        let newest = archive.names()?.iter().map(WalName::timeline).max();
        newest.map(|timeline| Lineage::of(archive, timeline)).transpose()
    }

    /// Of the timeline that the primary writes. One whose history is not stored yet has only just begun, and the newest
    /// that is known stands for it.
    ///
    /// # Errors
    /// When a history cannot be read.
    pub fn written(archive: &Archive, timeline: u32) -> Result<Option<Lineage>, ArchiveError> {
        match archive.history(timeline)? {
            Some(history) => Ok(Some(Lineage::read(timeline, &history))),
            None if timeline == FIRST_TIMELINE => Ok(Some(Lineage::read(timeline, ""))),
            None => Lineage::newest(archive),
        }
    }

    /// # Errors
    /// When its history cannot be read.
    pub fn of(archive: &Archive, timeline: u32) -> Result<Lineage, ArchiveError> {
        let history = archive.history(timeline)?.unwrap_or_default();
        Ok(Lineage::read(timeline, &history))
    }

    /// Reads a history file: on each line a timeline, the position where it ended, and a reason.
    pub fn read(timeline: u32, history: &str) -> Lineage {
        let ancestor = |line: &str| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, position(words.next()?)?))
        };
        Lineage { timeline, ancestors: history.lines().filter_map(ancestor).collect() }
    }

    /// Whether recovery from this copy can arrive on this timeline.
    pub fn continues(&self, backup: &BaseBackup) -> bool {
        let left = |(timeline, end): &(u32, Lsn)| *timeline == backup.timeline && backup.stop <= *end;
        backup.timeline == self.timeline || self.ancestors.iter().any(left)
    }

    /// Which timeline a segment is read from: the one that was being written when the segment ended.
    fn timeline_at(&self, number: u64) -> u32 {
        let left = |(_, end): &&(u32, Lsn)| WalName::number_at(*end) > number;
        self.ancestors.iter().find(left).map_or(self.timeline, |(timeline, _)| *timeline)
    }

    /// The first segment after `backup` that is missing although a later one is there. What was written while it was made,
    /// it has itself.
    pub fn gap(&self, backup: &BaseBackup, names: &[WalName]) -> Option<WalName> {
        let there = |number: u64| {
            let segment = WalName::Segment { timeline: self.timeline_at(number), number };
            names.binary_search(&segment).map_err(|_| segment)
        };
        let last = names.iter().filter_map(|name| match name {
            WalName::Segment { timeline, number } if *timeline == self.timeline_at(*number) => Some(*number),
            _ => None,
        });
        (WalName::number_at(backup.stop)..=last.max()?).find_map(|number| there(number).err())
    }
}

/// The copy to begin with for a moment, in Unix time: the newest that ended before it and leads there. One that was found to
/// be of no use only where there is no other.
pub fn base_for<'a>(backups: &'a [BaseBackup], lineage: &Lineage, until_ms: i64) -> Option<&'a BaseBackup> {
    let before = |backup: &&BaseBackup| backup.ended.as_millisecond() <= until_ms;
    best(backups.iter().filter(|backup| lineage.continues(backup)).filter(before))
}

/// As [`base_for`], for everything that is stored.
///
/// # Errors
/// With the segment that is missing, where a gap in the log keeps every copy from its end.
pub fn base_for_latest<'a>(
    backups: &'a [BaseBackup],
    lineage: &Lineage,
    names: &[WalName],
) -> Result<Option<&'a BaseBackup>, WalName> {
    let lead = || backups.iter().filter(|backup| lineage.continues(backup));
    let whole = best(lead().filter(|backup| lineage.gap(backup, names).is_none()));
    match whole.or_else(|| best(lead())) {
        Some(backup) => lineage.gap(backup, names).map_or(Ok(Some(backup)), Err),
        None => Ok(None),
    }
}

fn best<'a>(backups: impl Iterator<Item = &'a BaseBackup>) -> Option<&'a BaseBackup> {
    backups.max_by_key(|backup| (backup.refuted.is_none(), backup.number))
}

/// As PostgreSQL writes it: `2/A7000028`.
pub fn position(text: &str) -> Option<Lsn> {
    let (high, low) = text.split_once('/')?;
    let (high, low) = (u64::from_str_radix(high, 16).ok()?, u32::from_str_radix(low, 16).ok()?);
    Some(Lsn((high << 32) | u64::from(low)))
}

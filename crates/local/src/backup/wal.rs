//! The names that PostgreSQL gives to the files of its log.

use std::fmt;
use std::str::FromStr;

use model::Lsn;

/// As `initdb` makes it where it is not told otherwise.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// A name counts segments within 4 GB of log, then those.
const SEGMENTS_PER_ID: u64 = 0x1_0000_0000 / SEGMENT_BYTES;

/// A file of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalName {
    Segment {
        timeline: u32,
        number: u64,
    },
    /// The beginning of a segment in which its timeline ended.
    Partial {
        timeline: u32,
        number: u64,
    },
    /// Says where a timeline left the one before.
    History {
        timeline: u32,
    },
    /// Says that a base backup was made, `offset` bytes into a segment. Nothing needs it.
    Label {
        timeline: u32,
        number: u64,
        offset: u32,
    },
}

impl WalName {
    /// The segment that a position of the log is in.
    pub fn number_at(lsn: Lsn) -> u64 {
        lsn.0 / SEGMENT_BYTES
    }

    pub fn timeline(&self) -> u32 {
        match self {
            WalName::Segment { timeline, .. }
            | WalName::Partial { timeline, .. }
            | WalName::Label { timeline, .. }
            | WalName::History { timeline } => *timeline,
        }
    }

    /// `None` for a history, which is needed by whatever comes after it.
    pub fn number(&self) -> Option<u64> {
        match self {
            WalName::Segment { number, .. }
            | WalName::Partial { number, .. }
            | WalName::Label { number, .. } => Some(*number),
            WalName::History { .. } => None,
        }
    }
}

impl fmt::Display for WalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segment = |f: &mut fmt::Formatter<'_>, timeline: u32, number: u64| {
            write!(f, "{timeline:08X}{:08X}{:08X}", number / SEGMENTS_PER_ID, number % SEGMENTS_PER_ID)
        };
        match *self {
            WalName::Segment { timeline, number } => segment(f, timeline, number),
            WalName::Partial { timeline, number } => {
                segment(f, timeline, number)?;
                f.write_str(".partial")
            }
            WalName::History { timeline } => write!(f, "{timeline:08X}.history"),
            WalName::Label { timeline, number, offset } => {
                segment(f, timeline, number)?;
                write!(f, ".{offset:08X}.backup")
            }
        }
    }
}

/// Not the name of a file of the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a file of PostgreSQL's log")]
pub struct NotWal(String);

impl FromStr for WalName {
    type Err = NotWal;

    fn from_str(name: &str) -> Result<WalName, NotWal> {
        read(name).ok_or_else(|| NotWal(name.to_owned()))
    }
}

fn read(name: &str) -> Option<WalName> {
    let (digits, rest) = name.split_once('.').map_or((name, None), |(digits, rest)| (digits, Some(rest)));
    if let (8, Some("history")) = (digits.len(), rest) {
        return Some(WalName::History { timeline: hex(digits)? });
    }
    if digits.len() != 24 || !digits.is_ascii() {
        return None;
    }
    let timeline = hex(&digits[..8])?;
    let (id, within) = (u64::from(hex(&digits[8..16])?), u64::from(hex(&digits[16..])?));
    let number = id * SEGMENTS_PER_ID + within;
    match rest {
        _ if within >= SEGMENTS_PER_ID => None,
        None => Some(WalName::Segment { timeline, number }),
        Some("partial") => Some(WalName::Partial { timeline, number }),
        Some(rest) => {
            let offset = rest.strip_suffix(".backup").filter(|offset| offset.len() == 8)?;
            Some(WalName::Label { timeline, number, offset: hex(offset)? })
        }
    }
}

/// Upper case only, as PostgreSQL writes it: one file has one name.
fn hex(digits: &str) -> Option<u32> {
    let plain = |c: char| c.is_ascii_digit() || ('A'..='F').contains(&c);
    digits.chars().all(plain).then(|| u32::from_str_radix(digits, 16).ok())?
}

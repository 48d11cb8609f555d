//! A record as JSON, as it is kept beside a report and compared with later ones.

use std::io;

use serde::Deserialize;
use thiserror::Error;

use super::{Record, VERSION};

/// The longest rehearsal ([`crate::profile::LONGEST_MS`]) has less, up to 400 visits a second. More is refused before it is
/// looked at.
pub const MOST_BYTES: usize = 512 * 1024 * 1024;

#[derive(Debug, Error)]
pub enum ReadError {
    #[error("the record has {0} bytes, and no more than {most} are read: rehearse again, and for shorter", most = MOST_BYTES)]
    TooLarge(usize),
    #[error("this is no record of a rehearsal; name the JSON file that `switchback rehearse` has written")]
    NoRecord(#[source] serde_json::Error),
    #[error(
        "the record is of form {found} and this Switchback reads form {ours}; rehearse again, or use the Switchback that \
         has written it",
        ours = VERSION
    )]
    OtherVersion { found: u64 },
    #[error("the record contradicts itself, so it was changed or cut by something: {0}")]
    Contradiction(String),
}

/// All that is read before the version is known.
#[derive(Deserialize)]
struct Head {
    version: u64,
}

pub fn write(record: &Record) -> String {
    serde_json::to_string(record).expect("a record has no keys but words")
}

/// Without having all of it in memory.
///
/// # Errors
/// Those of `to`.
pub fn write_to(to: impl io::Write, record: &Record) -> io::Result<()> {
    serde_json::to_writer(to, record).map_err(io::Error::from)
}

/// # Errors
/// When it is no record, one of another form, or one that contradicts itself.
pub fn read(json: &[u8]) -> Result<Record, ReadError> {
    if json.len() > MOST_BYTES {
        return Err(ReadError::TooLarge(json.len()));
    }
    let head: Head = serde_json::from_slice(json).map_err(ReadError::NoRecord)?;
    if head.version != u64::from(VERSION) {
        return Err(ReadError::OtherVersion { found: head.version });
    }
    let record: Record = serde_json::from_slice(json).map_err(ReadError::NoRecord)?;
    coherent(&record).map_err(ReadError::Contradiction)?;
    Ok(record)
}

/// What every reader of a record relies on.
fn coherent(record: &Record) -> Result<(), String> {
    for (expected, second) in record.seconds.iter().enumerate() {
        if second.at as usize != expected {
            return Err(format!("second {} stands where {expected} belongs", second.at));
        }
        for (name, class) in &second.classes {
            let ended: u64 = class.outcomes.values().map(|n| u64::from(*n)).sum();
            if ended > u64::from(class.sent) {
                return Err(format!(
                    "in second {expected} {ended} requests of {name} ended, of {} sent",
                    class.sent
                ));
            }
        }
    }
    for tier in &record.tiers {
        if let Some([_, later]) = tier.seconds.array_windows().find(|[a, b]| a.at >= b.at) {
            return Err(format!("second {} of tier {} does not follow the one before", later.at, tier.name));
        }
    }
    Ok(())
}

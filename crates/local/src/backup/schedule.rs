//! When a copy is due. A decision of values.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::{BaseBackup, WalName};

/// A clock that is behind the newest copy by more than this was set back.
const CLOCK_SLACK: Duration = Duration::from_secs(60);
/// A copy that was found to be of no use is replaced when it is this old: what has spoiled it may be over then.
const REPLACED_AFTER: Duration = Duration::from_secs(3_600);

/// Why a copy is to be made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// The log alone leads nowhere.
    First,
    Old,
    /// An attempt to prove the newest has found that it is of no use.
    Refuted,
    /// The log after the newest copy is not whole, so that nothing after this segment can be restored.
    Gap(WalName),
    /// Age cannot be told: the newest copy is from the future.
    ClockWentBack,
    /// Another timeline has begun that no copy leads to.
    LeadsNowhere,
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Due::First => f.write_str("there is none yet"),
            Due::Old => f.write_str("the newest is old enough"),
            Due::Refuted => f.write_str("the newest was found to be of no use"),
            Due::Gap(segment) => write!(f, "{segment} is missing in the log after the newest"),
            Due::ClockWentBack => {
                f.write_str("the newest is from the future: the clock of this machine was set back")
            }
            Due::LeadsNowhere => f.write_str("none leads to what the database is now"),
        }
    }
}

/// `newest` is the newest copy that leads to what the database is now, among `all`.
pub fn due(
    all: &[BaseBackup],
    newest: Option<&BaseBackup>,
    gap: Option<WalName>,
    every: Duration,
    now: Timestamp,
) -> Option<Due> {
    let Some(newest) = newest else {
        return Some(if all.is_empty() { Due::First } else { Due::LeadsNowhere });
    };
    let age = now.duration_since(newest.began);
    if age.is_negative() && age.unsigned_abs() > CLOCK_SLACK {
        return Some(Due::ClockWentBack);
    }
    if let Some(segment) = gap {
        return Some(Due::Gap(segment));
    }
    let is_older = |limit: Duration| !age.is_negative() && age.unsigned_abs() >= limit;
    if is_older(every) {
        return Some(Due::Old);
    }
    // Once: where the next is of no use either, more of them would only push the good ones out.
    let before = all.iter().rfind(|backup| backup.number < newest.number);
    let is_first = before.is_none_or(|backup| backup.refuted.is_none());
    (newest.refuted.is_some() && is_first && is_older(REPLACED_AFTER)).then_some(Due::Refuted)
}

//! Whether a history could have come about without anything being lost, doubled, torn or taken back.
//!
//! The checkers are ours and small. They look for what people notice: the histories are written so that Elle, which
//! looks for every cycle there is, can be asked as well.

mod bank;
mod lists;

use std::fmt;

pub use bank::{Books, check as bank};
pub use lists::{Reads, check as lists};

/// Why a history could not have come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It was acknowledged and is not there.
    Lost,
    /// It is there twice.
    Doubled,
    /// It was refused and is there, or was read (Adya's G1a).
    Aborted,
    /// It is there, or was read, and nobody has written it.
    Unknown,
    /// A list was read that is no beginning of the list it became.
    Fork,
    /// What a transaction wrote between was read by another one (Adya's G1b).
    Intermediate,
    /// A transaction did not see what it had written itself.
    Internal,
    /// A transaction that sees one state of the database saw two.
    Unrepeatable,
    /// A client did not see what was acknowledged to itself.
    StaleOwn,
    /// A client saw less on the primary than it had seen there before, or on a replica less than anybody had seen.
    Backwards,
    /// A read did not see what had been acknowledged to anybody before it began.
    Stale,
    /// A write took its place before one that had been acknowledged before it began.
    Reordered,
    /// Money was made or lost.
    Total,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub kind: Kind,
    pub detail: String,
}

impl Violation {
    fn new(kind: Kind, detail: String) -> Violation {
        Violation { kind, detail }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.detail)
    }
}

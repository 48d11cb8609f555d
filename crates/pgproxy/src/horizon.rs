//! Whether a transaction id can still be asked for.
//!
//! A primary that crashes forgets the ids it gave to transactions of which nothing was written down or replicated, and
//! its successor gives them again. To ask the successor about such an id would be to learn the fate of somebody else's
//! transaction. So each new connection takes an id of its own before it is used for anything. An id at or above the
//! lowest of these, asked for since the COMMIT was sent, is one that the node did not know: not committed.

use std::collections::VecDeque;

/// Connections looked back on. A COMMIT that outlasts more of them cannot be settled.
const MAX_REMEMBERED: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Horizons {
    /// When it was asked for, and what was told.
    told: VecDeque<(Moment, u64)>,
    now: Moment,
    /// What was told before this has been forgotten in part.
    forgotten: Moment,
}

/// Counts the connections that were begun.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// What is known of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// `pg_xact_status` tells the truth about it.
    Ask,
    /// It was lost with the node that gave it.
    Lost,
    /// Too much has happened since, or nothing yet.
    Unclear,
}

impl Horizons {
    /// A connection is about to ask. What it is told says nothing about a COMMIT that is sent from now on.
    pub fn ask(&mut self) -> Moment {
        self.now.0 += 1;
        self.now
    }

    pub fn record(&mut self, asked: Moment, xid: u64) {
        self.told.push_back((asked, xid));
        if self.told.len() > MAX_REMEMBERED
            && let Some((when, _)) = self.told.pop_front()
        {
            self.forgotten = self.forgotten.max(when);
        }
    }

    /// Now, as a COMMIT is sent.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Of an id given before `sent`, asked on a connection that was `begun` then.
    pub fn known(&self, xid: u64, sent: Moment, begun: Moment) -> Known {
        if begun <= sent {
            // A crash would have ended this connection: it is still the node that gave the id.
            return Known::Ask;
        }
        if sent < self.forgotten {
            return Known::Unclear;
        }
        match self.told.iter().filter(|(asked, _)| *asked > sent).map(|&(_, told)| told).min() {
            None => Known::Unclear,
            Some(lowest) if xid < lowest => Known::Ask,
            Some(_) => Known::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(horizons: &mut Horizons, xid: u64) -> Moment {
        let asked = horizons.ask();
        horizons.record(asked, xid);
        asked
    }

    #[test]
    fn an_id_that_the_next_primary_gives_again_is_lost_and_not_asked_for() {
        let mut horizons = Horizons::default();
        let before = told(&mut horizons, 100);
        let sent = horizons.now();
        assert_eq!(horizons.known(120, sent, before), Known::Ask, "the node is the same");
        // The successor knows of ids below 110, and has given 120 again when the next connection is made.
        told(&mut horizons, 110);
        let later = told(&mut horizons, 130);
        assert_eq!(horizons.known(120, sent, later), Known::Lost);
        assert_eq!(horizons.known(109, sent, later), Known::Ask);
        // What is sent to the successor is asked of the successor.
        let sent_later = horizons.now();
        let last = told(&mut horizons, 140);
        assert_eq!(horizons.known(135, sent_later, last), Known::Ask);
    }

    /// It may have asked before the transaction had its id, and be told after the COMMIT was sent.
    #[test]
    fn a_connection_that_was_being_made_when_the_commit_was_sent_says_nothing() {
        let mut horizons = Horizons::default();
        let asked = horizons.ask();
        let sent = horizons.now();
        horizons.record(asked, 119);
        let last = told(&mut horizons, 125);
        assert_eq!(horizons.known(120, sent, last), Known::Ask);
    }

    #[test]
    fn what_is_too_long_ago_is_unclear() {
        let mut horizons = Horizons::default();
        let sent = horizons.now();
        let asked = horizons.ask();
        assert_eq!(horizons.known(50, sent, asked), Known::Unclear);
        for xid in 0..=MAX_REMEMBERED as u64 {
            told(&mut horizons, 100 + xid);
        }
        assert_eq!(horizons.known(50, sent, horizons.now()), Known::Unclear);
    }
}

//! Whether a transaction id can still be asked for.
//!
//! A primary that crashes forgets the ids it gave to transactions of which nothing was written down or replicated, and
//! its successor gives them again. To ask the successor about such an id would be to learn the fate of somebody else's
//! transaction. So each new connection tells the node's next transaction id before it is used for anything. An id at or
//! above the lowest of these, told since the COMMIT was sent, is one that the node did not know: not committed.

use std::collections::VecDeque;

/// Connections looked back on. A COMMIT that outlasts more of them cannot be settled.
const MAX_REMEMBERED: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Horizons {
    /// When it was told and what; each lower than those after it.
    told: VecDeque<(u64, u64)>,
    now: u64,
    /// What is older than this has been forgotten.
    forgotten: u64,
}

/// A moment between two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// `None`: the node does not tell, being too old. Then nothing can be settled with what came before.
    pub fn record(&mut self, next_xid: Option<u64>) {
        self.now += 1;
        let Some(next_xid) = next_xid else {
            self.told.clear();
            self.forgotten = self.now;
            return;
        };
        while self.told.back().is_some_and(|&(_, told)| told >= next_xid) {
            self.told.pop_back();
        }
        self.told.push_back((self.now, next_xid));
        if self.told.len() > MAX_REMEMBERED {
            self.forgotten = self.told.pop_front().map_or(self.now, |(when, _)| when);
        }
    }

    pub fn now(&self) -> Moment {
        Moment(self.now)
    }

    /// Of an id given before `since`, once a connection has been made after it.
    pub fn known(&self, xid: u64, since: Moment) -> Known {
        if since.0 < self.forgotten {
            return Known::Unclear;
        }
        match self.told.iter().find(|&&(when, _)| when > since.0) {
            None => Known::Unclear,
            Some(&(_, lowest)) if xid < lowest => Known::Ask,
            Some(_) => Known::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_the_next_primary_gives_again_is_lost_and_not_asked_for() {
        let mut horizons = Horizons::default();
        horizons.record(Some(100));
        let sent = horizons.now();
        assert_eq!(horizons.known(120, sent), Known::Unclear);
        // The successor knows of ids below 110, and has given 120 again when the next connection is made.
        horizons.record(Some(110));
        horizons.record(Some(130));
        assert_eq!(horizons.known(120, sent), Known::Lost);
        assert_eq!(horizons.known(109, sent), Known::Ask);
        // What is sent to the successor is asked of the successor.
        let later = horizons.now();
        horizons.record(Some(140));
        assert_eq!(horizons.known(135, later), Known::Ask);
    }

    #[test]
    fn what_is_too_long_ago_is_unclear() {
        let mut horizons = Horizons::default();
        let sent = horizons.now();
        for n in 0..=MAX_REMEMBERED as u64 {
            horizons.record(Some(100 + n));
        }
        assert_eq!(horizons.known(50, sent), Known::Unclear);
        assert_eq!(horizons.known(50, horizons.now()), Known::Unclear);
        let before_an_old_node = horizons.now();
        horizons.record(None);
        assert_eq!(horizons.known(50, before_an_old_node), Known::Unclear);
    }
}

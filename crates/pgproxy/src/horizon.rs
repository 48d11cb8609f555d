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
    /// Another proxy serves the same database.
    is_shared: bool,
    /// When one did last.
    shared_until: Option<Moment>,
}

/// Counts the connections that were begun.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// When an id was given, among the connections that were begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Issued {
    /// Its node lived then.
    pub alive: Moment,
    pub before: Moment,
}

impl Issued {
    /// By a node that lived then.
    pub fn before(moment: Moment) -> Issued {
        Issued { alive: moment, before: moment }
    }
}

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

    /// Whether another proxy serves the same database from now on. A successor of the primary may give an id again to a
    /// transaction of the other's, so what was given while there was one cannot be asked for.
    pub fn share(&mut self, is_shared: bool) {
        if self.is_shared && !is_shared {
            self.shared_until = Some(self.now);
        }
        self.is_shared = is_shared;
    }

    /// Now, as a COMMIT is sent.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Of an id, asked on a connection that was `begun` then.
    pub fn known(&self, xid: u64, issued: Issued, begun: Moment) -> Known {
        if begun <= issued.alive {
            // A crash would have ended this connection: it is still the node that gave the id.
            return Known::Ask;
        }
        if issued.alive < self.forgotten {
            return Known::Unclear;
        }
        let lowest_after =
            |moment| self.told.iter().filter(|(asked, _)| *asked > moment).map(|&(_, told)| told).min();
        match (lowest_after(issued.alive), lowest_after(issued.before)) {
            (_, Some(lowest)) if xid >= lowest => Known::Lost,
            // Told by the same node before it gave the id, or by its successor.
            (Some(lowest), _) if xid >= lowest => Known::Unclear,
            (None, _) => Known::Unclear,
            _ if self.is_shared || Some(issued.alive) <= self.shared_until => Known::Unclear,
            _ => Known::Ask,
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
        assert_eq!(horizons.known(120, Issued::before(sent), before), Known::Ask, "the node is the same");
        // The successor knows of ids below 110, and has given 120 again when the next connection is made.
        told(&mut horizons, 110);
        let later = told(&mut horizons, 130);
        assert_eq!(horizons.known(120, Issued::before(sent), later), Known::Lost);
        assert_eq!(horizons.known(109, Issued::before(sent), later), Known::Ask);
        // What is sent to the successor is asked of the successor.
        let sent_later = horizons.now();
        let last = told(&mut horizons, 140);
        assert_eq!(horizons.known(135, Issued::before(sent_later), last), Known::Ask);
    }

    /// It may have asked before the transaction had its id, and be told after the COMMIT was sent.
    #[test]
    fn a_connection_that_was_being_made_when_the_commit_was_sent_says_nothing() {
        let mut horizons = Horizons::default();
        let asked = horizons.ask();
        let sent = horizons.now();
        horizons.record(asked, 119);
        let last = told(&mut horizons, 125);
        assert_eq!(horizons.known(120, Issued::before(sent), last), Known::Ask);
    }

    /// An id may be given long after it was asked for, while other connections are made.
    #[test]
    fn what_was_told_while_an_id_was_waited_for_decides_nothing() {
        let mut horizons = Horizons::default();
        let asked = horizons.now();
        told(&mut horizons, 119);
        let issued = Issued { alive: asked, before: horizons.now() };
        let begun = told(&mut horizons, 125);
        assert_eq!(horizons.known(118, issued, begun), Known::Ask);
        assert_eq!(horizons.known(120, issued, begun), Known::Unclear);
        assert_eq!(horizons.known(126, issued, begun), Known::Lost);
        // Unless the node is known to have lived until then.
        assert_eq!(horizons.known(120, Issued::before(issued.before), begun), Known::Ask);
    }

    /// The other proxy may have had it given again, and be gone since.
    #[test]
    fn an_id_given_while_there_was_another_proxy_is_unclear_from_then_on() {
        let mut horizons = Horizons::default();
        let before = told(&mut horizons, 100);
        let sent = horizons.now();
        horizons.share(true);
        let during = told(&mut horizons, 130);
        assert_eq!(horizons.known(120, Issued::before(sent), during), Known::Unclear);
        assert_eq!(horizons.known(120, Issued::before(sent), before), Known::Ask, "the node is the same");
        assert_eq!(horizons.known(130, Issued::before(sent), during), Known::Lost);
        let sent_last = horizons.now();
        horizons.share(false);
        let after = told(&mut horizons, 140);
        assert_eq!(horizons.known(120, Issued::before(sent), after), Known::Unclear);
        assert_eq!(horizons.known(135, Issued::before(sent_last), after), Known::Unclear);
        // What is sent when there is no other any more concerns nobody else.
        horizons.share(false);
        let sent_alone = horizons.now();
        let last = told(&mut horizons, 150);
        assert_eq!(horizons.known(145, Issued::before(sent_alone), last), Known::Ask);
    }

    #[test]
    fn what_is_too_long_ago_is_unclear() {
        let mut horizons = Horizons::default();
        let sent = horizons.now();
        let asked = horizons.ask();
        assert_eq!(horizons.known(50, Issued::before(sent), asked), Known::Unclear);
        for xid in 0..=MAX_REMEMBERED as u64 {
            told(&mut horizons, 100 + xid);
        }
        assert_eq!(horizons.known(50, Issued::before(sent), horizons.now()), Known::Unclear);
    }
}

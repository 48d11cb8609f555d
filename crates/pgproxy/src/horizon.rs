//! Whether a transaction id can still be asked for.
//!
//! A primary that crashes forgets the ids it gave to transactions of which nothing was written down or replicated, and
//! its successor gives them again. To ask the successor about such an id would be to learn the fate of somebody else's
//! transaction. There are two ways to know better:
//!
//! - **Promotions** that the caller has seen: [`Promotion`] says from which id on the ids are the new primary's. What the
//!   epoch before gave at or above that is lost, and what it gave below is the same transaction for both.
//! - **Horizons**, where a promotion is not known, or the primary has crashed and come back in its place. Each new
//!   connection takes an id of its own before it is used for anything. An id at or above the lowest of these, asked for since
//!   the COMMIT was sent, is one that the node did not know: not committed. This says nothing about what another proxy's
//!   connections were given.

use std::collections::{BTreeMap, VecDeque};

use crate::config::{Database, Promotion};

/// Connections looked back on. A COMMIT that outlasts more of them cannot be settled.
const MAX_REMEMBERED: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Horizons {
    /// When it was asked for, and what was told.
    told: VecDeque<(Moment, u64)>,
    now: Moment,
    /// What was told before this has been forgotten in part.
    forgotten: Moment,
    /// By the epoch that it began.
    promotions: BTreeMap<u64, Promotion>,
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

/// Which primary a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Primary {
    /// As the proxy was told when the connection was made. Of a proxy that hears of changes late, it may be a later one.
    pub epoch: u64,
    /// As the node itself has said.
    pub timeline: u32,
}

/// The id of a transaction, and who gave it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given {
    pub xid: u64,
    pub issued: Issued,
    pub by: Option<Primary>,
}

/// The connection that is to be asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub begun: Moment,
    pub primary: Primary,
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

    /// What stands in a configuration, before anybody connects by it.
    ///
    /// While another proxy serves the same database, a primary that lost an id may give it again to a transaction of the
    /// other's. So what was given while there was one can only be asked for where promotions tell.
    pub fn hear(&mut self, database: &Database) {
        if self.is_shared && !database.is_shared {
            self.shared_until = Some(self.now);
        }
        self.is_shared = database.is_shared;
        self.promotions.clone_from(&database.promotions);
    }

    /// Now, as a COMMIT is sent.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// What is known of an id, to be asked for on this connection.
    pub fn known(&self, given: Given, asked: Asked) -> Known {
        if asked.begun <= given.issued.alive {
            // A crash would have ended this connection: it is still the node that gave the id.
            return Known::Ask;
        }
        self.by_promotions(given, asked.primary).unwrap_or_else(|| self.by_horizons(given.xid, given.issued))
    }

    /// `None` unless each promotion is known between the primary that gave the id and the one that is asked.
    fn by_promotions(&self, Given { xid, by, .. }: Given, asked: Primary) -> Option<Known> {
        let by = by.filter(|by| by.epoch < asked.epoch)?;
        let mut lowest = u64::MAX;
        for epoch in by.epoch + 1..=asked.epoch {
            let promotion = self.promotions.get(&epoch)?;
            // It is of an epoch of which the proxy had not heard yet.
            if promotion.timeline == by.timeline {
                return None;
            }
            lowest = lowest.min(promotion.first_xid);
        }
        let is_of_its_epoch =
            self.promotions.get(&asked.epoch).is_some_and(|promotion| promotion.timeline == asked.timeline);
        is_of_its_epoch.then_some(if xid < lowest { Known::Ask } else { Known::Lost })
    }

    fn by_horizons(&self, xid: u64, issued: Issued) -> Known {
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

    const FIRST: Primary = Primary { epoch: 1, timeline: 1 };

    /// By connections of one epoch, in which the primary may have crashed and come back.
    fn known(horizons: &Horizons, xid: u64, issued: Issued, begun: Moment) -> Known {
        horizons.known(Given { xid, issued, by: Some(FIRST) }, Asked { begun, primary: FIRST })
    }

    /// Of an id that the first primary gave, asked of another.
    fn known_to(horizons: &Horizons, xid: u64, primary: Primary) -> Known {
        let given = Given { xid, issued: Issued::before(Moment(0)), by: Some(FIRST) };
        horizons.known(given, Asked { begun: horizons.now(), primary })
    }

    /// A configuration: whether another proxy serves, and each promotion's epoch, timeline and first id.
    fn heard(is_shared: bool, promotions: &[(u64, u32, u64)]) -> Database {
        let promotion = |&(epoch, timeline, first_xid)| (epoch, Promotion { timeline, first_xid });
        let json = serde_json::json!({ "listener": "db", "epoch": 1, "credentials": "", "nodes": {} });
        let database: Database = serde_json::from_value(json).unwrap();
        Database { is_shared, promotions: promotions.iter().map(promotion).collect(), ..database }
    }

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
        assert_eq!(known(&horizons, 120, Issued::before(sent), before), Known::Ask, "the node is the same");
        // The successor knows of ids below 110, and has given 120 again when the next connection is made.
        told(&mut horizons, 110);
        let later = told(&mut horizons, 130);
        assert_eq!(known(&horizons, 120, Issued::before(sent), later), Known::Lost);
        assert_eq!(known(&horizons, 109, Issued::before(sent), later), Known::Ask);
        // What is sent to the successor is asked of the successor.
        let sent_later = horizons.now();
        let last = told(&mut horizons, 140);
        assert_eq!(known(&horizons, 135, Issued::before(sent_later), last), Known::Ask);
    }

    /// It may have asked before the transaction had its id, and be told after the COMMIT was sent.
    #[test]
    fn a_connection_that_was_being_made_when_the_commit_was_sent_says_nothing() {
        let mut horizons = Horizons::default();
        let asked = horizons.ask();
        let sent = horizons.now();
        horizons.record(asked, 119);
        let last = told(&mut horizons, 125);
        assert_eq!(known(&horizons, 120, Issued::before(sent), last), Known::Ask);
    }

    /// An id may be given long after it was asked for, while other connections are made.
    #[test]
    fn what_was_told_while_an_id_was_waited_for_decides_nothing() {
        let mut horizons = Horizons::default();
        let asked = horizons.now();
        told(&mut horizons, 119);
        let issued = Issued { alive: asked, before: horizons.now() };
        let begun = told(&mut horizons, 125);
        assert_eq!(known(&horizons, 118, issued, begun), Known::Ask);
        assert_eq!(known(&horizons, 120, issued, begun), Known::Unclear);
        assert_eq!(known(&horizons, 126, issued, begun), Known::Lost);
        // Unless the node is known to have lived until then.
        assert_eq!(known(&horizons, 120, Issued::before(issued.before), begun), Known::Ask);
    }

    /// The other proxy may have had it given again, and be gone since.
    #[test]
    fn an_id_given_while_there_was_another_proxy_is_unclear_from_then_on() {
        let mut horizons = Horizons::default();
        let before = told(&mut horizons, 100);
        let sent = horizons.now();
        horizons.hear(&heard(true, &[]));
        let during = told(&mut horizons, 130);
        assert_eq!(known(&horizons, 120, Issued::before(sent), during), Known::Unclear);
        assert_eq!(known(&horizons, 120, Issued::before(sent), before), Known::Ask, "the node is the same");
        assert_eq!(known(&horizons, 130, Issued::before(sent), during), Known::Lost);
        let sent_last = horizons.now();
        horizons.hear(&heard(false, &[]));
        let after = told(&mut horizons, 140);
        assert_eq!(known(&horizons, 120, Issued::before(sent), after), Known::Unclear);
        assert_eq!(known(&horizons, 135, Issued::before(sent_last), after), Known::Unclear);
        // What is sent when there is no other any more concerns nobody else.
        horizons.hear(&heard(false, &[]));
        let sent_alone = horizons.now();
        let last = told(&mut horizons, 150);
        assert_eq!(known(&horizons, 145, Issued::before(sent_alone), last), Known::Ask);
    }

    #[test]
    fn what_is_too_long_ago_is_unclear() {
        let mut horizons = Horizons::default();
        let sent = horizons.now();
        let asked = horizons.ask();
        assert_eq!(known(&horizons, 50, Issued::before(sent), asked), Known::Unclear);
        for xid in 0..=MAX_REMEMBERED as u64 {
            told(&mut horizons, 100 + xid);
        }
        assert_eq!(known(&horizons, 50, Issued::before(sent), horizons.now()), Known::Unclear);
    }

    /// Whoever serves beside: where the new primary's ids begin does not depend on who was given them.
    #[test]
    fn a_promotion_tells_what_was_lost_and_everything_else_can_be_asked_for() {
        let mut horizons = Horizons::default();
        horizons.hear(&heard(true, &[(2, 2, 110)]));
        told(&mut horizons, 130);
        let second = Primary { epoch: 2, timeline: 2 };
        assert_eq!(known_to(&horizons, 109, second), Known::Ask);
        assert_eq!(known_to(&horizons, 110, second), Known::Lost);
        assert_eq!(known_to(&horizons, 131, second), Known::Lost);
    }

    #[test]
    fn of_several_promotions_the_one_that_knew_the_least_decides() {
        let mut horizons = Horizons::default();
        horizons.hear(&heard(true, &[(2, 2, 110), (3, 3, 105), (4, 4, 140)]));
        told(&mut horizons, 150);
        let fourth = Primary { epoch: 4, timeline: 4 };
        assert_eq!(known_to(&horizons, 104, fourth), Known::Ask);
        assert_eq!(known_to(&horizons, 105, fourth), Known::Lost);
        let by_third = Given {
            xid: 120,
            issued: Issued::before(Moment(0)),
            by: Some(Primary { epoch: 3, timeline: 3 }),
        };
        let asked = Asked { begun: horizons.now(), primary: fourth };
        assert_eq!(horizons.known(by_third, asked), Known::Ask, "what was lost before is none of its");
    }

    /// A primary that came back in its place, or whose promotion nobody could watch.
    #[test]
    fn an_epoch_that_no_promotion_is_known_of_leaves_it_to_the_connections() {
        for is_shared in [false, true] {
            let mut horizons = Horizons::default();
            horizons.hear(&heard(is_shared, &[(3, 2, 110)]));
            told(&mut horizons, 130);
            let third = Primary { epoch: 3, timeline: 2 };
            let asked = if is_shared { Known::Unclear } else { Known::Ask };
            assert_eq!(known_to(&horizons, 109, third), asked);
            assert_eq!(known_to(&horizons, 120, third), asked);
            assert_eq!(known_to(&horizons, 130, third), Known::Lost);
        }
    }

    /// It connected to a node that was the primary again by then, of an epoch that it had not heard of.
    #[test]
    fn a_proxy_that_was_told_late_takes_no_id_of_a_later_epoch_for_one_of_an_earlier() {
        let mut horizons = Horizons::default();
        horizons.hear(&heard(true, &[(2, 2, 110), (3, 3, 120)]));
        told(&mut horizons, 150);
        let issued = Issued::before(Moment(0));
        let given = |timeline| Given { xid: 130, issued, by: Some(Primary { epoch: 1, timeline }) };
        let asked = |timeline| Asked { begun: horizons.now(), primary: Primary { epoch: 3, timeline } };
        assert_eq!(horizons.known(given(1), asked(3)), Known::Lost);
        assert_eq!(horizons.known(given(3), asked(3)), Known::Unclear, "it is of the third epoch");
        assert_eq!(horizons.known(given(1), asked(4)), Known::Unclear, "so many have not been heard of");
    }
}

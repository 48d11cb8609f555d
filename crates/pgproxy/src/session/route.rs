//! Where the next request runs, and what happens when a read replica cannot answer it.
//!
//! A request goes to a replica when all that its messages run up to their end reads: so the end must be there before the
//! beginning is sent. A transaction that says that it only reads goes there as a whole. On a replica one request is under
//! way at a time, and its reply is withheld until it is there to its end, or too long. So whatever happens to it there,
//! it can be run on the primary, and the client does not hear of it.

use std::sync::atomic::Ordering::Relaxed;

use super::expected::What;
use super::shown::Withheld;
use super::{End, MAX_INSPECTED_BYTES, Session};
use crate::config::PoolMode;
use crate::frame::{Cut, Framer};
use crate::message::{TransactionStatus, body, error_field, split_cstr, until_nul};
use crate::prepared::Statement;
use crate::statement::Place;

/// Of a reply from a replica. What is more goes to the client, and then its request cannot be run again.
const MAX_WITHHELD_BYTES: usize = 64 * 1024;
/// A request that is longer than this before its end is there is for the primary.
const MAX_GROUP_BYTES: usize = 64 * 1024;
const _: () = assert!(MAX_GROUP_BYTES < MAX_INSPECTED_BYTES);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Primary,
    /// A replica, if there is one that is fresh enough.
    Replica,
}

/// An error of a replica that the primary would not answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repair {
    Once,
    /// It would be so each time.
    Learn,
}

/// What a request at its beginning may do.
pub(super) enum Turn {
    /// Run on the connection that there is.
    Stay,
    /// Get a connection first.
    Connect,
    /// Leave the transaction on its replica for one on the primary.
    Leave,
    /// Its end is not there yet.
    Wait,
}

impl Session {
    /// Whether a request begins here, that has not been given its place yet.
    pub(super) fn is_to_be_routed(&mut self) -> bool {
        let begins = self.expected.is_empty()
            && !self.is_in_group
            && !self.framer.is_inside()
            && !self.is_muted
            && !self.is_copying_in
            && !self.is_skipping;
        if !begins {
            return false;
        }
        let is_routed = self.server.is_some() && std::mem::take(&mut self.is_routed);
        !is_routed && !self.is_in_block_on_primary()
    }

    /// Then what follows stays there until the block ends.
    fn is_in_block_on_primary(&self) -> bool {
        self.server.is_some() && self.replica.is_none() && self.status != TransactionStatus::Idle
    }

    /// Decides about the request at the front of the client's input.
    pub(super) fn turn_of_request(&mut self) -> Turn {
        let Some(route) = self.route() else { return Turn::Wait };
        let Some(server) = &self.server else {
            self.route = route;
            return Turn::Connect;
        };
        let is_idle = server.status == TransactionStatus::Idle;
        let turn = match (self.replica.is_some(), route) {
            // By now another may be the better one, or none.
            (true, _) if is_idle => Turn::Connect,
            (true, Route::Replica) => Turn::Stay,
            (true, Route::Primary) if self.unit.can_be_repeated() => Turn::Leave,
            // The replica shall say what it thinks of it.
            (true, Route::Primary) => Turn::Stay,
            (false, Route::Replica) if is_idle && !self.is_kept() => Turn::Connect,
            (false, _) => Turn::Stay,
        };
        match turn {
            Turn::Connect => {
                self.give_back();
                self.route = route;
            }
            Turn::Stay => self.withhold(),
            Turn::Leave | Turn::Wait => {}
        }
        turn
    }

    /// `None`: the end of the request is not there.
    fn route(&mut self) -> Option<Route> {
        if !self.may_read_elsewhere() {
            return Some(Route::Primary);
        }
        let input = std::mem::take(&mut self.client.input);
        let route = self.route_of(&input);
        self.client.input = input;
        route
    }

    fn may_read_elsewhere(&mut self) -> bool {
        self.has_replicas()
            && !self.is_pinned
            && !self.is_block_lost
            && (self.status == TransactionStatus::Idle || self.replica.is_some())
            && self.served.get().config.pool_mode == PoolMode::Transaction
            && self.settings.allow_replica()
    }

    pub(super) fn has_replicas(&mut self) -> bool {
        !self.replicas.get().is_empty()
    }

    /// Whether what was read on one replica may be missed on another.
    pub(super) fn has_several_replicas(&mut self) -> bool {
        self.replicas.get().len() > 1
    }

    /// Looks through the messages of one request.
    fn route_of(&mut self, input: &[u8]) -> Option<Route> {
        let mut framer: Framer = self.framer.clone();
        let mut is_inside = self.status != TransactionStatus::Idle;
        let mut parsed: Vec<(&[u8], Place)> = Vec::new();
        let mut at = 0;
        loop {
            let (tag, said) = match framer.cut(&input[at..]) {
                Ok(Cut::Whole { tag, bytes }) => (tag, &input[at..at + bytes]),
                Ok(Cut::More) if input.len() < MAX_GROUP_BYTES => return None,
                _ => return Some(Route::Primary),
            };
            at += said.len();
            let place = match (tag, body(said)) {
                // Whether it ends the group before it depends on how that goes.
                (b'Q', _) if at > said.len() => return Some(Route::Primary),
                (b'Q', body) => {
                    let place = self.place(until_nul(body));
                    return Some(if runs(place, &mut is_inside) { Route::Replica } else { Route::Primary });
                }
                (b'P', body) => {
                    let Some((name, definition)) = split_cstr(body) else { return Some(Route::Primary) };
                    let place = self.place(until_nul(definition));
                    parsed.push((name, place));
                    if place == Place::Primary {
                        return Some(Route::Primary);
                    }
                    continue;
                }
                (b'B', body) => {
                    let name = split_cstr(body).map(|(_, rest)| until_nul(rest)).unwrap_or_default();
                    self.place_of(name, &parsed)
                }
                (b'D', [b'S', name @ ..]) => {
                    if self.place_of(until_nul(name), &parsed) == Place::Primary {
                        return Some(Route::Primary);
                    }
                    continue;
                }
                (b'D' | b'E' | b'C', _) => continue,
                (b'S', _) => return Some(Route::Replica),
                _ => return Some(Route::Primary),
            };
            if !runs(place, &mut is_inside) {
                return Some(Route::Primary);
            }
        }
    }

    fn place(&mut self, sql: &[u8]) -> Place {
        let verdict = self.judge.verdict(sql, &self.settings, &self.told);
        verdict.map_or(Place::Primary, |verdict| verdict.place())
    }

    /// Of a statement that is bound, or described.
    fn place_of(&mut self, name: &[u8], parsed: &[(&[u8], Place)]) -> Place {
        if let Some((_, place)) = parsed.iter().rev().find(|(there, _)| *there == name) {
            return *place;
        }
        let statement = self.named(name);
        match statement.as_deref().and_then(Statement::text) {
            Some(sql) => self.place(sql),
            None => Place::Primary,
        }
    }

    /// A request is about to be sent to a replica.
    pub(super) fn withhold(&mut self) {
        if self.replica.is_some() {
            self.withheld = Some(Withheld { from: self.client.output.len(), is_whole: false });
        }
    }

    /// A reply that is longer than what may be withheld goes to the client.
    pub(super) fn stop_withholding_too_much(&mut self) {
        let is_too_much =
            |withheld: &Withheld| self.client.output.len().saturating_sub(withheld.from) > MAX_WITHHELD_BYTES;
        if self.withheld.as_ref().is_some_and(is_too_much) {
            self.stop_withholding();
        }
    }

    #[cold]
    fn stop_withholding(&mut self) {
        self.withheld = None;
        self.show_what_is_there();
    }

    /// What was withheld has not been said, unless it is a whole reply: there is nothing to be run again for that.
    pub(super) fn take_back(&mut self) {
        match self.withheld.take() {
            Some(Withheld { is_whole: true, .. }) => self.show_what_is_there(),
            Some(Withheld { from, is_whole: false }) => {
                self.client.output.truncate(from);
                self.unit.unsay();
            }
            None => {}
        }
    }

    /// Whether an error of the replica is none of the statement's.
    pub(super) fn repair_of(&mut self, error: &[u8]) -> Option<Repair> {
        if self.is_block_failed_by_us() {
            // Everything of the client's is answered.
            self.expected.clear();
            return Some(Repair::Once);
        }
        let can_be_repaired = self.replica.is_some()
            && (self.withheld.as_ref().is_some_and(|withheld| !withheld.is_whole) || self.is_muted)
            && self.unit.can_be_repeated();
        if !can_be_repaired {
            return None;
        }
        let sqlstate = error_field(error, b'C')?;
        let has_run = self
            .expected
            .front()
            .is_some_and(|head| head.what.is_execute() || matches!(head.what, What::Query { .. }));
        repair(sqlstate, has_run)
    }

    /// Runs the request that the replica could not answer on the primary, and all of its transaction.
    pub(super) async fn repair(&mut self, repair: Repair) -> Result<(), End> {
        if let Some(replica) = &self.replica {
            replica.repaired.fetch_add(1, Relaxed);
        }
        self.take_back();
        if repair == Repair::Learn {
            self.learn();
        }
        self.leave_replica("a read replica could not answer").await
    }

    /// Runs the transaction that is open on a replica on the primary.
    pub(super) async fn leave_replica(&mut self, cause: &str) -> Result<(), End> {
        self.lose_server();
        self.route = Route::Primary;
        self.replay(cause).await
    }

    /// The statements in flight are for the primary from now on.
    fn learn(&mut self) {
        let in_flight = self.unit.in_flight().to_vec();
        let mut framer = Framer::new(MAX_INSPECTED_BYTES);
        let mut at = 0;
        while let Ok(Cut::Whole { tag, bytes }) = framer.cut(&in_flight[at..]) {
            let said = body(&in_flight[at..at + bytes]);
            at += bytes;
            match tag {
                b'Q' => self.judge.refused(until_nul(said)),
                b'B' => {
                    let name = split_cstr(said).map(|(_, rest)| until_nul(rest)).unwrap_or_default();
                    if let Some(sql) = self.named(name).as_deref().and_then(Statement::text) {
                        self.judge.refused(sql);
                    }
                }
                _ => {}
            }
        }
    }

    /// Before the client hears that something was done: from now on it must be seen.
    pub(super) fn acknowledge(&mut self) {
        if self.replica.is_some() || !(self.has_replicas() || self.shared.shares_marks) {
            return;
        }
        // Also what was only read on the primary must not be unread on a replica.
        self.seen = self.shared.freshness.now();
        if self.may_have_written {
            self.shared.freshness.commit(self.seen);
        }
    }
}

/// Whether a statement may run on a replica where it stands, and what follows it.
fn runs(place: Place, is_inside: &mut bool) -> bool {
    match place {
        Place::Anywhere => true,
        Place::BeginsReading => !std::mem::replace(is_inside, true),
        Place::InsideReading => *is_inside,
        Place::Primary => false,
    }
}

/// What the primary may answer otherwise: it knows no recovery, and has everything that a replica may lack. An error in
/// the statement's values is the same everywhere, and one that ran into its time limit shall not take that time twice.
fn repair(sqlstate: &[u8], has_run: bool) -> Option<Repair> {
    match sqlstate {
        b"25006" => Some(Repair::Learn),
        b"42601" => None,
        // On a statement that was prepared before its table changed, 0A000 says nothing of what it does.
        b"0A000" | b"55000" if has_run => Some(Repair::Learn),
        _ => {
            let class = sqlstate.get(..2)?;
            let may_differ: [&[u8]; 8] = [b"0A", b"3F", b"40", b"42", b"53", b"55", b"58", b"XX"];
            may_differ.contains(&class).then_some(Repair::Once)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_repaired_where_the_primary_may_not_have_it() {
        for (sqlstate, has_run, expected) in [
            ("25006", true, Some(Repair::Learn)),
            ("0A000", true, Some(Repair::Learn)),
            ("0A000", false, Some(Repair::Once)),
            ("55000", true, Some(Repair::Learn)),
            ("40001", true, Some(Repair::Once)),
            ("42P01", false, Some(Repair::Once)),
            ("42601", false, None),
            ("22012", true, None),
            ("57014", true, None),
            ("25P02", true, None),
        ] {
            assert_eq!(repair(sqlstate.as_bytes(), has_run), expected, "{sqlstate}");
        }
    }
}

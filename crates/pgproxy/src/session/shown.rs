//! What a client was shown, so that nobody is shown less later on.
//!
//! Clients of one app have many connections, and nobody knows which of them belong together. So whoever reads on a replica
//! must find whatever anybody was shown before, by any node:
//!
//! - by one of several replicas: behind each request it is asked, in the same write, how far it has replayed. The reply
//!   showed nothing behind that position, and is withheld until the position is noted. A replica that is not known to
//!   have come so far is not read.
//! - by a lone replica: that never goes back, so it is not asked.
//! - by the primary, where rows were sent: all that there is by now is required of replicas, as of a later time. The same
//!   where a replica has not told its position, and where a reply is too long to be withheld.

use bytes::BufMut;

use super::Session;
use super::expected::{Audience, What};
use crate::lsn::Lsn;
use crate::message::{SYNC, TransactionStatus};
use crate::replicas::Needed;
use crate::server::columns;

/// What asks for the position, as the rest of a Parse.
pub(crate) const REPLAYED: &[u8] = b"SELECT pg_catalog.pg_last_wal_replay_lsn()\0\0\0";

/// A reply of a replica.
pub(super) struct Withheld {
    /// Where in the client's output it begins.
    pub from: usize,
    /// It is there to its end, and only its position is not known.
    pub is_whole: bool,
}

impl Session {
    /// What a read on a replica must find that begins now.
    pub(super) fn needed(&self) -> Needed {
        let freshness = &self.shared.freshness;
        Needed { since: self.seen.max(freshness.required()), shown: Lsn(freshness.shown()) }
    }

    /// Behind a request.
    pub(super) fn ask_what_is_shown(&mut self) {
        if self.replica.is_none() || self.status == TransactionStatus::Failed || !self.has_several_replicas()
        {
            return;
        }
        let statement = self.shared.replayed.clone();
        self.prepare(&statement);
        self.write_run_beside(&statement, &[], What::Replayed);
        self.output().put_slice(SYNC);
        self.expected.push(What::Sync, Audience::Proxy);
    }

    /// The reply to a request has come to its end.
    pub(super) fn reply_is_whole(&mut self) {
        if self.is_muted {
            return;
        }
        let from = self.withheld.take().map_or(self.client.output.len(), |withheld| withheld.from);
        if self.replica.is_none() {
            return;
        }
        if self.expected.is_empty() {
            self.show_what_is_there();
        } else {
            self.withheld = Some(Withheld { from, is_whole: true });
        }
    }

    /// The replica says how far it has replayed.
    pub(super) fn learn_what_is_shown(&mut self, row: &[u8]) {
        let told = columns(row).into_iter().next().flatten().and_then(|text| Lsn::parse(&text));
        let (Some(replica), Some(lsn)) = (&self.replica, told) else { return };
        replica.has_replayed(lsn, self.life);
        self.shared.freshness.show(lsn.0);
        if self.withheld.as_ref().is_some_and(|withheld| withheld.is_whole) {
            self.withheld = None;
        }
    }

    /// Whether an error ends the client's transaction, of which it has heard of none: a question of ours has failed in it.
    pub(super) fn is_block_failed_by_us(&self) -> bool {
        self.replica.is_some() && self.status == TransactionStatus::InBlock && self.expected.is_group_ours()
    }

    /// What was asked behind a request is answered, with a position or without.
    pub(super) fn is_shown_at_last(&mut self) {
        if self.withheld.as_ref().is_some_and(|withheld| withheld.is_whole) {
            self.withheld = None;
            self.show_what_is_there();
        }
    }

    /// The client is about to get what a replica has shown at no position that we know.
    pub(super) fn show_what_is_there(&mut self) {
        if self.has_several_replicas() {
            self.shared.freshness.require_all();
        }
    }

    /// The client is about to get rows, if there were any since this was asked last.
    pub(super) fn show_rows(&mut self) {
        let has_rows = std::mem::take(&mut self.has_rows);
        if has_rows && self.replica.is_none() && !self.is_muted && self.has_replicas() {
            self.shared.freshness.require_all();
        }
    }
}

//! DEALLOCATE by SQL of what a client has prepared by the protocol.
//!
//! On a connection that statement has a name of ours, may be there for others, and need not be there at all. So a
//! DEALLOCATE of one is carried out on a stand-in that is made for it in the same write: PostgreSQL answers it, in its
//! turn, and refuses it in a transaction that has failed. Only its answer takes the name from the client.
//!
//! A name of the kind that we give is none of the client's: for that there is no stand-in, and PostgreSQL says so.

use std::sync::Arc;

use bytes::BufMut;

use super::Session;
use super::expected::{Audience, What};
use crate::message::{self, SYNC};
use crate::prepared::{OURS, Statement};
use crate::statement::{Facts, Kind, deallocated};

/// As the rest of a Parse.
pub(crate) const DEALLOCATE: &[u8] = b"DEALLOCATE pgproxy_stand_in\0\0\0";
const STAND_IN: &[u8] = b"pgproxy_stand_in\0";

impl Session {
    /// The name in a DEALLOCATE that PostgreSQL must not see as it is.
    pub(super) fn deallocated(&self, sql: &[u8], facts: &Facts) -> Option<Vec<u8>> {
        let name = if facts.discards { deallocated(sql)? } else { return None };
        let is_for_us = self.statements.contains_key(name.as_bytes()) || name.starts_with(OURS);
        is_for_us.then(|| name.into_bytes())
    }

    /// Makes what stands in for the client's statement, if it has one of that name, and gives what is to be bound.
    pub(super) fn stand_in_for(&mut self, name: &[u8]) -> Arc<Statement> {
        let deallocate = self.shared.deallocate.clone();
        self.prepare(&deallocate);
        // An error may have left one.
        message::message(self.output(), b'C', |out| {
            out.put_u8(b'S');
            out.put_slice(STAND_IN);
        });
        self.expected.push(What::Close, Audience::Proxy);
        if self.statements.contains_key(name) {
            message::message(self.output(), b'P', |out| {
                out.put_slice(STAND_IN);
                // Of no text: nothing in it can be wrong.
                out.put_slice(b"\0\0\0");
            });
            self.expected.push(What::Parse { id: 0, name: None }, Audience::Proxy);
        }
        deallocate
    }

    /// As a Query. It writes nothing, and done twice it is as done once.
    pub(super) fn deallocate_by_query(&mut self, name: Vec<u8>, facts: &Facts) {
        self.note(&Facts { kind: Kind::Read, ..facts.clone() });
        self.has_discarded = true;
        let deallocate = self.stand_in_for(&name);
        self.write_run(&deallocate);
        self.expected.push(What::Bind { of: deallocate.id }, Audience::Proxy);
        self.expected.push(What::Deallocate { name }, Audience::Client);
        self.output().put_slice(SYNC);
        self.expected.push(What::Sync, Audience::Client);
        self.unit.request_sent();
        self.ask_what_is_shown();
    }

    /// PostgreSQL has done it.
    pub(super) fn is_deallocated(&mut self, name: &[u8]) {
        self.remember_statements();
        self.statements.remove(name);
    }
}

//! DEALLOCATE by SQL of what a client has prepared by the protocol.
//!
//! On a connection that statement has a name of ours, may be there for others, and need not be there at all. So a
//! DEALLOCATE of one is carried out on a stand-in that is made for it in the same write: PostgreSQL answers it, in its
//! turn, and refuses it in a transaction that has failed. Only its answer takes the name from the client.
//!
//! A name of the kind that we give is none of the client's: for that there is no stand-in, and PostgreSQL says so.
//!
//! Among other statements of a Query, and where a Query ends a group, a DEALLOCATE stays what it is. There the stand-in has
//! the client's own name for the time of that Query.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::BufMut;

use super::Session;
use super::expected::{Audience, What};
use crate::message::{self, SYNC};
use crate::prepared::{OURS, Statement, id_of};
use crate::statement::{Facts, Kind, all_deallocated, deallocated};

/// As the rest of a Parse.
pub(crate) const DEALLOCATE: &[u8] = b"DEALLOCATE pgproxy_stand_in\0\0\0";
const STAND_IN: &[u8] = b"pgproxy_stand_in";

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
        self.close_on_server(STAND_IN);
        if self.statements.contains_key(name) {
            self.parse_nothing(STAND_IN);
        }
        deallocate
    }

    fn close_on_server(&mut self, name: &[u8]) {
        message::message(self.output(), b'C', |out| {
            out.put_u8(b'S');
            message::cstr(out, name);
        });
        self.expected.push(What::Close, Audience::Proxy);
    }

    /// Of no text: nothing in it can be wrong.
    fn parse_nothing(&mut self, name: &[u8]) {
        message::message(self.output(), b'P', |out| {
            message::cstr(out, name);
            out.put_slice(b"\0\0\0");
        });
        self.expected.push(What::Parse { id: 0, name: None }, Audience::Proxy);
    }

    /// Makes what stands in for each statement of the client's that a Query deallocates, which PostgreSQL is to see as it is.
    pub(super) fn stand_in_for_all(&mut self, sql: &[u8]) {
        self.deallocates = all_deallocated(sql).into_iter().map(String::into_bytes).collect();
        let names: HashSet<Vec<u8>> =
            self.deallocates.iter().filter(|name| self.has_stand_in(name)).cloned().collect();
        for name in &names {
            self.parse_nothing(name);
        }
        if !names.is_empty() && !self.is_in_group {
            // An error of it is no reason to skip the Query.
            self.output().put_slice(SYNC);
            self.expected.push(What::Sync, Audience::Proxy);
        }
    }

    fn has_stand_in(&self, name: &[u8]) -> bool {
        self.statements.contains_key(name) && !name.starts_with(OURS.as_bytes())
    }

    /// The Query has come to its end. What stands in where it has not come to the DEALLOCATE is in the way of others.
    #[cold]
    pub(super) fn close_stand_ins(&mut self) {
        let mut is_any_left = false;
        for name in std::mem::take(&mut self.deallocates) {
            if self.has_stand_in(&name) {
                self.close_on_server(&name);
                is_any_left = true;
            }
        }
        if is_any_left {
            self.output().put_slice(SYNC);
            self.expected.push(What::Sync, Audience::Proxy);
        }
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

    /// It has done the next one of a Query.
    #[cold]
    pub(super) fn next_is_deallocated(&mut self) {
        let Some(name) = self.deallocates.pop_front() else { return };
        self.is_deallocated(&name);
        if let (Some(id), Some(server)) = (id_of(&name), &mut self.server) {
            // It was one of ours: who needs it shall find it missing here.
            server.prepared.remove(id);
        }
    }

    #[cold]
    pub(super) fn all_are_deallocated(&mut self) {
        let statements = std::mem::take(&mut self.statements);
        self.statements_before.get_or_insert(statements);
        if let Some(server) = &mut self.server {
            server.prepared.clear();
        }
    }
}

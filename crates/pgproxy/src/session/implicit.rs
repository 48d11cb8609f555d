//! Writes without a block, which their own Sync commits.
//!
//! The transaction of such a statement lasts until Sync. So the id of the transaction is asked for between the two,
//! in the same write, with a Flush behind: the server sends the id before it begins the commit. A lost connection
//! that has not told it has not committed; with the id, the next primary is asked. Until then the client does not see
//! the replies: see [`Held`].
//!
//! A Query has no such place between its statement and the commit. It is sent as what the extended protocol has for
//! the same statement, and answered as a Query, where that is surely the same.

use bytes::BufMut;

use super::Session;
use super::expected::{Audience, Committed, What};
use super::held::{Asked, Held};
use super::unit::Xid;
use crate::connection::is_open;
use crate::message::{self, FLUSH, SYNC, until_nul};
use crate::prepared::{NOBODYS, Statement};
use crate::server::columns;
use crate::statement::{Description, Facts, Kind};

/// What to ask for when the answer of a commit is lost, as the rest of a Parse.
pub(crate) const XID: &[u8] = b"SELECT pg_catalog.pg_current_xact_id_if_assigned()\0\0\0";
/// The first version that has it.
const XID_SINCE_MAJOR: u32 = 13;

/// Of the unnamed portal, and all of its rows.
const EXECUTE: &[u8] = b"E\0\0\0\x09\0\0\0\0\0";
const DESCRIBE: &[u8] = b"D\0\0\0\x06P\0";
const PORTAL: &[u8] = b"pgproxy\0";
/// No parameters, and rows in text.
const BIND_NOTHING: &[u8] = &[0; 6];

impl Session {
    /// Before a Query with a COMMIT whose answer may be lost. An error of ours is the answer to that: see
    /// [`Server::untold`](crate::server::Server::untold).
    pub(super) fn ask_before_query(&mut self, kind: Kind) {
        if self.can_be_asked_before(kind) {
            self.ask_for_xid(Committed::ByCommand);
            self.output().put_slice(SYNC);
            self.expected.push(What::Sync, Audience::Proxy);
        }
    }

    /// The same before messages that run a COMMIT. An error of ours is one of their group, and the COMMIT is skipped.
    pub(super) fn ask_before_group(&mut self, kind: Kind) {
        if self.can_be_asked_before(kind) {
            self.ask_for_xid(Committed::ByCommand);
            self.output().put_slice(FLUSH);
        }
    }

    /// Only between requests: a question must not part a request of the client's.
    fn can_be_asked_before(&mut self, kind: Kind) -> bool {
        kind == Kind::Commit
            && !self.is_in_group
            && self.expected.is_empty()
            && self.status == message::TransactionStatus::InBlock
            && self.replica.is_none()
            && self.unit.wants_xid()
            && self.knows_xids()
    }

    /// Before the Sync of a write without a block.
    pub(super) fn ask_before_sync(&mut self) {
        if self.unit.writes_until_sync() {
            self.ask_for_xid(Committed::BySync);
            self.output().put_slice(FLUSH);
        }
    }

    fn ask_for_xid(&mut self, committed: Committed) {
        let statement = self.shared.xid.clone();
        self.prepare(&statement);
        self.write_run(&statement);
        self.expected.push(What::Bind { of: statement.id }, Audience::Proxy);
        self.expected.push(What::Xid(committed), Audience::Proxy);
        self.unit.expect_xid(self.shared.pool.with_horizons(|horizons| horizons.now()));
    }

    /// Binds and executes a statement of ours.
    pub(super) fn write_run(&mut self, statement: &Statement) {
        let out = self.output();
        message::message(out, b'B', |out| {
            out.put_u8(0);
            statement.write_name(out);
            out.put_slice(BIND_NOTHING);
        });
        out.put_slice(EXECUTE);
    }

    /// The same with values, and with a portal of ours: the client may have an unnamed one that goes on.
    pub(super) fn write_run_beside(&mut self, statement: &Statement, values: &[&str], answer: What) {
        let out = self.output();
        message::message(out, b'B', |out| {
            out.put_slice(PORTAL);
            statement.write_name(out);
            // All of it in text.
            out.put_u16(0);
            out.put_u16(values.len() as u16);
            for value in values {
                out.put_u32(value.len() as u32);
                out.put_slice(value.as_bytes());
            }
            out.put_u16(0);
        });
        message::message(out, b'E', |out| {
            out.put_slice(PORTAL);
            out.put_u32(0);
        });
        message::message(out, b'C', |out| {
            out.put_u8(b'P');
            out.put_slice(PORTAL);
        });
        for what in [What::Bind { of: statement.id }, answer, What::Close] {
            self.expected.push(what, Audience::Proxy);
        }
    }

    pub(super) fn learn_xid(&mut self, row: &[u8], committed: Committed) {
        let xid = match columns(row).first() {
            Some(Some(text)) => match std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
                Some(xid) => Xid::Is(xid),
                None => return,
            },
            Some(None) => Xid::None,
            None => return,
        };
        self.unit.learn_xid(xid);
        if committed == Committed::BySync {
            // It was given after it was asked for, perhaps long after.
            let now = self.shared.pool.with_horizons(|horizons| horizons.now());
            let server = self.server.as_ref();
            self.unit.issued_by(now, || server.is_some_and(|server| is_open(server.wire.stream())));
        }
    }

    /// Whether the statement that is about to run is a write whose commit can be found again.
    pub(super) fn can_be_settled_by_sync(&self, facts: &Facts) -> bool {
        facts.kind != Kind::Read
            && facts.single.is_some()
            && !self.is_pinned
            && self.replica.is_none()
            && self.unit.can_write_until_sync()
            && self.knows_xids()
    }

    /// The same, and then its replies are held from here on.
    pub(super) fn is_settled_by_sync(&mut self, facts: &Facts, asked: Asked) -> bool {
        let is_one = self.can_be_settled_by_sync(facts);
        if is_one {
            self.held.get_or_insert_with(|| Held::new(asked));
        }
        is_one
    }

    /// How a Query is answered that is sent by the extended protocol; `None`: it must be sent as it is.
    pub(super) fn as_extended(&self, said: &[u8], facts: &Facts) -> Option<Description> {
        let description = facts.single?.description?;
        let is_whole = until_nul(message::body(said)).len() + 1 == message::body(said).len();
        let has_rules = self.server.as_ref().is_none_or(|server| server.has_rules);
        // After messages of a request that was not ended it has no transaction of its own.
        let is_possible = is_whole && !has_rules && !facts.pins && !self.is_in_group;
        is_possible.then_some(description)
    }

    pub(super) fn write_as_extended(&mut self, sql: &[u8]) {
        let out = self.output();
        message::message(out, b'P', |out| {
            out.put_u8(0);
            message::cstr(out, sql);
            out.put_u16(0);
        });
        message::message(out, b'B', |out| {
            out.put_slice(b"\0\0");
            out.put_slice(BIND_NOTHING);
        });
        out.put_slice(DESCRIBE);
        out.put_slice(EXECUTE);
        for what in [
            What::Parse { id: 0, name: None },
            What::Bind { of: 0 },
            What::Describe,
            What::Execute { sets: None },
        ] {
            self.expected.push(what, Audience::Client);
        }
        if let Some(server) = &mut self.server {
            server.unnamed = NOBODYS;
        }
        self.ask_before_sync();
        self.output().put_slice(SYNC);
        self.expected.push(What::Sync, Audience::Client);
    }

    /// The client gets what was held.
    pub(super) fn release_replies(&mut self) {
        if let Some(held) = self.held.take() {
            self.tell(&held.release());
        }
    }

    fn knows_xids(&self) -> bool {
        let server = self.server.as_ref();
        server.is_some_and(|server| major(server.parameters.get(&b"server_version"[..])) >= XID_SINCE_MAJOR)
    }
}

/// Of `server_version`, such as `15.18 (Debian ...)`.
fn major(version: Option<&Vec<u8>>) -> u32 {
    let digits = version.into_iter().flatten().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |major: u32, digit| major.saturating_mul(10).saturating_add(u32::from(digit - b'0')))
}

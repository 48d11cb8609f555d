//! From the client to the server.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Buf, BufMut, BytesMut};

use super::expected::{Audience, What};
use super::held::Asked;
use super::route::{Route, Turn};
use super::{End, HIGH_WATER_BYTES, Rest, Session};
use crate::frame::{Cut, HEADER_BYTES, Malformed};
use crate::load::Load;
use crate::message::{self, CLOSE_COMPLETE, FLUSH, Refusal, TransactionStatus, body, split_cstr, until_nul};
use crate::prepared::{NOBODYS, Named, OURS, Statement};
use crate::statement::{Facts, Kind, single};

/// Prepared statements of one client at once.
const MAX_STATEMENTS: usize = 10_000;
/// Of the name of a statement or portal.
const MAX_NAME_BYTES: usize = 1_024;

/// Where reading stopped.
pub(super) enum Step {
    /// The next message needs a connection.
    NeedsServer,
    /// The next request is not for the replica on which its transaction is open.
    Leaves,
    /// For more from the client, or for the server.
    Waits,
}

impl Session {
    /// Takes from the client's input what can be taken now.
    pub(super) fn read_requests(&mut self) -> Result<Step, End> {
        loop {
            let is_full =
                self.server.as_ref().is_some_and(|server| server.wire.output.len() >= HIGH_WATER_BYTES);
            // Remembered, because the replicas on which it depends may be gone when there is room.
            self.waits_for_room = self.is_client_slow();
            if is_full
                || self.waits_for_room
                || self.is_read_under_way()
                || self.unit.is_committing() && !self.is_read_over()
                || self.is_discarding()
            {
                return Ok(Step::Waits);
            }
            let mut framer = self.framer.clone();
            let cut = framer.cut(&self.client.input).map_err(|malformed| self.malformed(malformed))?;
            match cut {
                // What it has begun comes to no end any more.
                Cut::More if self.has_client_ended && self.is_unfinished() => return Err(End::Client),
                Cut::More => return Ok(Step::Waits),
                Cut::Whole { tag: b'X', .. } | Cut::Head { tag: b'X', .. } => {
                    // Whatever it has asked before is done and answered first.
                    self.has_client_ended = true;
                    self.client.input.clear();
                    continue;
                }
                Cut::Rest { bytes } => {
                    let rest = self.client.input.split_to(bytes);
                    if let (Rest::Forward, Some(server)) = (self.client_rest, &mut self.server) {
                        server.wire.output.extend_from_slice(&rest);
                    }
                }
                Cut::Whole { tag, .. } | Cut::Head { tag, .. }
                    if (self.needs_server(tag) || self.replica.is_some() && tag == b'C')
                        && self.is_to_be_routed() =>
                {
                    match self.turn_of_request() {
                        // It is asked for no more until its request has begun.
                        Turn::Stay => self.is_routed = true,
                        Turn::Connect if self.connect_at_once() => {}
                        Turn::Connect => return Ok(Step::NeedsServer),
                        Turn::Leave => return Ok(Step::Leaves),
                        Turn::Wait => return Ok(Step::Waits),
                    }
                    continue;
                }
                Cut::Whole { tag, .. } | Cut::Head { tag, .. }
                    if self.server.is_none() && self.needs_server(tag) =>
                {
                    self.route = Route::Primary;
                    return Ok(Step::NeedsServer);
                }
                Cut::Whole { tag, bytes } | Cut::Head { tag, bytes }
                    if self.waits_for_answers(tag, bytes) =>
                {
                    return Ok(Step::Waits);
                }
                Cut::Whole { tag, bytes } => {
                    let said = std::mem::take(&mut self.client.input);
                    let taken = self.request(tag, &said[..bytes], Piece::Whole);
                    self.client.input = said;
                    self.client.input.advance(bytes);
                    taken?;
                }
                Cut::Head { tag, bytes } => {
                    let said = self.client.input.split_to(bytes);
                    self.client_rest = Rest::Forward;
                    self.request(tag, &said, Piece::Head)?;
                }
            }
            self.framer = framer;
        }
    }

    /// Whether nothing but the rest of what was begun can come next.
    fn is_unfinished(&self) -> bool {
        self.framer.is_inside() || self.is_in_group && !self.unit.has_unanswered()
    }

    #[cold]
    fn malformed(&self, malformed: Malformed) -> End {
        self.shared.counters.refused_protocol.fetch_add(1, Relaxed);
        End::Fatal(Refusal::new("08P01", malformed.to_string(), "The client library is broken."))
    }

    /// A replica has one request at a time: what follows is looked at behind its reply.
    pub(super) fn is_read_under_way(&self) -> bool {
        self.replica.is_some() && !self.expected.is_empty() && !self.is_in_group
    }

    fn needs_server(&self, tag: u8) -> bool {
        !self.is_skipping && matches!(tag, b'Q' | b'P' | b'B' | b'D' | b'E' | b'F')
            || self.is_block_lost && matches!(tag, b'S' | b'C')
    }

    fn request(&mut self, tag: u8, said: &[u8], piece: Piece) -> Result<(), End> {
        if self.is_skipping {
            self.client_rest = Rest::Drop;
            if tag == b'S' {
                self.is_skipping = false;
                message::ready(&mut self.client.output, self.status);
            }
            return Ok(());
        }
        if self.server.is_none() {
            return self.without_server(tag, said);
        }
        if piece == Piece::Head {
            self.unit.give_up_replay();
        }
        match tag {
            b'Q' => self.query(said, piece),
            b'P' => self.parse(said, piece)?,
            b'B' => self.bind(said)?,
            b'D' => self.describe(said)?,
            b'E' => {
                let is_unnamed = until_nul(body(said)).is_empty();
                let mut sets = self.bound_sets.clone().filter(|_| is_unnamed);
                let back = sets.as_mut().map(|sets| self.add_what_is_set_back(sets));
                let what = match self.bound_deallocates.take() {
                    Some(name) => What::Deallocate { name },
                    None => What::Execute { sets },
                };
                self.forward(said, what);
                if let Some(back) = back {
                    self.set_back_in_group(&back);
                }
                if is_unnamed && self.bound_discards || !is_unnamed && self.named_discards {
                    self.has_discarded = true;
                    self.output().put_slice(FLUSH);
                }
            }
            b'C' => self.close(said)?,
            b'H' => {
                self.forward_silent(said);
                self.say_own();
                self.release_replies();
            }
            b'S' => self.sync(said),
            b'd' => {
                self.unit.give_up_replay();
                self.output().put_slice(said);
            }
            b'c' | b'f' => {
                self.output().put_slice(said);
                // Where nothing is to be answered, no COPY can begin any more.
                if !std::mem::take(&mut self.is_copying_in) && !self.expected.is_empty() {
                    self.expected.push(What::CopyEnd, Audience::Client);
                }
            }
            b'F' => {
                self.unit.record(said);
                self.note(&Facts { pins: false, ..Facts::UNKNOWN });
                self.output().put_slice(said);
                let what = What::Query { sets: None, is_complete: false, before: self.unnamed.clone() };
                self.expected.push(what, Audience::Client);
                self.unit.request_sent();
            }
            tag => return Err(invalid_type(tag)),
        }
        Ok(())
    }

    /// What can be answered while no connection is there.
    fn without_server(&mut self, tag: u8, said: &[u8]) -> Result<(), End> {
        match tag {
            b'S' => message::ready(&mut self.client.output, self.status),
            b'C' => {
                match body(said).split_first() {
                    Some((b'S', [0])) => self.unnamed = None,
                    Some((b'S', name)) => drop(self.statements.remove(until_nul(name))),
                    _ => {}
                }
                self.client.output.put_slice(CLOSE_COMPLETE);
            }
            // Of a COPY that is over, or with nothing to flush.
            b'H' | b'd' | b'c' | b'f' => self.client_rest = Rest::Drop,
            tag => return Err(invalid_type(tag)),
        }
        Ok(())
    }

    fn query(&mut self, said: &[u8], piece: Piece) {
        let facts = match piece {
            Piece::Whole => self.facts(until_nul(body(said))),
            Piece::Head => Facts::UNKNOWN,
        };
        self.ask_before_query(facts.kind);
        self.unit.record(said);
        let before = self.unnamed.take();
        if facts.discards {
            let sql = until_nul(body(said));
            match self.deallocated(sql, &facts).filter(|_| !self.is_in_group) {
                Some(name) => return self.deallocate_by_query(name, &facts),
                None => self.stand_in_for_all(sql),
            }
        }
        let translated = self.as_extended(said, &facts).map(Asked::Query);
        if translated.is_some_and(|asked| self.is_settled_by_sync(&facts, asked)) {
            self.count(facts.kind);
            self.may_change(&facts);
            self.unit.note_until_sync();
            self.write_as_extended(until_nul(body(said)));
            return self.unit.request_sent();
        }
        // It commits what the messages before it have begun.
        self.unit.may_commit_early();
        self.note(&facts);
        self.has_discarded |= facts.discards || facts.resets();
        if let Some(server) = &mut self.server {
            server.unnamed = 0;
        }
        self.output().put_slice(said);
        let what = What::Query { sets: facts.sets, is_complete: false, before };
        self.expected.push(what, Audience::Client);
        self.unit.request_sent();
        // It ends the group that it stands in, where that has not failed.
        self.is_in_group &= self.is_read_over();
        self.ask_what_is_shown();
    }

    fn parse(&mut self, said: &[u8], piece: Piece) -> Result<(), End> {
        let (name, definition) = split_name(body(said))?;
        let statement = match piece {
            Piece::Head => Arc::new(Statement::too_large_to_keep()),
            Piece::Whole if name.is_empty() => Arc::new(Statement::new(definition)),
            Piece::Whole => self.defined(definition),
        };
        if name.is_empty() {
            let kind = self.facts_of(&statement).kind;
            self.ask_before_group(kind);
        }
        self.unit.record(said);
        self.is_in_group = true;
        if piece == Piece::Head {
            // It exists on this connection alone.
            self.pin();
        }
        if name.is_empty() {
            if let Some(server) = &mut self.server {
                server.unnamed = statement.id;
            }
            self.output().put_slice(said);
            let before = self.unnamed.replace(statement);
            self.expected.push(What::ParseUnnamed { before }, Audience::Client);
            return Ok(());
        }
        if let Some(existing) = self.statements.get(name).cloned() {
            // The server shall say that there is one of this name already.
            let existing = self.prepare_named(name, existing);
            self.write_parse(&existing, said, definition);
            self.expected.push(What::Parse { id: 0, name: None }, Audience::Client);
            return Ok(());
        }
        if self.statements.len() >= MAX_STATEMENTS {
            let message = format!("more than {MAX_STATEMENTS} prepared statements in one session");
            return Err(End::Fatal(Refusal::new("54000", message, "Close statements that are not needed.")));
        }
        self.remember_statements();
        self.statements.insert(name.to_vec(), statement.clone());
        let Some(server) = &mut self.server else { return Ok(()) };
        if server.prepared.touch(statement.id) {
            if self.status == TransactionStatus::Failed
                && statement.write_parse(Named::Unnamed, &mut server.wire.output)
            {
                // The server shall say whether it takes this one now.
                server.unnamed = NOBODYS;
                self.expected.push(What::Parse { id: 0, name: Some(name.to_vec()) }, Audience::Client);
                return Ok(());
            }
            self.expected.push(What::ParseDone { name: name.to_vec() }, Audience::Client);
            return Ok(());
        }
        self.make_room(&statement);
        self.write_parse(&statement, said, definition);
        let name = Some(name.to_vec());
        self.expected.push(What::Parse { id: statement.id, name }, Audience::Client);
        Ok(())
    }

    /// Forwards a Parse, or the beginning of one, under our name for the statement.
    fn write_parse(&mut self, statement: &Statement, said: &[u8], definition: &[u8]) {
        let before = said.len() - HEADER_BYTES - definition.len();
        let out = self.output();
        rewritten(out, said, |out| {
            statement.write_name(out);
            (before, definition)
        });
    }

    fn bind(&mut self, said: &[u8]) -> Result<(), End> {
        let (portal, after_portal) = split_name(body(said))?;
        let (name, rest) = split_name(after_portal)?;
        let statement = self.named(name);
        let facts = match &statement {
            Some(statement) => self.facts_of(statement),
            // One made by SQL, which is of this connection, or none.
            None => Facts { pins: false, ..Facts::UNKNOWN },
        };
        if statement.is_some() && !self.is_in_group && !name.is_empty() {
            self.ask_before_group(facts.kind);
        }
        let text = statement.as_ref().and_then(|statement| statement.text());
        self.bound_deallocates = text.and_then(|sql| self.deallocated(sql, &facts));
        // It is read before anything is set that it sets.
        let statement = self.ensure(name, statement);
        self.note_in_group(&facts);
        self.note_portal(portal, facts);
        self.unit.record(said);
        self.is_in_group = true;
        let stand_in = self.bound_deallocates.clone().map(|name| self.stand_in_for(&name));
        let before = said.len() - HEADER_BYTES - rest.len();
        rewritten(self.output(), said, |out| {
            message::cstr(out, portal);
            match &stand_in {
                Some(stand_in) => stand_in.write_name(out),
                None => write_name(out, name, statement.as_deref()),
            }
            (before, rest)
        });
        let of = statement.as_ref().filter(|_| !name.is_empty()).map_or(0, |statement| statement.id);
        self.expected.push(What::Bind { of }, Audience::Client);
        Ok(())
    }

    fn note_portal(&mut self, portal: &[u8], facts: Facts) {
        if portal.is_empty() {
            self.bound_discards = facts.discards;
            self.bound_sets = facts.sets;
            return;
        }
        self.named_discards |= facts.discards;
        if facts.sets.is_some() {
            // Whether and when it is run is not followed.
            self.pin();
        }
    }

    fn describe(&mut self, said: &[u8]) -> Result<(), End> {
        let Some((b'S', name)) = body(said).split_first() else {
            self.forward(said, What::Describe);
            return Ok(());
        };
        let (name, rest) = split_name(name)?;
        let statement = self.named(name);
        self.unit.record(said);
        self.is_in_group = true;
        let statement = self.ensure(name, statement);
        let before = said.len() - HEADER_BYTES - rest.len();
        rewritten(self.output(), said, |out| {
            out.put_u8(b'S');
            write_name(out, name, statement.as_deref());
            (before, rest)
        });
        self.expected.push(What::Describe, Audience::Client);
        Ok(())
    }

    fn close(&mut self, said: &[u8]) -> Result<(), End> {
        let Some((b'S', name)) = body(said).split_first() else {
            self.forward(said, What::Close);
            return Ok(());
        };
        let (name, rest) = split_name(name)?;
        if name.is_empty() {
            let before = self.unnamed.take();
            if let Some(server) = &mut self.server {
                server.unnamed = 0;
            }
            self.forward(said, What::CloseUnnamed { before });
            return Ok(());
        }
        self.unit.record(said);
        self.is_in_group = true;
        if !self.statements.contains_key(name) {
            let before = said.len() - HEADER_BYTES - rest.len();
            rewritten(self.output(), said, |out| {
                out.put_u8(b'S');
                write_name(out, name, None);
                (before, rest)
            });
            self.expected.push(What::Close, Audience::Client);
            return Ok(());
        }
        self.remember_statements();
        if let Some(statement) = self.statements.remove(name) {
            // It stays on the server, for others.
            let name = name.to_vec();
            self.expected.push(What::CloseDone { name, statement }, Audience::Client);
        }
        Ok(())
    }

    fn sync(&mut self, said: &[u8]) {
        if self.is_copying_in {
            // The server would read over it, or answer it if the COPY has failed meanwhile: nobody could tell which.
            return;
        }
        self.ask_before_sync();
        self.output().put_slice(said);
        self.unit.record(said);
        self.is_in_group = false;
        self.expected.push(What::Sync, Audience::Client);
        self.unit.request_sent();
        self.ask_what_is_shown();
    }

    fn forward(&mut self, said: &[u8], what: What) {
        self.forward_silent(said);
        self.expected.push(what, Audience::Client);
    }

    fn forward_silent(&mut self, said: &[u8]) {
        self.unit.record(said);
        self.is_in_group = true;
        self.output().put_slice(said);
    }

    /// A statement of the extended protocol is about to run, which its Sync may commit.
    fn note_in_group(&mut self, facts: &Facts) {
        if facts.pins {
            self.pin();
        }
        if self.is_settled_by_sync(facts, Asked::Extended) {
            self.count(facts.kind);
            self.may_change(facts);
            return self.unit.note_until_sync();
        }
        self.note(facts);
        if !self.unit.writes_until_sync() {
            self.release_replies();
        }
    }

    /// A statement is about to run.
    pub(super) fn note(&mut self, facts: &Facts) {
        if !self.is_muted {
            self.count(facts.kind);
        }
        // Whatever it is, a replica writes nothing.
        let is_work_of_a_reader = self.replica.is_some() && facts.kind == Kind::Work;
        self.unit.note(if is_work_of_a_reader { Kind::Read } else { facts.kind });
        if facts.saves {
            self.unit.note_savepoint();
        }
        self.may_change(facts);
        if facts.pins {
            self.pin();
        }
    }

    /// Notes what will have to be told to others once it is done.
    fn may_change(&mut self, facts: &Facts) {
        self.may_have_written |= matches!(facts.kind, Kind::Work | Kind::Opaque);
        self.may_have_defined |= facts.defines;
        self.may_have_altered |= facts.alters;
    }

    pub(super) fn pin(&mut self) {
        self.is_pinned = true;
        self.registered.slot.is_pinned.store(true, Relaxed);
    }

    /// What the text of a Query may do.
    pub(super) fn facts(&mut self, sql: &[u8]) -> Facts {
        if self.shared.load.is_watched() {
            self.asked_text = Load::text(sql);
        }
        let verdict = self.judge.verdict(sql, &self.settings, &self.told);
        let mut facts = Facts::of(sql, verdict);
        if facts.kind != Kind::Read && facts.single.is_none() && self.unit.can_write_until_sync() {
            facts.single = single(sql);
        }
        facts
    }

    /// What a prepared statement may do when it is run now.
    pub(super) fn facts_of(&mut self, statement: &Statement) -> Facts {
        let Some(sql) = statement.text() else { return statement.facts().clone() };
        if self.shared.load.is_watched() {
            self.asked_text = Load::text(sql);
        }
        let verdict = self.judge.verdict(sql, &self.settings, &self.told);
        let by_words = || statement.facts().clone().judged(verdict);
        let mut facts = Facts::without_words(sql, verdict).unwrap_or_else(by_words);
        if facts.kind != Kind::Read && self.unit.can_write_until_sync() {
            facts.single = statement.facts().single.or_else(|| single(sql));
        }
        facts
    }

    /// Where what is forwarded goes. Requests are read only while a connection is there.
    pub(super) fn output(&mut self) -> &mut BytesMut {
        match &mut self.server {
            Some(server) => &mut server.wire.output,
            None => unreachable!("a request is forwarded while there is no connection"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Whole,
    Head,
}

#[cold]
fn invalid_type(tag: u8) -> End {
    let message = format!("invalid frontend message type {tag}");
    End::Fatal(Refusal::new("08P01", message, "The client library is broken."))
}

/// Writes a message again with another front. `front` writes that and says how many bytes of the body it stands for,
/// and what follows. The length is that of the whole message, which may be longer than what is there.
fn rewritten<'a>(out: &mut BytesMut, said: &[u8], front: impl FnOnce(&mut BytesMut) -> (usize, &'a [u8])) {
    let begin = out.len();
    out.put_slice(&said[..HEADER_BYTES]);
    let (stood_for, rest) = front(out);
    let written = out.len() - begin - HEADER_BYTES;
    let length = u32::from_be_bytes([said[1], said[2], said[3], said[4]]) as usize - stood_for + written;
    out[begin + 1..begin + HEADER_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
    out.put_slice(rest);
}

fn write_name(out: &mut BytesMut, name: &[u8], statement: Option<&Statement>) {
    match statement {
        Some(statement) if !name.is_empty() => statement.write_name(out),
        None if name.starts_with(OURS.as_bytes()) => {
            // Ours, so none of the client's.
            out.put_u8(b'?');
            message::cstr(out, name);
        }
        _ => message::cstr(out, name),
    }
}

fn split_name(bytes: &[u8]) -> Result<(&[u8], &[u8]), End> {
    match split_cstr(bytes) {
        Some((name, rest)) if name.len() <= MAX_NAME_BYTES => Ok((name, rest)),
        Some(_) => Err(End::Fatal(Refusal::new("42622", "a statement or portal has too long a name", ""))),
        None => Err(End::Fatal(Refusal::new(
            "08P01",
            "invalid string in message",
            "The client library is broken.",
        ))),
    }
}

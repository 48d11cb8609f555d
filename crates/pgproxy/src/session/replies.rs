//! From the server to the client.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Buf, BufMut, BytesMut};

use super::expected::{Audience, Data, Expected, What};
use super::held::Held;
use super::route::Repair;
use super::{End, Rest, Session};
use crate::frame::Cut;
use crate::message::{
    self, CLOSE_COMPLETE, PARSE_COMPLETE, Refusal, TransactionStatus, body, error_field, is_fatal,
    no_longer_waits, until_nul,
};
use crate::prepared::NOBODYS;
use crate::server::{Server, learn, status};

const SET_UP_AGAIN: &str = "Connect again, and set it up again: a temporary table, LISTEN, an advisory lock of the session, PREPARE \
                            by SQL and the like are of one connection alone, and end with it when the primary changes.";

/// What reading the server's input led to.
pub(super) enum Heard {
    Replies,
    /// The server closes the connection, and why. The client has not heard of it.
    Goodbye(String),
    /// A replica cannot answer, and nothing of its answer was said. The rest of it is still to be read.
    Refused(Repair),
}

/// What becomes of one message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Forward,
    Drop,
}

impl Session {
    /// Takes all whole messages from the server's input.
    pub(super) fn read_replies(&mut self) -> Result<Heard, End> {
        let Some(server) = &mut self.server else { return Ok(Heard::Replies) };
        let mut input = std::mem::take(&mut server.wire.input);
        let heard = self.read_messages(&mut input);
        self.show_rows();
        if let Some(server) = &mut self.server {
            server.wire.input = input;
        }
        heard
    }

    fn read_messages(&mut self, input: &mut BytesMut) -> Result<Heard, End> {
        // What was looked at and is forwarded with the next run of bytes: `run..at`.
        let (mut run, mut at) = (0, 0);
        let mut heard = Ok(Heard::Replies);
        while let Some(server) = &mut self.server {
            let cut = match server.framer.cut(&input[at..]) {
                Ok(cut) => cut,
                Err(malformed) => {
                    heard = Ok(Heard::Goodbye(format!("PostgreSQL sent {malformed}")));
                    break;
                }
            };
            let (fate, bytes) = match cut {
                Cut::More => break,
                Cut::Rest { bytes } if self.server_rest == Rest::Forward => (Fate::Forward, bytes),
                Cut::Rest { bytes } => (Fate::Drop, bytes),
                // The most frequent by far.
                Cut::Whole { tag: b'D' | b'd', bytes } if self.is_for_client() => {
                    self.has_rows = true;
                    (Fate::Forward, bytes)
                }
                Cut::Whole { tag, bytes } | Cut::Head { tag, bytes } => {
                    let said = &input[at..at + bytes];
                    if tag == b'E' && is_fatal(said) && (is_shutdown(said) || self.replica.is_some()) {
                        let text = error_field(said, b'M').unwrap_or_default();
                        heard = Ok(Heard::Goodbye(String::from_utf8_lossy(text).into_owned()));
                        break;
                    }
                    // As good as a connection that was lost before its answer.
                    if tag == b'N' && no_longer_waits(said) {
                        heard = Ok(Heard::Goodbye("the wait for a standby was cancelled".to_owned()));
                        break;
                    }
                    if tag == b'Z' && self.is_commit_in_doubt() {
                        heard = Ok(Heard::Goodbye("a commit was to be cancelled".to_owned()));
                        break;
                    }
                    if tag == b'E'
                        && let Some(repair) = self.repair_of(said)
                    {
                        heard = Ok(Heard::Refused(repair));
                        break;
                    }
                    if self.is_own_next() || self.held.is_some() {
                        self.emit(&input[run..at]);
                        run = at;
                        self.say_own();
                    }
                    let fate = self.hear(tag, said);
                    self.server_rest = if fate == Fate::Forward { Rest::Forward } else { Rest::Drop };
                    if tag == b'E' && is_fatal(said) {
                        self.release_replies();
                        heard = Err(End::Told);
                    }
                    (fate, bytes)
                }
            };
            if fate == Fate::Drop {
                self.emit(&input[run..at]);
                run = at + bytes;
            }
            at += bytes;
            // What stands outside of replies, and where one ends, is between two runs.
            if !self.own_aside.is_empty() || self.answered.is_some() {
                self.emit(&input[run..at]);
                run = at;
                self.end_of_message();
            } else if self.is_own_next() {
                self.emit(&input[run..at]);
                run = at;
                self.say_own();
            }
        }
        if run == 0 && at > 0 && self.client.output.is_empty() && !self.is_muted && self.held.is_none() {
            // All of it goes to the client as it is: the buffer itself does.
            self.unit.replied(&input[..at]);
            std::mem::swap(input, &mut self.client.output);
            input.clear();
            input.extend_from_slice(&self.client.output[at..]);
            self.client.output.truncate(at);
        } else {
            self.emit(&input[run..at]);
            input.advance(at);
        }
        heard
    }

    fn is_for_client(&mut self) -> bool {
        self.expected.front().is_none_or(|head| head.audience == Audience::Client)
    }

    /// A cancel request came while a commit was under way. It may have ended the wait for a standby, and whether there is a
    /// warning of that is up to the client's settings. A session that would end for it is left to the warning.
    fn is_commit_in_doubt(&mut self) -> bool {
        let was_asked = self.server.as_ref().is_some_and(|server| server.key.was_asked_for());
        was_asked && !self.is_pinned && self.unit.may_have_committed()
    }

    /// Notes what a message means, and says whether the client gets it.
    fn hear(&mut self, tag: u8, said: &[u8]) -> Fate {
        let is_for_client = self.is_for_client();
        let fate = if is_for_client { Fate::Forward } else { Fate::Drop };
        match tag {
            b'S' => {
                if let Some(server) = &mut self.server {
                    learn(&mut server.parameters, said);
                }
                if !self.is_muted {
                    learn(&mut self.told, said);
                }
                self.aside(said)
            }
            b'A' => self.aside(said),
            // Of what we have asked ourselves.
            b'N' if !is_for_client => Fate::Drop,
            b'N' => self.aside(said),
            b'Z' => self.ready(said),
            b'C' | b'E' if is_for_client && self.is_answer_untold() => self.tell_untold(),
            b'E' => self.error(said, fate),
            b'1' => {
                self.pop_unasked(fate, |what| matches!(what, What::Parse { .. } | What::ParseUnnamed { .. }))
            }
            b'2' => self.pop_unasked(fate, |what| matches!(what, What::Bind { .. })),
            b'3' => self.pop_if(fate, |what| {
                matches!(what, What::Close | What::CloseUnnamed { .. } | What::CloseOurs(_))
            }),
            b'n' => self.pop_unasked(fate, |what| matches!(what, What::Describe)),
            b'T' => {
                self.pop_if(fate, |what| matches!(what, What::Describe));
                self.hold(fate, |held| held.describe(said))
            }
            b'I' | b's' => {
                // A portal that is suspended has run, and may have set what it sets.
                if tag == b's'
                    && let Some(What::Execute { sets }) = self.expected.front().map(|head| &mut head.what)
                {
                    self.set.extend(sets.take().unwrap_or_default());
                }
                self.pop_if(fate, What::is_execute)
            }
            b'C' => self.command_complete(said, fate),
            b'D' => {
                match self.expected.front().map(|head| &head.what) {
                    Some(&What::Xid(committed)) => self.learn_xid(said, committed),
                    Some(What::Replayed) => self.learn_what_is_shown(said),
                    _ => self.has_rows |= is_for_client,
                }
                fate
            }
            b'G' => {
                self.copy_in_begins();
                fate
            }
            _ => fate,
        }
    }

    /// What was the request's Sync is none: its group goes on until the one that follows the data.
    #[cold]
    fn copy_in_begins(&mut self) {
        self.unit.give_up_replay();
        let begun = self.expected.copy_in_begins();
        self.is_copying_in = begun.data == Data::Follows;
        self.has_sync_read_over = begun.syncs_read_over > 0;
        (0..begun.syncs_read_over).for_each(|_| self.unit.end_read_over());
        self.is_in_group |= self.expected.is_group_open();
    }

    /// Says something that belongs to no request, and so not to what is compared.
    fn aside(&mut self, said: &[u8]) -> Fate {
        if self.is_muted {
            return Fate::Drop;
        }
        match self.held.as_mut().and_then(|held| held.aside(said)) {
            Some(spilled) => self.tell(&spilled),
            None => self.own_aside.put_slice(said),
        }
        Fate::Drop
    }

    fn is_answer_untold(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.untold.is_some())
    }

    /// In place of what the server says of a COMMIT that it has made a ROLLBACK. Nothing else for the client is before it.
    #[cold]
    fn tell_untold(&mut self) -> Fate {
        if let Some(error) = self.server.as_mut().and_then(|server| server.untold.take()) {
            self.tell(&error);
        }
        Fate::Drop
    }

    fn pop_if(&mut self, fate: Fate, is_it: impl Fn(&What) -> bool) -> Fate {
        if self.expected.front().is_some_and(|head| is_it(&head.what)) {
            self.expected.pop();
        }
        fate
    }

    /// Of an answer that a Query does not have.
    fn pop_unasked(&mut self, fate: Fate, is_it: impl Fn(&What) -> bool) -> Fate {
        let fate = self.pop_if(fate, is_it);
        if self.held.as_ref().is_some_and(Held::is_query) { Fate::Drop } else { fate }
    }

    /// Leaves a message for the client to what holds the others, if they are held.
    fn hold(&mut self, fate: Fate, hold: impl FnOnce(&mut Held)) -> Fate {
        match &mut self.held {
            Some(held) if fate == Fate::Forward => {
                hold(held);
                Fate::Drop
            }
            _ => fate,
        }
    }

    fn command_complete(&mut self, said: &[u8], fate: Fate) -> Fate {
        self.acknowledge();
        let command = until_nul(body(said));
        let mut is_query = false;
        let set = match self.expected.front().map(|head| &mut head.what) {
            Some(What::Query { sets, is_complete, .. }) => {
                (*is_complete, is_query) = (true, true);
                sets.take()
            }
            Some(What::Execute { sets }) => {
                let sets = sets.take();
                self.expected.pop();
                sets
            }
            Some(What::Deallocate { name }) => {
                let name = std::mem::take(name);
                self.expected.pop();
                if command == b"DEALLOCATE" {
                    self.is_deallocated(&name);
                }
                None
            }
            Some(What::Xid(_) | What::Replayed) => {
                self.expected.pop();
                None
            }
            _ => None,
        };
        if fate == Fate::Forward {
            match command {
                b"SET" | b"RESET" | b"SELECT 1" => {
                    if let Some(set) = set {
                        self.set.extend(set);
                    }
                }
                b"COMMIT" | b"ROLLBACK" | b"CALL" | b"DO" if !self.set.is_empty() => {
                    // What was set before it in the same request is settled by it, and not by the end of the request.
                    self.set.clear();
                    self.pin();
                }
                b"DISCARD ALL" => self.discarded(),
                b"DEALLOCATE" if is_query => self.next_is_deallocated(),
                b"DEALLOCATE ALL" => self.all_are_deallocated(),
                _ => {}
            }
        }
        self.hold(fate, |held| held.complete(said))
    }

    /// The client has made a new session of its connection.
    #[cold]
    fn discarded(&mut self) {
        self.statements.clear();
        self.has_altered = false;
        self.set.clear();
        self.settings = self.startup_settings.clone();
        // Of what follows in the same group, nobody knows yet what it leaves.
        self.is_pinned &= self.expected.has_more_to_run();
        self.registered.slot.is_pinned.store(self.is_pinned, Relaxed);
        if let Some(server) = &mut self.server {
            server.forget_session();
        }
    }

    fn ready(&mut self, said: &[u8]) -> Fate {
        let status = status(said);
        if let Some(server) = &mut self.server {
            server.status = status;
        }
        self.is_copying_in = false;
        self.has_sync_read_over = false;
        // What was sent after the server had failed, and before we heard of it.
        self.skip();
        if let Some(server) = &mut self.server {
            server.skips_to_sync = false;
        }
        let is_ours = match self.expected.pop() {
            Some(expected) => expected.audience == Audience::Proxy,
            None => {
                // To a Sync that was thought to be read over.
                self.is_in_group = false;
                false
            }
        };
        if is_ours {
            self.is_shown_at_last();
            return Fate::Drop;
        }
        self.acknowledge();
        self.reply_is_whole();
        self.status = status;
        self.release_replies();
        if !self.set.is_empty() {
            self.settle_settings(status);
        }
        if !self.deallocates.is_empty() {
            self.close_stand_ins();
        }
        if !self.is_muted {
            let counters = &self.shared.counters;
            counters.requests.fetch_add(1, Relaxed);
            if self.replica.is_none() {
                counters.primary_requests.fetch_add(1, Relaxed);
            }
            if let Some(asked) = self.asked.take() {
                self.shared.load.answered(asked, self.replica.is_some());
            }
        }
        self.answered = Some(status);
        Fate::Forward
    }

    /// The server skips what it was asked until the next Sync.
    #[cold]
    fn error(&mut self, said: &[u8], fate: Fate) -> Fate {
        self.set.clear();
        self.unit.failed();
        self.forget_outdated_statement(said);
        self.is_copying_in = false;
        if let (true, Some(server)) = (self.has_sync_read_over, &mut self.server) {
            server.may_say_more = true;
        }
        let is_ours_alone = match self.expected.front().map(|head| &head.what) {
            // It answers the whole request itself.
            None | Some(What::Query { .. }) => return fate,
            Some(failed) => {
                // One that does not parse has taken the place of the one before all the same.
                let is_unnamed_gone = matches!(failed, What::ParseUnnamed { .. });
                if let Some(server) = &mut self.server {
                    server.skips_to_sync = true;
                }
                self.skip();
                if is_unnamed_gone {
                    self.unnamed_is_again(None);
                }
                // A Query that was to end the group was read over.
                self.is_in_group |= self.expected.is_empty();
                self.expected.front().is_some_and(|sync| sync.audience == Audience::Proxy)
            }
        };
        // Whoever asked: the client's statement cannot be carried out.
        let fate = if is_ours_alone { Fate::Drop } else { Fate::Forward };
        // Where it was about stand-ins, the Query fails for the lack of them.
        if is_ours_alone
            && self.deallocates.is_empty()
            && self.expected.is_query_next()
            && let Some(server) = &mut self.server
        {
            server.untold = Some(said.into());
        }
        let fate = self.hold(fate, |held| held.fail(said));
        if self.expected.is_empty() {
            // Nothing is committed, and a client that has not ended its group may wait for this.
            self.release_replies();
        }
        fate
    }

    /// What the server does not answer, because there was an error: all until the end of the request. Undone from the last to
    /// the first.
    fn skip(&mut self) {
        let skips_to_sync = self.skips_to_sync();
        let mut skipped = Vec::new();
        while let Some(head) = self.expected.front() {
            let is_answered = match head.what {
                What::Sync => true,
                What::Query { .. } => !skips_to_sync,
                _ => false,
            };
            if is_answered {
                break;
            }
            skipped.extend(self.expected.pop());
        }
        while let Some(last) = skipped.pop() {
            self.undo(last);
        }
    }

    fn undo(&mut self, skipped: Expected) {
        let Some(server) = &mut self.server else { return };
        match &skipped.what {
            What::Parse { id, .. } => {
                server.prepared.remove(*id);
                // One that is unnamed may be of anybody.
                server.unnamed = NOBODYS;
            }
            What::ParseUnnamed { .. } | What::CloseUnnamed { .. } => server.unnamed = NOBODYS,
            What::Query { .. } if skipped.audience == Audience::Client => {
                server.unnamed = NOBODYS;
                self.unit.end_read_over();
                self.deallocates.clear();
            }
            What::CloseOurs(id) => server.prepared.restore(*id),
            _ => {}
        }
        if skipped.audience == Audience::Client {
            self.take_back_names(skipped.what);
        }
    }

    fn is_own_next(&mut self) -> bool {
        let is_own = self.expected.front().is_some_and(|head| {
            matches!(head.what, What::ParseDone { .. } | What::CloseDone { .. } | What::CopyEnd)
        });
        // What is read over is not answered by us either.
        is_own && !self.skips_to_sync()
    }

    /// Says what the client gets from us at this place. Like the server, we say nothing of a request before it has an
    /// answer to send or is asked to flush: until then it can be run again elsewhere.
    pub(super) fn say_own(&mut self) {
        while !self.skips_to_sync() {
            match self.expected.front().map(|head| &head.what) {
                Some(What::ParseDone { .. }) => self.emit(PARSE_COMPLETE),
                Some(What::CloseDone { .. }) => self.emit(CLOSE_COMPLETE),
                Some(What::CopyEnd) => {}
                _ => return,
            }
            self.expected.pop();
        }
    }

    fn end_of_message(&mut self) {
        if !self.own_aside.is_empty() {
            self.client.output.put_slice(&std::mem::take(&mut self.own_aside));
        }
        let Some(status) = self.answered.take() else { return };
        self.unit.request_answered(status);
        if self.unit.is_at_rest() {
            self.replays = 0;
            self.may_have_written = false;
            self.named_discards = false;
            self.may_have_altered = false;
            if std::mem::take(&mut self.may_have_defined) {
                self.shared.definitions_changed.notify_one();
            }
            self.statements_before = None;
        } else if status == TransactionStatus::Idle && self.statements_before.is_some() {
            // As they were before what is in flight now: that was not kept.
            self.unit.give_up_replay();
        }
    }

    /// A part of a reply: to the client, to be held, or to be compared with what the client got.
    pub(super) fn emit(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match &mut self.held {
            Some(held) => {
                let spilled = held.hold(bytes);
                self.tell(&spilled);
            }
            None => self.tell(bytes),
        }
    }

    pub(super) fn tell(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.unit.replied(bytes);
        if !self.is_muted {
            self.client.output.put_slice(bytes);
        }
    }

    /// Tells the client what is other on this connection than on the one before.
    pub(super) fn tell_parameters(&mut self) {
        let is_other = |server: &Server| !Arc::ptr_eq(&server.parameters, &self.told);
        if self.server.as_deref().is_some_and(is_other) {
            self.tell_other_parameters();
        }
    }

    #[cold]
    fn tell_other_parameters(&mut self) {
        let Some(server) = &self.server else { return };
        for (name, value) in &*server.parameters {
            if self.told.get(name) != Some(value) {
                message::parameter_status(&mut self.client.output, name, value);
            }
        }
        self.told = server.parameters.clone();
    }

    /// It has state that no other connection can be given.
    pub(super) fn end_of_session(&self, cause: &str) -> End {
        self.shared.counters.pinned_lost.fetch_add(1, Relaxed);
        let message = format!(
            "the connection to PostgreSQL was lost, and with it what the session had set up: {cause}"
        );
        End::Fatal(Refusal::new("57P01", message, SET_UP_AGAIN))
    }
}

/// PostgreSQL ends every connection, or this one, for reasons that are not the client's.
fn is_shutdown(error: &[u8]) -> bool {
    matches!(error_field(error, b'C'), Some(b"57P01" | b"57P02" | b"57P03"))
}

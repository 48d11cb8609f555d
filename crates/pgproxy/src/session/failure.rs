//! Errors of our own in the middle of a session, which goes on.

use bytes::BytesMut;

use super::expected::{Audience, What};
use super::held::Held;
use super::{Rest, Session};
use crate::frame::{Cut, Framer};
use crate::message::{self, Refusal, Severity, TransactionStatus};

/// Leaves a new connection in the state that the client believes in: a transaction block that has failed.
const FAILED_BLOCK: &str = "BEGIN; ROLLBACK TO SAVEPOINT pgproxy_transaction_was_lost";

/// What is left of the client's transaction block after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    Ended,
    /// It fails everything until the client ends it.
    Failed,
}

impl Session {
    /// Refuses the request at the front of the client's input, for which there is no connection.
    pub(super) fn refuse_request(&mut self, refusal: &Refusal) {
        let mut framer: Framer = self.framer.clone();
        if let Ok(Cut::Whole { tag, bytes } | Cut::Head { tag, bytes }) = framer.cut(&self.client.input) {
            bytes::Buf::advance(&mut self.client.input, bytes);
            self.framer = framer;
            self.client_rest = Rest::Drop;
            refusal.write(Severity::Error, &mut self.client.output);
            match tag {
                b'Q' | b'F' | b'S' => message::ready(&mut self.client.output, self.status),
                _ => self.is_skipping = true,
            }
        }
    }

    /// Ends everything that was sent and not answered with an error. The connection is gone.
    pub(super) fn fail(&mut self, refusal: &Refusal, block: Block) {
        self.unit.end();
        self.held = None;
        self.replays = 0;
        self.statements_before = None;
        self.set.clear();
        self.deallocates.clear();
        self.is_copying_in = false;
        self.has_sync_read_over = false;
        self.client_rest = Rest::Drop;
        self.is_block_lost = block == Block::Failed;
        self.status = match block {
            Block::Failed => TransactionStatus::Failed,
            Block::Ended => TransactionStatus::Idle,
        };
        let mut out = std::mem::take(&mut self.client.output);
        if self.expected.is_empty() && !self.is_in_group {
            self.owed = Some(refusal.clone());
        }
        let mut is_told = false;
        let mut failed: Vec<_> =
            self.expected.drain().filter(|expected| expected.audience == Audience::Client).collect();
        for expected in &failed {
            if !std::mem::replace(&mut is_told, true) {
                refusal.write(Severity::Error, &mut out);
            }
            if matches!(expected.what, What::Query { .. } | What::Sync) {
                message::ready(&mut out, self.status);
                is_told = false;
            }
        }
        while let Some(last) = failed.pop() {
            self.take_back_names(last.what);
        }
        if std::mem::take(&mut self.is_in_group) {
            if !is_told {
                refusal.write(Severity::Error, &mut out);
            }
            self.is_skipping = true;
        }
        self.client.output = out;
    }

    /// Of a transaction that the client knows to have failed, nothing has to be done again on the next connection: that
    /// is made to be of the same opinion, and gets what was not answered, which most likely ends the block. `false`: more
    /// is in flight than the client can have meant for that, or it can go back to a savepoint.
    pub(super) fn keep_failed_block(&mut self) -> bool {
        let is_whole = !self.is_in_group
            && !self.framer.is_inside()
            && !self.unit.is_answer_begun()
            && self.expected.is_of_queries();
        if self.status != TransactionStatus::Failed || !is_whole || self.unit.may_have_savepoint() {
            return false;
        }
        let mut input = BytesMut::from(self.unit.in_flight());
        input.unsplit(std::mem::take(&mut self.client.input));
        self.client.input = input;
        self.unit.end();
        self.expected.clear();
        self.held = None;
        self.statements_before = None;
        self.set.clear();
        self.is_block_lost = true;
        true
    }

    /// The client was told that its transaction has failed. The connection that it gets now shall be of that opinion,
    /// so that PostgreSQL itself refuses everything until the client ends the block.
    #[cold]
    pub(super) fn enter_lost_block(&mut self) {
        self.is_block_lost = false;
        if let Some(server) = &mut self.server {
            message::query(&mut server.wire.output, FAILED_BLOCK);
            server.unnamed = 0;
            server.status = TransactionStatus::Failed;
            self.expected.push(What::Query { sets: None, is_complete: false, before: None }, Audience::Proxy);
        }
    }

    /// The commit that was lost has been done: what was held, and its answer as the server would have given it.
    pub(super) fn answer_commit(&mut self) {
        self.acknowledge();
        let mut out: BytesMut = self.held.take().map(Held::release).unwrap_or_default();
        for expected in self.expected.drain().filter(|expected| expected.audience == Audience::Client) {
            match expected.what {
                What::Parse { .. } | What::ParseUnnamed { .. } | What::ParseDone { .. } => {
                    out.extend_from_slice(message::PARSE_COMPLETE);
                }
                What::Bind { .. } => out.extend_from_slice(message::BIND_COMPLETE),
                What::Describe => out.extend_from_slice(message::NO_DATA),
                What::Execute { .. } => message::command_complete(&mut out, "COMMIT"),
                What::Deallocate { .. } => message::command_complete(&mut out, "DEALLOCATE"),
                What::Close | What::CloseUnnamed { .. } | What::CloseOurs(_) | What::CloseDone { .. } => {
                    out.extend_from_slice(message::CLOSE_COMPLETE);
                }
                What::Query { is_complete, .. } => {
                    if !is_complete {
                        message::command_complete(&mut out, "COMMIT");
                    }
                    message::ready(&mut out, TransactionStatus::Idle);
                }
                What::Sync => message::ready(&mut out, TransactionStatus::Idle),
                What::CopyEnd | What::Xid(_) | What::Replayed => {}
            }
        }
        self.client.output.unsplit(out);
        self.status = TransactionStatus::Idle;
        self.unit.end();
        self.statements_before = None;
    }
}

//! What was asked and answered since the client was last at rest, and what a lost connection means for it.
//!
//! A unit begins with a request while no transaction block is open, and ends when the server says that none is open
//! and everything was answered: one request, or one transaction. Its requests are kept as the client sent them, within
//! limits, and of the replies that were forwarded a hash. When the connection is lost, the requests can be run again
//! on another; what then comes out is compared with what the client has seen.
//!
//! No time and no sockets in here: [`Unit::loss`] is a function of what was noted.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use sha2::{Digest, Sha256};

use crate::horizon::{Issued, Moment};
use crate::message::TransactionStatus;
use crate::statement::Kind;

/// A unit of more requests cannot be run again.
const MAX_REQUESTS: usize = 16;
/// Nor one whose requests are longer.
const MAX_REQUEST_BYTES: usize = 256 * 1024;
/// Nor one of whose replies more was forwarded: to hash them would cost more than it is worth.
const MAX_REPLY_BYTES: u64 = 1024 * 1024;

/// Whether a transaction block is open where the next statement runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    None,
    Open,
    Unknown,
}

/// A commit that was sent and not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Commit {
    pub issued: Issued,
    pub xid: Xid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Xid {
    /// Asked for before the commit, on the same connection. No answer: the server did not get to the commit.
    Asked,
    /// The transaction has none: it wrote nothing.
    None,
    Is(u64),
}

/// What the loss of the connection means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing was under way.
    Nothing,
    /// Nothing can have been committed: run it again, and compare.
    Replay,
    /// Ask for the fate of the transaction, then as that says.
    Settle { xid: u64, issued: Issued },
    /// It may have been committed, and nobody can say.
    Unknown,
    /// Not committed, but what the client has seen of it cannot be made again.
    Failed,
}

/// What was said. Most units are of one request, of which only whether anything was forwarded matters: they have no hash.
#[derive(Clone, Default)]
struct Replies {
    bytes: u64,
    hash: Option<Sha256>,
}

pub(super) struct Unit {
    is_open: bool,
    log: BytesMut,
    /// Where the requests end that were not answered yet.
    ends: VecDeque<usize>,
    requests: usize,
    /// How much of the log was answered, and with what.
    answered: usize,
    answered_with: Replies,
    replies: Replies,
    is_too_long: bool,
    block: Block,
    /// Something in flight may commit by itself.
    is_uncertain: bool,
    wrote: bool,
    /// The client may go back to one after an error.
    has_savepoint: bool,
    /// Something in flight may commit and begin the next block: one that is open behind it holds nothing of what stands
    /// before.
    may_begin_anew: bool,
    /// Something was written without a block, and the Sync behind it is not sent.
    writes_until_sync: bool,
    commit: Option<Commit>,
    /// It was answered by an error, so it is no commit.
    has_failed: bool,
    /// In the same request, so that the fate of the COMMIT does not say what became of the whole.
    is_commit_followed: bool,
    /// Of the server's connection, how much had been written when the unit began on it.
    pub written_before: u64,
}

/// A unit that is to be run again.
pub(super) struct Rewound {
    pub answered: BytesMut,
    pub in_flight: BytesMut,
    with: Replies,
}

impl Unit {
    pub fn new() -> Unit {
        Unit {
            is_open: false,
            log: BytesMut::new(),
            ends: VecDeque::new(),
            requests: 0,
            answered: 0,
            answered_with: Replies::default(),
            replies: Replies::default(),
            is_too_long: false,
            block: Block::None,
            is_uncertain: false,
            wrote: false,
            has_savepoint: false,
            may_begin_anew: false,
            writes_until_sync: false,
            commit: None,
            has_failed: false,
            is_commit_followed: false,
            written_before: 0,
        }
    }

    /// Whether the client's transaction block is open behind everything that was sent.
    pub fn is_block_open(&self) -> bool {
        self.block != Block::None
    }

    /// A message of the client is about to be sent.
    pub fn record(&mut self, message: &[u8]) {
        self.is_open = true;
        if self.is_too_long || self.log.len() + message.len() > MAX_REQUEST_BYTES {
            return self.give_up_replay();
        }
        self.log.extend_from_slice(message);
    }

    /// The unit cannot be run again.
    #[cold]
    pub fn give_up_replay(&mut self) {
        self.is_open = true;
        self.is_too_long = true;
        self.log.clear();
        self.ends.iter_mut().for_each(|end| *end = 0);
        self.answered = 0;
    }

    /// A statement of this kind is about to run.
    pub fn note(&mut self, kind: Kind) {
        let is_alone = self.ends.is_empty();
        self.is_commit_followed |= self.commit.is_some() && self.block == Block::None;
        if kind != Kind::Read {
            // It may commit what stands before it, or be the beginning of its block.
            self.may_commit_early();
        }
        self.wrote |= matches!(kind, Kind::Work | Kind::Opaque);
        self.may_begin_anew |= kind == Kind::Opaque || kind == Kind::Commit && self.block != Block::None;
        match (kind, self.block) {
            (Kind::Read, _) | (Kind::Commit | Kind::Rollback, Block::None) => {}
            // One that follows others may be skipped after an error of theirs.
            (Kind::Begin, Block::None) => self.block = if is_alone { Block::Open } else { Block::Unknown },
            (Kind::Begin | Kind::Work, Block::Open) => {}
            (Kind::Commit, Block::Open) => {
                self.block = Block::None;
                self.is_uncertain |= self.wrote && self.commit.is_none();
            }
            (Kind::Rollback, Block::Open) => self.block = Block::None,
            (Kind::Opaque, _) => {
                self.block = Block::Unknown;
                self.is_uncertain = true;
            }
            _ => self.is_uncertain = true,
        }
    }

    /// A statement that may set a savepoint is about to run.
    pub fn note_savepoint(&mut self) {
        self.has_savepoint = true;
    }

    /// Whether the id of the transaction should be asked for before a COMMIT that is about to be sent.
    pub fn wants_xid(&self) -> bool {
        self.block == Block::Open && self.wrote && self.commit.is_none()
    }

    pub fn expect_xid(&mut self, sent: Moment) {
        self.writes_until_sync = false;
        self.commit = Some(Commit { issued: Issued::before(sent), xid: Xid::Asked });
    }

    pub fn learn_xid(&mut self, xid: Xid) {
        if let Some(commit) = &mut self.commit {
            commit.xid = xid;
        }
    }

    /// `now`: the id is known, and was given after it was asked for. `is_alive`: the connection is still there, so
    /// nobody can have talked to another node by now.
    pub fn issued_by(&mut self, now: Moment, is_alive: impl FnOnce() -> bool) {
        let Some(commit) = &mut self.commit else { return };
        if commit.issued.before != now {
            commit.issued =
                if is_alive() { Issued::before(now) } else { Issued { before: now, ..commit.issued } };
        }
    }

    /// Whether a write that is about to run would be committed by its Sync alone.
    pub fn can_write_until_sync(&self) -> bool {
        self.block == Block::None && !self.is_uncertain
    }

    /// A statement that writes without a block is about to run, and its transaction can be asked for.
    pub fn note_until_sync(&mut self) {
        self.writes_until_sync = true;
    }

    /// What was written without a block may be committed before its Sync.
    pub fn may_commit_early(&mut self) {
        self.is_uncertain |= std::mem::take(&mut self.writes_until_sync);
    }

    pub fn writes_until_sync(&self) -> bool {
        self.writes_until_sync
    }

    /// Whether a request that was sent to its end is not answered.
    pub fn has_unanswered(&self) -> bool {
        !self.ends.is_empty()
    }

    /// Nothing may be sent behind a commit that is not answered: its fate would hide that of what follows.
    pub fn is_committing(&self) -> bool {
        self.commit.is_some() && self.has_unanswered()
    }

    /// Whether what is under way has not failed, and may have committed something.
    pub fn may_have_committed(&self) -> bool {
        let is_commit = matches!(self.commit, Some(Commit { xid: Xid::Is(_), .. }));
        !self.has_failed && (is_commit || self.is_uncertain)
    }

    /// The server has answered with an error.
    pub fn failed(&mut self) {
        self.has_failed = true;
    }

    /// A request was sent to its end.
    pub fn request_sent(&mut self) {
        self.requests += 1;
        if self.requests > MAX_REQUESTS {
            self.give_up_replay();
        }
        self.ends.push_back(self.log.len());
    }

    /// What was sent as the end of the request that is being answered is none: it ends with the next.
    pub fn end_read_over(&mut self) {
        self.ends.pop_front();
        self.requests -= 1;
    }

    /// Bytes of a reply were forwarded.
    pub fn replied(&mut self, bytes: &[u8]) {
        self.replies.bytes += bytes.len() as u64;
        if self.replies.bytes > MAX_REPLY_BYTES {
            return self.give_up_replay();
        }
        if self.answered > 0 || self.block != Block::None {
            self.replies.hash.get_or_insert_default().update(bytes);
        }
    }

    /// A request was answered to its end. What ended outside of any block is done, and must never be run again: it is
    /// forgotten at once.
    pub fn request_answered(&mut self, status: TransactionStatus) {
        if self.may_begin_anew && status != TransactionStatus::Idle {
            self.give_up_replay();
        }
        let end = self.ends.pop_front().unwrap_or(self.log.len());
        self.has_failed = false;
        if self.ends.is_empty() {
            self.is_uncertain = false;
            self.commit = None;
            self.is_commit_followed = false;
            self.may_begin_anew = false;
            self.block = if status == TransactionStatus::Idle { Block::None } else { Block::Open };
        }
        if status != TransactionStatus::Idle {
            self.answered = end;
            self.answered_with = self.replies.clone();
            return;
        }
        self.log.advance(end);
        self.ends.iter_mut().for_each(|later| *later -= end);
        self.requests = self.ends.len();
        self.answered = 0;
        self.replies = Replies::default();
        self.answered_with = Replies::default();
        if self.log.is_empty() && self.ends.is_empty() {
            self.is_open = false;
            self.is_too_long = false;
            self.wrote = false;
            self.has_savepoint = false;
        }
    }

    /// Whether nothing is under way.
    pub fn is_at_rest(&self) -> bool {
        !self.is_open
    }

    /// What was forwarded of the reply to the request in flight was taken back.
    pub fn unsay(&mut self) {
        self.replies = self.answered_with.clone();
    }

    pub fn can_be_repeated(&self) -> bool {
        !self.is_too_long
    }

    /// Whether anything was said of the answer that is under way.
    pub fn is_answer_begun(&self) -> bool {
        self.replies.bytes > self.answered_with.bytes
    }

    /// Whether a savepoint may have been set, to which the client can go back after an error.
    pub fn may_have_savepoint(&self) -> bool {
        self.is_too_long || self.has_savepoint
    }

    /// The requests that were not answered.
    pub fn in_flight(&self) -> &[u8] {
        &self.log[self.answered..]
    }

    /// `is_sent`: whether the server can have got any of it.
    pub fn loss(&self, is_sent: bool) -> Loss {
        if !self.is_open {
            return Loss::Nothing;
        }
        if let Some(Commit { xid: Xid::Is(xid), issued }) = self.commit {
            let is_all = !self.is_commit_followed && !self.is_uncertain;
            return if is_all { Loss::Settle { xid, issued } } else { Loss::Unknown };
        }
        if self.is_uncertain && is_sent {
            return Loss::Unknown;
        }
        if self.is_too_long || self.is_answer_begun() {
            return Loss::Failed;
        }
        Loss::Replay
    }

    /// `None` when it cannot be run again.
    pub fn rewind(&mut self) -> Option<Rewound> {
        if self.is_too_long || self.is_answer_begun() {
            return None;
        }
        let mut unit = std::mem::replace(self, Unit::new());
        let in_flight = unit.log.split_off(unit.answered);
        Some(Rewound { answered: unit.log, in_flight, with: unit.answered_with })
    }

    pub fn end(&mut self) {
        let mut log = std::mem::take(&mut self.log);
        log.clear();
        *self = Unit { log, ..Unit::new() };
    }
}

impl Rewound {
    /// Whether what was run again has said the same.
    pub fn is_equal(&self, again: &Unit) -> bool {
        let hash = |replies: &Replies| replies.hash.as_ref().map(|hash| hash.clone().finalize());
        self.with.bytes == again.replies.bytes && hash(&self.with) == hash(&again.replies)
    }
}

#[cfg(test)]
mod tests;

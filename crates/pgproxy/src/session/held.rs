//! Replies that the client shall not see before the commit behind them is known.
//!
//! An app takes CommandComplete for done. So what answers a statement that commits by itself waits for ReadyForQuery.
//! If the connection is lost before, nothing was said that would have to be taken back: the statement is run again,
//! or its commit is found, and what was held is the answer.
//!
//! Here too the answer to a Query is put together from what the extended protocol says of the same statement.

use bytes::{BufMut, BytesMut};

use crate::statement::Description;

/// Of the replies to one request. What is more goes to the client, and its statement cannot be run again.
const MAX_HELD_BYTES: usize = 64 * 1024;

/// How the client has asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Extended,
    /// By a Query, which we have sent as Parse, Bind, Describe and Execute.
    Query(Description),
}

pub(super) struct Held {
    asked: Asked,
    said: BytesMut,
    /// What a Query says later than the extended protocol does, or not at all when there is an error.
    description: BytesMut,
    /// Never given away before the commit is known, however much is held.
    completion: BytesMut,
}

impl Held {
    pub fn new(asked: Asked) -> Held {
        Held { asked, said: BytesMut::new(), description: BytesMut::new(), completion: BytesMut::new() }
    }

    pub fn is_query(&self) -> bool {
        matches!(self.asked, Asked::Query(_))
    }

    /// Parts of replies, in order. Gives back what is too much to hold.
    pub fn hold(&mut self, said: &[u8]) -> BytesMut {
        self.settle_order();
        self.put(said)
    }

    fn put(&mut self, said: &[u8]) -> BytesMut {
        let spilled =
            if self.said.len() + said.len() > MAX_HELD_BYTES { self.said.split() } else { BytesMut::new() };
        self.said.put_slice(said);
        spilled
    }

    pub fn describe(&mut self, said: &[u8]) {
        if self.asked == Asked::Query(Description::AfterAll) {
            self.description.put_slice(said);
        } else {
            self.settle_order();
            self.said.put_slice(said);
        }
    }

    pub fn complete(&mut self, said: &[u8]) {
        self.settle_order();
        self.completion.put_slice(said);
    }

    /// A Query says that it is complete after its commit: if that fails, it does not.
    pub fn fail(&mut self, error: &[u8]) {
        if self.is_query() {
            self.description.clear();
            self.completion.clear();
        }
        self.settle_order();
        self.said.put_slice(error);
    }

    /// What belongs to no request keeps its place. Gives back what is too much to hold; `None`: nothing is before it.
    pub fn aside(&mut self, said: &[u8]) -> Option<BytesMut> {
        let is_first = self.said.is_empty() && (self.is_query() || self.completion.is_empty());
        if is_first {
            return None;
        }
        if !self.is_query() {
            self.settle_order();
        }
        Some(self.put(said))
    }

    /// All of it, in order.
    pub fn release(mut self) -> BytesMut {
        self.settle_order();
        self.said
    }

    fn settle_order(&mut self) {
        for later in [&mut self.description, &mut self.completion] {
            self.said.put_slice(later);
            later.clear();
        }
    }
}

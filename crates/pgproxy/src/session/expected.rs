//! What the server will answer, in order, and for whom.
//!
//! The server answers strictly in the order it was asked. So this queue says of each message that comes whether it
//! answers the client or us, and where the answers belong that the client gets from us.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::prepared::{Statement, StatementId};
use crate::statement::Assignment;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    Client,
    /// We asked; the client does not hear of it.
    Proxy,
}

/// What commits a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Committed {
    /// A COMMIT, long after the transaction has its id.
    ByCommand,
    /// The Sync behind the statement that may give it one.
    BySync,
}

pub(super) struct Expected {
    pub what: What,
    pub audience: Audience,
}

/// With what is to be undone should the server skip it.
pub(super) enum What {
    /// `name`: the client's, when it was given by this Parse.
    Parse {
        id: StatementId,
        name: Option<Vec<u8>>,
    },
    /// `before`: what the client's unnamed statement was.
    ParseUnnamed {
        before: Option<Arc<Statement>>,
    },
    /// `of`: the statement of ours that is bound; 0 for any other.
    Bind {
        of: StatementId,
    },
    Describe,
    Execute {
        sets: Option<Vec<Assignment>>,
    },
    /// An Execute of the DEALLOCATE of what the client has prepared by this name.
    Deallocate {
        name: Vec<u8>,
    },
    /// Of a portal, or of a statement that is none of ours.
    Close,
    CloseUnnamed {
        before: Option<Arc<Statement>>,
    },
    /// Of a statement of ours on the server.
    CloseOurs(StatementId),
    /// Ends in ReadyForQuery. `is_complete`: the command has said that it succeeded. `before`: the unnamed statement, which
    /// it destroys.
    Query {
        sets: Option<Vec<Assignment>>,
        is_complete: bool,
        before: Option<Arc<Statement>>,
    },
    /// The id of a transaction, before it is committed.
    Xid(Committed),
    /// How far a replica has replayed, behind a request.
    Replayed,
    Sync,
    /// The client has ended a COPY; nothing answers it.
    CopyEnd,
    /// What the client gets from us here.
    ParseDone {
        name: Vec<u8>,
    },
    /// The client has closed a statement.
    CloseDone {
        name: Vec<u8>,
        statement: Arc<Statement>,
    },
}

impl What {
    pub fn is_execute(&self) -> bool {
        matches!(self, What::Execute { .. } | What::Deallocate { .. })
    }
}

/// A COPY IN that has begun.
pub(super) struct CopyIn {
    pub syncs_read_over: usize,
    pub data: Data,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    Follows,
    /// To its end.
    WasSent,
}

#[derive(Default)]
pub(super) struct Queue(VecDeque<Expected>);

impl Queue {
    pub fn push(&mut self, what: What, audience: Audience) {
        self.0.push_back(Expected { what, audience });
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn front(&mut self) -> Option<&mut Expected> {
        self.0.front_mut()
    }

    pub fn pop(&mut self) -> Option<Expected> {
        self.0.pop_front()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn drain(&mut self) -> impl Iterator<Item = Expected> + '_ {
        self.0.drain(..)
    }

    /// In COPY IN the server reads over the Syncs that come before the end of the data.
    pub fn copy_in_begins(&mut self) -> CopyIn {
        let mut begun = CopyIn { syncs_read_over: 0, data: Data::Follows };
        let mut at = 1;
        while let Some(expected) = self.0.get(at) {
            match expected.what {
                What::CopyEnd => {
                    self.0.remove(at);
                    begun.data = Data::WasSent;
                    break;
                }
                What::Sync => {
                    self.0.remove(at);
                    begun.syncs_read_over += 1;
                }
                _ => at += 1,
            }
        }
        begun
    }

    /// Whether anything runs behind what is being answered.
    pub fn has_more_to_run(&self) -> bool {
        self.0.iter().any(|expected| matches!(expected.what, What::Bind { .. }) || expected.what.is_execute())
    }

    /// Whether a statement of this name is prepared or closed in what is awaited.
    pub fn concerns(&self, statement: &[u8]) -> bool {
        self.0.iter().any(|expected| match &expected.what {
            What::Parse { name: Some(name), .. }
            | What::ParseDone { name }
            | What::CloseDone { name, .. } => name == statement,
            _ => false,
        })
    }

    /// What the client's unnamed statement was before the first that changes it of what is awaited.
    pub fn unnamed_before(&mut self) -> Option<&mut Option<Arc<Statement>>> {
        self.0.iter_mut().find_map(|expected| match (&mut expected.what, expected.audience) {
            (
                What::ParseUnnamed { before } | What::CloseUnnamed { before } | What::Query { before, .. },
                Audience::Client,
            ) => Some(before),
            _ => None,
        })
    }

    /// Whether nothing is awaited but answers to whole Queries.
    pub fn is_of_queries(&self) -> bool {
        self.0.iter().all(|expected| matches!(expected.what, What::Query { .. } | What::Xid(_)))
    }

    /// How many answers of statements are awaited.
    pub fn statements(&self) -> usize {
        let is_statement =
            |expected: &&Expected| expected.what.is_execute() || matches!(expected.what, What::Query { .. });
        self.0.iter().filter(is_statement).count()
    }

    /// Whether the group at the front lacks its Sync.
    pub fn is_group_open(&self) -> bool {
        let is_extended = self.0.front().is_some_and(|head| head.what.is_execute());
        is_extended && !self.has_sync()
    }

    /// Whether the group at the front is one of ours alone.
    pub fn is_group_ours(&self) -> bool {
        let mut ends =
            self.0.iter().filter(|expected| matches!(expected.what, What::Sync | What::Query { .. }));
        ends.next().is_some_and(|end| end.audience == Audience::Proxy)
    }

    /// Whether a Query of the client's is next behind what is at the front.
    pub fn is_query_next(&self) -> bool {
        let next = self.0.get(1);
        next.is_some_and(|next| next.audience == Audience::Client && matches!(next.what, What::Query { .. }))
    }

    pub fn has_sync(&self) -> bool {
        self.0.iter().any(|expected| matches!(expected.what, What::Sync))
    }
}

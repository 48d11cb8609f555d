//! Statements that begin, end and shape transactions.

/// What a statement does to the transaction of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// BEGIN, START TRANSACTION.
    Begin(Modes),
    /// SET TRANSACTION.
    SetModes(Modes),
    /// COMMIT, END.
    Commit(Next),
    /// ROLLBACK, ABORT.
    Rollback(Next),
    Savepoint,
    Release,
    RollbackTo,
    /// PREPARE TRANSACTION.
    Prepare,
    CommitPrepared,
    RollbackPrepared,
}

/// What follows the end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    Nothing,
    /// AND CHAIN: a transaction with the same modes.
    Chain,
}

/// What is said of a transaction; what is not said is as the session's defaults are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Modes {
    pub access: Option<Access>,
    pub isolation: Option<Isolation>,
    pub deferrable: Option<Deferrable>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deferrable {
    Deferrable,
    NotDeferrable,
}

impl Modes {
    /// May the whole transaction run on a replica? It must say that it only reads, and a standby knows no
    /// serializable transactions.
    pub fn allow_replica(self) -> bool {
        self.access == Some(Access::ReadOnly) && self.isolation != Some(Isolation::Serializable)
    }
}

//! What is said of a statement.

use crate::set::{Set, members};
use crate::transaction::Command;

/// What a text is, as far as it decides where it may run and what it leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    pub class: Class,
    /// Why it is not a [`Class::Read`].
    pub because: Because,
    pub flags: Set<Flag>,
    /// What it leaves in its connection to the server, for as long as that lives. A later statement of the same client
    /// needs the same connection, or one on which the same was done.
    pub pins: Set<Pin>,
}

impl Statement {
    /// What is said where nothing is known: any effect is possible.
    pub fn unknown(because: Because) -> Statement {
        Statement { class: Class::Primary, because, flags: Set::EMPTY, pins: Set::EMPTY }
    }
}

/// Where a statement may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Changes nothing, and says the same on a replica that has caught up.
    Read,
    /// Changes the session, not the database: see [`Statement::pins`] and [`details`](crate::details). For the primary,
    /// unless the caller makes the same change on every connection of the session.
    Session,
    /// Changes the database, or may; or says what only the primary knows.
    Primary,
    /// Begins, ends or shapes a transaction. Only alone: in a text of several statements it is
    /// [`Class::Primary`] with [`Flag::TransactionControl`].
    Transaction(Command),
}

members! {
/// More about a statement.
Flag {
    /// Several statements in one text. They are one transaction, and are never split; the class is the worst of all.
    MultiStatement,
    /// Done again after it was done, it changes nothing more.
    RetrySafe,
    /// Where no catalog was read: a SELECT that itself changes and locks nothing, and calls nothing but built-in functions that
    /// only read. What it reads from may be more than it looks like.
    PlainSelect,
    /// Changes what the catalog was read from: read it anew once this is done.
    Ddl,
    /// The client will send rows.
    CopyIn,
    /// The server will send rows outside of the usual form.
    CopyOut,
    /// LISTEN or UNLISTEN.
    Listen,
    /// NOTIFY, or a call of `pg_notify`.
    Notify,
    /// Works on a cursor: on the connection, and unless WITH HOLD in the transaction, that declared it.
    Cursor,
    /// The server refuses it inside a transaction block.
    NoTransactionBlock,
    /// Sets something until the transaction ends.
    LocalSet,
    /// DISCARD: takes back what was pinned; the details say what.
    Discard,
    /// EXPLAIN without ANALYZE: the statement inside does not run.
    Explain,
    /// Answers from what its server process did before: `currval`, `pg_backend_pid`, a temporary schema.
    SameBackend,
    /// One statement of several that begins or ends a transaction.
    TransactionControl,
    /// A literal decides what it is, so its key does not tell: it is judged each time.
    ByLiteral,
    /// [`details`](crate::details) has something to say: a name, a value.
    Details,
}
}

members! {
/// What binds a session to its connection.
Pin {
    /// SET or RESET.
    Set,
    /// `set_config(..., false)`.
    SetConfig,
    /// PREPARE. What the protocol prepares is the proxy's to know.
    Prepare,
    TempTable,
    /// A lock of the session: `pg_advisory_lock` and its kin without `xact` in their names.
    AdvisoryLock,
    /// DECLARE ... WITH HOLD.
    HoldCursor,
    Listen,
    /// LOAD.
    Load,
    /// `setseed`: what `random` says next.
    Seed,
    /// A connection to elsewhere that `dblink_connect` keeps open.
    Dblink,
}
}

/// Why a statement is not a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Because {
    /// It is one.
    Read,
    /// What kind of statement it is: INSERT, CREATE, SET, BEGIN, VACUUM ...
    Kind,
    /// FOR UPDATE and its kin, LOCK.
    Lock,
    /// Calls a function that is volatile, or that answers for one server or one session.
    Function,
    /// Calls a function that the catalog does not know.
    UnknownFunction,
    /// Reads a view, a table with a policy, a partition ... behind which such a function is; or a sequence, or a foreign
    /// or unlogged table.
    Relation,
    /// Reads what the catalog does not know, or what is temporary.
    UnknownRelation,
    /// Uses an operator that such a function implements, or that the catalog does not know.
    Operator,
    /// Casts to a type that calls such a function, or that the catalog does not know.
    Type,
    /// Such a function can run where no text shows it: an implicit cast, an operator class.
    Implicit,
    /// A hint asks for the primary.
    Hint,
    /// A replica has refused it: see [`Classifier::refused`](crate::Classifier::refused).
    Refused,
    /// The grammar does not know it. The primary will say what is wrong.
    Unparsed,
    /// Longer than [`MAX_TEXT`](crate::MAX_TEXT).
    TooLong,
    /// Nested deeper than we follow.
    TooDeep,
}

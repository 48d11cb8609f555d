//! From a text to a [`Statement`]: parse with PostgreSQL's own grammar, look at every node, ask the catalog about every
//! name, and take the worst.
//!
//! What is not known to be harmless is for the primary: a statement that the grammar does not know, a name that the
//! catalog does not know, a node deeper than we follow.

mod call;
mod query;
mod transaction;
mod utility;

use pg_raw_parse::{Node, ParseResult};

pub(crate) use call::constant;
pub(crate) use query::MAX_DEPTH;

use crate::catalog::{Catalog, SearchPath};
use crate::fold::{Hint, MAX_TEXT};
use crate::set::Set;
use crate::statement::{Because, Class, Flag, Pin, Statement};

/// What a text is judged by.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub catalog: &'a Catalog,
    pub search_path: &'a SearchPath,
    /// As [`Folder::fold`](crate::Folder::fold) finds it.
    pub hint: Option<Hint>,
}

/// Says what `sql` is. Takes some microseconds.
pub fn classify(sql: &[u8], context: Context<'_>) -> Statement {
    if sql.len() > MAX_TEXT {
        return Statement::unknown(Because::TooLong);
    }
    let Some(tree) = parse(sql) else { return Statement::unknown(Because::Unparsed) };
    let statements = tree.stmts().map(|statement| Findings::of(statement, context).verdict());
    statements.reduce(both).unwrap_or(EMPTY)
}

/// Says what EXECUTE of what `sql` prepares would be, where it is a PREPARE.
pub fn classify_prepared(sql: &[u8], context: Context<'_>) -> Option<Statement> {
    let tree = parse(sql).filter(|_| sql.len() <= MAX_TEXT)?;
    match tree.stmts().next()? {
        Node::PrepareStmt(prepare) => Some(Findings::of(prepare.query(), context).verdict()),
        _ => None,
    }
}

/// The grammar reads UTF-8, in which the server's other encodings are as good as their ASCII.
fn parse(sql: &[u8]) -> Option<ParseResult> {
    pg_raw_parse::parse(str::from_utf8(sql).ok()?).ok()
}

/// Nothing but white space, comments and semicolons.
const EMPTY: Statement =
    Statement { class: Class::Read, because: Because::Read, flags: Set::EMPTY, pins: Set::EMPTY };

/// Two statements of one text.
fn both(one: Statement, other: Statement) -> Statement {
    let mut flags = one.flags.union(other.flags);
    flags.insert(Flag::MultiStatement);
    flags.remove(Flag::PlainSelect);
    if !(one.flags.contains(Flag::RetrySafe) && other.flags.contains(Flag::RetrySafe)) {
        flags.remove(Flag::RetrySafe);
    }
    let is_transaction = |class| matches!(class, Class::Transaction(_));
    if is_transaction(one.class) || is_transaction(other.class) {
        flags.insert(Flag::TransactionControl);
    }
    let class = match (one.class, other.class) {
        (Class::Read, class) | (class, Class::Read) if !is_transaction(class) => class,
        (Class::Session, Class::Session) => Class::Session,
        _ => Class::Primary,
    };
    let because = if one.because == Because::Read { other.because } else { one.because };
    Statement { class, because, flags, pins: one.pins.union(other.pins) }
}

/// What is found in one statement.
struct Findings<'a> {
    context: Context<'a>,
    /// What needs the primary whatever a hint says.
    certain: Option<Because>,
    /// What needs the primary unless a hint knows better.
    doubt: Option<Because>,
    /// It is a SELECT, and calls nothing that may do more than read.
    is_plain_select: bool,
    /// What it is when neither is found.
    otherwise: Class,
    flags: Set<Flag>,
    pins: Set<Pin>,
}

impl<'a> Findings<'a> {
    fn of(statement: Node<'_>, context: Context<'a>) -> Findings<'a> {
        let mut findings = Findings {
            context,
            certain: None,
            doubt: None,
            is_plain_select: matches!(statement, Node::SelectStmt(_)),
            otherwise: Class::Read,
            flags: Set::EMPTY,
            pins: Set::EMPTY,
        };
        findings.statement(statement);
        findings
    }

    fn certainly(&mut self, because: Because) {
        self.certain.get_or_insert(because);
    }

    fn perhaps(&mut self, because: Because) {
        self.doubt.get_or_insert(because);
    }

    fn verdict(mut self) -> Statement {
        if self.is_plain_select && self.certain.is_none() && self.context.catalog.is_unread() {
            self.flags.insert(Flag::PlainSelect);
        }
        let hint = self.context.hint;
        let doubt = self.doubt.filter(|_| hint != Some(Hint::Replica));
        let (class, because) = match (self.certain.or(doubt), self.otherwise) {
            (Some(because), Class::Read | Class::Session) => (Class::Primary, because),
            (None, Class::Read) if hint == Some(Hint::Primary) => (Class::Primary, Because::Hint),
            (None, Class::Read) => (Class::Read, Because::Read),
            (_, class) => (class, Because::Kind),
        };
        if class == Class::Read && !self.flags.contains(Flag::Cursor) {
            self.flags.insert(Flag::RetrySafe);
        }
        Statement { class, because, flags: self.flags, pins: self.pins }
    }
}

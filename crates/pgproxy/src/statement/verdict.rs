//! What the grammar and the catalog say of a statement, in the terms of a session.

use sqlclass::{Access, Because, Class, Command, Flag, Isolation, Modes, Next, Statement};

use super::{Facts, Kind, Place};

/// What `sqlclass` says of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    pub statement: Statement,
    pub names: Names,
}

/// Whether the catalog was there to ask what names stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    Known,
    Unknown,
}

impl Verdict {
    /// Whether nothing more needs to be known of the text: it reads, leaves nothing behind, and may run anywhere.
    pub fn is_plain_read(self) -> bool {
        let Statement { class, flags, pins, .. } = self.statement;
        class == Class::Read && flags.contains(Flag::RetrySafe) && pins.is_empty()
    }

    pub fn place(self) -> Place {
        let Statement { class, because, flags, pins } = self.statement;
        if !pins.is_empty() {
            return Place::Primary;
        }
        match class {
            Class::Read if flags.contains(Flag::Cursor) => Place::InsideReading,
            Class::Read => Place::Anywhere,
            Class::Transaction(Command::Begin(modes)) if modes.allow_replica() => Place::BeginsReading,
            Class::Transaction(Command::SetModes(modes)) if stays_reading(modes) => Place::InsideReading,
            Class::Transaction(
                Command::Savepoint
                | Command::Release
                | Command::RollbackTo
                | Command::Commit(Next::Nothing)
                | Command::Rollback(Next::Nothing),
            ) => Place::InsideReading,
            Class::Session if flags.contains(Flag::LocalSet) => Place::InsideReading,
            // FETCH and CLOSE, of a cursor that was declared there.
            Class::Primary
                if because == Because::Kind
                    && flags.contains(Flag::Cursor)
                    && !flags.contains(Flag::MultiStatement) =>
            {
                Place::InsideReading
            }
            _ => Place::Primary,
        }
    }

    /// Whether the text was looked into at all.
    fn is_known(self) -> bool {
        !matches!(self.statement.because, Because::TooLong | Because::Unparsed)
    }

    fn kind(self, by_words: Kind) -> Kind {
        let Statement { class, because, flags, .. } = self.statement;
        if flags.contains(Flag::TransactionControl) {
            return Kind::Opaque;
        }
        match class {
            Class::Transaction(command) => match command {
                Command::Begin(_) => Kind::Begin,
                Command::Commit(Next::Nothing) => Kind::Commit,
                Command::Rollback(Next::Nothing) => Kind::Rollback,
                Command::Savepoint | Command::Release | Command::RollbackTo | Command::SetModes(_) => {
                    Kind::Work
                }
                _ => Kind::Opaque,
            },
            Class::Session => Kind::Work,
            Class::Read if !flags.contains(Flag::Cursor) => Kind::Read,
            Class::Read | Class::Primary if flags.contains(Flag::RetrySafe) => Kind::Read,
            // It would be a read.
            Class::Primary if because == Because::Hint => Kind::Read,
            Class::Primary if self.names == Names::Unknown && by_words == Kind::Read => Kind::Read,
            Class::Read | Class::Primary => Kind::Work,
        }
    }
}

impl Facts {
    /// Of a text for which [`Verdict::is_plain_read`].
    pub const PLAIN_READ: Facts = Facts {
        kind: Kind::Read,
        place: Place::Anywhere,
        pins: false,
        names_state: false,
        discards: false,
        defines: false,
        sets: None,
        single: None,
    };

    /// With the verdict on the text in place of what its words have said.
    pub fn judged(self, verdict: Option<Verdict>) -> Facts {
        let Some(verdict) = verdict else { return self };
        if !verdict.is_known() {
            return Facts { defines: self.kind != Kind::Read && self.single.is_none(), ..self };
        }
        let Statement { class, flags, pins, .. } = verdict.statement;
        // DO, CALL and their kin run a text that only words look into, and what a server process remembers is more than
        // the grammar has names for: `currval` binds a session, `pg_backend_pid` does not.
        let is_hidden = class == Class::Primary && !flags.contains(Flag::Ddl) && self.single.is_none();
        let by_words = if flags.contains(Flag::MultiStatement) { self.names_state } else { self.pins };
        let by_words = by_words && (is_hidden || flags.contains(Flag::SameBackend));
        Facts {
            kind: if self.sets.is_some() { self.kind } else { verdict.kind(self.kind) },
            place: verdict.place(),
            pins: self.sets.is_none() && (by_words || !pins.is_empty()),
            discards: flags.contains(Flag::Discard),
            defines: flags.contains(Flag::Ddl),
            ..self
        }
    }
}

/// Modes that a reading transaction on a standby may be given.
fn stays_reading(modes: Modes) -> bool {
    modes.access != Some(Access::ReadWrite) && modes.isolation != Some(Isolation::Serializable)
}

#[cfg(test)]
mod tests {
    use sqlclass::{Catalog, Context, SearchPath, classify};

    use super::super::{Facts, Kind, Place, judge};
    use super::{Names, Verdict};

    fn facts(sql: &str) -> Facts {
        let (catalog, search_path) = (Catalog::empty(), SearchPath::of(["public"]));
        let context = Context { catalog: &catalog, search_path: &search_path, hint: None };
        let statement = classify(sql.as_bytes(), context);
        judge(sql.as_bytes()).judged(Some(Verdict { statement, names: Names::Unknown }))
    }

    #[test]
    fn the_grammar_sees_what_words_cannot() {
        for sql in [
            "insert into t values ('temp; listen; commit')",
            "create function f() returns int language sql as 'select 1; commit; listen x'",
            "select \"temp\" from \"load\"",
            "deallocate p",
            "begin; update t set a = 1; select 1",
        ] {
            let facts = facts(sql);
            assert!(!facts.pins, "{sql}: {facts:?}");
        }
        for sql in [
            "select set_config('a.b', 'c', false)",
            "select 1; set search_path to a",
            "select U&\"\\0073etseed\"(0.5)",
            "create temp table t (a int)",
            "do $$ begin create temp table t (a int); end $$",
            "select currval('s')",
            "listen news",
        ] {
            assert!(facts(sql).pins, "{sql}");
        }
        assert!(!facts("select pg_backend_pid()").pins);
    }

    #[test]
    fn the_kinds_are_those_of_the_words_where_both_know() {
        for (sql, kind) in [
            ("begin", Kind::Begin),
            ("start transaction read only", Kind::Begin),
            ("commit", Kind::Commit),
            ("end work", Kind::Commit),
            ("rollback", Kind::Rollback),
            ("rollback to a", Kind::Work),
            ("set transaction isolation level serializable", Kind::Work),
            ("commit and chain", Kind::Opaque),
            ("begin; select 1; commit", Kind::Opaque),
            ("prepare transaction 'x'", Kind::Opaque),
            ("select a from t", Kind::Read),
            ("show server_version", Kind::Read),
            ("/* switchback: primary */ select 1", Kind::Read),
            ("insert into t values (1)", Kind::Work),
            ("select f()", Kind::Work),
            ("", Kind::Read),
        ] {
            assert_eq!(facts(sql).kind, kind, "{sql}");
            assert_eq!(judge(sql.as_bytes()).kind, kind, "{sql}, by its words");
        }
    }

    #[test]
    fn a_reading_transaction_is_shaped_where_it_runs_and_nowhere_else() {
        for (sql, place) in [
            ("select 1", Place::Anywhere),
            ("select 1; select 2", Place::Anywhere),
            ("begin read only", Place::BeginsReading),
            ("start transaction isolation level repeatable read, read only", Place::BeginsReading),
            ("begin", Place::Primary),
            ("begin read only, isolation level serializable", Place::Primary),
            ("commit", Place::InsideReading),
            ("rollback and chain", Place::Primary),
            ("savepoint a", Place::InsideReading),
            ("set transaction read write", Place::Primary),
            ("set local work_mem to '64MB'", Place::InsideReading),
            ("set work_mem to '64MB'", Place::Primary),
            ("declare c cursor for select 1", Place::InsideReading),
            ("declare c cursor with hold for select 1", Place::Primary),
            ("fetch 10 from c", Place::InsideReading),
            ("begin read only; select 1; commit", Place::Primary),
            ("insert into t values (1)", Place::Primary),
        ] {
            assert_eq!(facts(sql).place, place, "{sql}");
        }
    }
}

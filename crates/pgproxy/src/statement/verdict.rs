//! What the grammar and the catalog say of a statement, in the terms of a session.

use sqlclass::{Access, Because, Class, Command, Flag, Isolation, Modes, Next, Statement};

use super::single::{Verb, verb};
use super::{Facts, Kind, Place, judge};

/// What `sqlclass` says of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict(pub Statement);

impl Verdict {
    /// Whether nothing more needs to be known of the text: it reads, leaves nothing behind, and may run anywhere.
    pub fn is_plain_read(self) -> bool {
        let Statement { class, flags, pins, .. } = self.0;
        class == Class::Read && flags.contains(Flag::RetrySafe) && pins.is_empty()
    }

    pub fn place(self) -> Place {
        let Statement { class, because, flags, pins } = self.0;
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

    /// Of the statements of which most loads are made, what [`Facts::judged`] says whatever their words are, where those can
    /// be read at all. `None`: it must be asked.
    fn facts(self, sql: &[u8]) -> Option<Facts> {
        if self.is_plain_read() {
            return Some(Facts::PLAIN_READ);
        }
        let Statement { class, flags, pins, .. } = self.0;
        let is_for_words = [Flag::SameBackend, Flag::MultiStatement, Flag::LocalSet]
            .into_iter()
            .any(|flag| flags.contains(flag));
        if is_for_words || !self.is_known() {
            return None;
        }
        let is_plain = match class {
            Class::Transaction(command) => matches!(
                command,
                Command::Begin(_) | Command::Commit(Next::Nothing) | Command::Rollback(Next::Nothing)
            ),
            Class::Primary if flags.contains(Flag::PlainSelect) => true,
            // The grammar knows nothing else that begins so.
            Class::Primary => verb(sql) == Some(Verb::Writes),
            _ => false,
        };
        is_plain.then(|| Facts {
            kind: self.kind(),
            place: self.place(),
            pins: !pins.is_empty(),
            defines: flags.contains(Flag::Ddl),
            alters: self.calls_what_may_set(),
            ..Facts::PLAIN_READ
        })
    }

    /// Whether it is not a read because of a function of which nobody knows what it sets.
    fn calls_what_may_set(self) -> bool {
        use Because::{Function, Implicit, Operator, Relation, Type, UnknownFunction};
        let Statement { class, because, flags, .. } = self.0;
        let is_call = matches!(because, Function | UnknownFunction | Relation | Operator | Type | Implicit);
        class == Class::Primary && is_call && !flags.contains(Flag::PlainSelect)
    }

    /// Whether the text was looked into at all.
    fn is_known(self) -> bool {
        !matches!(self.0.because, Because::TooLong | Because::Unparsed)
    }

    fn kind(self) -> Kind {
        let Statement { class, because, flags, .. } = self.0;
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
            // Whoever runs it again does what any client does that repeats a SELECT.
            Class::Primary if flags.contains(Flag::PlainSelect) => Kind::Read,
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
        saves: false,
        defines: false,
        sets: None,
        alters: false,
        single: None,
    };

    /// Of a text, by the verdict on it, and by its words where that leaves something to them. Without what is only of use
    /// where nothing but a Sync commits: see [`Facts::single`].
    pub fn of(sql: &[u8], verdict: Option<Verdict>) -> Facts {
        Facts::without_words(sql, verdict).unwrap_or_else(|| judge(sql).judged(verdict))
    }

    /// The same, where the verdict leaves nothing to words.
    pub fn without_words(sql: &[u8], verdict: Option<Verdict>) -> Option<Facts> {
        verdict.and_then(|verdict| verdict.facts(sql))
    }

    /// With the verdict on the text in place of what its words have said.
    pub fn judged(self, verdict: Option<Verdict>) -> Facts {
        let alters = self.alters || self.kind != Kind::Read;
        let Some(verdict) = verdict else { return Facts { alters, ..self } };
        if !verdict.is_known() {
            let defines = self.kind != Kind::Read && self.single.is_none();
            return Facts { defines, alters, ..self };
        }
        let Statement { class, flags, pins, .. } = verdict.0;
        // DO, CALL and their kin run a text that only words look into, and what a server process remembers is more than
        // the grammar has names for: `currval` binds a session, `pg_backend_pid` does not.
        let is_hidden = class == Class::Primary
            && !flags.contains(Flag::Ddl)
            && !flags.contains(Flag::PlainSelect)
            && self.single.is_none();
        let by_words = if flags.contains(Flag::MultiStatement) { self.names_state } else { self.pins };
        let by_words = by_words && (is_hidden || flags.contains(Flag::SameBackend));
        Facts {
            kind: if self.sets.is_some() { self.kind } else { verdict.kind() },
            place: verdict.place(),
            pins: self.sets.is_none() && (by_words || !pins.is_empty()),
            defines: flags.contains(Flag::Ddl),
            alters: self.alters || verdict.calls_what_may_set() || is_hidden && !flags.contains(Flag::Cursor),
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
    use super::Verdict;

    fn verdict(sql: &str) -> Verdict {
        let (catalog, search_path) = (Catalog::empty(), SearchPath::of(["public"]));
        let context = Context { catalog: &catalog, search_path: &search_path, hint: None };
        Verdict(classify(sql.as_bytes(), context))
    }

    fn facts(sql: &str) -> Facts {
        judge(sql.as_bytes()).judged(Some(verdict(sql)))
    }

    /// Whatever looks like a SET, a call or a second statement in its texts, names and comments.
    #[test]
    fn what_is_judged_without_words_is_judged_the_same() {
        let frames = [
            "@",
            "@;",
            " /* @ */ ",
            "/* /* x */ set a to 1; */ @",
            "-- begin\n@",
            "@ -- ; set work_mem to 1",
        ];
        let texts = [
            "begin",
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "start transaction read only",
            "commit",
            "end",
            "commit and chain",
            "commit prepared 'x'",
            "rollback",
            "abort work",
            "rollback to a",
            "set transaction read only",
            "set work_mem to '8MB'",
            "reset all",
            "update t set a = a + 1 where id = 7",
            "UPDATE t SET a = 'set x to 1; commit' WHERE b = $1",
            "update pg_temp.t set a = currval('s')",
            "update t set a = pg_advisory_lock(1), b = set_config('a', 'b', false)",
            "insert into t (set_config) values (1, 'listen x')",
            "insert into t select * from temp returning execute",
            "insert into t values (1); commit",
            "delete from \"temp\" where current_setting('a') = 'b' returning statement_timestamp()",
            "merge into t using s on a = b when matched then delete",
            "with x as (update t set a = 1 returning a) select * from x",
            "select a from t for update",
            "select f(1)",
            "select a, count(*) from t where b = (1) group by a",
            "select a from t; select 1",
            "select 1",
            "values (1)",
            "create temp table t (a int)",
            "do $$ begin end $$",
            "call p()",
            "discard all",
            "nonsense",
            "",
        ];
        for sql in frames.iter().flat_map(|frame| texts.map(|text| frame.replace('@', text))) {
            let verdict = verdict(&sql);
            if verdict.is_plain_read() {
                continue;
            }
            let verdict = Some(verdict);
            let part = |facts| Facts { names_state: false, alters: false, single: None, ..facts };
            let expected = part(judge(sql.as_bytes()).judged(verdict));
            let facts = part(Facts::of(sql.as_bytes(), verdict));
            assert_eq!(facts, expected, "{sql}");
        }
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
    fn what_may_set_something_for_others_is_told_from_what_only_works() {
        for sql in [
            "select f()",
            "call p()",
            "do $$ begin perform f(); end $$",
            "set local search_path to a",
            "insert into t values (set_config('search_path', 'a', true))",
            "begin; set local search_path to a",
        ] {
            assert!(facts(sql).alters, "{sql}");
            assert!(Facts::of(sql.as_bytes(), Some(verdict(sql))).alters, "{sql}, without words");
        }
        for sql in [
            "begin",
            "savepoint a",
            "set local app.tenant to '7'",
            "select set_config('app.tenant', '8', true)",
            "insert into t values (1)",
            "update t set a = 1",
            "select 1",
            "create table t (a int)",
            "declare c cursor for select 1",
            "fetch 10 from c",
            "commit",
        ] {
            assert!(!facts(sql).alters, "{sql}");
            assert!(!Facts::of(sql.as_bytes(), Some(verdict(sql))).alters, "{sql}, without words");
        }
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
    fn a_savepoint_is_seen_whoever_judges() {
        for sql in ["savepoint a", "begin; savepoint a", "select 1; savepoint a"] {
            assert!(facts(sql).saves, "{sql}");
            assert!(Facts::of(sql.as_bytes(), Some(verdict(sql))).saves, "{sql}, without words");
        }
        assert!(!facts("select 1").saves);
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

//! What a statement may do to its session and its transaction, and where it may run.
//!
//! Words first, then grammar. [`judge`] reads words, and is wrong in one direction only: it pins a session that needed no
//! pin, and does not run again what could have been; a word inside of a text or a comment counts as a word. The verdict of
//! `sqlclass`, where there is one, takes the place of what the words have said: see [`Facts::judged`]. Words alone hold for
//! what the grammar does not know, what is too long for it, and sessions whose texts it would read otherwise than the
//! server. All of that is for the primary.

mod moment;
mod set;
mod single;
mod verdict;
mod words;

pub(crate) use moment::is_of_a_moment;
pub(crate) use set::{ALL, Assignment};
pub(crate) use single::{Description, Single, single};
use sqlclass::Detail;
pub(crate) use verdict::Verdict;
use words::{Word, Words};

/// What one message of SQL, of one or several statements, may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub kind: Kind,
    pub place: Place,
    /// It may leave state in the session that only this connection has: the session stays on it.
    pub pins: bool,
    /// By its words, it has to do with such state; but for SET, which they see in every UPDATE.
    pub names_state: bool,
    /// It may be `DISCARD ALL`, after which the session is as new, or `DEALLOCATE ALL`.
    pub discards: bool,
    /// It may set a savepoint, to which the client can go back.
    pub saves: bool,
    /// It may change what names stand for.
    pub defines: bool,
    /// It is plain `SET`s of settings that can be carried to other connections, and nothing else.
    pub sets: Option<Vec<Assignment>>,
    /// It may set something, if only for its transaction, on which the meaning of others depends: a search path, a time zone.
    pub alters: bool,
    /// It is surely one statement of a kind that nothing but its Sync commits. Not looked for in what reads by its words, nor by
    /// [`Facts::of`].
    pub single: Option<Single>,
}

/// Where a statement may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Primary,
    /// On a replica as well.
    Anywhere,
    /// Begins a transaction that only reads, and that a replica may serve.
    BeginsReading,
    /// On a replica inside of such a transaction, which it shapes or ends.
    InsideReading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Reads, whatever happens to it, and may be run again.
    Read,
    /// `BEGIN` alone.
    Begin,
    /// Anything else that neither begins nor ends a transaction block.
    Work,
    /// `COMMIT` alone.
    Commit,
    /// `ROLLBACK` alone, of the whole transaction.
    Rollback,
    /// May begin or end a transaction block somewhere inside.
    Opaque,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Read, Kind::Begin, Kind::Work, Kind::Commit, Kind::Rollback, Kind::Opaque];

    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Begin => "begin",
            Kind::Work => "write",
            Kind::Commit => "commit",
            Kind::Rollback => "rollback",
            Kind::Opaque => "opaque",
        }
    }
}

impl Facts {
    /// Of what was not looked at.
    pub const UNKNOWN: Facts = Facts {
        kind: Kind::Opaque,
        place: Place::Primary,
        pins: true,
        names_state: true,
        discards: false,
        saves: true,
        defines: true,
        sets: None,
        alters: true,
        single: None,
    };

    /// It goes back to what the session began with, of which the server does not know.
    pub fn resets(&self) -> bool {
        self.sets.iter().flatten().any(|set| set.value.is_none())
    }
}

/// The name in what is surely one DEALLOCATE of one statement, and nothing else.
pub(crate) fn deallocated(sql: &[u8]) -> Option<String> {
    let words = Words::of(sql);
    let is_one = words.first() == Some(Word::Discard) && !words.has_inner_semicolon;
    if is_one { all_deallocated(sql).pop() } else { None }
}

/// The names in all statements that are a DEALLOCATE of one, in their order.
pub(crate) fn all_deallocated(sql: &[u8]) -> Vec<String> {
    let details = std::str::from_utf8(sql).map(sqlclass::details).unwrap_or_default();
    let name = |detail| match detail {
        Detail::Deallocate { name } => Some(name),
        _ => None,
    };
    details.into_iter().filter_map(name).collect()
}

/// Judges the text of a Query or Parse message by its words.
pub(crate) fn judge(sql: &[u8]) -> Facts {
    let words = Words::of(sql);
    let sets = set::assignments(sql, &words);
    // A setting commits nothing, and set twice it is as set once.
    let kind = if sets.is_some() { Kind::Read } else { kind(&words) };
    let single = if kind == Kind::Read { None } else { single(sql) };
    Facts {
        // What looked like more was in its texts.
        kind: if single.is_some() { Kind::Work } else { kind },
        place: Place::Primary,
        pins: sets.is_none() && pins(&words),
        names_state: words.names_state(),
        discards: words.has(Word::Discard),
        saves: words.has(Word::Savepoint),
        // Of this words know nothing; whoever needs the catalog asks the grammar.
        defines: false,
        alters: set::alters(sql, &words, sets.as_deref()),
        sets,
        single,
    }
}

fn pins(words: &Words) -> bool {
    let sets = match (words.first(), words.second()) {
        // Ends with the transaction.
        (Some(Word::Set), Some(Word::Local | Word::Transaction | Word::Constraints)) => false,
        (Some(Word::Set | Word::Reset), _) => true,
        _ => false,
    };
    let sets_later = words.has_inner_semicolon && (words.has(Word::Set) || words.has(Word::Reset));
    sets || sets_later || words.names_state()
}

fn kind(words: &Words) -> Kind {
    let alone = |allowed: &[Word]| !words.has_inner_semicolon && words.all_in(allowed);
    match words.first() {
        None if !words.has_inner_semicolon => Kind::Read,
        Some(Word::Select) if words.reads_only() => Kind::Read,
        Some(Word::Show) if !words.has_inner_semicolon => Kind::Read,
        Some(Word::Begin | Word::Start) if !words.has_inner_semicolon => Kind::Begin,
        Some(Word::Commit | Word::End)
            if alone(&[Word::Commit, Word::End, Word::Work, Word::Transaction]) =>
        {
            Kind::Commit
        }
        Some(Word::Rollback | Word::Abort)
            if alone(&[Word::Rollback, Word::Abort, Word::Work, Word::Transaction]) =>
        {
            Kind::Rollback
        }
        Some(Word::Rollback) if words.second() == Some(Word::To) && !words.has_inner_semicolon => Kind::Work,
        Some(Word::Begin | Word::Start | Word::Commit | Word::End | Word::Rollback | Word::Abort) => {
            Kind::Opaque
        }
        Some(Word::Prepare) => Kind::Opaque,
        _ if words.has_inner_semicolon && words.has_transaction_control() => Kind::Opaque,
        _ => Kind::Work,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(expected: Kind, statements: &[&str]) {
        for sql in statements {
            assert_eq!(judge(sql.as_bytes()).kind, expected, "{sql}");
        }
    }

    #[test]
    fn only_what_surely_reads_may_be_run_again() {
        kinds(
            Kind::Read,
            &[
                "select 1",
                "SELECT abalance FROM pgbench_accounts WHERE aid = 17;",
                "/* app='shop' */ select count(*), max(t.a) from t where (a in (1, 2) and b = $1) ; ",
                "-- a comment\nselect coalesce(a, lower(b)) from t",
                "show server_version",
                "",
                " ; ",
            ],
        );
        kinds(
            Kind::Work,
            &[
                "insert into t values (1)",
                "select * from t for update",
                "select nextval('s')",
                "select my_function()",
                "select \"now\"()",
                "select now/**/()",
                "select * into t2 from t",
                "select 1; select 2",
                "with x as (delete from t returning *) select * from x",
                "select s.f(1)",
                "savepoint a",
                "rollback to a",
                "release a",
                "select U&\"\\0066oo\"(1)",
                "vacuum",
                "select f() /* ; commit */",
            ],
        );
    }

    #[test]
    fn the_ends_of_transactions_are_known_or_known_to_be_unknown() {
        kinds(Kind::Begin, &["begin", "BEGIN ISOLATION LEVEL SERIALIZABLE", "start transaction read only;"]);
        kinds(Kind::Commit, &["commit", "COMMIT;", "end", "commit work", "END TRANSACTION"]);
        kinds(Kind::Rollback, &["rollback", "ABORT", "rollback work;"]);
        kinds(
            Kind::Opaque,
            &[
                "commit; select 1",
                "begin; insert into t values (1); commit",
                "insert into t values (1); commit",
                "commit and chain",
                "commit prepared 'x'",
                "rollback prepared 'x'",
                "prepare transaction 'x'",
            ],
        );
    }

    #[test]
    fn a_savepoint_is_seen_alone_and_among_others() {
        for sql in ["savepoint a", "SAVEPOINT \"a b\";", "begin; savepoint a", "begin;savepoint a;select 1"] {
            assert!(judge(sql.as_bytes()).saves, "{sql}");
        }
        for sql in ["begin", "rollback to a", "release a", "select 1", "insert into t values (1)"] {
            assert!(!judge(sql.as_bytes()).saves, "{sql}");
        }
    }

    #[test]
    fn a_deallocate_of_one_statement_is_known_by_its_name() {
        for (sql, name) in [
            ("deallocate a", Some("a")),
            ("DEALLOCATE PREPARE A1;", Some("a1")),
            ("/* an app */ deallocate \"A \"\"1\"\"\"", Some("A \"1\"")),
            ("deallocate all", None),
            ("deallocate prepare all", None),
            ("deallocate \"all\"", Some("all")),
            ("deallocate a; deallocate b", None),
            ("begin; deallocate a", None),
            ("discard all", None),
            ("deallocate", None),
            ("select 'deallocate a'", None),
        ] {
            assert_eq!(deallocated(sql.as_bytes()).as_deref(), name, "{sql}");
        }
    }

    #[test]
    fn what_may_change_the_meaning_of_others_is_told_from_what_surely_does_not() {
        for sql in [
            "set timezone to 'UTC'",
            "reset all",
            "reset role",
            "set local search_path to a",
            "SET LOCAL TIME ZONE 'UTC'",
            "set local role a",
            "select set_config('search_path', 'a', true)",
            "select set_config($1, $2, true)",
            "select set_config('a.b', 'c', true), set_config('timezone', 'UTC', true)",
            "select U&\"set\\005fconfig\"('a.b', 'c', true)",
            "begin; set local search_path to a",
            "do $$ begin set local search_path to a; end $$",
            "execute p",
        ] {
            assert!(judge(sql.as_bytes()).alters, "{sql}");
        }
        for sql in [
            "select 1",
            "update t set a = 1",
            "begin",
            "set transaction read only",
            "set constraints all deferred",
            "set statement_timeout to '5s'",
            "set local statement_timeout to '5s'",
            "SET LOCAL app.tenant = '7'",
            "select set_config('app.tenant', $1, true)",
            "SELECT pg_catalog.set_config( 'work_mem', '8MB', true)",
        ] {
            assert!(!judge(sql.as_bytes()).alters, "{sql}");
        }
    }

    #[test]
    fn state_that_only_one_connection_has_pins() {
        for sql in [
            "set role other",
            "SET SESSION AUTHORIZATION x",
            "set work_mem = pg_catalog.current_setting('x')",
            "select 1; set search_path to a",
            "prepare p as select 1",
            "execute p",
            "deallocate p",
            "create temp table t (a int)",
            "CREATE TEMPORARY VIEW v AS SELECT 1",
            "select 1 into temp x",
            "select pg_advisory_lock(1)",
            "select pg_try_advisory_lock_shared(1)",
            "declare c cursor with hold for select 1",
            "listen channel",
            "UNLISTEN *",
            "load 'auto_explain'",
            "select set_config('a.b', 'c', false)",
            "select currval('s')",
            "select U&\"set\\005fconfig\"('a.b', 'c', false)",
            "insert into pg_temp.t values (1)",
        ] {
            assert!(judge(sql.as_bytes()).pins, "{sql}");
        }
        for sql in [
            "update t set a = 1",
            "set local search_path to a",
            "set transaction isolation level serializable",
            "SET CONSTRAINTS ALL DEFERRED",
            "select pg_advisory_xact_lock(1)",
            "declare c cursor for select 1",
            "set statement_timeout to 100",
            "insert into t (set_config_name) values (1)",
        ] {
            assert!(!judge(sql.as_bytes()).pins, "{sql}");
        }
    }
}

//! What a session says, made by chance.

use std::fmt::{self, Debug, Formatter};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::replies::QUERIES;

/// Beside that of the comparison of single replies.
pub const SCHEMA: &str = "
create function seen(n int) returns int stable language plpgsql as $$
    begin raise notice 'seen %', n; return n; end $$;
create schema other;
create table other.t (a int, other text)";

/// What a case can have left, and what it begins with. The lock is one that a case may take: it is waited for until the
/// session before is gone.
pub const RESET: &str = "
select pg_advisory_xact_lock(1);
drop table if exists made, made_too, other.made, other.made_too;
drop function if exists made_f(), other.made_f();
truncate t, u, other.t restart identity;
insert into other.t values (1, 'other');
alter sequence s restart;
insert into t (a, b) select n, 'row ' || n from generate_series(1, 5) n";

/// One message of a client.
#[derive(Clone)]
pub enum Message {
    Query(String),
    Parse { name: &'static str, sql: String },
    Bind { portal: &'static str, name: &'static str, values: Vec<Option<&'static str>> },
    DescribeStatement(&'static str),
    DescribePortal(&'static str),
    Execute { portal: &'static str, rows: u32 },
    CloseStatement(&'static str),
    ClosePortal(&'static str),
    Flush,
    Sync,
    CopyData(&'static str),
    CopyDone,
    CopyFail,
}

/// A message, and what the client does behind it.
#[derive(Debug, Clone)]
pub struct Said {
    pub message: Message,
    /// Before it says more, it reads what it is answered.
    pub waits: bool,
}

#[derive(Clone)]
pub struct Session {
    pub said: Vec<Said>,
    /// Of one write after another, from the beginning again when all were made. None: each as long as it can be.
    pub writes: Vec<usize>,
}

impl Message {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (tag, body) = self.tag_and_body();
        out.push(tag);
        out.extend((body.len() as u32 + 4).to_be_bytes());
        out.extend(body);
    }

    fn tag_and_body(&self) -> (u8, Vec<u8>) {
        let text = |text: &str| [text.as_bytes(), b"\0"].concat();
        let named = |kind: &[u8], name: &str| [kind, name.as_bytes(), b"\0"].concat();
        match self {
            Message::Query(sql) => (b'Q', text(sql)),
            Message::Parse { name, sql } => (b'P', [text(name), text(sql), vec![0, 0]].concat()),
            Message::Bind { portal, name, values } => {
                let mut body = [text(portal), text(name), vec![0, 0]].concat();
                body.extend((values.len() as u16).to_be_bytes());
                for value in values {
                    let length = value.map_or(-1, |value| value.len() as i32);
                    body.extend(length.to_be_bytes());
                    body.extend(value.unwrap_or_default().as_bytes());
                }
                body.extend([0, 0]);
                (b'B', body)
            }
            Message::DescribeStatement(name) => (b'D', named(b"S", name)),
            Message::DescribePortal(name) => (b'D', named(b"P", name)),
            Message::Execute { portal, rows } => (b'E', [text(portal), rows.to_be_bytes().to_vec()].concat()),
            Message::CloseStatement(name) => (b'C', named(b"S", name)),
            Message::ClosePortal(name) => (b'C', named(b"P", name)),
            Message::Flush => (b'H', Vec::new()),
            Message::Sync => (b'S', Vec::new()),
            Message::CopyData(data) => (b'd', data.as_bytes().to_vec()),
            Message::CopyDone => (b'c', Vec::new()),
            Message::CopyFail => (b'f', text("why")),
        }
    }

    /// Whether PostgreSQL answers now what it was asked so far.
    pub fn is_answered(&self) -> bool {
        matches!(
            self,
            Message::Query(_) | Message::Sync | Message::Flush | Message::CopyDone | Message::CopyFail
        )
    }
}

impl Debug for Message {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Message::Query(sql) => write!(f, "Query {sql:?}"),
            Message::Parse { name, sql } => write!(f, "Parse {name:?} {sql:?}"),
            Message::Bind { portal, name, values } => {
                write!(f, "Bind {portal:?} to {name:?} with {values:?}")
            }
            Message::DescribeStatement(name) => write!(f, "Describe statement {name:?}"),
            Message::DescribePortal(name) => write!(f, "Describe portal {name:?}"),
            Message::Execute { portal, rows: 0 } => write!(f, "Execute {portal:?}"),
            Message::Execute { portal, rows } => write!(f, "Execute {portal:?}, {rows} rows"),
            Message::CloseStatement(name) => write!(f, "Close statement {name:?}"),
            Message::ClosePortal(name) => write!(f, "Close portal {name:?}"),
            Message::Flush => write!(f, "Flush"),
            Message::Sync => write!(f, "Sync"),
            Message::CopyData(data) => write!(f, "CopyData {data:?}"),
            Message::CopyDone => write!(f, "CopyDone"),
            Message::CopyFail => write!(f, "CopyFail"),
        }
    }
}

impl Debug for Session {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        writeln!(f)?;
        for Said { message, waits } in &self.said {
            writeln!(f, "  {message:?}{}", if *waits { ", and reads" } else { "" })?;
        }
        if !self.writes.is_empty() {
            writeln!(f, "  in writes of {:?} bytes", self.writes)?;
        }
        Ok(())
    }
}

pub fn session() -> impl Strategy<Value = Session> {
    let writes = prop_oneof![
        3 => Just(Vec::new()),
        1 => vec(1..40usize, 1..3),
        1 => vec(1..3_000usize, 1..4),
    ];
    (vec(turn(), 1..9), writes)
        .prop_map(|(turns, writes)| Session { said: turns.into_iter().flatten().collect(), writes })
}

/// What belongs together in a client's mind. Now and then some of it is missing.
fn turn() -> impl Strategy<Value = Vec<Said>> {
    let messages = prop_oneof![
        8 => query().prop_map(|sql| vec![Message::Query(sql)]),
        3 => vec(query(), 2..4).prop_map(|queries| vec![Message::Query(queries.join("; "))]),
        8 => group(),
        3 => vec(message(), 1..4),
        2 => copy_in(),
    ];
    (messages, vec((prop::bool::weighted(0.97), prop::bool::weighted(0.3)), 24)).prop_map(
        |(messages, chances)| {
            let said = messages.into_iter().zip(chances);
            let said = said.filter(|(_, (is_said, _))| *is_said);
            said.map(|(message, (_, waits))| Said { waits: waits && message.is_answered(), message })
                .collect()
        },
    )
}

/// Statements that share the end of their group.
fn group() -> impl Strategy<Value = Vec<Message>> {
    let end = prop_oneof![
        12 => Just(vec![Message::Sync]),
        2 => Just(vec![Message::Flush]),
        2 => Just(vec![Message::Flush, Message::Sync]),
        1 => Just(Vec::new()),
        2 => query().prop_map(|sql| vec![Message::Query(sql)]),
    ];
    (vec(statement(), 1..4), end)
        .prop_map(|(statements, end)| statements.into_iter().flatten().chain(end).collect())
}

/// From its Parse, or from its Bind on.
fn statement() -> impl Strategy<Value = Vec<Message>> {
    let sql = prop_oneof![2 => with_values(), 3 => query().prop_map(|sql| (sql, Vec::new()))];
    let describes = prop_oneof![3 => Just(None), 2 => Just(Some(b'P')), 1 => Just(Some(b'S'))];
    let rows = prop_oneof![4 => Just(vec![0]), 1 => vec(0..4u32, 0..4)];
    let flushes = prop::bool::weighted(0.1);
    let closes = prop_oneof![6 => Just(None), 1 => Just(Some(b'P')), 1 => Just(Some(b'S'))];
    (name(), portal(), sql, prop::bool::weighted(0.8), describes, rows, flushes, closes).prop_map(
        |(name, portal, (sql, values), is_parsed, describes, rows, flushes, closes)| {
            let mut messages = Vec::new();
            if is_parsed {
                messages.push(Message::Parse { name, sql });
            }
            if describes == Some(b'S') {
                messages.push(Message::DescribeStatement(name));
            }
            messages.push(Message::Bind { portal, name, values });
            if describes == Some(b'P') {
                messages.push(Message::DescribePortal(portal));
            }
            messages.extend(rows.into_iter().map(|rows| Message::Execute { portal, rows }));
            messages.extend(flushes.then_some(Message::Flush));
            match closes {
                Some(b'P') => messages.push(Message::ClosePortal(portal)),
                Some(_) => messages.push(Message::CloseStatement(name)),
                None => {}
            }
            messages
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        Just(Message::Sync),
        Just(Message::Flush),
        (name(), query()).prop_map(|(name, sql)| Message::Parse { name, sql }),
        (portal(), name(), vec(value(), 0..3)).prop_map(|(portal, name, values)| Message::Bind {
            portal,
            name,
            values
        }),
        name().prop_map(Message::DescribeStatement),
        portal().prop_map(Message::DescribePortal),
        (portal(), 0..4u32).prop_map(|(portal, rows)| Message::Execute { portal, rows }),
        name().prop_map(Message::CloseStatement),
        portal().prop_map(Message::ClosePortal),
        Just(Message::CopyDone),
        Just(Message::CopyFail),
        data().prop_map(Message::CopyData),
    ]
}

fn copy_in() -> impl Strategy<Value = Vec<Message>> {
    let begins = prop_oneof![
        select(COPIES).prop_map(|sql| vec![Message::Query(sql.to_owned())]),
        (select(COPIES), prop::bool::ANY).prop_map(|(sql, syncs_early)| {
            let mut messages = vec![
                Message::Parse { name: "", sql: sql.to_owned() },
                Message::Bind { portal: "", name: "", values: Vec::new() },
                Message::Execute { portal: "", rows: 0 },
            ];
            messages.extend(syncs_early.then_some(Message::Sync));
            messages
        }),
    ];
    let ends = prop_oneof![3 => Just(Message::CopyDone), 1 => Just(Message::CopyFail)];
    (begins, vec(data(), 0..4), ends).prop_map(|(mut messages, data, end)| {
        let is_query = matches!(messages[0], Message::Query(_));
        messages.extend(data.into_iter().map(Message::CopyData));
        messages.push(end);
        messages.extend((!is_query).then_some(Message::Sync));
        messages
    })
}

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just(""), 2 => Just("s1"), 1 => Just("s2")]
}

fn portal() -> impl Strategy<Value = &'static str> {
    prop_oneof![5 => Just(""), 1 => Just("p1")]
}

fn value() -> impl Strategy<Value = Option<&'static str>> {
    select(&[Some("1"), Some("2"), Some("50"), Some("100"), Some("x"), None][..])
}

fn data() -> impl Strategy<Value = &'static str> {
    select(&["1\n", "2\n3\n", "not a number\n", "200\n", "\\.\n", "4", ""][..])
}

fn with_values() -> impl Strategy<Value = (String, Vec<Option<&'static str>>)> {
    (select(WITH_VALUES), vec(value(), 3)).prop_map(|((sql, count), mut values)| {
        values.truncate(count);
        (sql.to_owned(), values)
    })
}

fn query() -> impl Strategy<Value = String> {
    // These wait for time to pass.
    let single: Vec<&str> = QUERIES
        .iter()
        .filter(|sql| !sql.contains("pg_sleep") && !sql.contains("statement_timeout"))
        .copied()
        .collect();
    prop_oneof![
        1 => select(single),
        1 => select(COMMON),
        1 => select(BLOCKS),
        1 => select(SESSION),
    ]
    .prop_map(str::to_owned)
}

const COPIES: &[&str] =
    &["copy t (a) from stdin", "copy nowhere from stdin", "copy t (a) from stdin where a > 1"];

/// And how many values they take.
const WITH_VALUES: &[(&str, usize)] = &[
    ("select $1::int + 1", 1),
    ("select a, b from t where id = $1", 1),
    ("insert into t (a, b) values ($1, $2) returning id, a", 2),
    ("insert into t (a) values ($1)", 1),
    ("update t set a = a + $1 where id = $2", 2),
    ("delete from t where a = $1", 1),
    ("select n from generate_series(1, $1::int) n", 1),
    ("select noisy($1)", 1),
    ("select seen($1)", 1),
    ("select $1, $2::text", 2),
    ("set work_mem to $1", 1),
];

const COMMON: &[&str] = &[
    "select 1",
    "select a, b from t order by id",
    "select n from generate_series(1, 5) n",
    "insert into t (a) values (20)",
    "insert into t (a) values (21) returning id, a",
    "update t set a = 6 where id = 1 returning a",
    "select seen(1)",
    "select noisy(1)",
    "select 1 / 0",
    "selec 1",
    "select * from nowhere",
    "select id, 10 / (id - 3) from t order by id",
    "-- nothing but this\n",
    "/* one */ select /* two */ 'three'",
    "/* switchback: primary */ select 2",
    "select repeat('x', 20000)",
    "select repeat('y', 150000)",
    "select n, repeat('z', 1000) from generate_series(1, 150) n",
    "insert into t (a, b) select 22, repeat('w', 1000) from generate_series(1, 90) n returning b",
    "select lower(b), count(*) from t group by 1 order by 1",
    "copy (select 1 union all select 2) to stdout",
    "copy t (a) to stdout",
    "explain (costs off) select 1",
    "with x as (insert into t (a) values (23) returning a) select a from x",
    "truncate u",
    "lock table u",
    "do $$ begin raise notice 'done'; end $$",
    "do $$ begin perform 1 / 0; end $$",
    "vacuum u",
];

const BLOCKS: &[&str] = &[
    "begin",
    "commit",
    "rollback",
    "begin read only",
    "begin isolation level repeatable read",
    "begin isolation level serializable",
    "start transaction read only, isolation level repeatable read",
    "begin; insert into t (a) values (30)",
    "begin; select 1",
    "insert into t (a) values (31); commit",
    "commit; begin",
    "commit and chain",
    "rollback and chain",
    "end",
    "savepoint a",
    "rollback to a",
    "release a",
    "set transaction read only",
    "set transaction isolation level serializable",
    "set constraints all immediate",
    "set constraints all deferred",
    "show transaction_read_only",
    "declare c cursor for select n from generate_series(1, 5) n",
    "fetch 2 from c",
    "fetch all from c",
    "move 1 in c",
    "close c",
    "select pg_advisory_xact_lock(1)",
    "insert into u values (40, 999)",
];

/// What leaves something in the session. Not in here, because it is otherwise on connections that are shared:
///
/// - what the protocol has prepared, by its name in EXECUTE: it has a name of the proxy's there,
/// - `lastval` and `currval`, which keep a connection from their first use on, and that is one statement late,
/// - `pg_backend_pid` and its kin.
const SESSION: &[&str] = &[
    "set application_name to 'shop'",
    "set timezone to 'Europe/Berlin'",
    "set timezone to 'nowhere'",
    "set local timezone to 'Asia/Tokyo'",
    "reset timezone",
    "show timezone",
    "select timestamptz '2000-01-01 00:00:00+00'",
    "set datestyle to 'german'",
    "select date '2000-12-31'",
    "set search_path to other, public",
    "set search_path to public",
    "reset search_path",
    "select * from t limit 1",
    "set work_mem to '9MB'",
    "show work_mem",
    "set default_transaction_read_only to on",
    "set default_transaction_isolation to 'serializable'",
    "set session characteristics as transaction read only",
    "set client_min_messages to warning",
    "reset client_min_messages",
    "reset all",
    "select set_config('timezone', 'UTC', false)",
    "select set_config('work_mem', '8MB', true)",
    "select current_setting('work_mem'), current_setting('TimeZone')",
    "set role app",
    "reset role",
    "create table made (a int)",
    "create table made (a int, b text default 'b')",
    "create table made as select 1 as a, 2 as b",
    "alter table made add column c int",
    "drop table made",
    "insert into made values (1)",
    "select * from made",
    "create function made_f() returns int language sql as 'select 1'",
    "create function made_f() returns int language sql as 'insert into t (a) values (50) returning a'",
    "drop function made_f()",
    "select made_f()",
    "create temp table made_temp (a int)",
    "create temp table made_temp (a int) on commit drop",
    "insert into made_temp values (1)",
    "select * from made_temp",
    "drop table made_temp",
    "create temp table t (temporary int)",
    "select pg_advisory_lock(1)",
    "select pg_try_advisory_lock(1)",
    "select pg_advisory_unlock(1)",
    "select pg_advisory_unlock_all()",
    "listen news",
    "notify news, 'from here'",
    "select pg_notify('news', 'also from here')",
    "unlisten *",
    "select * from pg_listening_channels()",
    "discard all",
    "discard plans",
    "discard temp",
    "prepare q as select $1::int + 1",
    "execute q(1)",
    "deallocate q",
    "deallocate s1",
    "deallocate all",
    "declare h cursor with hold for select a from t order by id",
    "fetch 2 from h",
    "close h",
    "close all",
    "select setseed(0.5); select random()",
];

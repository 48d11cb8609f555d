//! Replies compared with those of PostgreSQL itself, byte for byte, whatever way a statement takes through the proxy.

use crate::cluster::Cluster;
use crate::proxy::{of, running, start, value};
use crate::wire::{Message, Raw};

/// Everything that a client was answered, by what it had asked.
type Answers = Vec<(&'static str, Vec<Message>)>;

/// Asks PostgreSQL and the proxy the same, from the same state.
async fn check(ask: impl AsyncFn(&mut Raw) -> Answers) {
    let (cluster, proxy) = running();
    cluster.sql(&format!("set role app; {SCHEMA}"));
    let reset = "truncate t, u restart identity; alter sequence s restart";
    let direct = ask(&mut Raw::connect_directly(&cluster).await).await;
    cluster.sql(reset);
    let through = ask(&mut Raw::connect(&proxy).await).await;
    assert_eq!(direct.len(), through.len());
    for ((asked, direct), (_, through)) in direct.into_iter().zip(through) {
        assert_eq!(readable(&direct), readable(&through), "{asked}");
        assert_eq!(direct, through, "{asked}");
    }
}

fn readable(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|(tag, body)| format!("{} {}", *tag as char, body.escape_ascii())).collect()
}

async fn say_parse_bind(client: &mut Raw, sql: &str) {
    client.say(b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"].concat()).await;
    client.say(b'B', &[0; 8]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_is_answered_byte_for_byte_as_by_postgres() {
    check(async |client| {
        let mut answers = Vec::new();
        for &query in QUERIES {
            client.say(b'Q', &[query.as_bytes(), b"\0"].concat()).await;
            answers.push((query, client.whole_answer().await));
        }
        answers
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_messages_is_answered_byte_for_byte_as_by_postgres() {
    check(async |client| {
        let mut answers = Vec::new();
        for &query in QUERIES {
            say_parse_bind(client, query).await;
            client.say(b'D', b"P\0").await;
            client.say(b'E', &[0; 5]).await;
            client.say(b'S', b"").await;
            answers.push((query, client.whole_answer().await));
        }
        say_parse_bind(client, "select noisy(n) from generate_series(1, 5) n").await;
        for _ in 0..2 {
            client.say(b'E', &[0, 0, 0, 0, 2]).await;
        }
        client.say(b'S', b"").await;
        answers.push(("two rows, and two more", client.whole_answer().await));
        answers
    })
    .await;
}

/// Of two writes in one transaction the first is answered when the client asks for it, and the second fails at the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_share_a_sync_are_answered_as_by_postgres_flushed_or_not() {
    let writes = ["insert into u values (50, null)", "insert into u values (51, 12345)"];
    check(async |client| {
        let mut flushed = Vec::new();
        for write in writes {
            say_parse_bind(client, write).await;
            client.say(b'E', &[0; 5]).await;
            client.say(b'H', b"").await;
            while flushed.last().is_none_or(|(tag, _)| *tag != b'C') {
                flushed.push(client.read().await);
            }
            flushed.push((b'H', Vec::new()));
        }
        client.say(b'S', b"").await;
        flushed.extend(client.whole_answer().await);
        for write in writes {
            say_parse_bind(client, write).await;
            client.say(b'E', &[0; 5]).await;
        }
        client.say(b'S', b"").await;
        let mut answers = vec![("flushed", flushed), ("not flushed", client.whole_answer().await)];
        // A Query commits what stands before it.
        say_parse_bind(client, writes[0]).await;
        client.say(b'E', &[0; 5]).await;
        client.say(b'Q', b"insert into u values (52, null) returning a\0").await;
        answers.push(("ended by a Query", client.whole_answer().await));
        answers
    })
    .await;
}

/// A rule may make several statements of one, whose rows a Query alone is answered with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_are_rules_a_query_stays_a_query() {
    let cluster = Cluster::create();
    cluster.sql("set role app; create table t (a int)");
    cluster.sql("create rule told as on insert to t do also select new.a + 1");
    let proxy = start(of(&cluster));
    let client = proxy.connect().await.unwrap();
    assert_eq!(value(&client, "insert into t values (1)").await, "2");
    assert_eq!(value(&client, "select count(*) from t").await, "1");
}

pub const SCHEMA: &str = "
create table t (id serial primary key, a int check (a < 100), b text, c timestamptz default '2000-01-01');
create table u (a int unique deferrable initially deferred, b int references t deferrable initially deferred);
create sequence s;
create function noisy(n int) returns int language plpgsql as $$
    begin raise notice 'n is %', n; return n; end $$;
create function loud() returns trigger language plpgsql as $$
    begin raise notice 'before %', new.a; raise warning using message = 'w', hint = 'h'; return new; end $$;
create trigger loud before insert on t for each row when (new.b = 'loud') execute function loud();
create function late() returns trigger language plpgsql as $$
    begin raise notice 'at commit'; if new.a = 77 then raise 'too late'; end if; return null; end $$;
create constraint trigger late after insert on u deferrable initially deferred
    for each row execute function late()";

pub const QUERIES: &[&str] = &[
    "insert into t (a, b) values (1, 'one')",
    "INSERT INTO t (a, b) VALUES (2, 'a;b'), (3, E'c\\'d; --') ;",
    "insert into t (a) select n from generate_series(4, 9) n returning id, a, b, c",
    "insert into t (a) select 1 where false",
    "insert into t (a) select 1 where false returning *",
    "insert into t (a, b) values (10, 'loud')",
    "insert into t (a, b) values (11, 'loud') returning a",
    "insert into t (a) values (100)",
    "insert into t (a) values (100) returning a",
    "insert into t (a) values ('x')",
    "insert into t (a) values (1 / 0)",
    "insert into t (id, a) values (1, 1) on conflict (id) do update set a = t.a + 20 returning a",
    "insert into t (id) values (1)",
    "insert into nowhere values (1)",
    "insert into t (a) values (1) returning nothing",
    "insert into t (a) valued (1)",
    "insert into t (a) values ($1)",
    "insert into t (a) values (1), (2, 3)",
    "update t set b = 'x' where a > 5",
    "update t set b = upper(b) where a = 2 returning *",
    "update t set a = 1000 where id = 2",
    "update t set a = noisy(a) where a in (2, 3) returning noisy(a + 1)",
    "delete from t where a = 9",
    "delete from t where a = 8 returning id, 10 / (a - 8)",
    "delete from t where false",
    "with x as (delete from t where a = 7 returning *) select a, noisy(a) from x",
    "with x as (select 30 as a) insert into t (a) select a from x returning a",
    "with x as (select 1 as a) select noisy(a) from x",
    "with x as (insert into t (a) values (100) returning a) select * from x",
    "select noisy(1), noisy(2)",
    "select noisy(n), 1 / (n - 3) from generate_series(1, 4) n",
    "select * from t where a = 1 for update",
    "select nextval('s'), null, ''",
    "select noisy(1) as \u{fc}, 'x'::name, array[1, 2], 1.5::float8, true, '\\x00ff'::bytea where noisy(2) = 2",
    "select a_name_that_is_much_longer_than_the_sixty_three_bytes_that_a_name_may_have(1)",
    "values (noisy(5), 'a'), (6, null)",
    "table t",
    "insert into u values (1, 1)",
    "insert into u values (1, null)",
    "insert into u values (2, 999) returning a",
    "insert into u values (77, null)",
    "insert into u values (3, null) returning a",
    "merge into t using (values (1), (500)) v (id) on t.id = v.id when matched then update set b = 'merged'
         when not matched then insert (id, a) values (v.id, 50)",
    "insert into t (a) values (60); insert into t (a) values (61)",
    "insert into t (a) values (62); insert into t (a) values (100)",
    "create table made (a int)",
    "select 1 as a into made_too",
    "drop table made, made_too",
    "explain (costs off) insert into t values (1)",
    "begin",
    "insert into t (a) values (63) returning a",
    "insert into t (a) values (100)",
    "insert into t (a) values (64)",
    "rollback",
    "set statement_timeout to 500",
    "insert into t (a) select 1 from pg_sleep(10)",
    "set statement_timeout to 0",
    "insert into t (a, b) select n, repeat('x', 1000) from generate_series(-300, -1) n returning a, b",
    "call nothing()",
    "",
    " ; ",
    "-- nothing",
    "select count(*), sum(a) from t",
];

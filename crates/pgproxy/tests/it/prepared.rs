//! The extended protocol on connections that change under the client.

use futures_util::future::{join_all, try_join_all};
use pgproxy::Database;

use crate::cluster::Cluster;
use crate::proxy::{Proxy, of, sqlstate, start, value};
use crate::wire::{Message, Raw, ToSay};

fn two_connections() -> (Cluster, Proxy) {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 2, ..of(&cluster) });
    (cluster, proxy)
}

/// Each client calls its statements `s0`, `s1` and so on; they must not meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_statements_of_many_clients_live_on_few_connections() {
    let (_cluster, proxy) = two_connections();
    let clients: Vec<_> = try_join_all((0..8).map(|_| proxy.connect())).await.unwrap();
    let work = clients.iter().enumerate().map(async |(n, client)| {
        let own = client.prepare(&format!("select {n}::int4 + $1::int4")).await.unwrap();
        let common = client.prepare("select $1::int4 * 2").await.unwrap();
        for turn in 0..50 {
            let row = client.query_one(&own, &[&turn]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), n as i32 + turn);
            let row = client.query_one(&common, &[&turn]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), turn * 2);
        }
    });
    join_all(work).await;
    assert!(proxy.db().servers <= 2);
}

#[tokio::test]
async fn requests_may_be_pipelined_and_an_error_fails_only_its_own() {
    let (_cluster, proxy) = two_connections();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int primary key)").await.unwrap();
    let insert = client.prepare("insert into t values ($1)").await.unwrap();
    let one = 1;
    let outcomes = join_all((0..20).map(|n| {
        let (client, insert, one) = (&client, &insert, &one);
        async move {
            if n % 2 == 0 {
                client.execute(insert, &[one]).await
            } else {
                client.execute("select 1", &[]).await
            }
        }
    }))
    .await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 9);
    for failed in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(failed.code().unwrap().code(), "23505");
    }
    assert_eq!(value(&client, "select count(*) from t").await, "1");
}

#[tokio::test]
async fn a_statement_that_does_not_parse_can_be_prepared_again() {
    let (_cluster, proxy) = two_connections();
    let client = proxy.connect().await.unwrap();
    assert_eq!(client.prepare("select * from t").await.err().unwrap().code().unwrap().code(), "42P01");
    client.simple_query("create table t (a int)").await.unwrap();
    let select = client.prepare("select * from t").await.unwrap();
    assert!(client.query(&select, &[]).await.unwrap().is_empty());
}

/// PostgreSQL refuses to run such a statement ever again, and drivers then prepare it anew.
#[tokio::test]
async fn a_statement_whose_result_has_changed_can_be_prepared_again() {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    let (client, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    client.simple_query("create table t (a int)").await.unwrap();
    for n in 0..3 {
        let select = client.prepare("select * from t").await.unwrap();
        assert!(client.query(&select, &[]).await.unwrap().is_empty());
        other.simple_query(&format!("alter table t add column c{n} int")).await.unwrap();
        let refused = client.query(&select, &[]).await.err().unwrap();
        assert_eq!(refused.code().unwrap().code(), "0A000");
        let again = client.prepare("select * from t").await.unwrap();
        assert_eq!(again.columns().len(), n + 2);
        assert!(client.query(&again, &[]).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn statements_outlive_a_restart_of_postgres() {
    let (mut cluster, proxy) = two_connections();
    let client = proxy.connect().await.unwrap();
    let select = client.prepare("select $1::int4 + 1").await.unwrap();
    cluster.stop();
    cluster.start();
    assert_eq!(client.query_one(&select, &[&1]).await.unwrap().get::<_, i32>(0), 2);
}

#[tokio::test]
async fn after_deallocate_all_statements_are_gone_for_this_client_only() {
    let (_cluster, proxy) = two_connections();
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    let (mine, theirs) = (one.prepare("select 1").await.unwrap(), other.prepare("select 2").await.unwrap());
    one.simple_query("deallocate all").await.unwrap();
    assert_eq!(one.query(&mine, &[]).await.err().unwrap().code().unwrap().code(), "26000");
    assert_eq!(other.query(&theirs, &[]).await.unwrap().len(), 1);
}

/// After an error PostgreSQL reads over what follows: a client has the statements that it had when that happened.
#[tokio::test]
async fn what_is_skipped_after_an_error_prepares_and_closes_nothing() {
    const SYNC: (u8, &[u8]) = (b'S', b"");
    const WRONG: (u8, &[u8]) = (b'P', b"wrong\0selected\0\0\0");
    let cluster = Cluster::create();
    let proxy = start(of(&cluster));
    let mut raw = Raw::connect(&proxy).await;
    let one: (u8, &[u8]) = (b'P', b"\0select 1\0\0\0");
    let two: (u8, &[u8]) = (b'P', b"\0select 1, 2\0\0\0");
    let describe: (u8, &[u8]) = (b'D', b"S\0");
    for (said, answers) in [
        // The unnamed one of before is there, also where one behind the error was closed, or a Query would have ended it.
        (&[one, SYNC, WRONG, two, SYNC, describe, SYNC][..], &["1ZI", "EZI", "tTZI"][..]),
        (&[WRONG, (b'C', b"S\0"), SYNC, describe, SYNC], &["EZI", "tTZI"]),
        (&[WRONG, (b'Q', b"select 1\0"), SYNC, describe, SYNC], &["EZI", "tTZI"]),
        // One that does not parse has taken its place.
        (&[(b'P', b"\0selected\0\0\0"), SYNC, describe, SYNC], &["EZI", "EZI"]),
        // A name is free when what was to have it is wrong, whatever follows.
        (&[WRONG, (b'C', b"Swrong\0"), SYNC, (b'D', b"Swrong\0"), SYNC], &["EZI", "EZI"]),
        // One that the connection knows already is skipped, too.
        (&[(b'P', b"known\0select 3\0\0\0"), SYNC], &["1ZI"]),
        (&[WRONG, (b'P', b"skipped\0select 3\0\0\0"), SYNC], &["EZI"]),
        (&[(b'D', b"Sskipped\0"), SYNC], &["EZI"]),
    ] {
        raw.say_at_once(said).await;
        for (at, expected) in answers.iter().enumerate() {
            assert_eq!(raw.answer().await, *expected, "answer {at} to {said:?}");
        }
    }
    // And nobody else's is run in place of one that was skipped.
    raw.say_at_once(&[one, SYNC]).await;
    assert_eq!(raw.answer().await, "1ZI");
    let mut other = Raw::connect(&proxy).await;
    other.say_at_once(&[WRONG, two, SYNC, describe, SYNC]).await;
    for expected in ["EZI", "EZI"] {
        assert_eq!(other.answer().await, expected);
    }
}

/// Also what is sent when the client has heard of the error, and is for us to answer.
#[tokio::test]
async fn what_is_sent_behind_an_error_that_was_told_prepares_and_closes_nothing() {
    const SYNC: ToSay<'_> = (b'S', b"");
    const KEPT: ToSay<'_> = (b'P', b"kept\0select 1\0\0\0");
    const KNOWN: ToSay<'_> = (b'P', b"known\0select 2\0\0\0");
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    let mut raw = Raw::connect(&proxy).await;
    raw.say_at_once(&[KEPT, KNOWN, (b'C', b"Sknown\0"), SYNC]).await;
    assert_eq!(raw.answer().await, "113ZI");
    raw.say_at_once(&[(b'P', b"\0selected\0\0\0"), (b'H', b"")]).await;
    assert_eq!(raw.read().await.0, b'E');
    raw.say_at_once(&[(b'C', b"Skept\0"), KNOWN, (b'H', b""), SYNC]).await;
    assert_eq!(raw.answer().await, "ZI");
    raw.say_at_once(&[(b'D', b"Skept\0"), SYNC, (b'D', b"Sknown\0"), SYNC]).await;
    for expected in ["tTZI", "EZI"] {
        assert_eq!(raw.answer().await, expected);
    }
}

/// Also when its second Parse is sent before the first is answered.
#[tokio::test]
async fn a_name_that_is_free_after_an_error_is_given_in_the_same_write() {
    const SYNC: (u8, &[u8]) = (b'S', b"");
    let cluster = Cluster::create();
    let proxy = start(of(&cluster));
    let mut raw = Raw::connect(&proxy).await;
    raw.say_at_once(&[(b'P', b"a\0selected\0\0\0"), SYNC, (b'P', b"a\0select 1\0\0\0"), SYNC]).await;
    raw.say_at_once(&[(b'D', b"Sa\0"), SYNC]).await;
    for expected in ["EZI", "1ZI", "tTZI"] {
        assert_eq!(raw.answer().await, expected);
    }
}

/// PostgreSQL has read over it, and we hear of that only later.
#[tokio::test]
async fn what_follows_in_the_same_write_finds_the_names_as_an_error_has_left_them() {
    const SYNC: (u8, &[u8]) = (b'S', b"");
    const WRONG: (u8, &[u8]) = (b'P', b"\0selected\0\0\0");
    const PARSE: (u8, &[u8]) = (b'P', b"a\0select 1\0\0\0");
    const CLOSE: (u8, &[u8]) = (b'C', b"Sa\0");
    let requests: [(&[ToSay<'_>], [&str; 2]); 3] = [
        (&[(b'B', b"\0a\0\0\0\0\0\0\0"), (b'E', b"\0\0\0\0\0"), SYNC], ["EZI", "2DCZI"]),
        (&[(b'D', b"Sa\0"), SYNC], ["EZI", "tTZI"]),
        (&[PARSE, CLOSE, SYNC], ["13ZI", "EZI"]),
    ];
    let (_cluster, proxy) = two_connections();
    let mut raw = Raw::connect(&proxy).await;
    for (request, [without, with]) in requests {
        // The connection knows it, and the client does not.
        raw.say_at_once(&[PARSE, CLOSE, SYNC]).await;
        assert_eq!(raw.answer().await, "13ZI");
        raw.say_at_once(&[&[WRONG, PARSE, SYNC][..], request].concat()).await;
        for expected in ["EZI", without] {
            assert_eq!(raw.answer().await, expected, "{request:?}");
        }
        raw.say_at_once(&[PARSE, SYNC]).await;
        assert_eq!(raw.answer().await, "1ZI");
        raw.say_at_once(&[&[WRONG, CLOSE, SYNC][..], request].concat()).await;
        for expected in ["EZI", with] {
            assert_eq!(raw.answer().await, expected, "{request:?}");
        }
        // Nor is it there again when it was closed meanwhile.
        raw.say_at_once(&[PARSE, SYNC]).await;
        raw.answer().await;
        raw.say_at_once(&[WRONG, CLOSE, SYNC, CLOSE, SYNC]).await;
        for expected in ["EZI", "3ZI"] {
            assert_eq!(raw.answer().await, expected);
        }
        raw.say_at_once(&[(b'D', b"Sa\0"), SYNC]).await;
        assert_eq!(raw.answer().await, "EZI");
    }
}

/// What an error skips has not taken its place.
#[tokio::test]
async fn an_unnamed_statement_behind_an_error_in_the_same_write_stays() {
    const SYNC: (u8, &[u8]) = (b'S', b"");
    const WRONG: (u8, &[u8]) = (b'P', b"a\0selected\0\0\0");
    const EMPTY: (u8, &[u8]) = (b'P', b"\0\0\0\0");
    const SELECT: (u8, &[u8]) = (b'P', b"\0select 1\0\0\0");
    let (_cluster, proxy) = two_connections();
    let mut raw = Raw::connect(&proxy).await;
    for failing in [
        &[WRONG, SELECT, SYNC][..],
        &[WRONG, (b'C', b"S\0"), SYNC],
        &[WRONG, (b'Q', b"select 2\0"), SYNC],
        &[(b'P', b"\0selected\0\0\0"), SYNC],
    ] {
        raw.say_at_once(&[SELECT, SYNC]).await;
        assert_eq!(raw.answer().await, "1ZI");
        raw.say_at_once(&[failing, &[EMPTY, SYNC]].concat()).await;
        for expected in ["EZI", "1ZI"] {
            assert_eq!(raw.answer().await, expected, "{failing:?}");
        }
        raw.say_at_once(&[(b'B', b"\0\0\0\0\0\0\0\0"), (b'E', b"\0\0\0\0\0"), SYNC]).await;
        assert_eq!(raw.answer().await, "2IZI", "{failing:?}");
    }
}

#[tokio::test]
async fn what_follows_a_deallocate_all_in_the_same_write_is_prepared() {
    type Said = (u8, &'static [u8]);
    const SYNC: Said = (b'S', b"");
    const EXECUTE: Said = (b'E', b"\0\0\0\0\0");
    const UNNAMED: [Said; 2] = [(b'B', b"\0\0\0\0\0\0\0\0"), EXECUTE];
    const A: [Said; 2] = [(b'B', b"\0a\0\0\0\0\0\0\0"), EXECUTE];
    const PARSE: Said = (b'P', b"a\0select 1\0\0\0");
    let (_cluster, proxy) = two_connections();
    for (query, parse) in [
        (&b"deallocate all\0"[..], &b"\0deallocate all\0\0\0"[..]),
        (b"discard all\0", b"\0discard all\0\0\0"),
    ] {
        let mut raw = Raw::connect(&proxy).await;
        for (said, answers) in [
            (&[&[PARSE, SYNC][..]].concat(), &["1ZI"][..]),
            (&[&[(b'Q', query), PARSE], &A[..], &[SYNC]].concat(), &["CZI", "12DCZI"]),
            (&[&A[..], &[SYNC]].concat(), &["2DCZI"]),
            // Within one group, behind which the one without a name is there as well.
            (&[&[(b'P', parse)], &UNNAMED[..], &[PARSE], &A, &[SYNC]].concat(), &["12C12DCZI"]),
            (&[&A[..], &[SYNC]].concat(), &["2DCZI"]),
            (&[&UNNAMED[..], &[SYNC]].concat(), &["2CZI"]),
            (&[&A[..], &[SYNC]].concat(), &["EZI"]),
            // And where it is read over.
            (&[&[PARSE, SYNC][..]].concat(), &["1ZI"]),
            (&[&[(b'P', &b"\0selected\0\0\0"[..]), (b'P', parse)], &UNNAMED[..], &[SYNC]].concat(), &["EZI"]),
            (&[&A[..], &[SYNC]].concat(), &["2DCZI"]),
        ] {
            raw.say_at_once(said).await;
            for expected in answers {
                assert_eq!(raw.answer().await, *expected, "{said:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_can_not_close_what_others_have_prepared() {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    let client = proxy.connect().await.unwrap();
    let select = client.prepare("select 1").await.unwrap();
    let name = value(&client, "select name from pg_prepared_statements").await;
    let mut raw = Raw::connect(&proxy).await;
    raw.say(b'C', format!("S{name}\0").as_bytes()).await;
    raw.say(b'S', b"").await;
    assert_eq!(raw.answer().await, "3ZI");
    assert_eq!(client.query(&select, &[]).await.unwrap().len(), 1);
}

/// Also one that the connection knows: PostgreSQL takes none but what ends the block.
#[tokio::test]
async fn in_a_block_that_has_failed_nothing_is_prepared() {
    const SYNC: (u8, &[u8]) = (b'S', b"");
    const PARSE: (u8, &[u8]) = (b'P', b"a\0select 1\0\0\0");
    const ROLLBACK: (u8, &[u8]) = (b'P', b"b\0rollback\0\0\0");
    const FAILING: (u8, &[u8]) = (b'Q', b"begin; select 1 / 0\0");
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    let mut other = Raw::connect(&proxy).await;
    other.say_at_once(&[PARSE, ROLLBACK, SYNC]).await;
    assert_eq!(other.answer().await, "11ZI");
    let mut raw = Raw::connect(&proxy).await;
    for is_pipelined in [false, true] {
        raw.say_at_once(&[FAILING]).await;
        if !is_pipelined {
            assert_eq!(raw.answer().await, "CEZE");
        }
        raw.say_at_once(&[PARSE, SYNC, ROLLBACK, (b'B', b"\0b\0\0\0\0\0\0\0"), (b'E', &[0; 5]), SYNC]).await;
        if is_pipelined {
            assert_eq!(raw.answer().await, "CEZE");
        }
        for expected in ["EZE", "12CZI"] {
            assert_eq!(raw.answer().await, expected);
        }
        raw.say_at_once(&[(b'C', b"Sb\0"), (b'D', b"Sa\0"), SYNC]).await;
        assert_eq!(raw.answer().await, "3EZI");
    }
}

/// Also one of which only the beginning is there.
#[tokio::test]
async fn a_large_bind_behind_an_error_in_the_same_write_gets_nobody_elses_statement() {
    const SYNC: ToSay<'_> = (b'S', b"");
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    let (mut raw, mut other) = (Raw::connect(&proxy).await, Raw::connect(&proxy).await);
    other.say_at_once(&[(b'P', b"\0select 'secret', $1::text\0\0\0"), SYNC]).await;
    assert_eq!(other.answer().await, "1ZI");
    let value = vec![b'x'; 400_000];
    let length = (value.len() as u32).to_be_bytes();
    let bind = [&b"\0\0\0\0\0\x01"[..], &length, &value, b"\0\0"].concat();
    raw.say_at_once(&[
        (b'P', b"a\0selected\0\0\0"),
        (b'P', b"\0select $1::text\0\0\0"),
        SYNC,
        (b'B', &bind),
        (b'E', b"\0\0\0\0\0"),
        SYNC,
    ])
    .await;
    for _ in 0..2 {
        assert_eq!(raw.answer().await, "EZI", "it has no statement");
    }
}

/// It is the same statement as before, and is not there.
#[tokio::test]
async fn a_name_that_was_freed_and_given_again_behind_an_error_is_free() {
    const SYNC: ToSay<'_> = (b'S', b"");
    const PARSE: ToSay<'_> = (b'P', b"a\0select 1\0\0\0");
    let (_cluster, proxy) = two_connections();
    let mut raw = Raw::connect(&proxy).await;
    raw.say_at_once(&[PARSE, SYNC]).await;
    assert_eq!(raw.answer().await, "1ZI");
    let bind: [ToSay<'_>; 2] = [(b'B', b"\0a\0\0\0\0\0\0\0"), (b'E', b"\0\0\0\0\0")];
    raw.say_at_once(&[
        (b'C', b"Sa\0"),
        SYNC,
        (b'P', b"\0selected\0\0\0"),
        PARSE,
        SYNC,
        bind[0],
        bind[1],
        SYNC,
    ])
    .await;
    for expected in ["3ZI", "EZI", "EZI"] {
        assert_eq!(raw.answer().await, expected);
    }
}

/// Drivers that cannot send a Close do so: psycopg 3 with an older libpq, PHP's PDO, DBD::Pg, Rails.
#[tokio::test]
async fn a_deallocate_by_sql_of_what_the_protocol_has_prepared_is_answered_as_by_postgres() {
    const SYNC: ToSay<'_> = (b'S', b"");
    const A: ToSay<'_> = (b'P', b"a\0select 1\0\0\0");
    const DESCRIBE: ToSay<'_> = (b'D', b"Sa\0");
    const QUERY: ToSay<'_> = (b'Q', b"deallocate a\0");
    const PARSE: ToSay<'_> = (b'P', b"\0deallocate a\0\0\0");
    const RUN: [ToSay<'_>; 3] = [(b'B', &[0; 8]), (b'D', b"P\0"), (b'E', &[0; 5])];
    let (cluster, proxy) = two_connections();
    // Somebody else has the same, and keeps it.
    let other = proxy.connect().await.unwrap();
    let theirs = other.prepare("select 1").await.unwrap();
    let extended = [&[PARSE][..], &RUN, &[SYNC]].concat();
    let sessions: [(&[ToSay<'_>], usize); 20] = [
        (&[A, SYNC], 1),
        (&[QUERY, DESCRIBE, SYNC], 2),
        (&[A, SYNC, QUERY, A, SYNC, DESCRIBE, SYNC], 4),
        (&[(b'Q', b"DEALLOCATE PREPARE \"a\" ;\0"), QUERY], 2),
        // By the extended protocol, and what follows it in its group.
        (&[A, SYNC], 1),
        (&extended, 1),
        (&extended, 1),
        (&[&[A][..], &extended[..4], &[A, DESCRIBE, SYNC]].concat(), 1),
        // It is no part of its transaction.
        (&[(b'Q', b"begin\0"), QUERY, (b'Q', b"rollback\0")], 3),
        (&[DESCRIBE, SYNC], 1),
        // It does not end one, nor is it done in one that has failed.
        (&[A, SYNC, (b'Q', b"begin; select 2\0"), QUERY, (b'Q', b"commit\0")], 4),
        (&[A, SYNC, (b'Q', b"begin; select 1 / 0\0")], 2),
        (&[QUERY], 1),
        (&extended, 1),
        (&[(b'Q', b"rollback\0"), DESCRIBE, SYNC], 2),
        (&[(b'Q', b"select 1 / 0\0"), QUERY, DESCRIBE, SYNC], 3),
        // Nor is it one that SQL has made.
        (&[(b'Q', b"prepare b as select 2\0"), (b'Q', b"execute b\0")], 2),
        (&[(b'Q', b"deallocate b\0"), (b'Q', b"deallocate b\0")], 2),
        (&[(b'Q', b"deallocate nobodys\0")], 1),
        (&[(b'Q', b"deallocate pgproxy_1\0"), (b'Q', b"deallocate all\0")], 2),
    ];
    let (mut direct, mut through) = (Raw::connect_directly(&cluster).await, Raw::connect(&proxy).await);
    for (said, answers) in sessions {
        for client in [&mut direct, &mut through] {
            client.say_at_once(said).await;
        }
        for at in 0..answers {
            let expected = direct.whole_answer().await;
            assert_eq!(tags(&through.whole_answer().await), tags(&expected), "answer {at} to {said:?}");
        }
    }
    assert_eq!(other.query(&theirs, &[]).await.unwrap().len(), 1);
}

/// There it stays as it is sent.
#[tokio::test]
async fn a_deallocate_among_other_statements_or_at_the_end_of_a_group_is_answered_as_by_postgres() {
    const SYNC: ToSay<'_> = (b'S', b"");
    const A: ToSay<'_> = (b'P', b"a\0select 1\0\0\0");
    const B: ToSay<'_> = (b'P', b"b\0select 1\0\0\0");
    const WRONG: ToSay<'_> = (b'P', b"a\0selected\0\0\0");
    const DESCRIBE: [ToSay<'_>; 4] = [(b'D', b"Sa\0"), SYNC, (b'D', b"Sb\0"), SYNC];
    const QUERY: ToSay<'_> = (b'Q', b"deallocate a\0");
    const PARSE: ToSay<'_> = (b'P', b"\0deallocate a\0\0\0");
    const INSERT: ToSay<'_> = (b'P', b"\0insert into t values (1)\0\0\0");
    const RUN: [ToSay<'_>; 2] = [(b'B', &[0; 8]), (b'E', &[0; 5])];
    const BEGIN: ToSay<'_> = (b'Q', b"begin\0");
    const FAIL: ToSay<'_> = (b'Q', b"select 1 / 0\0");
    const ROLLBACK: ToSay<'_> = (b'Q', b"rollback\0");
    let cluster = Cluster::create();
    cluster.sql("set role app; create table t (a int)");
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    let other = proxy.connect().await.unwrap();
    let theirs = other.prepare("select 1").await.unwrap();
    let sessions: [(&[ToSay<'_>], usize); 14] = [
        (&[(b'Q', b"deallocate a; select 2\0")], 1),
        (&[(b'Q', b"deallocate b; deallocate a; select 2\0")], 1),
        (&[(b'Q', b"deallocate a; deallocate a\0")], 1),
        (&[(b'Q', b"deallocate a; select 1 / 0; deallocate b\0")], 1),
        (&[(b'Q', b"select 1 / 0; deallocate a\0")], 1),
        (
            &[
                BEGIN,
                (b'Q', b"select 2; deallocate a\0"),
                FAIL,
                (b'Q', b"select 2; deallocate b\0"),
                ROLLBACK,
            ],
            5,
        ),
        (&[BEGIN, QUERY, ROLLBACK], 3),
        // At the end of a group, which it commits.
        (&[&[INSERT][..], &RUN, &[QUERY]].concat(), 1),
        (&[&[INSERT][..], &RUN, &[(b'Q', b"select 2; deallocate a; deallocate b\0")]].concat(), 1),
        // Of one that has failed it is no part.
        (&[&[(b'P', &b"\0selected\0\0\0"[..]), QUERY, INSERT][..], &RUN, &[SYNC]].concat(), 1),
        (&[BEGIN, FAIL, (b'P', b"\0select 2\0\0\0"), QUERY, SYNC, ROLLBACK], 4),
        // Behind what is not answered yet.
        (&[QUERY, WRONG, SYNC, QUERY], 3),
        (&[&[QUERY, WRONG, SYNC, PARSE][..], &RUN, &[SYNC]].concat(), 3),
        // From here on it has a connection of its own.
        (&[(b'Q', b"deallocate a; prepare a as select 3; execute a; deallocate a\0")], 1),
    ];
    let (mut direct, mut through) = (Raw::connect_directly(&cluster).await, Raw::connect(&proxy).await);
    for (said, answers) in sessions {
        let said = [&[A, B, SYNC][..], said, &DESCRIBE].concat();
        for client in [&mut direct, &mut through] {
            client.say_at_once(&said).await;
        }
        for at in 0..answers + 3 {
            let expected = direct.whole_answer().await;
            assert_eq!(tags(&through.whole_answer().await), tags(&expected), "answer {at} to {said:?}");
        }
        // What stood in for them is in nobody's way.
        through.say(b'Q', b"select from pg_prepared_statements where name in ('a', 'b')\0").await;
        assert_eq!(through.answer().await, "TCZI", "{said:?}");
        for client in [&mut direct, &mut through] {
            client.say_at_once(&[(b'C', b"Sa\0"), (b'C', b"Sb\0"), SYNC]).await;
            assert_eq!(client.answer().await, "33ZI");
        }
    }
    assert_eq!(cluster.sql("select count(*) from t"), "4");
    through.say(b'Q', b"discard all\0").await;
    assert_eq!(through.answer().await, "CZI");
    assert_eq!(other.query(&theirs, &[]).await.unwrap().len(), 1);
}

/// The types of messages, with what is said of a command, a transaction and an error.
fn tags(messages: &[Message]) -> Vec<String> {
    let tag = |(tag, body): &Message| {
        let text = match tag {
            b'C' | b'Z' => body.escape_ascii().to_string(),
            b'E' => {
                let fields = body.split(|byte| *byte == 0);
                fields
                    .filter(|field| field.starts_with(b"C"))
                    .map(|code| code.escape_ascii().to_string())
                    .collect()
            }
            _ => String::new(),
        };
        format!("{} {text}", *tag as char)
    };
    messages.iter().map(tag).collect()
}

#[tokio::test]
async fn a_client_can_not_deallocate_what_others_have_prepared() {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    let (client, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    let select = client.prepare("select 1").await.unwrap();
    let name = value(&client, "select name from pg_prepared_statements").await;
    let deallocate = format!("deallocate {name}");
    assert_eq!(sqlstate(&other, &deallocate).await, "26000");
    assert_eq!(other.execute(&deallocate, &[]).await.err().unwrap().code().unwrap().code(), "26000");
    assert_eq!(client.query(&select, &[]).await.unwrap().len(), 1);
    // In a function nobody sees it: who finds one missing is told, once.
    let forget = "create function forget() returns int language plpgsql as $$ begin execute 'deallocate all'; return 1; end $$";
    other.simple_query(forget).await.unwrap();
    assert_eq!(value(&other, "select forget()").await, "1");
    assert_eq!(client.query(&select, &[]).await.err().unwrap().code().unwrap().code(), "26000");
    assert_eq!(client.query(&select, &[]).await.unwrap().len(), 1);
}

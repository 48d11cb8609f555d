//! What a session has set holds for its own statements, and for nobody else's.

use std::time::Duration;

use pgproxy::Database;
use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::proxy::{Proxy, of, start, value};
use crate::wire::{Raw, ToSay};

/// A text whose statement is another in each time zone.
const EPOCH: &str = "select extract(epoch from timestamptz '2024-01-01 00:00')::bigint";
const IN_UTC: i64 = 1_704_067_200;
const IN_TOKYO: i64 = IN_UTC - 9 * 3_600;
const TOKYO: &str = "set timezone to 'Asia/Tokyo'";
const SYNC: ToSay<'_> = (b'S', b"");

fn with_connections(pool_size: u32) -> (Cluster, Proxy) {
    let cluster = Cluster::create();
    cluster.sql("alter role app set timezone to 'UTC'");
    let proxy = start(Database { pool_size, ..of(&cluster) });
    (cluster, proxy)
}

/// Prepares it by a name, and runs it.
async fn number(client: &Client, sql: &str) -> i64 {
    let statement = client.prepare(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    client.query_one(&statement, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// A `t` in the schema `one` and another in `public`, of other columns.
async fn two_tables(client: &Client) {
    let tables =
        "create schema one; create table one.t (a bigint, b text); insert into one.t values (1, 'x');
                  create table t (c bigint); insert into t values (2)";
    client.batch_execute(tables).await.unwrap();
}

/// Prepares what means another table in each schema, and says how many columns it has and what the first is.
async fn table(client: &Client) -> (usize, i64) {
    let statement = client.prepare("select * from t").await.unwrap();
    (statement.columns().len(), client.query_one(&statement, &[]).await.unwrap().get(0))
}

fn executed(sql: &str) -> Vec<(u8, Vec<u8>)> {
    vec![(b'P', [b"\0", sql.as_bytes(), b"\0\0\0"].concat()), (b'B', vec![0; 8]), (b'E', vec![0; 5])]
}

/// In one group.
async fn say_together(raw: &mut Raw, statements: &[&str]) -> String {
    let said: Vec<_> = statements.iter().flat_map(|sql| executed(sql)).collect();
    let mut said: Vec<ToSay<'_>> = said.iter().map(|(tag, body)| (*tag, &body[..])).collect();
    said.push(SYNC);
    raw.say_at_once(&said).await;
    raw.answer().await
}

/// The first column of the first row.
async fn shown(raw: &mut Raw, sql: &str) -> String {
    raw.say(b'Q', &[sql.as_bytes(), b"\0"].concat()).await;
    let answer = raw.whole_answer().await;
    let (_, row) = answer.iter().find(|(tag, _)| *tag == b'D').unwrap_or_else(|| panic!("{sql}: {answer:?}"));
    String::from_utf8(row[6..].to_vec()).unwrap()
}

/// The first column of all rows of so many answers.
async fn rows(raw: &mut Raw, answers: usize) -> Vec<String> {
    let mut rows = Vec::new();
    for _ in 0..answers {
        for (tag, body) in raw.whole_answer().await {
            assert_ne!(tag, b'E', "{}", body.escape_ascii());
            if tag == b'D' {
                rows.push(String::from_utf8(body[6..].to_vec()).unwrap());
            }
        }
    }
    rows
}

#[tokio::test]
async fn a_statement_that_others_have_prepared_means_what_it_means_to_the_session_that_prepares_it() {
    let (_cluster, proxy) = with_connections(1);
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    two_tables(&one).await;
    assert_eq!(number(&one, EPOCH).await, IN_UTC);
    assert_eq!(table(&one).await, (1, 2));
    other.simple_query(TOKYO).await.unwrap();
    other.simple_query("set search_path to one").await.unwrap();
    for _ in 0..2 {
        assert_eq!(number(&other, EPOCH).await, IN_TOKYO);
        assert_eq!(table(&other).await, (2, 1));
        assert_eq!(number(&one, EPOCH).await, IN_UTC);
        assert_eq!(table(&one).await, (1, 2));
    }
    // Also when it came with them.
    let third =
        proxy.connect_with(&format!("{}?options=-c%20timezone%3DAsia/Tokyo", proxy.url())).await.unwrap();
    assert_eq!(number(&third, EPOCH).await, IN_TOKYO);
    third.simple_query("reset timezone; set timezone to 'UTC'").await.unwrap();
    assert_eq!(number(&third, EPOCH).await, IN_UTC);
}

/// Under the name that the client gave it in another session of settings, on a connection that does not have it.
#[tokio::test]
async fn a_statement_that_is_prepared_again_is_nobody_elses() {
    let (_cluster, proxy) = with_connections(1);
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    let early = one.prepare(EPOCH).await.unwrap();
    one.simple_query(TOKYO).await.unwrap();
    // Everything that was prepared is gone.
    let discarding = proxy.connect().await.unwrap();
    discarding.simple_query("discard all").await.unwrap();
    one.query_one(&early, &[]).await.unwrap();
    assert_eq!(number(&other, EPOCH).await, IN_UTC);
}

#[tokio::test]
async fn a_statement_of_the_moment_is_read_when_it_is_prepared() {
    const NOW: &str = "select (extract(epoch from timestamptz 'now') * 1000000)::bigint";
    let (_cluster, proxy) = with_connections(1);
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    let mut last = 0;
    for client in [&one, &other, &one] {
        let now = number(client, NOW).await;
        assert!(now > last, "{now} is of the same moment as {last}");
        last = now;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Nobody but PostgreSQL knows then what its texts mean.
#[tokio::test]
async fn a_statement_that_is_prepared_behind_what_may_set_something_is_the_sessions_own() {
    let (_cluster, proxy) = with_connections(1);
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    two_tables(&one).await;
    one.simple_query(
        "create function enter() returns void language plpgsql as
         $$ begin perform set_config('search_path', 'one', true); end $$",
    )
    .await
    .unwrap();
    assert_eq!(table(&one).await, (1, 2));
    for set in [
        "set local search_path to one",
        "select set_config('search_path', 'one', true)",
        "select enter()",
        "do $$ begin perform enter(); end $$",
        "create temp table mine (a int); set search_path to one",
    ] {
        other.simple_query("begin").await.unwrap();
        assert_eq!(table(&other).await, (1, 2), "{set}");
        other.simple_query(set).await.unwrap();
        assert_eq!(table(&other).await, (2, 1), "{set}");
        other.simple_query("rollback").await.unwrap();
        other.simple_query("discard all").await.unwrap();
        assert_eq!(table(&other).await, (1, 2), "{set}");
        assert_eq!(table(&one).await, (1, 2), "{set}");
    }
    // In one write: what was set is not known when what follows is read.
    assert_eq!(number(&one, EPOCH).await, IN_UTC);
    let mut raw = Raw::connect(&proxy).await;
    let query = [TOKYO.as_bytes(), b"\0"].concat();
    let parse = [b"a\0", EPOCH.as_bytes(), b"\0\0\0"].concat();
    let (bind, execute) = (b"\0a\0\0\0\0\0\0\0", [0; 5]);
    raw.say_at_once(&[(b'Q', &query), (b'P', &parse), (b'B', bind), (b'E', &execute), SYNC]).await;
    assert_eq!(raw.answer().await, "CSZI");
    let answer = raw.whole_answer().await;
    assert_eq!(answer[2].1[6..], *IN_TOKYO.to_string().as_bytes());
    assert_eq!(number(&one, EPOCH).await, IN_UTC);
}

#[tokio::test]
async fn clients_that_read_a_text_alike_share_its_statement() {
    const TEXT: &str = "select $1::int4 + 40";
    let (_cluster, proxy) = with_connections(1);
    let url = format!("{}?application_name=shop&options=-c%20app.tenant%3D7", proxy.url());
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect_with(&url).await.unwrap());
    other.simple_query("set statement_timeout to '5s'").await.unwrap();
    let in_block = proxy.connect().await.unwrap();
    for sql in [
        "begin",
        "savepoint a",
        "set local app.tenant to '7'",
        "select set_config('app.tenant', '8', true)",
        "create table t (a int)",
        "insert into t values (1)",
        "select * from t for update",
    ] {
        in_block.simple_query(sql).await.unwrap();
    }
    let mut kept = vec![in_block.prepare(TEXT).await.unwrap()];
    in_block.simple_query("commit").await.unwrap();
    for client in [&one, &other] {
        kept.push(client.prepare(TEXT).await.unwrap());
    }
    let count = format!("select count(*) from pg_prepared_statements where statement = '{TEXT}'");
    assert_eq!(value(&one, &count).await, "1");
    // Prepared on its own, it is the common one where it has to be prepared again.
    let apart = proxy.connect().await.unwrap();
    apart.simple_query("begin").await.unwrap();
    apart.simple_query("set local search_path to one").await.unwrap();
    let own = apart.prepare(TEXT).await.unwrap();
    apart.simple_query("rollback").await.unwrap();
    assert_eq!(value(&one, &count).await, "2");
    one.simple_query("discard all").await.unwrap();
    apart.query_one(&own, &[&2]).await.unwrap();
    other.query_one(&kept[2], &[&2]).await.unwrap();
    assert_eq!(value(&one, &count).await, "1");
}

#[tokio::test]
async fn what_a_suspended_portal_has_set_does_not_reach_the_next_client() {
    let (_cluster, proxy) = with_connections(1);
    let mut raw = Raw::connect(&proxy).await;
    raw.say_at_once(&[
        (b'P', b"\0SELECT set_config('statement_timeout', '5s', false)\0\0\0"),
        (b'B', &[0; 8]),
        (b'E', b"\0\0\0\0\x01"),
        SYNC,
    ])
    .await;
    assert_eq!(raw.answer().await, "12DsZI");
    assert_eq!(value(&proxy.connect().await.unwrap(), "show statement_timeout").await, "0");
    assert_eq!(shown(&mut raw, "show statement_timeout").await, "5s");
}

#[tokio::test]
async fn what_is_committed_before_an_error_of_its_request_does_not_reach_the_next_client() {
    let (_cluster, proxy) = with_connections(2);
    let other = proxy.connect().await.unwrap();
    for end in ["commit", "do $$ begin commit; end $$"] {
        let mut raw = Raw::connect(&proxy).await;
        let begin: &[&str] = if end == "commit" { &["begin"] } else { &[] };
        let answer = say_together(&mut raw, &[begin, &[TOKYO, end, "select 1/0"]].concat()).await;
        assert!(answer.ends_with("ZI") && answer.contains('E'), "{answer}");
        for _ in 0..2 {
            assert_eq!(value(&other, "show timezone").await, "UTC", "{end}");
            assert_eq!(shown(&mut raw, "show timezone").await, "Asia/Tokyo", "{end}");
        }
    }
}

/// Whoever has set that is given a connection that is thought to have it.
#[tokio::test]
async fn what_is_rolled_back_within_its_request_is_not_taken_for_set() {
    let (_cluster, proxy) = with_connections(2);
    let other = proxy.connect().await.unwrap();
    other.simple_query("set search_path to a").await.unwrap();
    let mut raw = Raw::connect(&proxy).await;
    let answer = say_together(&mut raw, &["begin", "set search_path to a", "rollback"]).await;
    assert!(answer.ends_with("ZI") && !answer.contains('E'), "{answer}");
    assert_eq!(value(&other, "show search_path").await, "a");
    assert_eq!(shown(&mut raw, "show search_path").await, "\"$user\", public");
}

#[tokio::test]
async fn what_a_portal_sets_that_is_run_later_does_not_reach_the_next_client() {
    const SET: &[u8] = b"a\0set timezone to 'Asia/Tokyo'\0\0\0";
    let (_cluster, proxy) = with_connections(2);
    let other = proxy.connect().await.unwrap();
    let named: &[ToSay<'_>] = &[
        (b'P', SET),
        (b'B', b"p1\0a\0\0\0\0\0\0\0"),
        (b'P', b"\0select 1\0\0\0"),
        (b'B', b"p2\0\0\0\0\0\0\0\0"),
        (b'E', b"p1\0\0\0\0\0"),
        SYNC,
    ];
    let behind_a_sync: &[ToSay<'_>] = &[
        (b'Q', b"begin\0"),
        (b'P', SET),
        (b'B', b"\0a\0\0\0\0\0\0\0"),
        SYNC,
        (b'E', b"\0\0\0\0\0"),
        SYNC,
        (b'Q', b"commit\0"),
    ];
    for (said, answers) in [(named, 1), (behind_a_sync, 4)] {
        let mut raw = Raw::connect(&proxy).await;
        raw.say_at_once(said).await;
        for _ in 0..answers {
            let answer = raw.answer().await;
            assert!(!answer.contains('E'), "{answer}");
        }
        for _ in 0..2 {
            assert_eq!(value(&other, "show timezone").await, "UTC", "{said:?}");
            assert_eq!(shown(&mut raw, "show timezone").await, "Asia/Tokyo", "{said:?}");
        }
    }
}

/// `RESET ALL` does not end a role, and asyncpg says it each time a connection goes back to its pool.
#[tokio::test]
async fn nobody_gets_the_role_of_a_session_that_has_reset_or_discarded_everything() {
    let (cluster, proxy) = with_connections(1);
    cluster.sql("create role tenant");
    cluster.sql("grant tenant to app");
    let url = format!("{}?options=-c%20role%3Dtenant", proxy.url());
    let (one, other) = (proxy.connect_with(&url).await.unwrap(), proxy.connect().await.unwrap());
    for all in [
        "reset all",
        "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;",
        "discard all",
        "reset role",
    ] {
        assert_eq!(value(&one, "select current_user").await, "tenant", "{all}");
        one.simple_query(all).await.unwrap();
        assert_eq!(value(&other, "select current_user").await, "app", "{all}");
        assert_eq!(value(&other, "show role").await, "none", "{all}");
    }
    assert_eq!(value(&one, "select current_user").await, "tenant");
}

#[tokio::test]
async fn what_is_reset_in_a_block_is_what_the_session_began_with_and_its_end_decides() {
    let (cluster, proxy) = with_connections(20);
    cluster.sql("create role tenant");
    cluster.sql("grant tenant to app");
    let options = "-c%20search_path%3Dbegan%20-c%20app.tenant%3D7%20-c%20geqo%3Doff%20-c%20role%3Dtenant";
    let url = format!("{}?options={options}", proxy.url());
    for (reset, name, set, began) in [
        ("reset search_path", "search_path", "later", "began"),
        ("set search_path to default", "search_path", "later", "began"),
        ("reset all", "search_path", "later", "began"),
        ("reset app.tenant", "app.tenant", "8", "7"),
        ("set app.tenant to default", "app.tenant", "8", "7"),
        ("reset all", "app.tenant", "8", "7"),
        ("reset geqo", "geqo", "on", "off"),
        ("reset role", "role", "none", "tenant"),
        ("reset all", "role", "none", "none"),
    ] {
        let client = proxy.connect_with(&url).await.unwrap();
        let show = format!("show {name}");
        let set_it = format!("set {name} to '{set}'");
        for (end, after) in [("rollback", set), ("commit", began)] {
            client.simple_query(&set_it).await.unwrap();
            client.simple_query("begin").await.unwrap();
            client.simple_query(reset).await.unwrap();
            assert_eq!(value(&client, &show).await, began, "{reset}, in the block");
            client.simple_query(end).await.unwrap();
            assert_eq!(value(&client, &show).await, after, "{reset}, {end}");
        }
    }
    // Where nothing else was set, the session stays free to move.
    let client = proxy.connect_with(&url).await.unwrap();
    for reset in ["reset app.tenant", "reset geqo", "reset role"] {
        client.simple_query(reset).await.unwrap();
        proxy.until(|db| db.clients == 1 && db.servers == db.servers_idle).await;
    }
    for (name, began) in [("app.tenant", "7"), ("geqo", "off"), ("role", "tenant")] {
        assert_eq!(value(&client, &format!("show {name}")).await, began);
    }
}

/// The server goes back to what its own connection began with, and is told what that of the client began with.
#[tokio::test]
async fn what_follows_a_reset_in_the_same_write_finds_what_the_session_began_with() {
    const SHOW: &str = "select current_setting('search_path')";
    let (_cluster, proxy) = with_connections(40);
    let other = proxy.connect().await.unwrap();
    let cases: [(&[&str], &[&str]); 3] = [
        (&["begin", "@", SHOW, "commit", SHOW], &["began", "began"]),
        (&["begin", "@", SHOW, "rollback", SHOW], &["began", "later"]),
        (&["@", SHOW], &["began"]),
    ];
    for reset in ["reset search_path", "set search_path to default", "reset all", "discard all"] {
        for (statements, expected) in cases {
            if reset == "discard all" && statements.len() > 2 {
                continue;
            }
            let statements = statements.iter().map(|sql| if *sql == "@" { reset } else { *sql });
            let queries: Vec<_> =
                statements.clone().map(|sql| (b'Q', [sql.as_bytes(), b"\0"].concat())).collect();
            let group = statements.flat_map(executed).chain([(b'S', Vec::new())]).collect();
            for (said, answers) in [(&queries, queries.len()), (&group, 1)] {
                if reset == "discard all" && answers == 1 {
                    continue;
                }
                let mut raw = Raw::connect_with(&proxy, b"search_path\0began\0").await;
                raw.say(b'Q', b"set search_path to later\0").await;
                raw.whole_answer().await;
                let said: Vec<ToSay<'_>> = said.iter().map(|(tag, body)| (*tag, &body[..])).collect();
                raw.say_at_once(&said).await;
                assert_eq!(rows(&mut raw, answers).await, expected, "{reset}: {said:?}");
                assert_eq!(shown(&mut raw, SHOW).await, expected[expected.len() - 1], "{reset}: {said:?}");
                assert_eq!(value(&other, SHOW).await, "\"$user\", public", "{reset}: {said:?}");
            }
        }
    }
}

/// As it does when something about a table has changed, or was only counted anew.
#[tokio::test]
async fn a_statement_that_postgres_reads_again_is_not_read_by_the_settings_of_another() {
    let (_cluster, proxy) = with_connections(1);
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    one.batch_execute("create table t (a int); insert into t values (1)").await.unwrap();
    let sql = format!("{EPOCH} from t");
    let (of_one, of_other) = (one.prepare(&sql).await.unwrap(), other.prepare(&sql).await.unwrap());
    other.simple_query(TOKYO).await.unwrap();
    for change in ["analyze t", "alter table t add column b int"] {
        one.simple_query(change).await.unwrap();
        for (client, statement, expected) in [(&other, &of_other, IN_TOKYO), (&one, &of_one, IN_UTC)] {
            let row = client.query_one(statement, &[]).await.unwrap();
            assert_eq!(row.get::<_, i64>(0), expected, "{change}");
        }
    }
}

//! COPY FROM STDIN, whose Sync the server reads over.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, pin_mut};
use pgproxy::{Database, PoolMode};
use tokio::time::timeout;

use crate::cluster::{Cluster, signal};
use crate::proxy::{Proxy, of, start, value};
use crate::wire::Raw;

/// For an answer that would never come.
const PATIENCE: Duration = Duration::from_secs(10);

fn one_connection() -> (Cluster, Proxy) {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    (cluster, proxy)
}

/// After the error the server ignores everything until the client's Sync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_fails_while_data_is_sent_harms_nobody_else() {
    let (_cluster, proxy) = one_connection();
    let (client, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    client.simple_query("create table t (a int)").await.unwrap();
    for _ in 0..3 {
        let sink = client.copy_in::<_, Bytes>("copy t from stdin").await.unwrap();
        pin_mut!(sink);
        sink.send("not a number\n".into()).await.unwrap();
        for _ in 0..100 {
            sink.send("1\n".repeat(5_000).into()).await.unwrap();
        }
        assert_eq!(sink.finish().await.err().unwrap().code().unwrap().code(), "22P02");
        let count = timeout(PATIENCE, value(&other, "select count(*) from t"));
        assert_eq!(count.await.expect("no answer"), "0");
        assert_eq!(value(&client, "select 'usable'").await, "usable");
    }
}

/// Sends a COPY and reads until it takes data.
async fn begin_copy(raw: &mut Raw) {
    raw.say(b'P', b"\0copy t from stdin\0\0\0").await;
    raw.say(b'B', b"\0\0\0\0\0\0\0\0").await;
    raw.say(b'E', b"\0\0\0\0\0").await;
    raw.say(b'S', b"").await;
    for tag in *b"12G" {
        let said = raw.read().await;
        assert_eq!(said.0, tag, "{}", String::from_utf8_lossy(&said.1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_has_failed_keeps_its_connection_until_the_clients_sync() {
    let (_cluster, proxy) = one_connection();
    let (mut raw, mut other) = (Raw::connect(&proxy).await, proxy.connect().await.unwrap());
    other.simple_query("create table t (a int)").await.unwrap();
    for last in [b'f', b'c'] {
        begin_copy(&mut raw).await;
        raw.say(b'd', b"not a number\n").await;
        assert_eq!(raw.read().await.0, b'E');
        let waiting = tokio::spawn(async move {
            assert_eq!(value(&other, "select count(*) from t").await, "0");
            other
        });
        proxy.until(|db| db.waiting == 1).await;
        raw.say(b'd', b"1\n").await;
        raw.say(last, if last == b'f' { b"why\0" } else { b"" }).await;
        raw.say(b'S', b"").await;
        assert_eq!(raw.answer().await, "ZI");
        other = timeout(PATIENCE, waiting).await.expect("no answer").unwrap();
    }
}

/// The server has not read the first Sync when the COPY fails, and answers it: a ReadyForQuery more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_fails_before_it_reads_anything_leaves_no_answer_for_others() {
    let (cluster, proxy) = one_connection();
    let (mut raw, other) = (Raw::connect(&proxy).await, proxy.connect().await.unwrap());
    other.simple_query("create table t (a int)").await.unwrap();
    cluster.sql("create function no() returns trigger language plpgsql as 'begin raise ''no''; end'");
    cluster.sql("create trigger no before insert on t for each statement execute function no()");
    for _ in 0..20 {
        begin_copy(&mut raw).await;
        assert_eq!(raw.answer().await, "EZI");
        raw.say(b'f', b"why\0").await;
        raw.say(b'S', b"").await;
        assert_eq!(raw.answer().await, "ZI");
        assert_eq!(timeout(PATIENCE, value(&other, "select 'mine'")).await.expect("no answer"), "mine");
    }
}

/// Nothing of a COPY that is done may be taken for something under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_session_that_has_copied_does_not_notice_a_failover() {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_mode: PoolMode::Session, ..of(&cluster) });
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    let sink = client.copy_in::<_, Bytes>("copy t from stdin").await.unwrap();
    pin_mut!(sink);
    sink.send("1\n".into()).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 1);
    let pid = value(&client, "select pg_backend_pid()").await;
    signal("-TERM", pid.parse().unwrap());
    proxy.until(|db| db.servers == 0).await;
    assert_eq!(value(&client, "select count(*) from t").await, "1");
}

/// PostgreSQL has lost its place in the stream then, and says so.
#[tokio::test]
async fn a_request_within_the_data_of_a_copy_ends_the_session() {
    let cluster = Cluster::create();
    let proxy = start(of(&cluster));
    cluster.sql("create table t (a int); alter table t owner to app");
    for request in [(b'Q', &b"insert into t values (1)\0"[..]), (b'P', b"a\0select 1\0\0\0")] {
        let mut ends = Vec::new();
        for mut raw in [Raw::connect_directly(&cluster).await, Raw::connect(&proxy).await] {
            raw.say_at_once(&[(b'Q', b"copy t from stdin\0"), request]).await;
            ends.push(timeout(PATIENCE, raw.rest_after(async || {})).await.expect("no end"));
        }
        assert_eq!(ends[0].escape_ascii().to_string(), ends[1].escape_ascii().to_string());
    }
}

/// Whose answer is waited for.
#[tokio::test]
async fn a_copy_behind_a_deallocate_all_gets_its_data() {
    const UNNAMED: [(u8, &[u8]); 2] = [(b'B', b"\0\0\0\0\0\0\0\0"), (b'E', b"\0\0\0\0\0")];
    const DATA: [(u8, &[u8]); 2] = [(b'd', b"1\n"), (b'c', b"")];
    let cluster = Cluster::create();
    let proxy = start(of(&cluster));
    cluster.sql("create table t (a int); alter table t owner to app");
    let mut raw = Raw::connect(&proxy).await;
    let deallocate: (u8, &[u8]) = (b'P', b"\0deallocate all\0\0\0");
    let copy: (u8, &[u8]) = (b'P', b"\0copy t from stdin\0\0\0");
    let group = [&[deallocate][..], &UNNAMED, &[copy], &UNNAMED, &DATA, &[(b'S', b"")]].concat();
    let query = [&[(b'Q', &b"deallocate all; copy t from stdin\0"[..])][..], &DATA].concat();
    for (said, expected) in [(group, "12C12GCZI"), (query, "CGCZI")] {
        raw.say_at_once(&said).await;
        assert_eq!(timeout(PATIENCE, raw.answer()).await.expect("no answer"), expected);
    }
}

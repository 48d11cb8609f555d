//! Many clients on few connections, none of which may notice the others.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt, pin_mut};
use pgproxy::{Database, PoolMode};

use crate::cluster::Cluster;
use crate::proxy::{Proxy, of, running, sqlstate, start, value};
use crate::wire::{Message, Raw};

const PID: &str = "select pg_backend_pid()";

fn one_connection() -> (Cluster, Proxy) {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    (cluster, proxy)
}

#[tokio::test]
async fn clients_share_a_connection_between_transactions_and_keep_it_within() {
    let (_cluster, proxy) = one_connection();
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    assert_eq!(value(&one, PID).await, value(&other, PID).await);

    one.simple_query("begin").await.unwrap();
    let waiting = tokio::spawn(async move { value(&other, "select 'after'").await });
    proxy.until(|db| db.waiting == 1).await;
    one.simple_query("commit").await.unwrap();
    assert_eq!(waiting.await.unwrap(), "after");
}

#[tokio::test]
async fn whoever_queues_too_long_is_told_why_and_stays_connected() {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, queue_wait_ms: 50, max_queue: 1, ..of(&cluster) });
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    one.simple_query("begin").await.unwrap();
    assert_eq!(sqlstate(&other, "select 1").await, "53300");
    let error = other.query("select 1", &[]).await.err().unwrap();
    assert!(error.as_db_error().unwrap().hint().unwrap().contains("pool size"));
    one.simple_query("commit").await.unwrap();
    assert_eq!(value(&other, "select 1").await, "1");
}

#[tokio::test]
async fn what_clients_say_and_are_told_is_counted_in_bytes() {
    const SQL: &str = "select repeat('x', 100000)";
    let (_cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    let before = proxy.db();
    client.simple_query(SQL).await.unwrap();
    proxy.until(|db| db.sent_bytes_total >= before.sent_bytes_total + 100_000).await;
    let db = proxy.db();
    let message = 5 + SQL.len() as u64 + 1;
    assert_eq!(db.received_bytes_total, before.received_bytes_total + message);
    // With what it was told when it came in.
    assert!(db.sent_bytes_total < before.sent_bytes_total + 102_000, "{db:?}");
}

/// What a plain SET does is carried; what cannot be carried keeps the connection.
#[tokio::test]
async fn a_session_keeps_its_state_on_shared_connections() {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 2, ..of(&cluster) });
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    one.simple_query("set search_path to one, public").await.unwrap();
    other.execute("set search_path to other", &[]).await.unwrap();
    for _ in 0..3 {
        assert_eq!(value(&one, "show search_path").await, "one, public");
        assert_eq!(value(&other, "show search_path").await, "other");
    }
    assert!(proxy.db().servers <= 2);

    one.simple_query("create temp table mine (a int)").await.unwrap();
    one.simple_query("insert into mine values (1)").await.unwrap();
    let pid = value(&one, PID).await;
    for _ in 0..3 {
        assert_eq!(value(&one, "select count(*) from mine").await, "1");
        assert_ne!(value(&other, PID).await, pid);
    }
    // Once it has left, nothing of it is left.
    drop(one);
    proxy.until(|db| db.clients == 1).await;
    proxy.until(|db| db.servers == db.servers_idle).await;
    for _ in 0..3 {
        assert_eq!(sqlstate(&other, "select * from mine").await, "42P01");
    }
}

#[tokio::test]
async fn a_setting_that_is_reset_is_what_the_session_began_with() {
    let (_cluster, proxy) = one_connection();
    let url = format!("{}?application_name=shop&options=-c%20work_mem%3D7MB", proxy.url());
    let client = proxy.connect_with(&url).await.unwrap();
    // Then on a connection of its own.
    for before in ["select 1", "create temp table mine (a int)"] {
        client.simple_query(before).await.unwrap();
        for reset in ["reset work_mem", "set work_mem to default", "reset all"] {
            client.simple_query("set work_mem to '9MB'").await.unwrap();
            assert_eq!(value(&client, "show work_mem").await, "9MB");
            client.simple_query(reset).await.unwrap();
            assert_eq!(value(&client, "show work_mem").await, "7MB", "{before}, {reset}");
        }
        client.simple_query("set statement_timeout to 1234").await.unwrap();
        client.simple_query("reset statement_timeout").await.unwrap();
        assert_eq!(value(&client, "show statement_timeout").await, "0");
    }
    client.simple_query("drop table mine").await.unwrap();
    client.simple_query("discard all").await.unwrap();
    assert_eq!(value(&proxy.connect().await.unwrap(), "show work_mem").await, "4MB");
}

/// On a connection of its own the proxy sets it again, and what PostgreSQL says meanwhile is for the client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgres_tells_a_client_while_its_settings_are_set_again_is_told() {
    const NOTIFICATIONS: usize = 100;
    let (_cluster, proxy) = running();
    let other = proxy.connect().await.unwrap();
    let mut raw = Raw::connect_with(&proxy, b"TimeZone\0Asia/Tokyo\0").await;
    raw.say(b'Q', b"listen news\0").await;
    let mut told = raw.whole_answer().await;
    for n in 0..NOTIFICATIONS {
        let news = format!("notify news, '{n}'");
        let set_and_reset = async {
            for query in [&b"set timezone to 'Europe/Berlin'\0"[..], b"reset timezone\0"] {
                raw.say(b'Q', query).await;
                told.extend(raw.whole_answer().await);
            }
        };
        let (_, notified) = tokio::join!(set_and_reset, other.simple_query(&news));
        notified.unwrap();
    }
    raw.say(b'Q', b"select pg_sleep(0.1)\0").await;
    told.extend(raw.whole_answer().await);
    raw.say(b'Q', b"show timezone\0").await;
    told.extend(raw.whole_answer().await);
    let said = |tag: u8, part: &[u8]| -> Vec<Message> {
        let is_it = |(is, body): &&Message| *is == tag && body.windows(part.len()).any(|text| text == part);
        told.iter().filter(is_it).cloned().collect()
    };
    assert_eq!(said(b'A', b"news").len(), NOTIFICATIONS);
    let timezone = said(b'S', b"TimeZone").pop().unwrap().1;
    assert_eq!(timezone.escape_ascii().to_string(), "TimeZone\\x00Asia/Tokyo\\x00");
}

/// Django says it so for each of its connections.
#[tokio::test]
async fn a_setting_that_is_set_by_a_function_is_carried_as_one_that_is_set() {
    let (_cluster, proxy) = one_connection();
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    let set = "select set_config('TimeZone', 'Asia/Tokyo', false)";
    assert_eq!(value(&one, set).await, "Asia/Tokyo");
    other.query("select set_config('TimeZone', 'Africa/Cairo', false)", &[]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(value(&one, "show timezone").await, "Asia/Tokyo");
        assert_eq!(value(&other, "show timezone").await, "Africa/Cairo");
    }
    other.simple_query("begin").await.unwrap();
    other.simple_query(set).await.unwrap();
    other.simple_query("rollback").await.unwrap();
    assert_eq!(value(&other, "show timezone").await, "Africa/Cairo");
}

/// Sequelize begins its connections with several at once, and asyncpg's pool clears them each time they are given back.
#[tokio::test]
async fn several_settings_at_once_and_what_clears_them_leave_a_session_free_to_move() {
    let (_cluster, proxy) = one_connection();
    let (one, other) = (
        proxy.connect_with(&format!("{}?options=-cwork_mem%3D7MB", proxy.url())).await.unwrap(),
        proxy.connect().await.unwrap(),
    );
    one.simple_query("SET client_min_messages TO warning;SET TIME ZONE INTERVAL '+03:00' HOUR TO MINUTE;")
        .await
        .unwrap();
    for _ in 0..2 {
        assert_eq!(value(&one, "show timezone").await, "<+03>-03");
        assert_eq!(value(&one, "show client_min_messages").await, "warning");
        assert_ne!(value(&other, "show timezone").await, "<+03>-03");
        assert_eq!(value(&other, "show client_min_messages").await, "notice");
    }
    // One that fails takes those before it back.
    assert_eq!(sqlstate(&one, "set work_mem to '9MB'; set client_min_messages to nonsense").await, "22023");
    assert_eq!(value(&one, "show work_mem").await, "7MB");
    one.simple_query("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;").await.unwrap();
    for _ in 0..2 {
        assert_eq!(value(&one, "show client_min_messages").await, "notice");
        assert_eq!(value(&one, "show work_mem").await, "7MB");
        assert_eq!(value(&other, "show work_mem").await, "4MB");
    }
}

#[tokio::test]
async fn discard_all_gives_a_pinned_connection_back() {
    let (_cluster, proxy) = one_connection();
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    one.simple_query("select set_config('a.b', 'mine', false)").await.unwrap();
    assert_eq!(value(&one, "select current_setting('a.b')").await, "mine");
    one.simple_query("discard all").await.unwrap();
    assert_eq!(value(&other, "select current_setting('a.b', true)").await, "");
}

#[tokio::test]
async fn in_session_mode_a_connection_is_kept_and_given_back_clean() {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, pool_mode: PoolMode::Session, ..of(&cluster) });
    let one = proxy.connect().await.unwrap();
    one.simple_query("set work_mem to '7MB'").await.unwrap();
    one.simple_query("prepare p as select 1").await.unwrap();
    let other = proxy.connect().await.unwrap();
    let waiting =
        tokio::spawn(
            async move { (value(&other, "show work_mem").await, sqlstate(&other, "execute p").await) },
        );
    proxy.until(|db| db.waiting == 1).await;
    drop(one);
    assert_eq!(waiting.await.unwrap(), ("4MB".to_owned(), "26000".to_owned()));
}

#[tokio::test]
async fn notifications_reach_whoever_listens() {
    let (_cluster, proxy) = running();
    let (client, mut connection) =
        tokio_postgres::connect(&proxy.url(), tokio_postgres::NoTls).await.unwrap();
    let heard = tokio::spawn(async move {
        loop {
            let message = std::future::poll_fn(|cx| connection.poll_message(cx)).await.unwrap().unwrap();
            if let tokio_postgres::AsyncMessage::Notification(notification) = message {
                return notification.payload().to_owned();
            }
        }
    });
    client.simple_query("listen news").await.unwrap();
    proxy.connect().await.unwrap().simple_query("notify news, 'hello'").await.unwrap();
    assert_eq!(heard.await.unwrap(), "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_goes_both_ways_and_an_error_in_it_leaves_the_session_usable() {
    let (cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int, b text)").await.unwrap();
    for _ in 0..2 {
        let sink = client.copy_in("copy t from stdin").await.unwrap();
        pin_mut!(sink);
        for n in 0..2_000 {
            sink.send(bytes::Bytes::from(format!("{n}\t{}\n", "x".repeat(1_000)))).await.unwrap();
        }
        assert_eq!(sink.finish().await.unwrap(), 2_000);
    }
    let stream = client.copy_out("copy t to stdout").await.unwrap();
    pin_mut!(stream);
    let mut bytes = 0;
    while let Some(chunk) = stream.next().await {
        bytes += chunk.unwrap().len();
    }
    assert!(bytes > 4_000_000);

    let sink = client.copy_in::<_, bytes::Bytes>("copy t from stdin").await.unwrap();
    pin_mut!(sink);
    sink.send("not a number\n".into()).await.unwrap();
    assert_eq!(sink.finish().await.err().unwrap().code().unwrap().code(), "22P02");
    assert_eq!(value(&client, "select count(*) from t").await, "4000");
    proxy.until(|db| db.servers == db.servers_idle).await;
    drop(cluster);
}

#[tokio::test]
async fn a_client_that_vanishes_in_a_transaction_or_a_copy_leaves_nothing_behind() {
    let (_cluster, proxy) = one_connection();
    let watcher = proxy.connect().await.unwrap();
    watcher.simple_query("create table t (a int)").await.unwrap();
    let client = proxy.connect().await.unwrap();
    client.simple_query("begin; insert into t values (1)").await.unwrap();
    drop(client);
    assert_eq!(value(&watcher, "select count(*) from t").await, "0");

    let (client, connection) = tokio_postgres::connect(&proxy.url(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sink = Box::pin(client.copy_in::<_, bytes::Bytes>("copy t from stdin").await.unwrap());
    sink.send("1\n".into()).await.unwrap();
    proxy.until(|db| db.servers > db.servers_idle).await;
    connection.abort();
    assert_eq!(value(&watcher, "select count(*) from t").await, "0");
}

/// A client that does not read must cost neither memory nor the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_of_any_size_passes_in_bounded_memory() {
    let (_cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    let rows = client
        .query_raw("select repeat('x', 1000) from generate_series(1, 200000)", Vec::<i32>::new())
        .await
        .unwrap();
    pin_mut!(rows);
    let before = resident_bytes();
    // Nothing is read for a while; what was sent waits in the kernel and at the server.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut count = 0;
    while let Some(row) = rows.next().await {
        row.unwrap();
        count += 1;
        if count == 100 {
            assert!(resident_bytes() < before + 50_000_000, "the proxy holds the result");
        }
    }
    assert_eq!(count, 200_000);
    let wide = client.query_one("select repeat('y', 50000000)", &[]).await.unwrap();
    assert_eq!(wide.get::<_, &str>(0).len(), 50_000_000);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

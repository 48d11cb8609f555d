//! What was under way on a replica that is lost, and is run elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pgproxy::NodeState;

use crate::cluster::Cluster;
use crate::proxy::{of, sqlstate, start, value, within};
use crate::reads::{OTHER, REPLICA, SCHEMA, WHERE, reads, split, split_in_two, until_reads_land};
use crate::wire::Raw;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_killed_under_reads_is_not_noticed_and_comes_back() {
    let (_primary, mut replica, proxy) = split_in_two().await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let mut readers = Vec::new();
    for _ in 0..6 {
        let client = proxy.connect().await.unwrap();
        let (stop, done) = (stop.clone(), done.clone());
        readers.push(tokio::spawn(async move {
            let wide = "select repeat('x', 100), n from generate_series(1, 100) n, t";
            while !stop.load(Relaxed) {
                assert_eq!(client.query(wide, &[]).await.unwrap().len(), 100);
                client.simple_query("begin read only").await.unwrap();
                assert_eq!(value(&client, "select count(*) from t").await, "1");
                client.simple_query("commit").await.unwrap();
                done.fetch_add(1, Relaxed);
            }
        }));
    }
    for _ in 0..2 {
        let before = reads(&proxy);
        proxy.until(|_| reads(&proxy) > before + 50).await;
        replica = tokio::task::spawn_blocking(move || {
            replica.kill();
            replica
        })
        .await
        .unwrap();
        proxy.until(|db| db.nodes[REPLICA].state == NodeState::Unreachable).await;
        let before = done.load(Relaxed);
        within("the readers go on", async {
            while done.load(Relaxed) < before + 50 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        replica = tokio::task::spawn_blocking(move || {
            replica.start();
            replica
        })
        .await
        .unwrap();
        proxy.until(|db| db.nodes[REPLICA].state == NodeState::Serving).await;
    }
    stop.store(true, Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    until_reads_land(&proxy.connect().await.unwrap()).await;
}

/// Nothing was written, so it still counts as fresh when the read is sent there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hangs_is_left_and_its_reads_run_elsewhere() {
    let (_primary, replica, proxy) = split().await;
    let client = proxy.connect().await.unwrap();
    replica.signal("-STOP");
    for _ in 0..3 {
        assert_eq!(value(&client, WHERE).await, "f");
    }
    proxy.until(|db| db.nodes[REPLICA].state == NodeState::Unreachable).await;
    replica.signal("-CONT");
    until_reads_land(&client).await;
}

const END_IDLE_BLOCKS: &str =
    "select pg_terminate_backend(pid) from pg_stat_activity where state = 'idle in transaction'";

/// The error is ours and no answer of a replica that would be withheld.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_on_a_lost_replica_that_reads_otherwise_elsewhere_is_to_be_run_again() {
    let (_primary, replica, proxy) = split_in_two().await;
    proxy.until(|db| [REPLICA, OTHER].iter().all(|node| db.nodes[*node].state == NodeState::Serving)).await;
    let client = proxy.connect().await.unwrap();
    client.simple_query("begin read only").await.unwrap();
    assert_eq!(value(&client, WHERE).await, "t");
    value(&client, "select now()").await;
    replica.sql(END_IDLE_BLOCKS);
    assert_eq!(within("an answer", sqlstate(&client, "select 1")).await, "40001");
    client.simple_query("rollback").await.unwrap();
    assert_eq!(value(&client, "select 2").await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_transaction_that_was_run_again_on_another_replica_is_given_its_place() {
    let (primary, replica, proxy) = split_in_two().await;
    proxy.until(|db| [REPLICA, OTHER].iter().all(|node| db.nodes[*node].state == NodeState::Serving)).await;
    let client = proxy.connect().await.unwrap();
    let before = reads(&proxy);
    client.simple_query("begin read only").await.unwrap();
    assert_eq!(value(&client, "select a from t where id = 1").await, "0");
    assert!(reads(&proxy) > before);
    replica.sql(END_IDLE_BLOCKS);
    proxy.until(|db| db.replays_total == 1).await;
    client.simple_query("select pg_advisory_lock(7)").await.unwrap();
    let locks = "select count(*) from pg_locks where locktype = 'advisory'";
    assert_eq!((primary.sql(locks), replica.sql(locks)), ("1".to_owned(), "0".to_owned()));
}

/// The one that was there when it was sent, and not the one that a request behind it has put in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_run_again_binds_the_unnamed_statement_that_it_was_sent_for() {
    const BIND: &[u8] = &[0; 8];
    const EXECUTE: &[u8] = &[0; 5];
    let primary = Cluster::create();
    let proxy = start(of(&primary));
    proxy.connect().await.unwrap().batch_execute(SCHEMA).await.unwrap();
    let mut client = Raw::connect(&proxy).await;
    client.say_at_once(&[(b'P', b"\0select 'first' from t\0\0\0"), (b'S', b"")]).await;
    assert_eq!(client.answer().await, "1ZI");
    let locker = proxy.connect().await.unwrap();
    locker.batch_execute("begin; lock table t").await.unwrap();
    let group = [(b'B', BIND), (b'E', EXECUTE), (b'S', &[][..])];
    client.say_at_once(&group).await;
    client.say_at_once(&[(b'P', b"\0select 'second'\0\0\0")]).await;
    client.say_at_once(&group).await;
    let waits = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'";
    within("it waits, and is ended", async {
        while primary.sql(waits) != "t" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    locker.batch_execute("commit").await.unwrap();
    let row = |answer: Vec<crate::wire::Message>| {
        let row = answer.into_iter().find(|(tag, _)| *tag == b'D').expect("a row").1;
        String::from_utf8(row[6..].to_vec()).unwrap()
    };
    assert_eq!(row(client.whole_answer().await), "first");
    assert_eq!(row(client.whole_answer().await), "second");
    assert_eq!(proxy.db().replays_total, 1);
}

//! Reads that begin after somebody was shown something, by whatever node, over whatever connection.

use std::time::Duration;

use freshness::Freshness;
use pgproxy::{NodeState, Role};
use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::proxy::{Proxy, config, value, within};
use crate::reads::{
    OTHER, WHERE, node, reads, split, split_in_two, split_with, until_reads_land, with_replica,
};

/// A proxy with a second replica, whose replay stands still. Of each replica one client at a time can be served, and none
/// is waited for.
async fn one_of_two_stands_still() -> (Cluster, Cluster, Cluster, Proxy) {
    let (primary, replica, proxy) = split().await;
    let other = primary.standby();
    let mut database = with_replica(&primary, &replica);
    database.nodes.insert(OTHER.to_owned(), node(&other, Role::ReadReplica));
    (database.pool_size, database.read_wait_ms) = (1, 1);
    proxy.handle.configure(config(2, database)).unwrap();
    proxy.until(|db| db.nodes[OTHER].state == NodeState::Serving).await;
    other.sql("select pg_wal_replay_pause()");
    (primary, replica, other, proxy)
}

/// Changed by nobody that the proxy knows, and read as soon as it is there.
async fn until_it_reads_7(client: &Client, primary: &Cluster) {
    primary.sql("update t set a = 7 where id = 1");
    within("7 is read on a replica", async {
        while value(client, "select a || ' ' || standby() from t where id = 1").await != "7 true" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_has_read_on_one_replica_it_does_not_miss_on_another() {
    let (primary, _replica, _other, proxy) = one_of_two_stands_still().await;
    let (reader, keeper) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    until_it_reads_7(&reader, &primary).await;
    // No connection to that replica is left; the other is reachable, and within the bound on its lag.
    keeper.simple_query("begin read only").await.unwrap();
    assert_eq!(value(&keeper, WHERE).await, "t");
    assert_eq!(value(&reader, "select a from t where id = 1").await, "7");
}

/// An app reads for one user over any of its connections, by any protocol, and also within a transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_anybody_has_read_on_one_replica_nobody_misses_on_another() {
    const READ: &str = "select a from t where id = 1";
    let (primary, _replica, other, proxy) = one_of_two_stands_still().await;
    let (reader, keeper) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    let (simple, extended) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    let in_block = proxy.connect().await.unwrap();
    until_it_reads_7(&reader, &primary).await;
    keeper.simple_query("begin read only").await.unwrap();
    assert_eq!(value(&keeper, WHERE).await, "t");
    let on_other = || proxy.db().nodes[OTHER].statements_total["read"];
    let before = on_other();
    for _ in 0..5 {
        assert_eq!(value(&simple, READ).await, "7");
        assert_eq!(extended.query_one(READ, &[]).await.unwrap().get::<_, i32>(0), 7);
        in_block.simple_query("begin read only").await.unwrap();
        assert_eq!(value(&in_block, READ).await, "7");
        in_block.simple_query("commit").await.unwrap();
    }
    assert_eq!(on_other(), before);
    // Where it has come as far, it is as good.
    other.sql("select pg_wal_replay_resume()");
    until_reads_land(&simple).await;
    assert!(on_other() > before);
    assert_eq!(value(&simple, READ).await, "7");
}

/// What the primary has shown a replica may lack, whoever wrote it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_anybody_has_read_on_the_primary_nobody_misses_on_a_replica() {
    let (primary, replica, proxy) = split_with(|database| database.read_wait_ms = 10).await;
    let (reader, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    replica.sql("select pg_wal_replay_pause()");
    primary.sql("update t set a = 7 where id = 1");
    // To whom nothing newer was shown, the replica may show what was there.
    assert_eq!(value(&other, "select a || ' ' || standby() from t where id = 1").await, "0 true");
    assert_eq!(value(&reader, "select a from t where id = 1 for share").await, "7");
    assert_eq!(value(&other, "select a || ' ' || standby() from t where id = 1").await, "7 false");
    replica.sql("select pg_wal_replay_resume()");
    until_reads_land(&other).await;
    assert_eq!(value(&other, "select a || ' ' || standby() from t where id = 1").await, "7 true");
}

/// A database that was restored has a shorter log than the one from which reads were shown something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ends_before_what_was_shown_does_not_hold_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let marks = folder.path().join("db.marks");
    Freshness::create(&marks).unwrap().show(u64::MAX);
    // Only then a read lands on the replica.
    let (primary, _replica, _proxy) = split_with(|database| database.freshness = Some(marks.clone())).await;
    let end: u64 = primary.sql("select pg_current_wal_lsn() - '0/0'").parse().unwrap();
    assert!(Freshness::open(&marks).unwrap().shown() <= end);
}

/// It is asked in the transaction of the client's own, and its error ends that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_in_which_a_replica_can_not_say_how_far_it_is_goes_on() {
    let (_primary, _replica, proxy) = split_in_two().await;
    let client = proxy.connect().await.unwrap();
    // Unseen in a function, it takes the question away, which then fails for certain.
    let functions = "create function forget() returns int language plpgsql as
             $$ begin execute 'deallocate all'; return 1; end $$;
         create function forgetful() returns int stable language plpgsql as $$ begin return forget(); end $$;
         create function known() returns int stable language sql as 'select 1'";
    client.simple_query(functions).await.unwrap();
    within("what they do is known", async {
        while value(&client, "select standby(), known()").await != "t" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let before = reads(&proxy);
    client.simple_query("begin read only").await.unwrap();
    assert_eq!(value(&client, "select forgetful()").await, "1");
    assert!(reads(&proxy) > before, "it was asked of a replica");
    assert_eq!(value(&client, "select a from t where id = 1").await, "0");
    client.simple_query("commit").await.unwrap();
}

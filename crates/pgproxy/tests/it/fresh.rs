//! What reads on a replica find, which is behind the primary or follows the next one.

use std::time::Duration;

use pgproxy::{Database, DatabaseStatus, NodeState};

use crate::cluster::Cluster;
use crate::proxy::{config, start, value, within};
use crate::reads::{REPLICA, SCHEMA, WHERE, reads, split, split_with, until_reads_land, with_replica};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lags_serves_nobody_until_it_has_caught_up() {
    let (_primary, replica, proxy) = split_with(|database| {
        database.max_replica_lag_ms = 500;
        database.read_wait_ms = 10;
    })
    .await;
    let client = proxy.connect().await.unwrap();
    replica.sql("select pg_wal_replay_pause()");
    client.simple_query("insert into t values (2)").await.unwrap();
    let lags = |db: &DatabaseStatus| db.nodes[REPLICA].state == NodeState::Lagging;
    proxy.until(|db| lags(db) && db.nodes[REPLICA].lag_bytes > Some(0)).await;
    let other = proxy.connect().await.unwrap();
    assert_eq!(value(&other, WHERE).await, "f");
    replica.sql("select pg_wal_replay_resume()");
    proxy.until(|db| db.nodes[REPLICA].state == NodeState::Serving).await;
    until_reads_land(&other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_sees_what_it_has_written_while_replay_stands_still() {
    let (_primary, replica, proxy) = split_with(|database| database.read_wait_ms = 10).await;
    let (client, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    replica.sql("select pg_wal_replay_pause()");
    for a in 1..=20 {
        client.execute("update t set a = $1 where id = 1", &[&a]).await.unwrap();
        assert_eq!(value(&client, "select a from t where id = 1").await, a.to_string());
    }
    client.simple_query("begin; update t set a = 21 where id = 1; commit").await.unwrap();
    assert_eq!(value(&client, "select a from t where id = 1").await, "21");
    assert!(proxy.db().reads_too_late_total > 0);
    // It was read as well, on the primary, so nobody may see what was there before.
    assert_eq!(value(&other, "select a || ' ' || standby() from t where id = 1").await, "21 false");
    replica.sql("select pg_wal_replay_resume()");
    until_reads_land(&client).await;
    assert_eq!(value(&client, "select a || ' ' || standby() from t where id = 1").await, "21 true");
}

/// Each client writes and reads its own row, again and again: it must never see an older one, and yet most reads must
/// come from the replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_own_write_is_ever_missed_by_reads_on_a_replica() {
    const CLIENTS: i32 = 4;
    const PAIRS: i32 = 250;
    let (_primary, _replica, proxy) = split().await;
    let before = reads(&proxy);
    let mut clients = Vec::new();
    for id in 1..=CLIENTS {
        let client = proxy.connect().await.unwrap();
        clients.push(tokio::spawn(async move {
            client.execute("insert into t values ($1) on conflict do nothing", &[&id]).await.unwrap();
            let write = client.prepare("update t set a = $2 where id = $1").await.unwrap();
            let read = client.prepare("select a from t where id = $1").await.unwrap();
            for a in 1..=PAIRS {
                client.execute(&write, &[&id, &a]).await.unwrap();
                assert_eq!(
                    client.query_one(&read, &[&id]).await.unwrap().get::<_, i32>(0),
                    a,
                    "a stale read"
                );
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    // How many is measured elsewhere: on a busy machine the replica may be too late for some.
    assert!(reads(&proxy) > before, "no read was on the replica");
}

/// While nobody is the primary, reads go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_do_not_pause_while_the_primary_changes() {
    let mut primary = Cluster::create();
    let (standby, replica) = (primary.standby(), primary.standby());
    let proxy = start(with_replica(&primary, &replica));
    let (client, writer) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    client.simple_query(SCHEMA).await.unwrap();
    until_reads_land(&client).await;
    let synced =
        format!("select pg_last_wal_replay_lsn() >= '{}'", primary.sql("select pg_current_wal_lsn()"));
    within("the standby has it", async {
        while standby.sql(&synced) != "t" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    primary.kill();
    for _ in 0..20 {
        assert_eq!(value(&client, WHERE).await, "t");
    }
    let write = tokio::spawn(async move {
        writer.simple_query("update t set a = 8 where id = 1").await.unwrap();
        (value(&writer, "select a from t where id = 1").await, writer)
    });
    proxy.until(|db| db.waiting == 1).await;
    standby.promote();
    replica.sql(&format!("alter system set primary_conninfo = '{}'", standby.conninfo()));
    replica.sql("select pg_reload_conf()");
    assert_eq!(value(&client, WHERE).await, "t");
    let database = Database { epoch: 2, ..with_replica(&standby, &replica) };
    proxy.handle.configure(config(2, database)).unwrap();
    let (seen, writer) = write.await.unwrap();
    assert_eq!(seen, "8");
    until_reads_land(&writer).await;
    assert_eq!(value(&writer, "select a || ' ' || standby() from t where id = 1").await, "8 true");
}

/// It lived on without its primary and is ahead of the next one, which never had what it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_does_not_follow_the_new_primary_is_not_taken_for_fresh() {
    let mut primary = Cluster::create();
    let (mut standby, replica) = (primary.standby(), primary.standby());
    let proxy = start(with_replica(&primary, &replica));
    let client = proxy.connect().await.unwrap();
    client.simple_query(SCHEMA).await.unwrap();
    until_reads_land(&client).await;
    let end = primary.sql("select pg_current_wal_lsn()");
    within("the standby has it", async {
        while standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{end}'")) != "t" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    standby.stop();
    // Megabytes that only the replica gets.
    primary.sql("create table lost as select repeat('x', 1000) from generate_series(1, 20000)");
    let end = primary.sql("select pg_current_wal_lsn()");
    within("the replica has it", async {
        while replica.sql(&format!("select pg_last_wal_replay_lsn() >= '{end}'")) != "t" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    primary.kill();
    standby.start();
    standby.promote();
    let database = Database { epoch: 2, ..with_replica(&standby, &replica) };
    proxy.handle.configure(config(2, database)).unwrap();
    for a in 1..=10 {
        client.execute("update t set a = $1 where id = 1", &[&a]).await.unwrap();
        assert_eq!(
            value(&client, "select a || ' ' || standby() from t where id = 1").await,
            format!("{a} false")
        );
    }
}

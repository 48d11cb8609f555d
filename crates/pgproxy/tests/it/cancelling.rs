//! A cancel request finds its client: one that waits, and one that another process serves.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgproxy::{Database, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::cluster::{Cluster, signal};
use crate::failover::{
    move_to, pair, take_over, until_it_waits_for_the_standby, until_the_standby_has_what_waits_for_it,
};
use crate::proxy::{Proxy, config, of, sqlstate, start, value, within};

const CANCELLED: &str = "57014";

/// Runs `sql` elsewhere, and gives the client back with the SQLSTATE that it failed with.
fn failing(client: Client, sql: &'static str) -> JoinHandle<(Client, String)> {
    tokio::spawn(async move {
        let state = sqlstate(&client, sql).await;
        (client, state)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_in_the_queue_can_be_cancelled_and_goes_on() {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    let holder = proxy.connect().await.unwrap();
    holder.batch_execute("begin").await.unwrap();
    let client = proxy.connect().await.unwrap();
    let cancel = client.cancel_token();
    let waiting = failing(client, "select 1");
    proxy.until(|db| db.waiting == 1).await;

    cancel.cancel_query(NoTls).await.unwrap();
    let (client, state) = waiting.await.unwrap();
    assert_eq!(state, CANCELLED);
    proxy.until(|db| db.waiting == 0).await;
    // It has left the queue, and one that comes when nothing is waited for cancels nothing.
    cancel.cancel_query(NoTls).await.unwrap();
    holder.batch_execute("commit").await.unwrap();
    assert_eq!(value(&client, "select 2").await, "2");
    assert_eq!(value(&holder, "select 3").await, "3");
}

/// As most drivers ask: what follows up to the Sync is passed over, and then the session is as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_statement_that_waits_is_cancelled_and_can_be_run_after() {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    let client = proxy.connect().await.unwrap();
    let doubled = client.prepare("select 2 * $1::int").await.unwrap();
    let holder = proxy.connect().await.unwrap();
    holder.batch_execute("begin").await.unwrap();
    let cancel = client.cancel_token();
    let waiting = tokio::spawn(async move {
        let failed = client.query(&doubled, &[&3]).await.err().unwrap();
        (client, doubled, failed)
    });
    proxy.until(|db| db.waiting == 1).await;
    cancel.cancel_query(NoTls).await.unwrap();
    let (client, doubled, failed) = waiting.await.unwrap();
    assert_eq!(failed.code().unwrap().code(), CANCELLED);
    holder.batch_execute("commit").await.unwrap();
    let six: i32 = client.query_one(&doubled, &[&3]).await.unwrap().get(0);
    assert_eq!(six, 6);
}

fn hold(proxy: &Proxy, cluster: &Cluster, generation: u64) {
    let mut database = of(cluster);
    database.nodes.values_mut().for_each(|node| node.role = Role::Standby);
    proxy.handle.configure(config(generation, database)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_held_because_there_is_no_primary_can_be_cancelled() {
    let cluster = Cluster::create();
    let proxy = start(of(&cluster));
    let client = proxy.connect().await.unwrap();
    assert_eq!(value(&client, "select 1").await, "1");
    hold(&proxy, &cluster, 2);
    let cancel = client.cancel_token();
    let waiting = failing(client, "select 2");
    proxy.until(|db| db.waiting == 1).await;
    cancel.cancel_query(NoTls).await.unwrap();
    let (client, state) = waiting.await.unwrap();
    assert_eq!(state, CANCELLED);
    proxy.handle.configure(config(3, of(&cluster))).unwrap();
    assert_eq!(value(&client, "select 3").await, "3");
}

/// Nothing of it is done, and the client knows: its block has failed as a cancelled statement makes it fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_waits_to_be_run_again_is_cancelled_as_a_whole() {
    let (mut primary, standby, proxy) = pair();
    primary.sql("set role app; create table t (a int)");
    let client = proxy.connect().await.unwrap();
    client.batch_execute("begin").await.unwrap();
    client.batch_execute("insert into t values (1)").await.unwrap();
    primary.kill();
    let cancel = client.cancel_token();
    let waiting = failing(client, "insert into t values (2)");
    proxy.until(|db| db.held == 1 && db.waiting == 1).await;
    cancel.cancel_query(NoTls).await.unwrap();
    let (client, state) = waiting.await.unwrap();
    assert_eq!(state, CANCELLED);
    take_over(&standby);
    move_to(&proxy, &standby, 2);
    assert_eq!(sqlstate(&client, "select 1").await, "25P02", "the block has failed");
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(value(&client, "select count(*) from t").await, "0");
}

/// Whether it was done cannot be asked before there is a primary again: neither an acknowledgement nor a plain error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_fate_is_waited_for_is_of_unknown_outcome_when_it_is_cancelled() {
    let (mut primary, standby, proxy) = pair();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    let receiver = primary.sql("select pid from pg_stat_replication").parse().unwrap();
    signal("-STOP", receiver);
    let cancel = client.cancel_token();
    client.batch_execute("begin; insert into t values (1)").await.unwrap();
    let waiting = failing(client, "commit");
    until_it_waits_for_the_standby(&primary).await;
    primary.kill();
    proxy.until(|db| db.held == 1 && db.waiting == 1).await;
    cancel.cancel_query(NoTls).await.unwrap();
    let (client, state) = waiting.await.unwrap();
    assert_eq!(state, "08007");
    take_over(&standby);
    move_to(&proxy, &standby, 2);
    assert_eq!(value(&client, "select count(*) from t").await, "0");
}

/// The next primary has the commit, and nobody but it: that it is asked for does not make it one that all will know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_only_the_next_primary_has_is_not_acknowledged_because_the_question_is_cancelled() {
    let (mut primary, standby, proxy) = pair();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    client.simple_query("set synchronous_commit to 'remote_apply'").await.unwrap();
    standby.sql("select pg_wal_replay_pause()");
    let cancel = client.cancel_token();
    client.simple_query("begin").await.unwrap();
    client.simple_query("insert into t values (1)").await.unwrap();
    let commit = failing(client, "commit");
    until_the_standby_has_what_waits_for_it(&primary, &standby).await;
    primary.kill();
    standby.sql("select pg_wal_replay_resume()");
    take_over(&standby);
    // It waits for one of its own from now on, and there is none.
    standby.sql("alter system set synchronous_standby_names = '*'");
    standby.sql("select pg_reload_conf()");
    move_to(&proxy, &standby, 2);
    until_it_waits_for_the_standby(&standby).await;
    cancel.cancel_query(NoTls).await.unwrap();
    let (_client, state) = commit.await.unwrap();
    assert_eq!(state, "08007");
}

/// Accepts from the same socket as `old`.
fn successor(old: &Proxy, cluster: &Cluster, folder: &Path) -> pgproxy::Handle {
    let fds = old.handle.listener_fds().unwrap();
    let sockets: BTreeMap<String, TcpListener> =
        fds.into_iter().map(|(name, fd)| (name, fd.into())).collect();
    let database = Database { cancels: Some(folder.to_owned()), ..of(cluster) };
    pgproxy::start(config(1, database), sockets).unwrap()
}

fn sockets_in(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_a_replaced_process_can_be_cancelled_through_its_successor() {
    let (cluster, folder) = (Cluster::create(), tempfile::tempdir().unwrap());
    let meeting = folder.path().join("cancels");
    std::fs::create_dir(&meeting).unwrap();
    // What a process that was killed has left.
    drop(std::os::unix::net::UnixListener::bind(meeting.join("left")).unwrap());
    let old = start(Database { cancels: Some(meeting.clone()), ..of(&cluster) });
    let client = old.connect().await.unwrap();
    let new = successor(&old, &cluster, &meeting);
    let found = sockets_in(&meeting);
    assert_eq!(found.len(), 2, "{found:?}");
    for socket in &found {
        assert_eq!(std::fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);
    }

    let url = old.url();
    let drain = async { old.handle.drain(Duration::from_secs(600)).await };
    let cancelling = async {
        within("the old one listens no more", async {
            while !old.handle.listener_fds().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        let token = client.cancel_token();
        let query = failing(client, "select pg_sleep(600)");
        within("the query is cancelled", async {
            while !query.is_finished() {
                // Again and again: one that arrives before the query does cancels nothing.
                token.cancel_query(NoTls).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let (client, state) = query.await.unwrap();
        assert_eq!(state, CANCELLED);
        assert_eq!(value(&client, "select 2").await, "2");
        assert!(new.status().databases["db"].cancel_requests_total > 0, "the new one has heard it");
    };
    tokio::join!(drain, cancelling);
    drop(old);
    within("the old one is gone", async {
        while sockets_in(&meeting).len() > 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    // Nobody is asked any more, and nobody waits for that.
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(value(&client, "select 3").await, "3");
}

/// Guessing a key through the one is guessing it through the other: nothing else is heard there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_cancel_requests_are_handed_on_nothing_else_is_heard() {
    let (cluster, folder) = (Cluster::create(), tempfile::tempdir().unwrap());
    let old = start(Database { cancels: Some(folder.path().to_owned()), ..of(&cluster) });
    let _new = successor(&old, &cluster, folder.path());
    let client = old.connect().await.unwrap();
    let sockets = sockets_in(folder.path());
    assert_eq!(sockets.len(), 2, "{sockets:?}");
    for socket in sockets {
        for said in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0xff; 16],
            &[0; 4096],
            &[0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 0],
        ] {
            let mut stream = UnixStream::connect(&socket).await.unwrap();
            // It may be closed before all of it is said.
            let _ = stream.write_all(said).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(answer.is_empty(), "{answer:?}");
        }
    }
    assert_eq!(value(&client, "select 1").await, "1");
}

/// The postmaster has the request and works on it when it goes on, whoever is served by that connection then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_request_that_comes_late_cancels_nobody_else() {
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    let client = proxy.connect().await.unwrap();
    let other = proxy.connect().await.unwrap();
    let cancel = client.cancel_token();
    let asking = tokio::spawn(async move { value(&client, "select 'done' from pg_sleep(7)").await });
    let sleeping = "select count(*) from pg_stat_activity where state = 'active' and wait_event = 'PgSleep'";
    within("it runs", async {
        while cluster.sql(sleeping) != "1" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let postmaster = cluster.postmaster();
    signal("-STOP", postmaster);
    // Returns when nobody waits for it any more.
    cancel.cancel_query(NoTls).await.unwrap();
    assert_eq!(asking.await.unwrap(), "done");
    // Its connection is with nobody, whether it was given back or closed.
    proxy.until(|db| db.servers == db.servers_idle).await;
    let asking = tokio::spawn(async move { value(&other, "select 'as well' from pg_sleep(1)").await });
    proxy.until(|db| db.servers > db.servers_idle).await;
    signal("-CONT", postmaster);
    assert_eq!(asking.await.unwrap(), "as well");
}

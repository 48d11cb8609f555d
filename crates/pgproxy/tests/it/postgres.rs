//! What apps do with a PostgreSQL, done through the proxy.

use std::process::{Command, Stdio};
use std::time::Duration;

use pgproxy::{Drained, Upstream};
use tokio_postgres::NoTls;

use crate::cluster::{Cluster, bin};
use crate::proxy::{Proxy, database, start};

fn running() -> (Cluster, Proxy) {
    let mut cluster = Cluster::create();
    cluster.start();
    let proxy = start(database(Upstream::Unix(cluster.socket())));
    (cluster, proxy)
}

async fn succeeds(mut command: Command) -> String {
    let run = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap());
    let output = run.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_and_pgbench_cannot_tell_the_proxy_from_postgres() {
    let (_cluster, proxy) = running();
    let mut psql = Command::new(bin().join("psql"));
    psql.args([&proxy.url(), "-Atc", "select sum(n) from generate_series(1, 100000) n"]);
    assert_eq!(succeeds(psql).await, "5000050000\n");

    let mut prepare = Command::new(bin().join("pgbench"));
    prepare.args(["-i", "-q", &proxy.url()]);
    succeeds(prepare).await;
    for protocol in ["simple", "prepared"] {
        let mut pgbench = Command::new(bin().join("pgbench"));
        pgbench.args(["-c", "8", "-t", "50", "-M", protocol, &proxy.url()]);
        let report = succeeds(pgbench).await;
        assert!(report.contains("number of failed transactions: 0"), "{report}");
        assert!(report.contains("transactions actually processed: 400/400"), "{report}");
    }
    proxy.until(|db| db.clients == 0).await;
    let db = proxy.db();
    assert!(db.received_bytes_total > 0 && db.sent_bytes_total > 0);
}

#[tokio::test]
async fn a_query_can_be_cancelled_even_when_every_place_is_taken() {
    let mut cluster = Cluster::create();
    cluster.start();
    let mut settings = database(Upstream::Unix(cluster.socket()));
    settings.max_clients = 1;
    let proxy = start(settings);
    let client = proxy.connect().await.unwrap();

    let refused = proxy.connect().await.err().unwrap();
    assert_eq!(refused.as_db_error().unwrap().code().code(), "53300");

    let cancel = client.cancel_token();
    let query = tokio::spawn(async move { client.simple_query("select pg_sleep(600)").await });
    while !query.is_finished() {
        // Again and again: one that arrives before the query does cancels nothing.
        cancel.cancel_query(NoTls).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cancelled = query.await.unwrap().err().unwrap();
    assert_eq!(cancelled.code().unwrap().code(), "57014");
    proxy.until(|db| db.clients == 0).await;
    proxy.connect().await.unwrap();
}

#[tokio::test]
async fn a_restart_of_postgres_is_a_pause_for_those_who_connect() {
    let (mut cluster, proxy) = running();
    proxy.connect().await.unwrap();
    cluster.stop();

    let mut early = Box::pin(proxy.connect());
    tokio::select! {
        _ = &mut early => panic!("nobody can be connected while PostgreSQL is down"),
        () = proxy.until(|db| db.waiting == 1) => {}
    }
    cluster.start();
    let client = early.await.unwrap();
    assert_eq!(client.simple_query("select 1").await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_drain_lets_a_session_finish_its_work() {
    let (_cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    let work = tokio::spawn(async move { client.simple_query("select pg_sleep(0.3)").await });
    let drained = proxy.handle.drain(Duration::from_secs(60)).await;
    assert_eq!(drained, Drained { cut: 0 });
    work.await.unwrap().unwrap();
}

//! Configuration, refusals and drain, where no PostgreSQL is needed.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use pgproxy::{Config, ConfigError, Drained, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake::STARTUP;
use crate::proxy::{config, database, start};

#[test]
fn a_configuration_reads_back_as_written_and_knows_its_defaults() {
    let json =
        r#"{"generation":3,"databases":{"db":{"listener":"db","upstream":{"unix":"/run/x/.s.PGSQL.5432"}}}}"#;
    let config: Config = serde_json::from_str(json).unwrap();
    assert_eq!(config.databases["db"].max_clients, 1_000);
    assert_eq!(config.databases["db"].connect_wait_ms, 30_000);
    let again = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&again).unwrap(), config);
    assert!(serde_json::from_str::<Config>(&json.replace("listener", "listner")).is_err());
}

#[tokio::test]
async fn a_configuration_that_does_not_fit_is_refused_and_the_one_in_force_stays() {
    let here = database(Upstream::Unix("/nobody/listens".into()));
    let proxy = start(here.clone());
    let mut moved = here.clone();
    moved.listener = "other".to_owned();
    let mut second = config(2, here.clone());
    second.databases.insert("more".to_owned(), moved.clone());
    let mut shared = config(2, here.clone());
    shared.databases.insert("more".to_owned(), here.clone());

    assert!(matches!(proxy.handle.configure(config(0, here)), Err(ConfigError::Stale { .. })));
    assert!(matches!(proxy.handle.configure(config(2, moved)), Err(ConfigError::ListenerChanged { .. })));
    assert!(matches!(proxy.handle.configure(second), Err(ConfigError::NoSocket { .. })));
    assert!(matches!(proxy.handle.configure(shared), Err(ConfigError::SharedListener { .. })));
    assert_eq!(proxy.handle.status().generation, 1);
}

#[tokio::test]
async fn a_client_that_waited_in_vain_is_told_so_in_its_own_protocol() {
    let mut gone = database(Upstream::Unix("/nobody/listens".into()));
    gone.connect_wait_ms = 50;
    let proxy = start(gone);
    let refused = proxy.connect().await.err().unwrap();
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "57P03");
    assert!(refused.message().contains("`db`"), "{}", refused.message());
    assert!(refused.hint().is_some());
    assert_eq!(proxy.db().refused_unavailable_total, 1);
}

#[tokio::test]
async fn clients_that_speak_something_else_are_closed_and_counted() {
    let proxy = start(database(Upstream::Unix("/nobody/listens".into())));
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Closed with bytes unread, which the kernel may report as a reset.
    let _ = client.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    proxy.until(|db| db.refused_protocol_total == 1).await;

    // A TCP health check is not worth counting as anything wrong.
    drop(TcpStream::connect(proxy.address).await.unwrap());
    proxy.until(|db| db.connections_total == 2).await;
    assert_eq!(proxy.db().refused_protocol_total, 1);
}

#[tokio::test]
async fn a_successor_takes_over_the_listening_socket_without_refusing_anybody() {
    let gone = database(Upstream::Unix("/nobody/listens".into()));
    let old = start(gone.clone());
    let mut waiting = TcpStream::connect(old.address).await.unwrap();
    waiting.write_all(STARTUP).await.unwrap();
    old.until(|db| db.waiting == 1).await;

    let fds = old.handle.listener_fds().unwrap();
    let sockets: BTreeMap<String, TcpListener> =
        fds.into_iter().map(|(name, fd)| (name, fd.into())).collect();
    let new = pgproxy::start(config(1, gone.clone()), sockets).unwrap();
    let drained = old.handle.drain(Duration::from_millis(20)).await;
    assert_eq!(drained, Drained { cut: 1 }, "a client that outstays the deadline is cut");
    assert_eq!(waiting.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(old.handle.configure(config(2, gone)), Err(ConfigError::Draining));

    let mut client = TcpStream::connect(old.address).await.unwrap();
    client.write_all(STARTUP).await.unwrap();
    while new.status().databases["db"].waiting == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(old.handle.listener_fds().unwrap().is_empty());
}

#[tokio::test]
async fn metrics_are_exposed_once_per_family() {
    let proxy = start(database(Upstream::Unix("/nobody/listens".into())));
    let mut text = String::new();
    proxy.handle.metrics(&mut text);
    assert!(text.contains("switchback_pgproxy_clients{database=\"db\"} 0\n"), "{text}");
    assert!(text.contains("switchback_pgproxy_refused_total{database=\"db\",reason=\"full\"} 0\n"), "{text}");
    let types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let unique: std::collections::BTreeSet<_> = types.iter().collect();
    assert_eq!(types.len(), unique.len());
}

//! Configuration, handover and drain, where no PostgreSQL is needed.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use pgproxy::{Config, ConfigError, Database, Drained, Node, Promotion, Role, Upstream};
use tempfile::NamedTempFile;
use tokio::net::TcpStream;

use crate::cluster::PASSWORD;
use crate::proxy::{config, database, start, within};

/// A database that nobody serves, and its credentials.
fn gone() -> (NamedTempFile, Database) {
    let file = NamedTempFile::new().unwrap();
    let json = format!(r#"{{"app":{{"role":"app","password":"{PASSWORD}"}},"database":"app"}}"#);
    std::fs::write(file.path(), json).unwrap();
    let database = database(file.path(), Upstream::Unix("/nobody/listens".into()));
    (file, database)
}

#[test]
fn a_configuration_reads_back_as_written_and_knows_its_defaults() {
    let json = r#"{"generation":3,"databases":{"db":{"listener":"db","epoch":4,"credentials":"/c.json","nodes":
        {"db.1":{"role":"primary","upstream":{"unix":"/run/x/.s.PGSQL.5432"}}}}}}"#;
    let config: Config = serde_json::from_str(json).unwrap();
    assert_eq!(config.databases["db"].max_clients, 1_000);
    assert_eq!(config.databases["db"].hold_ms, 30_000);
    let promoted = json
        .replace(r#""credentials""#, r#""promotions":{"4":{"timeline":2,"first_xid":745}},"credentials""#);
    let promoted: Config = serde_json::from_str(&promoted).unwrap();
    assert_eq!(promoted.databases["db"].promotions[&4], Promotion { timeline: 2, first_xid: 745 });
    // As the supervisor hands it over, too.
    let again = serde_json::to_value(&promoted).unwrap();
    assert_eq!(serde_json::from_value::<Config>(again).unwrap(), promoted);
    let again = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&again).unwrap(), config);
    assert!(serde_json::from_str::<Config>(&json.replace("listener", "listner")).is_err());
}

#[tokio::test]
async fn a_configuration_that_does_not_fit_is_refused_and_the_one_in_force_stays() {
    let (_file, here) = gone();
    let proxy = start(Database { epoch: 5, ..here.clone() });
    let refused = |database: Database| proxy.handle.configure(config(2, database)).err().unwrap();
    let here = Database { epoch: 5, ..here };

    let moved = Database { listener: "other".to_owned(), ..here.clone() };
    let mut second = config(2, here.clone());
    second.databases.insert("more".to_owned(), moved.clone());
    let mut shared = config(2, here.clone());
    shared.databases.insert("more".to_owned(), here.clone());
    let mut two_primaries = here.clone();
    let upstream = Upstream::Unix("/elsewhere".into());
    two_primaries.nodes.insert("db.2".to_owned(), Node { upstream, zone: None, role: Role::Primary });

    assert!(matches!(proxy.handle.configure(config(0, here.clone())), Err(ConfigError::Stale { .. })));
    assert!(matches!(refused(moved), ConfigError::ListenerChanged { .. }));
    assert!(matches!(proxy.handle.configure(second), Err(ConfigError::NoSocket { .. })));
    assert!(matches!(proxy.handle.configure(shared), Err(ConfigError::SharedListener { .. })));
    assert!(matches!(refused(two_primaries), ConfigError::TwoPrimaries { .. }));
    assert!(matches!(refused(Database { epoch: 4, ..here.clone() }), ConfigError::StaleEpoch { .. }));
    assert!(matches!(refused(Database { pool_size: 0, ..here.clone() }), ConfigError::Zero { .. }));
    let nowhere = Database { credentials: "/nowhere".into(), ..here };
    assert!(matches!(refused(nowhere), ConfigError::Credentials { .. }));
    assert_eq!(proxy.handle.status().generation, 1);
}

/// A failover must not wait for somebody who is writing a file.
#[tokio::test]
async fn credentials_that_cannot_be_read_any_more_stay_in_force() {
    let (file, here) = gone();
    let proxy = start(here.clone());
    std::fs::write(file.path(), "{").unwrap();
    proxy.handle.configure(config(2, Database { epoch: 2, ..here.clone() })).unwrap();
    drop(file);
    proxy.handle.configure(config(3, Database { epoch: 3, ..here })).unwrap();
    assert_eq!(proxy.db().epoch, 3);
}

/// An error must not quote the file that holds the passwords.
#[tokio::test]
async fn credentials_that_do_not_read_are_not_quoted() {
    let (file, here) = gone();
    std::fs::write(file.path(), r#"{"app":{"role":"app","password":7654321},"database":"app"}"#).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let sockets = BTreeMap::from([("db".to_owned(), socket)]);
    let error = pgproxy::start(config(1, here), sockets).err().unwrap().to_string();
    assert!(error.contains("line 1") && !error.contains("7654321"), "{error}");
}

#[tokio::test]
async fn a_client_that_waited_in_vain_is_told_so_in_its_own_protocol() {
    let (_file, here) = gone();
    let proxy = start(Database { hold_ms: 50, ..here });
    let refused = proxy.connect().await.err().unwrap();
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "57P03");
    assert!(refused.message().contains("`db`"), "{}", refused.message());
    assert!(refused.hint().is_some());
    assert_eq!(proxy.db().refused_unavailable_total, 1);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_frees_its_place() {
    let (_file, here) = gone();
    let proxy = start(here);
    let waiting = tokio::spawn({
        let url = proxy.url();
        async move { tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_ok() }
    });
    proxy.until(|db| db.waiting == 1).await;
    waiting.abort();
    proxy.until(|db| db.clients == 0 && db.waiting == 0).await;
}

#[tokio::test]
async fn a_successor_takes_over_the_listening_socket_without_refusing_anybody() {
    let (_file, here) = gone();
    let old = start(here.clone());
    let url = old.url();
    let connect = || {
        let url = url.clone();
        tokio::spawn(async move { tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_ok() })
    };
    let waiting = connect();
    old.until(|db| db.waiting == 1).await;

    let fds = old.handle.listener_fds().unwrap();
    let sockets: BTreeMap<String, TcpListener> =
        fds.into_iter().map(|(name, fd)| (name, fd.into())).collect();
    let new = pgproxy::start(config(1, here.clone()), sockets).unwrap();
    let drained = old.handle.drain(Duration::from_millis(20)).await;
    assert_eq!(drained, Drained { cut: 1 }, "a client that outstays the deadline is cut");
    assert!(!waiting.await.unwrap());
    assert_eq!(old.handle.configure(config(2, here)), Ok(()), "whoever it still serves follows the primary");

    connect();
    within("the new one is connected to", async {
        while new.status().databases["db"].waiting == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!(old.handle.listener_fds().unwrap().is_empty());
    drop(TcpStream::connect(old.address).await.unwrap());
}

#[tokio::test]
async fn metrics_are_exposed_once_per_family() {
    let (_file, here) = gone();
    let proxy = start(here);
    let mut text = String::new();
    proxy.handle.metrics(&mut text);
    assert!(text.contains("switchback_pgproxy_clients{database=\"db\",user=\"app\"} 0\n"), "{text}");
    assert!(text.contains("switchback_pgproxy_refused_total{database=\"db\",reason=\"full\"} 0\n"), "{text}");
    let of = r#"{database="db",user="app",node="db.1",class="read"}"#;
    assert!(text.contains(&format!("switchback_pgproxy_statements_total{of} 0\n")), "{text}");
    let types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let unique: std::collections::BTreeSet<_> = types.iter().collect();
    assert_eq!(types.len(), unique.len());
}

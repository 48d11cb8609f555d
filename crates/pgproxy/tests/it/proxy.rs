//! A proxy in front of one cluster, on a free port.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use pgproxy::{Config, Database, DatabaseStatus, Handle, Node, Role, Upstream};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::cluster::{Cluster, PASSWORD};

/// For what takes no longer than PostgreSQL takes to start, recover or follow, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is waited for, or the end of the test.
pub async fn within<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

pub struct Proxy {
    pub handle: Handle,
    pub address: SocketAddr,
}

pub fn config(generation: u64, database: Database) -> Config {
    Config { generation, databases: BTreeMap::from([("db".to_owned(), database)]) }
}

/// Everything by default, with one primary.
pub fn database(credentials: &Path, upstream: Upstream) -> Database {
    let json = serde_json::json!({ "listener": "db", "epoch": 1, "credentials": credentials, "nodes": {} });
    let mut database: Database = serde_json::from_value(json).unwrap();
    database.nodes.insert("db.1".to_owned(), Node { upstream, zone: None, role: Role::Primary });
    database
}

pub fn of(cluster: &Cluster) -> Database {
    database(&cluster.credentials(), Upstream::Unix(cluster.socket()))
}

pub fn start(database: Database) -> Proxy {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let handle = pgproxy::start(config(1, database), BTreeMap::from([("db".to_owned(), socket)])).unwrap();
    Proxy { handle, address }
}

/// A cluster behind a proxy.
pub fn running() -> (Cluster, Proxy) {
    let cluster = Cluster::create();
    let proxy = start(of(&cluster));
    (cluster, proxy)
}

impl Proxy {
    pub fn url(&self) -> String {
        let password = PASSWORD.replace(' ', "%20");
        format!("postgres://app:{password}@{}/app", self.address)
    }

    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        self.connect_with(&self.url()).await
    }

    pub async fn connect_with(&self, url: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub fn db(&self) -> DatabaseStatus {
        self.handle.status().databases["db"].clone()
    }

    /// Yields until the figures satisfy `is`.
    pub async fn until(&self, is: impl Fn(&DatabaseStatus) -> bool) {
        within("the figures that were waited for", async {
            while !is(&self.db()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

/// The first column of the first row, by the simple protocol.
pub async fn value(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    row.unwrap_or_default()
}

/// The SQLSTATE of what must fail.
pub async fn sqlstate(client: &Client, sql: &str) -> String {
    let error = client.simple_query(sql).await.err().unwrap_or_else(|| panic!("{sql} succeeded"));
    error.code().unwrap_or_else(|| panic!("{sql}: {error:?}")).code().to_owned()
}

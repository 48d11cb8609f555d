//! A proxy in front of one upstream, on a free port.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use pgproxy::{Config, Database, DatabaseStatus, Handle, Upstream};
use tokio_postgres::{Client, NoTls};

pub struct Proxy {
    pub handle: Handle,
    pub address: SocketAddr,
}

pub fn config(generation: u64, database: Database) -> Config {
    Config { generation, databases: BTreeMap::from([("db".to_owned(), database)]) }
}

pub fn database(upstream: Upstream) -> Database {
    Database { listener: "db".to_owned(), upstream, max_clients: 100, connect_wait_ms: 30_000 }
}

pub fn start(database: Database) -> Proxy {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let handle = pgproxy::start(config(1, database), BTreeMap::from([("db".to_owned(), socket)])).unwrap();
    Proxy { handle, address }
}

impl Proxy {
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address)
    }

    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub fn db(&self) -> DatabaseStatus {
        self.handle.status().databases["db"].clone()
    }

    /// Yields until the figures satisfy `is`. The test runner's own timeout is the bound.
    pub async fn until(&self, is: impl Fn(&DatabaseStatus) -> bool) {
        while !is(&self.db()) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

//! Upstreams of a few lines, for moments that a real PostgreSQL does not hold still for.

use std::net::SocketAddr;

use pgproxy::Upstream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::proxy::{config, database, start};

pub const STARTUP: &[u8] = b"\0\0\0\x12\0\x03\0\0user\0app\0\0";

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut server, _) = listener.accept().await.unwrap();
    let mut startup = [0; STARTUP.len()];
    server.read_exact(&mut startup).await.unwrap();
    assert_eq!(startup, STARTUP, "the startup packet arrives as it was sent");
    server
}

fn error(sqlstate: &str) -> Vec<u8> {
    let body = format!("SFATAL\0VFATAL\0C{sqlstate}\0Mno\0\0");
    let mut packet = vec![b'E'];
    packet.extend((body.len() as u32 + 4).to_be_bytes());
    packet.extend(body.as_bytes());
    packet
}

/// A starting PostgreSQL accepts connections only to turn them away. A client must not notice.
#[tokio::test]
async fn a_database_that_is_starting_is_waited_for() {
    let (listener, address) = listen().await;
    let proxy = start(database(Upstream::Tcp(address)));
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(STARTUP).await.unwrap();

    accept(&listener).await.write_all(&error("57P03")).await.unwrap();
    drop(accept(&listener).await);
    accept(&listener).await.write_all(b"R\0\0\0\x08\0\0\0\0").await.unwrap();

    let mut answer = [0; 9];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"R\0\0\0\x08\0\0\0\0");
}

#[tokio::test]
async fn any_other_refusal_of_the_database_reaches_the_client_as_it_is() {
    let (listener, address) = listen().await;
    let proxy = start(database(Upstream::Tcp(address)));
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(STARTUP).await.unwrap();
    accept(&listener).await.write_all(&error("28P01")).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, error("28P01"));
}

#[tokio::test]
async fn a_client_that_has_said_all_it_wants_still_gets_its_answer() {
    let (listener, address) = listen().await;
    let proxy = start(database(Upstream::Tcp(address)));
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(STARTUP).await.unwrap();
    let mut server = accept(&listener).await;
    server.write_all(b"R\0\0\0\x08\0\0\0\0").await.unwrap();

    client.write_all(b"the last words").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"the last words");
    let long_answer = vec![7; 1 << 20];
    server.write_all(&long_answer).await.unwrap();
    drop(server);

    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(&answer[9..], long_answer);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_frees_its_place() {
    let folder = tempfile::TempDir::new().unwrap();
    let proxy = start(database(Upstream::Unix(folder.path().join("nobody-listens"))));
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(STARTUP).await.unwrap();
    proxy.until(|db| db.waiting == 1).await;
    drop(client);
    proxy.until(|db| db.clients == 0 && db.waiting == 0).await;
}

/// How a database moves under clients that are connecting.
#[tokio::test]
async fn a_waiting_client_follows_the_database_to_its_new_place() {
    let folder = tempfile::TempDir::new().unwrap();
    let proxy = start(database(Upstream::Unix(folder.path().join("nobody-listens"))));
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(STARTUP).await.unwrap();
    proxy.until(|db| db.waiting == 1).await;

    let (listener, address) = listen().await;
    proxy.handle.configure(config(2, database(Upstream::Tcp(address)))).unwrap();
    accept(&listener).await.write_all(&error("28P01")).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, error("28P01"));
}

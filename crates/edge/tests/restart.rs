//! An instance that goes away and comes back at the same address: what waits for it is answered, not refused.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::client::Kind;
use crate::support::front::endpoint_at;
use crate::support::{Client, Front, upstream};

/// Serves until aborted, which closes the listener and every connection.
fn serve(listener: TcpListener, answer: &'static str) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            let mut connection = Client::over(stream);
            open.spawn(async move {
                while connection.message(Kind::Request).await.is_some() {
                    let length = answer.len();
                    connection
                        .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}"))
                        .await;
                }
            });
        }
    })
}

async fn listen(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).await.expect("bind")
}

async fn stop(instance: JoinHandle<()>) {
    instance.abort();
    // An error is the abort itself.
    let _ = instance.await;
}

async fn survives_a_restart(request: &str) {
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let address = listener.local_addr().expect("an address");
    let old = serve(listener, "old");
    let front = Front::with(upstream(vec![endpoint_at("only", address)]), |_| {});
    let mut client = front.client().await;
    assert_eq!(client.get("/").await.text(), "old");

    stop(old).await;
    client.send(request).await;
    let mut others: Vec<Client> = Vec::new();
    for _ in 0..4 {
        let mut other = front.client().await;
        other.send(request).await;
        others.push(other);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let new = serve(listen(address).await, "new");

    assert_eq!(client.response().await.text(), "new");
    for mut other in others {
        assert_eq!(other.response().await.text(), "new");
    }
    stop(new).await;
}

#[tokio::test]
async fn an_idempotent_request_waits_for_the_only_instance_to_come_back() {
    survives_a_restart("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
}

/// No byte of it reached anybody, so that sending it later is as good as now.
#[tokio::test]
async fn a_request_that_was_never_sent_waits_for_the_only_instance_to_come_back() {
    survives_a_restart("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello").await;
}

/// With another one there nobody waits at all.
#[tokio::test]
async fn requests_go_to_the_other_instance_meanwhile() {
    let listeners = [
        listen(SocketAddr::from(([127, 0, 0, 1], 0))).await,
        listen(SocketAddr::from(([127, 0, 0, 1], 0))).await,
    ];
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().expect("an address"));
    let [one, two] = listeners.map(|listener| serve(listener, "ok"));
    let endpoints = vec![endpoint_at("one", addresses[0]), endpoint_at("two", addresses[1])];
    let front = Front::with(upstream(endpoints), |_| {});
    let mut client = front.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status(), 200);
    }
    stop(one).await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.status(), 200);
    }
    stop(two).await;
}

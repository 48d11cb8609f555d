//! Leaving HTTP: WebSocket and whatever else is asked for by `Upgrade`.

use tokio::io::AsyncWriteExt;

use crate::support::{Client, Front, Instance, client::Kind, soon};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";

async fn echo() -> Instance {
    Instance::serving(|mut connection: Client| async move {
        let request = connection.message(Kind::Request).await.expect("a request");
        if request.field("upgrade").is_none() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain").await;
            return;
        }
        assert!(connection.unread.is_empty(), "bytes came before the protocol was switched");
        connection
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nwelcome")
            .await;
        while let Some(line) = connection.until(b"\n").await {
            connection.send(line).await;
        }
        connection.send("bye").await;
    })
    .await
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_until_both_sides_have_ended() {
    let instance = echo().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send(UPGRADE).await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.field("upgrade")), (101, Some("websocket")));
    assert_eq!(soon("a greeting", client.exactly(7)).await.expect("a greeting"), b"welcome");
    for number in 0..100 {
        let line = format!("line {number}\n");
        client.send(&line).await;
        assert_eq!(soon("the echo", client.until(b"\n")).await.expect("the echo"), line.as_bytes());
    }
    assert_eq!(front.in_flight("one"), 1, "an upgraded connection is a request in flight");
    client.stream.shutdown().await.expect("shutdown");
    assert_eq!(soon("the end", client.rest()).await, b"bye", "closing one direction leaves the other open");
}

#[tokio::test]
async fn bytes_after_the_request_wait_for_the_switch() {
    let instance = echo().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send(format!("{UPGRADE}early\n")).await;
    assert_eq!(client.response().await.status(), 101);
    assert_eq!(soon("the echo", client.until(b"\n")).await.expect("the echo"), b"welcomeearly\n");
}

#[tokio::test]
async fn after_a_refused_upgrade_the_next_bytes_are_a_request() {
    let instance = Instance::answering(|request| {
        let status = if request.field("upgrade").is_some() { "403 Forbidden" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send(UPGRADE).await;
    assert_eq!(client.response().await.status(), 403);
    assert_eq!(client.get("/").await.status(), 200);
}

#[tokio::test]
async fn an_upgrade_to_h2c_is_not_passed_on() {
    let instance = echo().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client
        .send("GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n")
        .await;
    assert_eq!(client.response().await.text(), "plain");
}

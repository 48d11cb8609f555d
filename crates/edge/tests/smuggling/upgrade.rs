//! Bytes behind an `Upgrade`: whose are they?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Client, Front, Instance, soon};

const HANDSHAKE: &str =
    "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// CVE-2026-2833: a proxy that passes bytes on before the instance has agreed lets a client speak to it past all rules.
#[tokio::test]
async fn nothing_passes_before_the_instance_has_agreed() {
    let early = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&early);
    let instance = Instance::serving(move |mut connection: Client| {
        let seen = Arc::clone(&seen);
        async move {
            connection.until(b"\r\n\r\n").await;
            // Whatever would have come along is here by now: it was sent before the edge was asked anything.
            let more = tokio::time::timeout(std::time::Duration::from_millis(100), connection.exactly(1));
            seen.store(more.await.is_ok(), Ordering::SeqCst);
            connection
                .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                .await;
            let first = connection.exactly(6).await.expect("six bytes");
            connection.send(first).await;
            connection.rest().await;
        }
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send(format!("{HANDSHAKE}early!")).await;
    assert_eq!(client.bodiless_response().await.status(), 101);
    let echoed = soon("the echo", client.exactly(6)).await;
    assert_eq!(echoed.as_deref(), Some(&b"early!"[..]));
    assert!(!early.load(Ordering::SeqCst), "bytes passed before the 101");
}

/// Refused, the connection speaks HTTP as before: what follows is a request like any other, with all that the edge does
/// to requests, and not bytes for the instance.
#[tokio::test]
async fn after_a_refused_upgrade_the_next_bytes_are_a_request() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client
        .send(format!("{HANDSHAKE}GET /next HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"))
        .await;
    assert!(client.response().await.text().starts_with("GET /chat "));
    let next = client.response().await;
    assert!(next.text().starts_with("GET /next "), "{}", next.text());
    assert!(!next.text().contains("6.6.6.6"), "{}", next.text());
}

/// The other way round: an instance that switches protocols unasked would get a tunnel.
#[tokio::test]
async fn an_instance_cannot_switch_protocols_unasked() {
    let instance = Instance::raw(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw bytes",
    )
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    assert_eq!(client.get("/").await.status(), 502);
}

/// An upgrade in name only: without `Connection: Upgrade` the field is for the next hop, which is us.
#[tokio::test]
async fn an_upgrade_that_is_not_nominated_is_no_upgrade() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\n\r\n").await;
    let answer = client.response().await;
    assert!(!answer.text().to_ascii_lowercase().contains("upgrade"), "{}", answer.text());
}

/// An upgrade to h2c through the edge would be a connection that it does not see into.
#[tokio::test]
async fn an_upgrade_to_h2c_is_not_passed_on() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client
        .send(
            "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        )
        .await;
    let answer = client.response().await;
    assert_eq!(answer.status(), 200);
    let text = answer.text().to_ascii_lowercase();
    assert!(!text.contains("h2c") && !text.contains("http2-settings"), "{text}");
}

/// A body and an upgrade at once: where the one ends and the other begins is nothing to guess.
#[tokio::test]
async fn an_upgrade_with_a_body_is_no_upgrade() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\n\
             hello",
        )
        .await;
    let answer = client.response().await;
    assert!(!answer.text().to_ascii_lowercase().contains("websocket"), "{}", answer.text());
    assert!(answer.text().ends_with("hello"), "{}", answer.text());
}

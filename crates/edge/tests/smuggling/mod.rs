//! Request smuggling: two readers that see different messages in the same bytes. The classic list, one test each.
//!
//! Every attack carries a second request for `/smuggled`. Behind the edge stands a witness that keeps every byte that
//! reached it: whatever the edge answers, that request must not be among them.

mod chunked;
mod downgrade;
mod framing;
mod head;
mod response;
mod upgrade;
mod witness;

use crate::support::{Client, soon};
use witness::Scene;

/// What an attacker wants the instance to see.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";

/// Bytes with the smuggled request behind them.
fn attack(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [bytes.as_ref(), SMUGGLED.as_bytes()].concat()
}

/// A POST with these field lines, and a body that ends for a reader of chunks.
fn post(fields: &str) -> Vec<u8> {
    attack(format!("POST / HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n0\r\n\r\n"))
}

/// A GET with these field lines.
fn get(fields: &str) -> Vec<u8> {
    attack(format!("GET / HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n"))
}

/// The head is refused with this status, the connection is closed and not a byte reaches the instance.
async fn is_refused(status: u16, attack: impl AsRef<[u8]>) {
    let scene = Scene::new().await;
    let mut client = scene.front.client().await;
    client.send(attack).await;
    expect_one_answer(&mut client, status).await;
    assert_eq!(scene.end().await, "", "something reached the instance");
}

/// The head may have reached the instance, but the body is refused: the answer is this status, the connection is
/// closed, and neither an end of the body nor the smuggled request reaches the instance.
async fn is_cut(status: u16, attack: impl AsRef<[u8]>) {
    let scene = Scene::new().await;
    let mut client = scene.front.client().await;
    client.send(attack).await;
    expect_one_answer(&mut client, status).await;
    let reached = scene.end().await;
    assert!(!reached.contains("smuggled"), "{reached}");
    assert!(!reached.contains("\r\n0\r\n\r\n"), "{reached}");
}

/// One answer with this status, then the end of the connection.
async fn expect_one_answer(client: &mut Client, status: u16) {
    let bytes = soon("the end of the connection", client.rest()).await;
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    assert!(text.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{text}");
}

/// Without this, all the others might pass because the witness is blind.
#[tokio::test]
async fn the_witness_sees_a_second_request_that_is_one() {
    let scene = Scene::new().await;
    let mut client = scene.front.client().await;
    client.send(attack("GET / HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    for _ in 0..2 {
        assert_eq!(client.response().await.status(), 200);
    }
    let reached = scene.end().await;
    assert!(reached.contains("GET /smuggled HTTP/1.1\r\n"), "{reached}");
}

/// Makes one test of each line: its name, the status, the bytes.
macro_rules! tests {
    ($check:path: $($(#[$doc:meta])* $name:ident = $status:literal, $attack:expr;)*) => {
        $(
            $(#[$doc])*
            #[tokio::test]
            async fn $name() {
                $check($status, $attack).await;
            }
        )*
    };
}
use tests;

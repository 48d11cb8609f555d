//! The other direction: an instance that is made to answer ambiguously must not reach another client.

use crate::support::client::Kind;
use crate::support::{Client, Front, Instance, soon};

/// The client is answered 502, sees nothing of what the instance sent, and can go on.
async fn is_not_passed_on(answer: &'static [u8]) {
    let instance = Instance::raw(answer).await;
    let front = Front::of(&instance);
    for _ in 0..2 {
        let mut client = front.client().await;
        let answer = client.get("/").await;
        assert_eq!(answer.status(), 502, "{}", answer.head);
        assert!(!answer.text().contains("secret"), "{}", answer.text());
        assert!(client.unread.is_empty());
    }
}

macro_rules! unusable {
    ($($name:ident = $answer:expr;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                is_not_passed_on($answer).await;
            }
        )*
    };
}

unusable! {
    bare_line_feeds = b"HTTP/1.1 200 OK\nContent-Length: 6\n\nsecret";
    a_bare_line_feed_between_fields = b"HTTP/1.1 200 OK\r\nX: y\nSet-Cookie: secret\r\nContent-Length: 6\r\n\r\nsecret";
    a_bare_carriage_return_in_a_value = b"HTTP/1.1 200 OK\r\nX: y\rz\r\nContent-Length: 6\r\n\r\nsecret";
    a_nul_in_a_value = b"HTTP/1.1 200 OK\r\nX: y\0z\r\nContent-Length: 6\r\n\r\nsecret";
    a_folded_field = b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 6\r\n\r\nsecret";
    a_space_before_a_colon = b"HTTP/1.1 200 OK\r\nContent-Length : 6\r\n\r\nsecret";
    a_length_and_chunks = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nsecret";
    two_lengths = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 0\r\n\r\nsecret";
    a_list_of_lengths = b"HTTP/1.1 200 OK\r\nContent-Length: 6, 6\r\n\r\nsecret";
    a_length_with_a_sign = b"HTTP/1.1 200 OK\r\nContent-Length: +6\r\n\r\nsecret";
    an_unknown_coding = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nsecret";
    chunked_then_identity = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nsecret";
    chunks_of_an_old_instance = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n";
    a_status_of_four_digits = b"HTTP/1.1 2000 OK\r\nContent-Length: 6\r\n\r\nsecret";
    a_status_of_no_digits = b"HTTP/1.1 abc OK\r\nContent-Length: 6\r\n\r\nsecret";
    another_version = b"HTTP/2.0 200 OK\r\nContent-Length: 6\r\n\r\nsecret";
    no_http_at_all = b"SSH-2.0-OpenSSH secret\r\n";
    half_a_head = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nsecret: ";
}

/// Bytes after an answer would become the answer to the next request on the connection, whoever sends it.
#[tokio::test]
async fn an_answer_too_many_reaches_nobody() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while connection.message(Kind::Request).await.is_some() {
            connection
                .send(
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
                     HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned",
                )
                .await;
        }
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
}

/// As above, but the bytes come when the connection is already idle in the pool.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_reaches_nobody() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while connection.message(Kind::Request).await.is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned").await;
        }
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "ok");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_body_of_an_answer_to_head_reaches_nobody() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while connection.message(Kind::Request).await.is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned").await;
        }
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    for _ in 0..3 {
        client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.bodiless_response().await.field("content-length"), Some("8"));
        assert_eq!(client.get("/").await.text(), "poisoned");
    }
}

#[tokio::test]
async fn the_body_of_a_204_or_304_reaches_nobody() {
    for status in ["204 No Content", "304 Not Modified"] {
        let instance = Instance::serving(move |mut connection: Client| async move {
            while connection.message(Kind::Request).await.is_some() {
                connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: 8\r\n\r\npoisoned")).await;
            }
        })
        .await;
        let front = Front::of(&instance);
        let mut client = front.client().await;
        for _ in 0..3 {
            let answer = client.get("/").await;
            assert!(answer.head.contains(status), "{}", answer.head);
        }
    }
}

/// Half of a body has been passed on when the framing breaks: the client must not take it for the whole.
#[tokio::test]
async fn a_broken_chunk_does_not_end_the_body_well() {
    for body in ["5\r\nhello\r\nXX\r\n", "5\r\nhelloXX0\r\n\r\n", "5\r\nhello\r\n0\n\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let instance = Instance::answering(move |_| answer.clone()).await;
        let front = Front::of(&instance);
        let mut client = front.client().await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        let whole = soon("the end of the connection", client.message(Kind::Response)).await;
        assert_eq!(whole, None, "{body:?}");
    }
}

/// What an instance says about its own connection is not for the client.
#[tokio::test]
async fn what_belongs_to_the_connection_of_the_instance_stays_on_it() {
    let instance = Instance::answering(|_| {
        "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok"
            .to_owned()
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    for _ in 0..2 {
        let answer = client.get("/").await;
        assert_eq!(answer.text(), "ok");
        assert_eq!(answer.field("x-hop"), None);
        assert_eq!(answer.field("keep-alive"), None);
        assert_eq!(answer.field("connection"), None);
    }
}

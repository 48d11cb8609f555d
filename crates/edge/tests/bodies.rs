//! Bodies pass through as they come, in both directions and however they are framed.

use crate::support::{Client, Front, Instance, client::Kind, soon};

#[tokio::test]
async fn a_large_body_passes_unchanged_in_both_directions() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let body: String = (0..300_000).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    let mut client = front.client().await;
    for _ in 0..2 {
        client
            .send(format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
            .await;
        let answer = client.response().await;
        assert!(answer.text().ends_with(&body));
    }
    assert_eq!(instance.connections(), 1);
}

#[tokio::test]
async fn a_chunked_body_reaches_the_instance_with_its_trailers() {
    let instance = Instance::answering(|request| {
        let body = format!("{}|{}", request.text(), request.trailers.trim());
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    for _ in 0..2 {
        client
            .send(
                "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n6;name=value\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n",
            )
            .await;
        assert_eq!(client.response().await.text(), "hello world|X-Sum: 11");
    }
}

/// Some servers merge trailers into the head, and read `_` as `-` there.
#[tokio::test]
async fn a_trailer_that_looks_like_a_field_of_the_edge_is_dropped() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while let Some(request) = connection.message(Kind::Request).await {
            let trailers = request.trailers;
            connection
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{trailers}", trailers.len()))
                .await;
        }
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX_Forwarded_For: 1.2.3.4\r\nX_End: 1\r\n\r\n")
        .await;
    assert_eq!(client.response().await.text(), "X_End: 1\r\n");
}

#[tokio::test]
async fn a_chunked_answer_reaches_the_client_with_its_trailers() {
    let instance = Instance::raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n",
    )
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    let answer = client.get("/").await;
    assert_eq!((answer.text(), answer.trailers.as_str()), ("abcde", "X-Sum: 5\r\n"));
}

#[tokio::test]
async fn an_answer_that_ends_with_the_connection_is_framed_for_the_client() {
    let instance = Instance::raw(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    for _ in 0..2 {
        let answer = client.get("/").await;
        assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
        assert_eq!(answer.text(), "until the end");
    }
    let mut old = front.client().await;
    old.send("GET / HTTP/1.0\r\nHost: test\r\n\r\n").await;
    let answer = old.response().await;
    assert_eq!((answer.field("transfer-encoding"), answer.text()), (None, "until the end"));
}

#[tokio::test]
async fn each_server_sent_event_arrives_before_the_next_is_made() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.until(b"\r\n\r\n").await;
        connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
        // Each event is made only when the client has said (on a second line) that it has the one before.
        for number in 0..3 {
            connection.send(format!("data: {number}\n\n")).await;
            if connection.until(b"go on").await.is_none() {
                return;
            }
        }
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("POST /events HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let head = soon("the head", client.until(b"\r\n\r\n")).await.expect("a head");
    assert!(head.starts_with(b"HTTP/1.1 200 OK"));
    for number in 0..3 {
        let event = format!("data: {number}\n\n");
        soon("an event", client.until(event.as_bytes())).await.expect("an event");
        client.send("5\r\ngo on\r\n").await;
    }
}

#[tokio::test]
async fn an_upload_is_streamed_and_not_gathered() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.until(b"\r\n\r\n").await;
        for piece in ["one", "two", "three"] {
            connection.until(piece.as_bytes()).await.expect("the piece");
            connection.send("HTTP/1.1 103 Early Hints\r\n\r\n").await;
        }
        connection.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\n").await;
    for piece in ["one", "two", "three"] {
        client.send(piece).await;
        assert_eq!(client.response().await.status(), 103, "the instance saw {piece}");
    }
    assert_eq!(client.response().await.status(), 204);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_is_passed_on_and_the_connection_closed() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.until(b"\r\n\r\n").await;
        connection
            .send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
            .await;
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nsome").await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.field("connection")), (413, Some("close")));
    // What the client sends meanwhile is read and thrown away, so that no reset destroys the answer.
    client.send(vec![b'x'; 100_000]).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_truncated_answer_is_truncated_for_the_client_too() {
    for answer in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this".as_slice(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
    ] {
        let instance = Instance::raw(answer).await;
        let front = Front::of(&instance);
        let mut client = front.client().await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        let message = soon("the end", client.message(Kind::Response)).await;
        assert_eq!(message, None, "the client must see that the answer is not whole");
    }
}

#[tokio::test]
async fn bytes_after_an_answer_are_never_taken_for_the_next_one() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while connection.message(Kind::Request).await.is_some() {
            connection
                .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
                .await;
        }
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    assert_eq!(instance.connections(), 5);
}

#[tokio::test]
async fn an_ambiguous_answer_is_a_bad_gateway() {
    for answer in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".as_slice(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ] {
        let instance = Instance::raw(answer).await;
        let front = Front::of(&instance);
        let mut client = front.client().await;
        let status = client.get("/").await.status();
        assert_eq!(status, 502, "{}", String::from_utf8_lossy(answer));
    }
}

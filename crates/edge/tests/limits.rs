//! Everything has a limit, and each limit its own answer.

use std::time::Duration;

use edge::config::Config;

use crate::support::{Client, Front, Instance, client::Kind, endpoint, soon, upstream};

async fn front(change: impl FnOnce(&mut Config)) -> (Front, Instance) {
    let instance = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), change);
    (front, instance)
}

/// Sends these bytes and expects this status and the end of the connection.
async fn refused(front: &Front, request: impl AsRef<[u8]>, status: u16) {
    let mut client = front.client().await;
    client.send(request).await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.field("connection")), (status, Some("close")));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_target_that_is_too_long_is_414() {
    let (front, _instance) = front(|config| config.limits.request_target_bytes = 100).await;
    refused(&front, format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(200)), 414).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_or_has_too_many_fields_is_431() {
    let (front, _instance) = front(|config| {
        config.limits.request_head_bytes = 2_000;
        config.limits.request_header_count = 10;
    })
    .await;
    refused(&front, format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "x".repeat(3_000)), 431).await;
    refused(&front, format!("GET / HTTP/1.1\r\nHost: test\r\n{}\r\n", "A: b\r\n".repeat(11)), 431).await;
}

#[tokio::test]
async fn a_body_that_is_too_long_is_413_however_it_is_framed() {
    let (front, instance) = front(|config| config.limits.request_body_bytes = 10).await;
    refused(&front, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\n", 413).await;
    assert_eq!(instance.connections(), 0, "a length that is said is refused at once");
    refused(
        &front,
        "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n",
        413,
    )
    .await;
}

/// As browsers do it: they read the answer when all is sent.
#[tokio::test]
async fn who_sends_all_of_a_body_that_is_too_long_reads_why_it_was_refused() {
    let (front, _instance) = front(|config| config.limits.request_body_bytes = 1_000).await;
    let mut client = front.client().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 20000000\r\n\r\n").await;
    for _ in 0..200 {
        client.send([b'x'; 100_000]).await;
    }
    assert_eq!(client.response().await.status(), 413);
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_is_408() {
    let (front, _instance) = front(|config| config.timeouts.request_head_ms = 100).await;
    refused(&front, "GET / HTTP/1.1\r\nHos", 408).await;
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_408() {
    let (front, _instance) = front(|config| config.timeouts.request_body_idle_ms = 100).await;
    refused(&front, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf", 408).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let (front, _instance) = front(|config| config.timeouts.keep_alive_ms = 100).await;
    let mut client = front.client().await;
    client.get("/").await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_instance_that_does_not_answer_is_504() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.message(Kind::Request).await;
        connection.rest().await;
    })
    .await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.timeouts.response_head_ms = 150;
    });
    let mut client = front.client().await;
    assert_eq!(client.get("/").await.status(), 504);
    assert_eq!(front.in_flight("one"), 0);
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.message(Kind::Request).await;
        connection.send("HTTP/1.1 200 OK\r\n\r\n").await;
        while tokio::io::AsyncWriteExt::write_all(&mut connection.stream, &[b'x'; 65_536]).await.is_ok() {}
    })
    .await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.timeouts.write_idle_ms = 200;
    });
    let mut client = front.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    soon("some of the answer", client.exactly(1_000)).await.expect("some of the answer");
    soon("the cut", front.handle.endpoint_idle("one")).await;
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_at_once() {
    let (front, _instance) = front(|config| config.limits.max_connections = 2).await;
    let mut first = front.client().await;
    let mut second = front.client().await;
    first.get("/").await;
    second.get("/").await;
    let mut third = front.client().await;
    assert!(third.is_closed().await);
    drop(first);
    soon("a free place", async {
        while front.handle.status().connections == 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(front.client().await.get("/").await.status(), 200);
}

#[tokio::test]
async fn a_connection_is_closed_after_its_share_of_requests() {
    let (front, _instance) = front(|config| config.limits.requests_per_connection = 3).await;
    let mut client = front.client().await;
    for last in [None, None, Some("close")] {
        assert_eq!(client.get("/").await.field("connection"), last);
    }
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_answer_with_too_large_a_head_is_502() {
    let instance =
        Instance::answering(|_| format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(5_000))).await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.limits.response_head_bytes = 4_000;
    });
    assert_eq!(front.client().await.get("/").await.status(), 502);
}

#[tokio::test]
async fn requests_above_what_an_endpoint_takes_wait_and_above_the_queue_are_shed() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while let Some(request) = connection.message(Kind::Request).await {
            let wait = if request.head.contains("/slow") { 300 } else { 0 };
            tokio::time::sleep(Duration::from_millis(wait)).await;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        let web = config.upstreams.get_mut("web").expect("web");
        (web.max_in_flight, web.queue_length) = (1, 1);
    });
    let mut slow = front.client().await;
    slow.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await;
    soon("the slow request", async {
        while front.in_flight("one") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut queued = front.client().await;
    queued.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    soon("the queued request", async {
        while front.handle.status().in_flight < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(front.client().await.get("/").await.status(), 503);
    assert_eq!(queued.response().await.status(), 200);
    assert_eq!(slow.response().await.status(), 200);
}

/// They would take every place of an instance within a busy hour, and nobody else would be served.
#[tokio::test]
async fn connections_that_were_upgraded_and_streams_of_events_take_no_place_from_requests() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while let Some(request) = connection.message(Kind::Request).await {
            let answer = match request.head.split(' ').nth(1) {
                Some("/chat") => {
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                }
                Some("/events") => {
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"
                }
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            };
            connection.send(answer).await;
        }
    })
    .await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        let web = config.upstreams.get_mut("web").expect("web");
        (web.max_in_flight, web.queue_length) = (2, 0);
    });
    let mut open = Vec::new();
    for request in [
        "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET /events HTTP/1.1\r\nHost: test\r\n\r\n",
    ]
    .repeat(3)
    {
        let mut client = front.client().await;
        client.send(request).await;
        let head = soon("an answer", client.until(b"\r\n\r\n")).await.expect("an answer");
        assert!(!head.starts_with(b"HTTP/1.1 503"), "{}", open.len());
        open.push(client);
    }
    assert_eq!(front.in_flight("one"), 6, "whoever stops the instance waits for them all the same");
    assert_eq!(front.client().await.get("/").await.status(), 200);
    drop(open);
}

//! What a stream of HTTP/2 may do in the middle of a request or an answer.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;

use crate::h2::{h2c, prior_knowledge, request};
use crate::support::{Client, Front, Instance, client::Kind, endpoint, soon, upstream};

#[tokio::test]
async fn early_hints_come_before_the_answer_of_a_stream() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while connection.message(Kind::Request).await.is_some() {
            connection.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n").await;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let front = Front::of(&instance);
    let mut sender = prior_knowledge(&front).await.ready().await.expect("ready");
    let (mut answer, _) = sender.send_request(request("GET", "/"), true).expect("sent");
    let hints = soon("hints", poll_fn(|cx| answer.poll_informational(cx))).await;
    let hints = hints.expect("they come").expect("a good head");
    assert_eq!(hints.status(), 103);
    assert_eq!(hints.headers().get("link").expect("a link"), "</style.css>");
    assert_eq!(soon("the answer", answer).await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn the_instance_decides_whether_a_stream_may_continue() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while let Some(head) = connection.until(b"\r\n\r\n").await {
            assert!(String::from_utf8_lossy(&head).to_lowercase().contains("expect: 100-continue"));
            connection.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            assert_eq!(connection.exactly(4).await.expect("the body"), b"body");
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let front = Front::of(&instance);
    let mut sender = prior_knowledge(&front).await.ready().await.expect("ready");
    let asking = Request::post("http://test/").header("expect", "100-continue").header("content-length", "4");
    let (mut answer, mut body) =
        sender.send_request(asking.body(()).expect("a request"), false).expect("sent");
    let go_on = soon("leave to go on", poll_fn(|cx| answer.poll_informational(cx))).await;
    assert_eq!(go_on.expect("it comes").expect("a good head").status(), 100);
    body.send_data(Bytes::from_static(b"body"), true).expect("sent");
    assert_eq!(soon("the answer", answer).await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_stream_whose_body_comes_too_slowly_is_408_and_the_others_go_on() {
    let instance = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.timeouts.request_body_idle_ms = 150;
    });
    let mut sender = prior_knowledge(&front).await.ready().await.expect("ready");
    let slow = Request::post("http://test/").header("content-length", "10").body(()).expect("a request");
    let (answer, mut body) = sender.send_request(slow, false).expect("sent");
    body.send_data(Bytes::from_static(b"half"), false).expect("sent");
    assert_eq!(soon("the refusal", answer).await.expect("an answer").status(), 408);
    let mut sender = sender.ready().await.expect("the connection stays");
    let (answer, _) = sender.send_request(request("GET", "/"), true).expect("sent");
    assert_eq!(soon("an answer", answer).await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_is_reset_and_the_others_go_on() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while let Some(request) = connection.message(Kind::Request).await {
            if !request.head.contains("/endless") {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                continue;
            }
            connection.send("HTTP/1.1 200 OK\r\n\r\n").await;
            while tokio::io::AsyncWriteExt::write_all(&mut connection.stream, &[b'x'; 65_536]).await.is_ok() {
            }
        }
    })
    .await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.timeouts.write_idle_ms = 200;
    });
    let mut sender = prior_knowledge(&front).await.ready().await.expect("ready");
    let (answer, _) = sender.send_request(request("GET", "/endless"), true).expect("sent");
    let mut unread = soon("an answer", answer).await.expect("an answer").into_body();
    soon("the cut", front.handle.endpoint_idle("one")).await;
    // What lies in the window, and then the reset.
    let reset = loop {
        match soon("the reset", unread.data()).await {
            Some(Ok(_)) => {}
            ended => break ended,
        }
    };
    assert!(reset.is_some_and(|ended| ended.is_err()), "it cannot be taken for a whole answer");
    let mut sender = sender.ready().await.expect("the connection stays");
    let (answer, _) = sender.send_request(request("GET", "/"), true).expect("sent");
    assert_eq!(soon("an answer", answer).await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn server_sent_events_reach_a_stream_one_by_one() {
    let (heard, hears) = mpsc::unbounded_channel::<()>();
    let hears = Arc::new(tokio::sync::Mutex::new(hears));
    let instance = Instance::serving(move |mut connection: Client| {
        let hears = hears.clone();
        async move {
            connection.message(Kind::Request).await;
            connection
                .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            for _ in 0..3 {
                connection.send("9\r\ndata: x\n\n\r\n").await;
                // Not before the client has the one before.
                hears.lock().await.recv().await;
            }
            connection.send("0\r\n\r\n").await;
        }
    })
    .await;
    let front = Front::of(&instance);
    let mut sender = prior_knowledge(&front).await.ready().await.expect("ready");
    let (answer, _) = sender.send_request(request("GET", "/"), true).expect("sent");
    let answer = soon("an answer", answer).await.expect("an answer");
    assert_eq!(answer.headers().get("content-type").expect("a type"), "text/event-stream");
    let mut events = answer.into_body();
    for _ in 0..3 {
        let event = soon("an event", events.data()).await.expect("it goes on").expect("data");
        assert_eq!(event, "data: x\n\n");
        events.flow_control().release_capacity(event.len()).expect("it was taken");
        heard.send(()).expect("the instance waits");
    }
    // A frame without data may bear the end.
    let end = soon("the end", events.data()).await;
    assert!(end.is_none_or(|last| last.is_ok_and(|last| last.is_empty())) && events.is_end_stream());
}

/// Endless answers at `/endless`, short ones elsewhere, all of them with a body. Counts the bytes of the endless ones.
async fn generous(sent: Arc<AtomicUsize>) -> Instance {
    Instance::serving(move |connection: Client| {
        let sent = Arc::clone(&sent);
        async move {
            let Ok(mut connection) = h2::server::handshake(connection.stream).await else {
                return;
            };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let sent = Arc::clone(&sent);
                tokio::spawn(async move {
                    let mut body = respond.send_response(Response::new(()), false).expect("send");
                    if request.uri().path() != "/endless" {
                        let _ = body.send_data(Bytes::from_static(b"short"), true);
                        return;
                    }
                    loop {
                        body.reserve_capacity(16_384);
                        let Some(Ok(room)) = poll_fn(|cx| body.poll_capacity(cx)).await else { return };
                        if body.send_data(vec![b'x'; room].into(), false).is_err() {
                            return;
                        }
                        sent.fetch_add(room, Ordering::SeqCst);
                    }
                });
            }
        }
    })
    .await
}

#[tokio::test]
async fn clients_that_do_not_read_hold_up_nobody_else_at_an_h2_instance() {
    let sent = Arc::new(AtomicUsize::new(0));
    let instance = generous(Arc::clone(&sent)).await;
    let front = h2c(&instance);
    let mut unread = Vec::new();
    for _ in 0..48 {
        let socket = TcpSocket::new_v4().expect("a socket");
        // So that not much lies in the sockets.
        socket.set_recv_buffer_size(8 * 1024).expect("a size");
        let mut client = Client::over(socket.connect(front.address).await.expect("connect"));
        client.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n").await;
        unread.push(client);
    }
    // Until nothing fits any more, neither into their sockets nor into the windows.
    soon("a standstill", async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = sent.load(Ordering::SeqCst);
            if now == before && now > 0 {
                return;
            }
            before = now;
        }
    })
    .await;
    for _ in 0..8 {
        assert_eq!(front.client().await.get("/").await.text(), "short");
    }
    drop(unread);
}

#[tokio::test]
async fn a_stream_that_is_given_up_while_it_waits_for_a_place_reaches_no_instance() {
    let (go, goes) = tokio::sync::oneshot::channel::<()>();
    let goes = Arc::new(std::sync::Mutex::new(Some(goes)));
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let instance = Instance::serving(move |mut connection: Client| {
        let (counter, goes) = (Arc::clone(&counter), Arc::clone(&goes));
        async move {
            while connection.message(Kind::Request).await.is_some() {
                counter.fetch_add(1, Ordering::SeqCst);
                let first = goes.lock().expect("no panic").take();
                if let Some(goes) = first {
                    goes.await.expect("the test says so");
                }
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        let web = config.upstreams.get_mut("web").expect("web");
        (web.max_in_flight, web.queue_timeout_ms) = (1, 60_000);
    });
    let mut sender = prior_knowledge(&front).await.ready().await.expect("ready");
    let (first, _) = sender.send_request(request("GET", "/first"), true).expect("sent");
    soon("the first", async {
        while front.in_flight("one") == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let mut sender = sender.ready().await.expect("ready");
    let (second, _) = sender.send_request(request("GET", "/second"), true).expect("sent");
    let queued = async |count: u64| {
        while front.handle.status().queued != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("a place in the queue", queued(1)).await;
    drop(second);
    soon("an empty queue", queued(0)).await;
    go.send(()).expect("the instance waits");
    assert_eq!(soon("the answer", first).await.expect("an answer").status(), 200);
    let mut sender = sender.ready().await.expect("ready");
    let (third, _) = sender.send_request(request("GET", "/third"), true).expect("sent");
    assert_eq!(soon("the answer", third).await.expect("an answer").status(), 200);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

//! In-flight counts are exact: the supervisor stops an instance when its count is zero.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::h2::{prior_knowledge, request};
use crate::support::{Client, Front, Instance, client::Kind, endpoint, soon, upstream};

/// Answers each request when told to, through the channel it sends for it.
async fn patient() -> (Instance, mpsc::UnboundedReceiver<tokio::sync::oneshot::Sender<()>>) {
    let (waiting, arrivals) = mpsc::unbounded_channel();
    let instance = Instance::serving(move |mut connection: Client| {
        let waiting = waiting.clone();
        async move {
            while connection.message(Kind::Request).await.is_some() {
                let (go, gone) = tokio::sync::oneshot::channel();
                waiting.send(go).expect("the test waits");
                if gone.await.is_err() {
                    return;
                }
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await;
            }
        }
    })
    .await;
    (instance, arrivals)
}

#[tokio::test]
async fn an_endpoint_is_idle_only_when_its_last_request_has_ended() {
    let (instance, mut arrivals) = patient().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let go = soon("the request", arrivals.recv()).await.expect("the request");
    assert_eq!((front.in_flight("one"), front.handle.status().in_flight), (1, 1));

    let idle = front.handle.endpoint_idle("one");
    tokio::pin!(idle);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut idle).await.is_err());
    go.send(()).expect("the instance waits");
    assert_eq!(client.response().await.text(), "slow");
    soon("idleness", idle).await;
    assert_eq!(front.in_flight("one"), 0);
    soon("idleness of nobody", front.handle.endpoint_idle("unknown")).await;
}

#[tokio::test]
async fn a_removed_endpoint_finishes_what_it_has_and_gets_nothing_new() {
    let (old, mut arrivals) = patient().await;
    let new = Instance::saying("new").await;
    let mut front = Front::with(upstream(vec![endpoint("old", &old)]), |_| {});
    let mut waiting = front.client().await;
    waiting.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let go = soon("the request", arrivals.recv()).await.expect("the request");

    let wanted = endpoint("new", &new);
    front.reconfigure(|config| config.upstreams.get_mut("web").expect("web").endpoints = vec![wanted]);
    let mut other = front.client().await;
    for _ in 0..10 {
        assert_eq!(other.get("/").await.text(), "new");
    }
    assert_eq!(front.in_flight("old"), 1, "what left the configuration is still counted");
    go.send(()).expect("the instance waits");
    assert_eq!(waiting.response().await.text(), "slow");
    soon("idleness", front.handle.endpoint_idle("old")).await;
}

#[tokio::test]
async fn a_closed_endpoint_loses_what_is_in_flight() {
    let (instance, mut arrivals) = patient().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").await;
    let _go = soon("the request", arrivals.recv()).await.expect("the request");
    front.handle.close_endpoint("one");
    assert_eq!(client.response().await.status(), 502);
    soon("idleness", front.handle.endpoint_idle("one")).await;
}

#[tokio::test]
async fn a_client_that_goes_away_within_an_answer_frees_its_place() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.message(Kind::Request).await;
        connection.send("HTTP/1.1 200 OK\r\n\r\n").await;
        // An endless answer; the connection's end ends it.
        while tokio::io::AsyncWriteExt::write_all(&mut connection.stream, &[b'x'; 1000]).await.is_ok() {}
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    soon("some of the answer", client.exactly(10_000)).await.expect("some of the answer");
    assert_eq!(front.in_flight("one"), 1);
    drop(client);
    soon("idleness", front.handle.endpoint_idle("one")).await;
    assert_eq!(front.in_flight("one"), 0);
}

/// Begins an answer of events and says nothing more until its connection ends.
async fn silent() -> Instance {
    Instance::serving(|mut connection: Client| async move {
        connection.message(Kind::Request).await;
        connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n").await;
        connection.rest().await;
    })
    .await
}

/// A page that is left closes its stream of events, and the next one opens another.
#[tokio::test]
async fn a_client_that_leaves_a_silent_answer_frees_its_place() {
    let instance = silent().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    soon("an event", client.until(b"data: x\n\n")).await.expect("an event");
    assert_eq!(front.in_flight("one"), 1);
    drop(client);
    soon("idleness", front.handle.endpoint_idle("one")).await;

    let mut sender = prior_knowledge(&front).await.ready().await.expect("ready");
    let (answer, _) = sender.send_request(request("GET", "/"), true).expect("sent");
    let mut events = soon("an answer", answer).await.expect("an answer").into_body();
    soon("an event", events.data()).await.expect("it goes on").expect("data");
    assert_eq!(front.in_flight("one"), 1);
    // What a browser does for `EventSource.close()`: the connection stays.
    drop(events);
    soon("idleness", front.handle.endpoint_idle("one")).await;
    sender.ready().await.expect("the connection stays");
}

#[tokio::test]
async fn a_client_that_has_nothing_more_to_ask_gets_its_answer_to_the_end() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.message(Kind::Request).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        connection.send("half").await;
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    client.stream.shutdown().await.expect("shutdown");
    assert_eq!(client.response().await.text(), "halfhalf");
}

//! Many requests on one connection, on both sides of the edge.

use crate::support::{Client, Front, Instance, client::Kind, endpoint, upstream};

#[tokio::test]
async fn requests_on_one_connection_share_one_upstream_connection() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    for number in 0..100 {
        let answer = client.get(&format!("/{number}")).await;
        assert_eq!(answer.status(), 200);
        assert!(answer.text().starts_with(&format!("GET /{number} HTTP/1.1")), "{}", answer.text());
    }
    assert_eq!(instance.connections(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    let requests: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
    client.send(requests).await;
    for number in 0..20 {
        let answer = client.response().await;
        assert!(answer.text().starts_with(&format!("GET /{number} ")), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_client_that_asks_to_close_is_closed_after_the_answer() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
    let answer = client.response().await;
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_old_client_is_closed_after_the_answer_unless_it_asks_to_stay() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);

    let mut leaving = front.client().await;
    leaving.send("GET / HTTP/1.0\r\nHost: test\r\n\r\n").await;
    assert_eq!(leaving.response().await.status(), 200);
    assert!(leaving.is_closed().await);

    let mut staying = front.client().await;
    for _ in 0..2 {
        staying.send("GET / HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(staying.response().await.field("connection"), Some("keep-alive"));
    }
}

#[tokio::test]
async fn the_answer_to_head_has_the_length_and_not_the_body() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while connection.message(Kind::Request).await.is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
        }
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    for _ in 0..3 {
        client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.bodiless_response().await.field("content-length"), Some("1234"));
    }
    assert_eq!(instance.connections(), 1, "a body that was only spoken of does not spoil the connection");
}

#[tokio::test]
async fn a_configuration_is_in_force_when_configure_returns() {
    let (old, new) = (Instance::saying("old").await, Instance::saying("new").await);
    let mut front = Front::with(upstream(vec![endpoint("old", &old)]), |_| {});
    let mut client = front.client().await;
    for round in 0..20 {
        let (id, instance) = if round % 2 == 0 { ("new", &new) } else { ("old", &old) };
        let wanted = endpoint(&format!("{id}-{round}"), instance);
        front.reconfigure(|config| {
            config.upstreams.get_mut("web").expect("the upstream").endpoints = vec![wanted];
        });
        assert_eq!(client.get("/").await.text(), id);
    }
}

//! A request is sent again only where that cannot do harm.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Client, Front, Instance, client::Kind, endpoint, front::endpoint_at, upstream};

/// Takes every request and closes without a word; counts them.
async fn mute() -> (Instance, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let instance = Instance::serving(move |mut connection: Client| {
        let counter = Arc::clone(&counter);
        async move {
            if connection.message(Kind::Request).await.is_some() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    (instance, taken)
}

/// An address where nobody listens.
fn nobody() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("an address")
}

#[tokio::test]
async fn any_request_that_was_never_sent_goes_elsewhere() {
    let good = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint_at("gone", nobody()), endpoint("good", &good)]), |_| {});
    let mut client = front.client().await;
    for number in 0..20 {
        client.send(format!("POST /{number} HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi")).await;
        let answer = client.response().await;
        assert_eq!(answer.status(), 200);
        assert!(answer.text().ends_with("hi"));
    }
}

#[tokio::test]
async fn an_idempotent_request_that_was_lost_goes_elsewhere_with_its_body() {
    let (bad, _) = mute().await;
    let good = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint("bad", &bad), endpoint("good", &good)]), |_| {});
    for _ in 0..20 {
        let mut client = front.client().await;
        client.send("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello").await;
        let answer = client.response().await;
        assert_eq!(answer.status(), 200);
        assert!(answer.text().ends_with("hello"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_post_that_was_lost_is_never_sent_again() {
    let (bad, taken) = mute().await;
    let good = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint("bad", &bad), endpoint("good", &good)]), |_| {});
    let mut lost = 0;
    for _ in 0..20 {
        let mut client = front.client().await;
        client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello").await;
        lost += usize::from(client.response().await.status() == 502);
    }
    assert_eq!(lost, taken.load(Ordering::SeqCst), "each request that reached the bad endpoint failed");
    assert!(lost > 0, "the bad endpoint was tried at all");
}

#[tokio::test]
async fn a_body_too_long_to_keep_is_not_sent_again() {
    let bad = Instance::serving(|mut connection: Client| async move {
        connection.exactly(50_000).await;
    })
    .await;
    let front = Front::with(upstream(vec![endpoint("a", &bad), endpoint("b", &bad)]), |config| {
        config.upstreams.get_mut("web").expect("web").replay_body_bytes = 1_000;
    });
    let mut client = front.client().await;
    client
        .send(format!(
            "PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n{}",
            "x".repeat(100_000)
        ))
        .await;
    assert_eq!(client.response().await.status(), 502);
    assert_eq!(bad.connections(), 1);
}

#[tokio::test]
async fn a_stale_connection_is_replaced_without_the_client_noticing() {
    // Closes each connection after its first answer without having said so.
    let instance = Instance::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        let retry = &mut config.upstreams.get_mut("web").expect("web").retry;
        (retry.percent, retry.min_per_second) = (0, 0);
    });
    let mut client = front.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
}

#[tokio::test]
async fn with_nobody_left_to_try_the_answer_says_when_to_come_back() {
    let front = Front::with(upstream(Vec::new()), |config| {
        config.upstreams.get_mut("web").expect("web").queue_timeout_ms = 50;
    });
    let mut client = front.client().await;
    let answer = client.get("/").await;
    assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("1")));
}

#[tokio::test]
async fn a_request_waits_in_the_queue_until_an_endpoint_comes() {
    let mut front = Front::with(upstream(Vec::new()), |_| {});
    let mut client = front.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let instance = Instance::saying("at last").await;
    let wanted = endpoint("late", &instance);
    front.reconfigure(|config| config.upstreams.get_mut("web").expect("web").endpoints = vec![wanted]);
    assert_eq!(client.response().await.text(), "at last");
}

#[tokio::test]
async fn what_waits_on_an_endpoint_that_goes_down_is_sent_elsewhere() {
    // As a stopped process does: the kernel accepts, nobody answers.
    let stopped = TcpListener::bind("127.0.0.1:0").expect("bind");
    let good = Instance::saying("ok").await;
    let at = stopped.local_addr().expect("an address");
    let front = Front::with(upstream(vec![endpoint_at("stopped", at), endpoint("good", &good)]), |config| {
        let health = &mut config.upstreams.get_mut("web").expect("web").health;
        health.path = Some("/".to_owned());
        (health.interval_ms, health.timeout_ms, health.unhealthy_threshold) = (200, 100, 2);
    });
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut client = front.client().await;
        requests.spawn(async move { client.get("/").await.status() });
    }
    assert_eq!(requests.join_all().await, [200; 8]);
    assert_eq!(front.in_flight("stopped"), 0);
}

/// Requests that take long, at an instance that fails its checks meanwhile: each of them is answered yet.
#[tokio::test]
async fn what_waits_on_an_endpoint_that_goes_down_stays_there_while_no_retry_is_to_be_had() {
    let slow = || {
        Instance::serving(|mut connection: Client| async move {
            while let Some(request) = connection.message(Kind::Request).await {
                if request.head.starts_with("GET /health") {
                    connection.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        })
    };
    let (failing, good) = (slow().await, Instance::saying("ok").await);
    let front =
        Front::with(upstream(vec![endpoint("failing", &failing), endpoint("good", &good)]), |config| {
            let web = config.upstreams.get_mut("web").expect("web");
            web.health.path = Some("/health".to_owned());
            (web.health.interval_ms, web.health.unhealthy_threshold) = (100, 3);
            (web.retry.percent, web.retry.min_per_second) = (0, 0);
        });
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut client = front.client().await;
        requests.spawn(async move {
            let began = Instant::now();
            assert_eq!(client.get("/").await.status(), 200);
            began.elapsed()
        });
    }
    let waits = requests.join_all().await;
    assert!(waits.iter().any(|wait| *wait > Duration::from_secs(1)), "some waited there: {waits:?}");
    assert_eq!(front.handle.status().endpoints["failing"].health, edge::status::Health::Unhealthy);
}

/// An app with one worker answers no checks while it is at work.
#[tokio::test]
async fn what_waits_on_the_only_endpoint_is_sent_there_once_though_its_checks_fail() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let instance = Instance::serving(move |mut connection: Client| {
        let counter = Arc::clone(&counter);
        async move {
            while let Some(request) = connection.message(Kind::Request).await {
                if request.head.starts_with("GET /health") {
                    connection.rest().await;
                    return;
                }
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        let health = &mut config.upstreams.get_mut("web").expect("web").health;
        health.path = Some("/health".to_owned());
        (health.interval_ms, health.timeout_ms, health.unhealthy_threshold) = (100, 100, 2);
    });
    let mut client = front.client().await;
    assert_eq!(client.get("/").await.text(), "ok");
    assert_eq!(front.handle.status().endpoints["one"].health, edge::status::Health::Unhealthy);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

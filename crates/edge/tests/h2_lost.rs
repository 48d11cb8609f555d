//! What becomes of a request that an instance of HTTP/2 does not answer: whether, where and how often it is sent again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge::config::RetryBudget;

use crate::h2::{exchange, h2c, prior_knowledge, request};
use crate::support::{Client, Front, Instance, soon};

const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// On SETTINGS the same bit acknowledges.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` in the static table.
const OK: &[u8] = &[0x88];

const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

/// What an instance does with a request that it has as a whole.
#[derive(Debug, Clone, Copy)]
enum Act {
    Answer,
    Reset(u32),
    /// Says GOAWAY and that it did not process this one.
    LeaveBefore,
    /// Begins an answer that does not end, and says GOAWAY.
    LeaveWithin,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// GOAWAY without an error.
fn go_away(last_stream: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last_stream.to_be_bytes(), [0; 4]].concat())
}

/// An instance that speaks HTTP/2 by hand and never closes a connection, and the bodies of all requests that reached it.
/// What it does with a request depends on how many there were before.
async fn by_hand(act: impl Fn(usize) -> Act + Send + Sync + 'static) -> (Instance, Arc<Mutex<Vec<String>>>) {
    let reached = Arc::new(Mutex::new(Vec::new()));
    let (bodies, act) = (Arc::clone(&reached), Arc::new(act));
    let instance = Instance::serving(move |mut connection: Client| {
        let (bodies, act) = (Arc::clone(&bodies), Arc::clone(&act));
        async move {
            connection.exactly(PREFACE).await;
            connection.send(frame(SETTINGS, 0, 0, &[])).await;
            let mut body = Vec::new();
            while let Some(head) = connection.exactly(9).await {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let (kind, flags) = (head[3], head[4]);
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                let Some(payload) = connection.exactly(length as usize).await else {
                    return;
                };
                if kind == DATA {
                    body.extend(payload);
                }
                if !matches!(kind, HEADERS | DATA) || flags & END_STREAM == 0 {
                    continue;
                }
                let before = {
                    let mut bodies = bodies.lock().expect("no panic");
                    bodies.push(String::from_utf8(std::mem::take(&mut body)).expect("a text body"));
                    bodies.len() - 1
                };
                let answer = match act(before) {
                    Act::Answer => frame(HEADERS, END_HEADERS | END_STREAM, stream, OK),
                    Act::Reset(reason) => frame(RST_STREAM, 0, stream, &reason.to_be_bytes()),
                    Act::LeaveBefore => go_away(stream.saturating_sub(2)),
                    Act::LeaveWithin => [frame(HEADERS, END_HEADERS, stream, OK), go_away(stream)].concat(),
                };
                connection.send(answer).await;
            }
        }
    })
    .await;
    (instance, reached)
}

/// In front of it, without a budget for retries: what is sent again is no retry.
fn without_retries(instance: &Instance) -> Front {
    let mut front = h2c(instance);
    front.reconfigure(|config| {
        let retry = &mut config.upstreams.get_mut("web").expect("web").retry;
        (retry.percent, retry.min_per_second) = (0, 0);
    });
    front
}

const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";

/// All on one connection, so that they share the connection to the instance.
#[tokio::test]
async fn what_http2_cannot_say_is_refused_and_held_against_nobody() {
    let (instance, reached) = by_hand(|_| Act::Answer).await;
    let front = h2c(&instance);
    let mut client = front.client().await;
    assert_eq!(client.get("/").await.status(), 200);
    for unsayable in [
        "GET /a<b HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ] {
        client.send(unsayable).await;
        assert_eq!(client.response().await.status(), 400, "{unsayable}");
    }
    assert_eq!(client.get("/").await.status(), 200);
    assert_eq!((instance.connections(), reached.lock().expect("no panic").len()), (1, 2));
    assert_eq!(front.handle.status().endpoints["one"].failures_total, 0);
}

#[tokio::test]
async fn a_request_that_is_reset_again_and_again_is_given_up() {
    let attempts = RetryBudget::default().max_attempts as usize;
    // A refusal is the connection's affair once for each attempt, any other reset the instance's.
    for (reason, most) in [(INTERNAL_ERROR, attempts), (REFUSED_STREAM, 2 * attempts)] {
        let (instance, reached) =
            by_hand(move |before| if before == 0 { Act::Answer } else { Act::Reset(reason) }).await;
        let front = h2c(&instance);
        let mut client = front.client().await;
        assert_eq!(client.get("/").await.status(), 200);
        assert_eq!(client.get("/").await.status(), 502);
        let sent = reached.lock().expect("no panic").len() - 1;
        assert!((attempts..=most).contains(&sent), "sent {sent} times for {reason}");
    }
}

#[tokio::test]
async fn a_post_that_was_not_processed_is_sent_again_on_a_new_connection() {
    for refusal in [Act::Reset(REFUSED_STREAM), Act::LeaveBefore] {
        let (instance, reached) =
            by_hand(move |before| if before == 1 { refusal } else { Act::Answer }).await;
        let front = without_retries(&instance);
        let mut client = front.client().await;
        for _ in 0..3 {
            client.send(POST).await;
            assert_eq!(client.response().await.status(), 200, "{refusal:?}");
        }
        assert_eq!(*reached.lock().expect("no panic"), ["hello"; 4]);
        assert_eq!(instance.connections(), 2, "{refusal:?}");
    }
}

#[tokio::test]
async fn a_post_that_was_reset_for_another_reason_is_never_sent_again() {
    let (instance, reached) =
        by_hand(|before| if before == 0 { Act::Answer } else { Act::Reset(INTERNAL_ERROR) }).await;
    let front = h2c(&instance);
    let mut client = front.client().await;
    for (sent, status) in [(1, 200), (2, 502)] {
        client.send(POST).await;
        assert_eq!(client.response().await.status(), status);
        assert_eq!(reached.lock().expect("no panic").len(), sent);
    }
}

/// With a stream that stays open the connection does, too.
#[tokio::test]
async fn nothing_is_sent_on_a_connection_that_was_told_to_go_away() {
    let (instance, reached) =
        by_hand(|before| if before == 0 { Act::LeaveWithin } else { Act::Answer }).await;
    let front = without_retries(&instance);
    // The streams of one connection are served by one thread.
    let sender = prior_knowledge(&front).await;
    let (answer, _) =
        sender.clone().ready().await.expect("ready").send_request(request("GET", "/"), true).expect("sent");
    let mut open = soon("the head", answer).await.expect("a head").into_body();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..3 {
        let answer = soon("an answer", exchange(&sender, request("POST", "/"), b"hello", None)).await;
        assert_eq!(answer.expect("an answer").head.status(), 200);
    }
    assert_eq!(*reached.lock().expect("no panic"), ["", "hello", "hello", "hello"]);
    assert_eq!(instance.connections(), 2);

    front.handle.close_endpoint("one");
    let cut = soon("the cut", open.data()).await;
    assert!(cut.is_some_and(|ended| ended.is_err()), "closing an endpoint reaches that connection, too");
}

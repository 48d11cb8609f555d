//! What the edge says of its traffic.

use crate::support::client::Kind;
use crate::support::{Client, Front, Instance, endpoint, soon, upstream};
use std::time::Duration;

fn entries(path: &std::path::Path) -> Vec<serde_json::Value> {
    let log = std::fs::read_to_string(path).expect("the log");
    log.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

#[tokio::test]
async fn each_request_is_one_line_of_the_access_log_and_counted_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let instance = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.routes[0].path_prefix = "/app".to_owned();
        config.access_log = Some(edge::config::AccessLog { path: path.clone(), rotate_bytes: 1 << 20 });
    });
    let mut client = front.client().await;
    let answer = client.get("/app/x?y=1").await;
    client.get("/nowhere").await;
    let mut metrics = String::new();
    front.handle.metrics(&mut metrics);
    drop(client);
    soon("the drain", front.handle.drain(Duration::from_secs(60))).await;

    let lines = entries(&path);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["status"], 200);
    assert_eq!(lines[0]["path"], "/app/x?y=1");
    assert_eq!(lines[0]["endpoint"], "one");
    assert_eq!(lines[0]["request_id"], answer.field("x-request-id").expect("an id"));
    assert_eq!(lines[1]["status"], 404);

    let status = front.handle.status();
    assert_eq!(status.endpoints["one"].responses_2xx_total, 1);
    assert!(metrics.contains("upstream=\"web\""), "{metrics}");
}

#[tokio::test]
async fn a_request_that_is_refused_unread_is_a_line_of_the_access_log_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let instance = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.access_log = Some(edge::config::AccessLog { path: path.clone(), rotate_bytes: 1 << 20 });
        config.limits.request_body_bytes = 10;
        config.limits.request_header_count = 10;
        config.timeouts.request_head_ms = 200;
    });
    let many = format!("GET /many HTTP/1.1\r\nHost: test\r\n{}\r\n", "A: b\r\n".repeat(11));
    let cases: [(&str, u16, &str, Option<&str>); 5] = [
        ("GET /bare-line-end HTTP/1.1\nHost: test\n\n", 400, "bad_request", Some("/bare-line-end")),
        ("\u{16}\u{3} no HTTP at all\r\n\r\n", 400, "bad_request", None),
        (&many, 431, "head_too_large", Some("/many")),
        ("GET /slow HTTP/1.1\r\nHos", 408, "request_timeout", Some("/slow")),
        (
            "PUT /big HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\n",
            413,
            "body_too_large",
            Some("/big"),
        ),
    ];
    for (request, status, _, _) in &cases {
        let mut client = front.client().await;
        client.send(request).await;
        assert_eq!(client.response().await.status(), *status, "{request:?}");
    }
    let mut metrics = String::new();
    front.handle.metrics(&mut metrics);
    soon("the drain", front.handle.drain(Duration::from_secs(60))).await;

    let lines = entries(&path);
    assert_eq!(lines.len(), cases.len(), "{lines:#?}");
    for (request, status, reason, target) in cases {
        let is_it = |line: &&serde_json::Value| line["status"] == status && line["path"].as_str() == target;
        let line = lines.iter().find(is_it).unwrap_or_else(|| panic!("{request:?} is not in {lines:#?}"));
        assert_eq!(line["outcome"], format!("rejected:{reason}"));
        assert_eq!(line["client"], "127.0.0.1");
        assert!(metrics.contains(&format!("reason=\"{reason}\"")), "{metrics}");
    }
}

#[tokio::test]
async fn a_request_that_is_cut_at_the_end_of_a_drain_is_a_line_of_the_access_log_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let instance = Instance::serving(|mut connection: Client| async move {
        let request = connection.message(Kind::Request).await.expect("a request");
        if request.head.contains("/begun") {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello").await;
        }
        connection.rest().await;
    })
    .await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.access_log = Some(edge::config::AccessLog { path: path.clone(), rotate_bytes: 1 << 20 });
    });
    let mut waiting = front.client().await;
    waiting.send("GET /waiting HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut begun = front.client().await;
    begun.send("GET /begun HTTP/1.1\r\nHost: test\r\n\r\n").await;
    begun.until(b"hello").await.expect("a part of the body");
    soon("both requests", async {
        while front.in_flight("one") < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon("the cut", front.handle.drain(Duration::from_millis(50))).await;

    let mut lines = entries(&path);
    lines.sort_by_key(|line| line["status"].as_u64());
    assert_eq!(lines.len(), 2, "{lines:#?}");
    for (line, path, status, bytes_out) in [(&lines[0], "/waiting", 0, 0), (&lines[1], "/begun", 200, 5)] {
        assert_eq!(line["path"], path);
        assert_eq!(line["status"], status);
        assert_eq!(line["bytes_out"], bytes_out);
        assert_eq!(line["endpoint"], "one");
        assert_eq!(line["attempts"], 1);
        assert_eq!(line["outcome"], "cut");
    }
}

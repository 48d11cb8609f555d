//! What the edge says of its traffic.

use crate::support::{Front, Instance, endpoint, soon, upstream};
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

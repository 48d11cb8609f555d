//! What the edge says of its traffic.

use crate::support::{Front, Instance, endpoint, soon, upstream};
use std::time::Duration;

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

    let log = std::fs::read_to_string(&path).expect("the log");
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert_eq!(lines[0]["status"], 200);
    assert_eq!(lines[0]["path"], "/app/x?y=1");
    assert_eq!(lines[0]["endpoint"], "one");
    assert_eq!(lines[0]["request_id"], answer.field("x-request-id").expect("an id"));
    assert_eq!(lines[1]["status"], 404);

    let status = front.handle.status();
    assert_eq!(status.endpoints["one"].responses_2xx_total, 1);
    assert!(metrics.contains("upstream=\"web\""), "{metrics}");
}

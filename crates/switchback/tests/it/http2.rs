//! An app that speaks HTTP/2 only.

use testkit::{App, get};

use crate::{prepare, up};

/// A server of the standard library of Node, which the drivers' tests need as well. It is ready at `/ready` from the
/// third question on, and says at `/` how often it was asked.
const SERVER: &str = r#"
let asked = 0
const server = require("http2").createServer((request, response) => {
  if (request.url === "/ready") response.statusCode = ++asked < 3 ? 503 : 200
  response.end(`HTTP ${request.httpVersion}, asked ${asked} times by ${request.headers["user-agent"]}`)
})
server.listen(process.env.PORT, "127.0.0.1")
process.on("SIGTERM", () => process.exit(0))
"#;

fn app(health: &str) -> App {
    App::python("shop")
        .write("server.js", SERVER)
        .set("web", "run", "\"exec node server.js\"")
        .set("web", "protocol", "\"h2c\"")
        .set("web", "health", format!("{health:?}"))
}

#[test]
fn an_app_of_http2_gets_traffic_when_it_says_in_http2_that_it_is_healthy() {
    let switchback = up(app("/ready"));
    let answer = get(&switchback.url("/")).unwrap();
    assert!(answer.body.starts_with("HTTP 2.0"), "{}", answer.body);
    let asked: u32 = answer.body.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(asked >= 3, "it got traffic before it was ready: {}", answer.body);
}

#[test]
fn an_app_of_http2_that_is_never_healthy_does_not_come_up() {
    let switchback = prepare(app("/ready").write("server.js", &SERVER.replace("< 3", "> 0")).set(
        "web",
        "start_timeout",
        "\"2s\"",
    ));
    let output = switchback.cli(&["up", "--detach"]);
    assert_eq!(output.code, Some(1), "{output:#?}");
    assert!(output.stderr.contains("not ready within 2"), "{output:#?}");
    assert!(output.stderr.contains("answer /ready with a status below 400"), "{output:#?}");
}

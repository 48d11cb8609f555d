//! What the instance is told about the request, and the client about the answer.

use crate::support::{Client, Front, Instance, Message, endpoint, soon, upstream};

/// The request as the instance saw it.
async fn seen(client: &mut Client, fields: &str) -> Message {
    client.send(format!("GET / HTTP/1.1\r\nHost: Shop.example:8080\r\n{fields}\r\n")).await;
    let text = client.response().await.text().to_owned();
    Message { head: text.trim_end().to_owned(), body: Vec::new(), trailers: String::new() }
}

#[tokio::test]
async fn nobody_can_forge_who_they_are() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    let forged = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                  Forwarded: for=1.2.3.4\r\nX-Request-Id: mine\r\n\
                  traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n";
    let request = seen(&mut client, forged).await;
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host"), Some("Shop.example:8080"));
    assert_eq!(request.field("host"), Some("Shop.example:8080"));
    assert_eq!(request.field("forwarded"), None);
    assert_eq!(request.field("x-request-id").map(str::len), Some(32));
    assert_eq!(request.field("tracestate"), None);
    let trace = request.field("traceparent").expect("a traceparent");
    assert!(!trace.contains("0af7651916cd43dd8448eb211c80319c") && trace.len() == 55);

    // A server in the manner of CGI takes these for the ones above.
    let alike = "X_Forwarded_For: 1.2.3.4\r\nx-forwarded_for: 1.2.3.4\r\nX_Forwarded_Proto: https\r\nX_Forwarded-Host: evil\r\n\
                 X_Request_Id: mine\r\nSwitchback_Fresh: 1.5\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n\
                 User_Agent: curl\r\nX_Forwarded_For_Me: 1\r\n_: 2\r\n";
    for trusted in [Vec::new(), vec!["127.0.0.0/8".to_owned()]] {
        let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
            config.trusted_proxies = trusted
        });
        let request = seen(&mut front.client().await, alike).await;
        let names =
            request.head.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(name, _)| name);
        let names: Vec<&str> = names.filter(|name| name.contains('_')).collect();
        assert_eq!(names, ["User_Agent", "X_Forwarded_For_Me", "_"], "the others mean nothing to the edge");
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_named() {
    let instance = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.trusted_proxies = vec!["127.0.0.0/8".to_owned()];
    });
    let mut client = front.client().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let said = format!(
        "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Request-Id: abc-1\r\ntraceparent: {trace}\r\ntracestate: a=b\r\n"
    );
    let request = seen(&mut client, &said).await;
    assert_eq!(request.field("x-forwarded-for"), Some("203.0.113.9, 127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    assert_eq!(request.field("x-request-id"), Some("abc-1"));
    assert_eq!(request.field("traceparent"), Some(trace));
    assert_eq!(request.field("tracestate"), Some("a=b"));

    let broken =
        seen(&mut client, "traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01\r\n").await;
    assert!(!broken.field("traceparent").expect("a new one").contains("-00000000000000000000000000000000-"));
}

#[tokio::test]
async fn fields_of_one_connection_stay_there() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    let request = seen(
        &mut client,
        "Connection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nTE: gzip\r\nX-Kept: 2\r\n",
    )
    .await;
    for name in ["connection", "x-private", "keep-alive", "proxy-connection", "te"] {
        assert_eq!(request.field(name), None, "{name}");
    }
    assert_eq!(request.field("x-kept"), Some("2"));
}

#[tokio::test]
async fn the_answer_carries_the_request_id_and_a_date() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    let answer = client.get("/").await;
    let id = answer.field("x-request-id").expect("an id");
    assert!(answer.text().contains(id), "the instance knows the request by the same id");
    assert!(answer.field("date").expect("a date").ends_with(" GMT"));
}

#[tokio::test]
async fn an_absolute_target_rules_over_the_host() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("GET http://real.example/path?q HTTP/1.1\r\nHost: other.example\r\n\r\n").await;
    let seen = client.response().await.text().to_owned();
    assert!(
        seen.starts_with("GET /path?q HTTP/1.1\nHost: real.example\n")
            || seen.starts_with("GET /path?q HTTP/1.1\r\nHost: real.example\r\n"),
        "{seen}"
    );
    assert!(!seen.contains("other.example"), "{seen}");
}

#[tokio::test]
async fn options_for_the_server_itself_are_answered_by_the_edge() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 204);
    client.send("CONNECT test:443 HTTP/1.1\r\nHost: test:443\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 405);
    assert_eq!(instance.connections(), 0);
}

#[tokio::test]
async fn what_no_route_takes_is_not_found() {
    let instance = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.routes[0].path_prefix = "/app".to_owned();
    });
    let mut client = front.client().await;
    let answer = client.get("/other").await;
    assert_eq!(answer.status(), 404);
    assert!(answer.text().contains(answer.field("x-request-id").expect("an id")));
    assert_eq!(client.get("/app/x").await.status(), 200);
}

#[tokio::test]
async fn whatever_a_client_writes_before_a_trusted_proxy_does_names_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let instance = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.trusted_proxies = vec!["127.0.0.0/8".to_owned(), "10.0.0.0/8".to_owned()];
        config.access_log = Some(edge::config::AccessLog { path: path.clone(), rotate_bytes: 1 << 20 });
    });
    let mut client = front.client().await;
    let long = "6.6.6.6, ".repeat(100);
    let cases = [
        // The last one that is not trusted: who came to the first of our proxies.
        ("X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.0.0.1\r\n".to_owned(), "203.0.113.9"),
        ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 203.0.113.9:4711\r\n".to_owned(), "203.0.113.9"),
        ("X-Forwarded-For: 6.6.6.6, unknown, 10.0.0.1\r\n".to_owned(), "10.0.0.1"),
        ("X-Forwarded-For: 10.0.0.2, 10.0.0.1\r\n".to_owned(), "10.0.0.2"),
        ("X-Forwarded-For: nonsense\r\n".to_owned(), "127.0.0.1"),
        (format!("X-Forwarded-For: {long}203.0.113.9\r\n"), "203.0.113.9"),
        (format!("X-Forwarded-For: {long}6.6.6.6\r\nX-Forwarded-For: 203.0.113.9\r\n"), "203.0.113.9"),
    ];
    let mut chains = Vec::new();
    for (said, _) in &cases {
        chains.push(seen(&mut client, said).await.field("x-forwarded-for").expect("a chain").to_owned());
    }
    // Nor does it push out whom a proxy saw.
    for chain in &chains[5..] {
        assert!(chain.ends_with("203.0.113.9, 127.0.0.1") && chain.len() < 512, "{chain}");
    }
    drop(client);
    soon("the drain", front.handle.drain(std::time::Duration::from_secs(60))).await;
    let log = std::fs::read_to_string(&path).expect("the log");
    let clients: Vec<String> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a JSON line"))
        .map(|line| line["client"].as_str().expect("an address").to_owned())
        .collect();
    assert_eq!(clients, cases.map(|(_, client)| client));
}

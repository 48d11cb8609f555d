//! Heads that readers see differently: lines, fields, targets, hosts and versions.

use super::witness::Scene;
use super::{attack, get, is_refused, tests};

tests! { is_refused:
    bare_line_feeds = 400, attack("GET / HTTP/1.1\nHost: test\n\n");
    a_bare_line_feed_after_the_request_line = 400, attack("GET / HTTP/1.1\nHost: test\r\n\r\n");
    a_bare_line_feed_at_the_end_of_the_head = 400, attack("GET / HTTP/1.1\r\nHost: test\r\n\n");
    a_bare_line_feed_between_fields = 400, get("X: y\nZ: a");
    a_bare_carriage_return_in_a_value = 400, get("X: y\rz");
    a_bare_carriage_return_in_a_name = 400, get("X\r: y");
    a_bare_carriage_return_in_the_request_line = 400, attack("GET /\r HTTP/1.1\r\nHost: test\r\n\r\n");
    a_nul_in_a_name = 400, get("X\0: y");
    a_nul_in_a_value = 400, get("X: y\0z");
    a_nul_in_the_target = 400, attack("GET /\0 HTTP/1.1\r\nHost: test\r\n\r\n");
    an_escape_in_a_value = 400, get("X: \x1b[31m");
    a_line_without_a_colon = 400, get("nonsense");
    an_empty_name = 400, get(": value");
    a_space_in_a_name = 400, get("X Y: z");
    a_space_before_a_colon = 400, get("X : y");
    a_name_of_other_letters = 400, get("X\u{e9}: y");
    white_space_before_the_first_field = 400, attack("GET / HTTP/1.1\r\n Host: test\r\n\r\n");
    a_folded_field = 400, get("X: y\r\n z");
    a_folded_host = 400, attack("GET / HTTP/1.1\r\nHost:\r\n test\r\n\r\n");
    too_many_fields = 431, get(&vec!["X: y"; 200].join("\r\n"));
    too_long_a_head = 431, get(&format!("X: {}", "y".repeat(64 * 1024)));
    too_long_a_target = 414, attack(format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "y".repeat(10_000)));
    an_endless_target = 414, attack(format!("GET /{}", "y".repeat(64 * 1024)));

    no_version = 400, attack("GET /\r\n");
    an_old_simple_request_with_fields = 400, attack("GET /\r\nHost: test\r\n\r\n");
    version_1_2 = 505, attack("GET / HTTP/1.2\r\nHost: test\r\n\r\n");
    version_2_0 = 505, attack("GET / HTTP/2.0\r\nHost: test\r\n\r\n");
    version_0_9 = 505, attack("GET / HTTP/0.9\r\nHost: test\r\n\r\n");
    version_1_10 = 400, attack("GET / HTTP/1.10\r\nHost: test\r\n\r\n");
    a_version_in_small_letters = 505, attack("GET / http/1.1\r\nHost: test\r\n\r\n");
    words_after_the_version = 400, attack("GET / HTTP/1.1 HTTP/1.1\r\nHost: test\r\n\r\n");
    /// What follows the first space is taken for the version.
    a_space_in_the_target = 505, attack("GET /a b HTTP/1.1\r\nHost: test\r\n\r\n");
    two_spaces_before_the_target = 400, attack("GET  / HTTP/1.1\r\nHost: test\r\n\r\n");
    two_spaces_after_the_target = 505, attack("GET /  HTTP/1.1\r\nHost: test\r\n\r\n");
    a_tab_before_the_target = 400, attack("GET\t/ HTTP/1.1\r\nHost: test\r\n\r\n");
    a_space_before_the_method = 400, attack(" GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    two_empty_lines_before_the_request = 400, attack("\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n");
    a_bare_line_feed_before_the_request = 400, attack("\nGET / HTTP/1.1\r\nHost: test\r\n\r\n");
    a_method_of_other_letters = 400, attack("GE\u{0422} / HTTP/1.1\r\nHost: test\r\n\r\n");
    a_colon_in_the_method = 400, attack("GET: / HTTP/1.1\r\nHost: test\r\n\r\n");
    a_target_of_other_letters = 400, attack("GET /caf\u{e9} HTTP/1.1\r\nHost: test\r\n\r\n");
    a_fragment_in_the_target = 400, attack("GET /a#b HTTP/1.1\r\nHost: test\r\n\r\n");
    a_target_without_a_slash = 400, attack("GET a HTTP/1.1\r\nHost: test\r\n\r\n");
    a_star_for_another_method = 400, attack("GET * HTTP/1.1\r\nHost: test\r\n\r\n");
    connect = 405, attack("CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n");

    no_host = 400, attack("GET / HTTP/1.1\r\n\r\n");
    two_hosts = 400, get("Host: other");
    two_equal_hosts = 400, get("Host: test");
    a_host_with_a_space = 400, attack("GET / HTTP/1.1\r\nHost: te st\r\n\r\n");
    a_host_with_a_path = 400, attack("GET / HTTP/1.1\r\nHost: test/admin\r\n\r\n");
    a_host_with_user_information = 400, attack("GET / HTTP/1.1\r\nHost: admin@test\r\n\r\n");
    a_host_with_a_bad_port = 400, attack("GET / HTTP/1.1\r\nHost: test:80a\r\n\r\n");
    a_host_with_two_ports = 400, attack("GET / HTTP/1.1\r\nHost: test:80:81\r\n\r\n");
    a_list_of_hosts_with_a_space = 400, attack("GET / HTTP/1.1\r\nHost: test, other\r\n\r\n");
    an_open_bracket_in_the_host = 400, attack("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n");
    an_absolute_target_with_user_information = 400,
        attack("GET http://admin@test/ HTTP/1.1\r\nHost: test\r\n\r\n");
    an_absolute_target_without_a_host = 400, attack("GET http:///path HTTP/1.1\r\nHost: test\r\n\r\n");
    an_absolute_target_of_another_scheme = 400, attack("GET ftp://test/ HTTP/1.1\r\nHost: test\r\n\r\n");
    an_expectation_of_something_else = 417, get("Expect: 200-ok");
}

/// RFC 9112, 3.2.2: the host of the target rules, and the instance must not see the other one.
#[tokio::test]
async fn an_absolute_target_overrules_the_host() {
    let scene = Scene::new().await;
    let mut client = scene.front.client().await;
    client.send("GET http://front.example/a?b HTTP/1.1\r\nHost: other.example\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "GET /a?b HTTP/1.1");
    let reached = scene.end().await;
    assert!(reached.contains("\r\nHost: front.example\r\n"), "{reached}");
    assert!(!reached.contains("other.example"), "{reached}");
}

/// Fields that a client nominates are not for the instance, and neither are the ones that always belong to the
/// connection.
#[tokio::test]
async fn what_belongs_to_the_connection_stays_on_it() {
    let scene = Scene::new().await;
    let mut client = scene.front.client().await;
    client
        .send(
            "GET / HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
             Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\nX-End: 2\r\n\r\n",
        )
        .await;
    assert_eq!(client.response().await.status(), 200);
    let reached = scene.end().await.to_ascii_lowercase();
    for gone in ["x-hop", "keep-alive", "proxy-connection", "\r\nte:", "upgrade", "h2c"] {
        assert!(!reached.contains(gone), "{gone} in {reached}");
    }
    assert!(reached.contains("x-end: 2"), "{reached}");
}

/// Names and values that only look like those that frame a message.
#[tokio::test]
async fn names_that_a_gateway_might_normalise_are_not_taken_for_others() {
    let scene = Scene::new().await;
    let mut client = scene.front.client().await;
    client
        .send("GET / HTTP/1.1\r\nHost: test\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status(), 200);
    assert_eq!(client.get("/next").await.text(), "GET /next HTTP/1.1");
}

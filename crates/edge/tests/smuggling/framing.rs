//! Where a body ends: `Content-Length`, `Transfer-Encoding`, both, and what lies between.

use super::witness::Scene;
use super::{SMUGGLED, attack, expect_one_answer, is_refused, post, tests};
use crate::support::{Client, Front, Instance};

tests! { is_refused:
    /// The front reads the length, the back the chunks.
    a_length_and_chunks = 400, post("Content-Length: 5\r\nTransfer-Encoding: chunked");
    /// The front reads the chunks, the back the length.
    chunks_and_a_length = 400, post("Transfer-Encoding: chunked\r\nContent-Length: 5");
    a_length_of_nothing_and_chunks = 400, post("Content-Length: 0\r\nTransfer-Encoding: chunked");
    an_unknown_coding = 400, post("Transfer-Encoding: xchunked");
    identity = 400, post("Transfer-Encoding: identity");
    chunked_then_identity = 400, post("Transfer-Encoding: chunked, identity");
    identity_then_chunked = 400, post("Transfer-Encoding: identity, chunked");
    gzip_then_chunked = 400, post("Transfer-Encoding: gzip, chunked");
    chunked_twice_in_a_list = 400, post("Transfer-Encoding: chunked, chunked");
    two_codings_in_two_fields = 400, post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked");
    a_good_and_a_bad_coding = 400, post("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow");
    a_bad_and_a_good_coding = 400, post("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked");
    an_empty_coding = 400, post("Transfer-Encoding:");
    a_quoted_coding = 400, post("Transfer-Encoding: \"chunked\"");
    a_coding_with_a_parameter = 400, post("Transfer-Encoding: chunked;q=1");
    a_comma_before_the_coding = 400, post("Transfer-Encoding: ,chunked");
    a_comma_after_the_coding = 400, post("Transfer-Encoding: chunked,");
    a_vertical_tab_before_the_coding = 400, post("Transfer-Encoding: \x0bchunked");
    a_form_feed_after_the_coding = 400, post("Transfer-Encoding: chunked\x0c");
    a_nul_after_the_coding = 400, post("Transfer-Encoding: chunked\0");
    a_coding_in_bytes_that_look_like_letters = 400, post("Transfer-Encoding: chun\u{212a}ed");
    a_space_before_the_colon_of_the_coding = 400, post("Transfer-Encoding : chunked");
    a_tab_before_the_colon_of_the_coding = 400, post("Transfer-Encoding\t: chunked");
    a_vertical_tab_before_the_colon_of_the_coding = 400, post("Transfer-Encoding\x0b: chunked");
    a_coding_on_a_folded_line = 400, post("Transfer-Encoding:\r\n chunked");
    a_coding_on_a_line_folded_after_a_bare_line_feed = 400, post("Transfer-Encoding:\n chunked");
    a_coding_on_a_line_folded_by_a_tab = 400, post("Transfer-Encoding:\r\n\tchunked");
    a_coding_after_a_bare_line_feed = 400, post("X: y\nTransfer-Encoding: chunked");
    a_coding_after_a_bare_carriage_return = 400, post("X: y\rTransfer-Encoding: chunked");
    a_space_before_the_coding_field = 400, post(" Transfer-Encoding: chunked");

    two_equal_lengths = 400, post("Content-Length: 5\r\nContent-Length: 5");
    two_different_lengths = 400, post("Content-Length: 5\r\nContent-Length: 0");
    a_list_of_equal_lengths = 400, post("Content-Length: 5, 5");
    a_list_of_different_lengths = 400, post("Content-Length: 5, 0");
    a_length_with_a_plus = 400, post("Content-Length: +5");
    a_negative_length = 400, post("Content-Length: -1");
    a_hexadecimal_length = 400, post("Content-Length: 0x5");
    a_length_of_two_words = 400, post("Content-Length:  5 6");
    a_length_with_a_fraction = 400, post("Content-Length: 5.0");
    a_length_with_an_exponent = 400, post("Content-Length: 5e0");
    a_length_with_an_underscore = 400, post("Content-Length: 1_0");
    a_length_beyond_64_bits = 400, post("Content-Length: 18446744073709551621");
    an_empty_length = 400, post("Content-Length:");
    a_length_of_no_digits = 400, post("Content-Length: five");
    a_length_with_a_vertical_tab = 400, post("Content-Length: \x0b5");
    a_space_before_the_colon_of_the_length = 400, post("Content-Length : 5");
    a_length_on_a_folded_line = 400, post("Content-Length:\r\n 5");

    an_old_client_with_chunks = 400,
        attack("POST / HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    an_old_client_with_chunks_that_wants_to_stay = 400,
        attack("POST / HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    /// A proxy that removes nominated fields would remove the length and forward the body as a request.
    a_length_nominated_for_removal = 400,
        attack("POST / HTTP/1.1\r\nHost: test\r\nConnection: close, Content-Length\r\nContent-Length: 0\r\n\r\n");
    a_coding_nominated_for_removal = 400, post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked");
    a_host_nominated_for_removal = 400, post("Connection: Host\r\nContent-Length: 5");
}

/// A hop that does not know lengths in HTTP/1.0 would take the body for a request: nothing after it is read.
#[tokio::test]
async fn nothing_follows_the_body_of_an_old_client() {
    let scene = Scene::new().await;
    let mut client = scene.front.client().await;
    let request = "POST / HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello";
    client.send(attack(request)).await;
    expect_one_answer(&mut client, 200).await;
    let reached = scene.end().await;
    assert!(reached.contains("hello") && !reached.contains("smuggled"), "{reached}");
}

/// A body that belongs to a GET is a body.
#[tokio::test]
async fn the_body_of_a_get_is_not_a_request() {
    let scene = Scene::new().await;
    let mut client = scene.front.client().await;
    let body = "GET /inner HTTP/1.1\r\nHost: test\r\n\r\n";
    let length = body.len();
    client.send(format!("GET /outer HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}")).await;
    assert_eq!(client.response().await.text(), "GET /outer HTTP/1.1");
    assert_eq!(client.get("/next").await.text(), "GET /next HTTP/1.1");
    let reached = scene.end().await;
    assert!(reached.contains(&format!("Content-Length: {length}\r\n")), "{reached}");
}

/// The client says that a body will come and then sends something else. Whatever was answered, it cannot become a
/// request.
#[tokio::test]
async fn a_body_that_was_announced_and_not_sent_is_not_followed_by_a_request() {
    let scene = Scene::answering(|_| unreachable!("the body never comes")).await;
    let mut client = scene.front.client().await;
    let head = "POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n";
    client.send(attack(head)).await;
    // The rest of the body never comes either: the client leaves.
    drop(client);
    let reached = scene.end().await;
    // The edge puts its mark on every request that it passes on.
    assert!(reached.matches("\r\nX-Request-Id: ").count() <= 1, "{reached}");
}

#[tokio::test]
async fn an_answer_before_the_body_ends_the_connection() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.until(b"\r\n\r\n").await;
        connection.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
        let rest = connection.rest().await;
        assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"));
    })
    .await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 401);
    client.send(SMUGGLED).await;
    assert!(client.is_closed().await);
}

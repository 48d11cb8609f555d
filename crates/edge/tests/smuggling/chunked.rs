//! Chunked bodies that readers see differently. The head is fine, so it may have reached the instance.

use super::witness::Scene;
use super::{attack, is_cut, tests};

fn chunks(body: &str) -> Vec<u8> {
    attack(format!("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
}

tests! { is_cut:
    a_line_feed_in_an_extension = 400, chunks("5;a\nb\r\nhello\r\n0\r\n\r\n");
    a_carriage_return_in_an_extension = 400, chunks("5;a\rb\r\nhello\r\n0\r\n\r\n");
    a_nul_in_an_extension = 400, chunks("5;a\0\r\nhello\r\n0\r\n\r\n");
    a_long_extension = 400, chunks(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(10_000)));
    a_size_beyond_64_bits = 400, chunks("FFFFFFFFFFFFFFFFF1\r\nhello\r\n0\r\n\r\n");
    a_size_of_64_bits = 400, chunks("FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n");
    a_size_with_0x = 400, chunks("0x5\r\nhello\r\n0\r\n\r\n");
    a_size_with_a_plus = 400, chunks("+5\r\nhello\r\n0\r\n\r\n");
    a_negative_size = 400, chunks("-5\r\nhello\r\n0\r\n\r\n");
    a_size_with_an_underscore = 400, chunks("0_5\r\nhello\r\n0\r\n\r\n");
    a_space_after_the_size = 400, chunks("5 \r\nhello\r\n0\r\n\r\n");
    a_space_before_the_size = 400, chunks(" 5\r\nhello\r\n0\r\n\r\n");
    a_tab_before_the_size = 400, chunks("\t5\r\nhello\r\n0\r\n\r\n");
    no_size = 400, chunks("\r\nhello\r\n0\r\n\r\n");
    only_an_extension = 400, chunks(";a=b\r\nhello\r\n0\r\n\r\n");
    a_size_of_other_letters = 400, chunks("g\r\nhello\r\n0\r\n\r\n");
    a_bare_line_feed_after_the_size = 400, chunks("5\nhello\r\n0\r\n\r\n");
    a_bare_carriage_return_after_the_size = 400, chunks("5\rhello\r\n0\r\n\r\n");
    no_line_end_after_the_data = 400, chunks("5\r\nhello0\r\n\r\n");
    other_bytes_after_the_data = 400, chunks("5\r\nhelloXX0\r\n\r\n");
    a_bare_line_feed_after_the_data = 400, chunks("5\r\nhello\n0\r\n\r\n");
    data_longer_than_its_size = 400, chunks("3\r\nhello\r\n0\r\n\r\n");
    a_bare_line_feed_after_the_last_chunk = 400, chunks("5\r\nhello\r\n0\n\r\n");
    a_bare_line_feed_instead_of_the_trailers = 400, chunks("5\r\nhello\r\n0\r\n\n");
    a_bare_carriage_return_instead_of_the_trailers = 400, chunks("5\r\nhello\r\n0\r\n\rX");
    a_length_as_a_trailer = 400, chunks("5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n");
    a_coding_as_a_trailer = 400, chunks("5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n");
    a_host_as_a_trailer = 400, chunks("5\r\nhello\r\n0\r\nHost: other\r\n\r\n");
    a_folded_trailer = 400, chunks("5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n");
    a_trailer_without_a_colon = 400, chunks("5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n");
    a_space_before_the_colon_of_a_trailer = 400, chunks("5\r\nhello\r\n0\r\nX : y\r\n\r\n");
    a_trailer_as_long_as_all_may_be = 400, chunks(&format!("0\r\nX: {}\r\n\r\n", "y".repeat(8_188)));
    too_many_trailers = 400, chunks(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(1_000)));
}

#[tokio::test]
async fn an_extension_is_not_passed_on() {
    let scene = Scene::new().await;
    let mut client = scene.front.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;c\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status(), 200);
    let reached = scene.end().await;
    assert!(reached.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{reached}");
}

#[tokio::test]
async fn a_chunked_body_that_looks_like_a_request_is_a_body() {
    let scene = Scene::new().await;
    let mut client = scene.front.client().await;
    let body = "GET /inner HTTP/1.1\r\nHost: test\r\n\r\n";
    let size = body.len();
    client
        .send(format!(
            "POST /outer HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: Chunked\r\n\r\n{size:X}\r\n{body}\r\n0\r\n\r\n"
        ))
        .await;
    assert_eq!(client.response().await.text(), "POST /outer HTTP/1.1");
    assert_eq!(client.get("/next").await.text(), "GET /next HTTP/1.1");
}

/// A client that leaves within a body leaves an upstream connection behind that waits for the rest of it; the next
/// client's request must not become that rest.
#[tokio::test]
async fn a_connection_with_half_a_body_is_not_used_again() {
    let scene = Scene::new().await;
    let mut leaving = scene.front.client().await;
    leaving.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n400\r\nhalf").await;
    drop(leaving);
    for _ in 0..4 {
        let mut next = scene.front.client().await;
        assert_eq!(next.get("/next").await.text(), "GET /next HTTP/1.1");
    }
}

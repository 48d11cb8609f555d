//! The properties of the parsers, over made inputs that are nearly right.

use proptest::prelude::*;

use crate::properties;

fn answer() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 204 X\r\n",
        "HTTP/1.1 103 Early Hints\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 12\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Set-Cookie: a=b\r\n",
        "\r\n",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "a;x\r\n0123456789\r\n",
        "abc",
        "\n",
        ":",
        "\0",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

fn page() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "<form ",
        "<form action=\"/a\">",
        "</form>",
        "<input type=hidden name=t value='&amp;&#x41;&#0;'>",
        "<input type=hidden name=\"ü \" value>",
        "<!--",
        "-->",
        "<script>",
        "</script>",
        "action=",
        "\"",
        "'",
        ">",
        "/",
        "a=1; Path=/; Max-Age=0\n",
        "session=1\n",
        "http://shop.example/../x\n",
        "//shop.example\n",
        "../..\n",
        "\u{1}",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn an_answer_means_the_same_however_it_arrives(input in answer()) {
        properties::answer(&input);
    }

    #[test]
    fn what_is_kept_of_a_page_is_bounded_and_breaks_no_request(input in page()) {
        properties::page(&input);
    }
}

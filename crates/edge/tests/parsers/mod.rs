//! The properties of the fuzz targets over made inputs: bytes that look like messages, put together at random.

mod properties;

use proptest::prelude::*;

fn words(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        40 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

fn after(
    start: &'static str,
    rest: impl Strategy<Value = Vec<u8>>,
    end: &'static str,
) -> impl Strategy<Value = Vec<u8>> {
    rest.prop_map(move |rest| [start.as_bytes(), &rest, end.as_bytes()].concat())
}

const FIELDS: &[&str] = &[
    "\r\n",
    "\r\nHost: test",
    "\r\nHost: a:80",
    "\r\nX: y",
    "\r\nContent-Length: 5",
    "\r\nContent-Length: 0",
    "\r\nTransfer-Encoding: chunked",
    "\r\nConnection: close",
    "\r\nConnection: x, keep-alive",
    "\r\nUpgrade: h2c",
    "\r\nExpect: 100-continue",
    "\r\nTE: trailers",
    "\r\nY:",
    "\r\nZ: \t a \t ",
    " ",
    "\t",
    ":",
    ",",
    "\n",
    "\r",
    "a",
    "\u{e9}",
];

const COOKIES: &[&str] = &[
    "switchback-fresh",
    "switchback-fresh=",
    "switchback-fresh=1.6",
    "1.ffffffffffffffff",
    "a=b",
    "\"",
    ";",
    "; ",
    "=",
    " ",
    "x",
];

const TARGETS: &[&str] =
    &["/", "a", "?", "*", "http://", "https://test", "test:80", "[::1]", "@", "%", "#", "\\", " "];

const CHUNKS: &[&str] = &[
    "0\r\n",
    "5\r\nhello\r\n",
    "1\r\na\r\n",
    "A\r\n0123456789\r\n",
    "\r\n",
    "5;a=b\r\nhello\r\n",
    "X: y\r\n",
    "0",
    "f",
    ";",
    "\n",
    "\r",
    "hello",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_accepted_request_means_the_same_when_it_is_written_anew(
        input in after("GET / HTTP/1.1\r\nHost: test", words(FIELDS), "\r\n\r\n"),
    ) {
        properties::request_head(&input);
    }

    #[test]
    fn an_accepted_target_means_the_same_when_it_is_written_anew(
        input in after("GET ", words(TARGETS), " HTTP/1.1\r\nHost: test\r\n\r\n"),
    ) {
        properties::request_head(&input);
    }

    #[test]
    fn a_response_head_is_whole_or_not(input in after("HTTP/1.1 200 OK", words(FIELDS), "\r\n\r\n")) {
        properties::response_head(&input);
    }

    #[test]
    fn a_chunked_body_is_the_same_however_it_arrives(input in after("", words(CHUNKS), "0\r\n\r\n")) {
        properties::chunked_body(&input);
    }

    #[test]
    fn marks_are_taken_out_of_cookies_and_nothing_else_is(input in after("", words(COOKIES), "")) {
        properties::cookies(&input);
    }

    #[test]
    fn no_bytes_break_a_parser(input in prop::collection::vec(any::<u8>(), 0..300)) {
        properties::request_head(&input);
        properties::response_head(&input);
        properties::chunked_body(&input);
        properties::cookies(&input);
    }
}

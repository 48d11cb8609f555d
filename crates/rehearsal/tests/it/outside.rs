//! What outside bytes are read by, over made inputs.

use proptest::prelude::*;

use crate::properties;

/// Bytes that look like what is read, put together at random.
fn words(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        40 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

const LOG: &[&str] = &[
    r#"{"time":"2026-02-03T04:05:06.000007Z","method":"GET","host":"a","path":"/","status":200}"#,
    r#"{"time":"2026-02-03T04:05:06.000007Z","method":"GET","host":"a","path":"/x.css","status":200,"referer":"http://a/"}"#,
    r#"{"time":"2026-02-03T05:05:06Z","method":"GET","host":"a","path":"/?q=\u00e9","status":404,"user_agent":"bot"}"#,
    r#"{"time":"9999-01-01T00:00:00Z","method":"POST","path":"//b","status":65535}"#,
    "\n",
    "\n",
    "\n",
    "{",
    "\"time\":",
    "\0",
];

const THRESHOLD: &[&str] = &[
    "p99", "p(", ")", "errors", "shed", "rate", "capacity", "{", "}", "page", "class:", "<", "<=", ">",
    "250", "0.1", "ms", "s", "%", "/s", " ", "µ",
];

const HTML: &[&str] = &[
    "<a href=",
    "<base href=",
    "<form action=",
    "<form method=post action=",
    "<input name=",
    "<input type=hidden name=",
    "<script>",
    "</script>",
    "<title>",
    "</title>",
    "<img src=",
    "<link rel=stylesheet href=",
    "</form>",
    "</a>",
    ">",
    "/",
    "//b/",
    "..",
    "?q=1",
    "#",
    "http://a/",
    "https://b/",
    "word",
    "\"",
    "'",
    " ",
    "<!--",
    "-->",
    "&amp;",
    "\n",
    "\u{e9}",
];

proptest! {
    #[test]
    fn any_access_log_gives_what_can_be_asked_for(log in words(LOG)) {
        properties::access_log(&log);
    }

    #[test]
    fn a_threshold_reads_back_and_a_refusal_can_be_shown(text in words(THRESHOLD)) {
        properties::threshold(&text);
    }

    #[test]
    fn any_page_is_crawled_to_an_end_within_its_limits(page in words(HTML)) {
        properties::crawled_page(&page);
    }
}

//! What must hold for whatever an app answers, a log has or a person types. Shared by the fuzz targets (`fuzz/`), which find
//! the inputs, and by the tests of [`crate::parsers`] and [`crate::outside`], which run over made ones.

use std::time::Duration;

use model::{MAX_THRESHOLD_BYTES, Threshold};
use rehearsal::fuzzing::{encode_form, follow, keep_cookies, read_answer, scan_forms};
use rehearsal::load::Method;
use rehearsal::record::json;
use rehearsal::report::{self, Document, Part, Passed, Verdict};
use rehearsal::site::access_log::AccessLog;
use rehearsal::site::crawl::{Crawl, Limits};
use rehearsal::site::mix::{Mix, requests_per_visit, visits};
use rehearsal::site::{Answer, Site};

/// An answer means the same however it arrives.
pub fn answer(input: &[u8]) {
    for method in [Method::Get, Method::Head] {
        let at_once = read_answer(method, [input]);
        for size in [1, 2, 7, 100] {
            assert_eq!(read_answer(method, input.chunks(size)), at_once, "in pieces of {size}");
        }
        if let Some((_, body)) = at_once {
            assert!(body.len() <= input.len());
            assert!(method == Method::Get || body.is_empty());
        }
    }
}

/// What is kept of a page is bounded and is sent back as plain text; no cookie and no redirect breaks a request.
pub fn page(input: &[u8]) {
    let forms = scan_forms(input);
    assert!(forms.len() <= 20);
    for (action, hidden) in &forms {
        assert!((1..=30).contains(&hidden.len()) && action.len() <= 3 * 4096);
        let sent = encode_form(hidden);
        assert!(sent.iter().all(u8::is_ascii_graphic), "{}", String::from_utf8_lossy(&sent));
        assert_eq!(sent.iter().filter(|byte| **byte == b'=').count(), hidden.len());
    }
    let text = String::from_utf8_lossy(input);
    let cookies = keep_cookies(text.lines());
    assert!(cookies.iter().all(|byte| (b' '..=b'~').contains(byte)));
    assert!(cookies.split(|byte| *byte == b';').count() <= 30);
    for line in text.lines() {
        if let Some(path) = follow(line) {
            assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "{path}");
            let segments = path.split('?').next().unwrap_or_default().split('/');
            assert!(segments.into_iter().all(|segment| segment != ".." && segment != "."), "{path}");
        }
    }
}

/// A log of any bytes gives paths that can stand in a request line, and no more lines than it has.
pub fn access_log(input: &[u8]) {
    let mut log = AccessLog::default();
    log.read(input).expect("reading from memory cannot fail");
    let lines = input.split(|byte| *byte == b'\n').count() as u64;
    assert!(log.lines + log.unreadable <= lines);
    assert!(log.rates.visits() <= log.lines);
    can_be_asked_for(&log.site());
}

/// A threshold that is read means the same when it is written, and a refusal shows a place within the text.
pub fn threshold(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    match text.parse::<Threshold>() {
        Ok(threshold) => {
            assert!(threshold.bound.is_finite() && threshold.bound >= 0.0);
            assert_eq!(threshold.as_str().parse(), Ok(threshold.clone()));
        }
        Err(refused) => {
            assert!(refused.text.len() <= MAX_THRESHOLD_BYTES);
            assert!(refused.text.get(refused.span.clone()).is_some(), "{refused:?}");
            let lines = refused.underlined();
            assert!(lines.lines().count() <= 2 && lines.ends_with('^'), "{lines}");
            if let Some(meant) = refused.meant {
                assert!(meant.parse::<Threshold>().is_ok(), "{meant} is no better than {text}");
            }
        }
    }
}

/// An app whose every page is this one is crawled to an end, stays on its site, and gives what can be asked for.
pub fn crawled_page(input: &[u8]) {
    let limits = Limits { pages: 10, requests: 20, ..Limits::default() };
    let mut crawl = Crawl::new("http", "a", limits);
    let mut asked = 0;
    while let Some(ask) = crawl.next(Duration::ZERO) {
        asked += 1;
        assert!(asked <= limits.requests && ask.path.starts_with('/'));
        let answer = Answer {
            status: 200,
            location: None,
            content_type: Some("text/html".to_owned()),
            body: input[..input.len().min(ask.max_bytes)].to_vec(),
            cut: input.len() > ask.max_bytes,
        };
        crawl.answered(&ask.path, Ok(answer));
    }
    let site = crawl.finish().expect("the first page is there");
    assert!(!site.pages.is_empty() && site.pages.len() <= limits.pages);
    can_be_asked_for(&site);
}

/// A record that is read makes a page, however strange its figures are.
pub fn record(input: &[u8]) {
    let Ok(record) = json::read(input) else { return };
    let verdict = Verdict { passed: Passed::NotAsked, sentence: String::new() };
    let part = Part { title: String::new(), change: None, findings: Vec::new(), search: None, record };
    let document = Document {
        title: String::new(),
        verdict,
        evidence: Vec::new(),
        tables: Vec::new(),
        parts: vec![part],
    };
    assert!(report::html(&document).ends_with("</html>\n"));
}

fn can_be_asked_for(site: &Site) {
    let visits = visits(site, &Mix::CROWD, None);
    assert_eq!(visits.is_empty(), site.pages.is_empty());
    assert!(requests_per_visit(&visits).is_finite());
    for step in visits.iter().flat_map(|visit| &visit.steps) {
        for path in step.paths.iter().chain(&step.assets) {
            let can_stand =
                path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
            assert!(can_stand && !path.starts_with("//"), "{path:?}");
        }
    }
}

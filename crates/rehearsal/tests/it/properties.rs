//! What must hold for whatever an app answers. Shared by the fuzz targets (`fuzz/`), which find the inputs, and by the tests
//! of [`crate::parsers`], which run over made ones.

use rehearsal::fuzzing::{encode_form, follow, keep_cookies, read_answer, scan_forms};
use rehearsal::load::Method;

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

//! What there is to visit: from the app's own access log, or by following the links of its pages.
//!
//! Either gives a [`Site`], of which [`mix`] makes the visits of a load. Nothing here opens a connection or a file: a log is
//! read from whatever gives lines, and [`crawl`] and [`check`] say what to ask for next and are told the answer.

pub mod access_log;
pub mod check;
pub mod crawl;
pub mod html;
pub mod mix;
pub mod rates;
pub mod reference;

use serde::Serialize;

/// Pages of an app and what goes with them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Site {
    /// The first is where most visits begin; then those that are asked for most.
    pub pages: Vec<Page>,
    /// Paths that search for something, each a different one.
    pub searches: Vec<String>,
    /// The status of what there is not. `None`: not known.
    pub missing: Option<u16>,
    /// What people should know of how this came about, each a sentence.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    /// With its query.
    pub path: String,
    /// How often it is asked for, relative to the others.
    pub hits: u64,
    /// Paths of what a browser fetches along with it.
    pub assets: Vec<String>,
}

/// What an answer was, as far as it counts here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    pub content_type: Option<String>,
    /// Of at most as many bytes as were asked for.
    pub body: Vec<u8>,
    /// There was more of it.
    pub cut: bool,
}

/// Why there was none: no connection, no end of it in time, no HTTP. In words that complete "`/` was not answered: ..".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer(pub String);

/// What is to be asked for with GET, without following redirects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub path: String,
    /// Of the body; the rest is not waited for.
    pub max_bytes: usize,
}

/// Names of what is fetched by pages and is none.
const ASSET_EXTENSIONS: &[&str] = &[
    "avif",
    "bmp",
    "css",
    "cur",
    "eot",
    "gif",
    "ico",
    "jpeg",
    "jpg",
    "js",
    "map",
    "mjs",
    "mp3",
    "mp4",
    "ogg",
    "otf",
    "png",
    "svg",
    "ttf",
    "wasm",
    "wav",
    "webm",
    "webmanifest",
    "webp",
    "woff",
    "woff2",
];

/// A word that stands alone in the path of what changes something, although it is asked for with GET. Nobody should be
/// logged out, and nothing deleted, by a rehearsal.
const CHANGING: &[&str] = &[
    "cancel",
    "confirm",
    "delete",
    "destroy",
    "disable",
    "logoff",
    "logout",
    "remove",
    "reset",
    "revoke",
    "signoff",
    "signout",
    "unsubscribe",
    "verify",
];

/// A word in the name of a field that stands for a right, which may be used up or must not be repeated.
const SECRET: &[&str] =
    &["auth", "code", "key", "pass", "password", "secret", "sig", "signature", "ticket", "token"];

/// Fields of a query that hold what is searched for.
const SEARCHING: &[&str] = &["find", "k", "keyword", "keywords", "q", "query", "s", "search", "term"];

/// Whether it can stand in a request line as it is. With two slashes in front its first segment would pass for a host.
pub fn can_be_asked_for(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    path.starts_with('/') && !path.starts_with("//") && path.bytes().all(plain)
}

/// Whether the path names a file that pages fetch.
pub fn is_asset(path: &str) -> bool {
    let file = without_query(path).rsplit('/').next().unwrap_or_default();
    file.rsplit_once('.').is_some_and(|(_, extension)| {
        ASSET_EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// Whether asking for it may change or reveal something.
pub fn is_delicate(path: &str) -> bool {
    let words = |text: &str, known: &[&str]| {
        text.split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| known.iter().any(|k| word.eq_ignore_ascii_case(k)))
    };
    let has_field = |known: &[&str]| fields(path).any(|(name, _)| words(name, known));
    let sign_out = ["sign-out", "sign_out", "log-out", "log_out", "log-off", "log_off"];
    let plain = without_query(path).to_ascii_lowercase();
    words(&plain, CHANGING)
        || sign_out.iter().any(|word| plain.contains(word))
        || has_field(SECRET)
        || fields(path)
            .any(|(name, value)| words(name, CHANGING) || name == "action" && words(value, CHANGING))
}

/// Whether it searches for something.
pub fn is_search(path: &str) -> bool {
    fields(path).any(|(name, value)| !value.is_empty() && SEARCHING.contains(&name))
}

fn fields(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    query.split('&').map(|field| field.split_once('=').unwrap_or((field, "")))
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_pages_fetch_is_an_asset() {
        for path in ["/app.css", "/a/b.JS?v=3", "/favicon.ico", "/fonts/x.woff2"] {
            assert!(is_asset(path), "{path}");
        }
        for path in ["/", "/about", "/v1.2/users", "/index.html", "/a.css/b", "/feed.xml", "/data.json"] {
            assert!(!is_asset(path), "{path}");
        }
    }

    #[test]
    fn what_may_change_something_is_left_alone() {
        for path in [
            "/logout",
            "/users/sign_out",
            "/log-out?next=/",
            "/items/3/delete",
            "/list?action=remove&id=3",
            "/list?delete=3",
            "/unsubscribe/abc",
            "/invite?token=abc",
            "/reset?x",
            "/photo?sig=12&w=3",
            "/callback?code=12",
            "/x?api_key=12",
        ] {
            assert!(is_delicate(path), "{path}");
        }
        for path in ["/", "/deleted-scenes", "/keyboards?page=2", "/about", "/q?tokens=3"] {
            assert!(!is_delicate(path), "{path}");
        }
    }

    #[test]
    fn a_search_has_something_to_search_for() {
        assert!(is_search("/search?page=2&q=red") && is_search("/?s=red"));
        assert!(!is_search("/search?q=") && !is_search("/list?page=q") && !is_search("/q"));
    }
}

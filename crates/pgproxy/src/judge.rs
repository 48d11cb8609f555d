//! Asking `sqlclass` about the statements of one session.
//!
//! A verdict depends on the catalog of the database, which is read anew when it changes, and on the session's search path.
//! Both are looked up only when they have changed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use sqlclass::{Catalog, Classifier, SearchPath, Session};
use tokio::sync::watch;

use crate::server::Parameters;
use crate::settings::{Setting, Settings};
use crate::statement::Verdict;

/// The text that a session has judged last is remembered up to this size.
const MAX_LAST_BYTES: usize = 1_024;
/// Search paths that are told apart at once. Of more, a name may be found in any schema.
const MAX_PATHS: usize = 1_024;

thread_local! {
    /// For all databases: catalogs have epochs of their own. The parser keeps state per thread, and the threads of a
    /// runtime are few and stay.
    static CLASSIFIER: RefCell<Classifier> = RefCell::new(Classifier::new(RandomState::new().build_hasher().finish()));
}

/// What is known of a database.
pub(crate) struct Known {
    pub catalog: Catalog,
    /// `search_path` of a session that sets none.
    pub search_path: String,
    /// Whom `"$user"` stands for.
    pub role: String,
}

impl Known {
    /// Until a catalog is read.
    pub fn nothing() -> Arc<Known> {
        Arc::new(Known { catalog: Catalog::empty(), search_path: String::new(), role: String::new() })
    }
}

/// The numbers of the search paths of one database.
#[derive(Default)]
pub(crate) struct Paths(Mutex<HashMap<SearchPath, u64>>);

impl Paths {
    fn number(&self, path: SearchPath) -> (SearchPath, u64) {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = paths.len() as u64 + 1;
        match paths.get(&path) {
            Some(&number) => (path, number),
            None if path == SearchPath::Unknown || paths.len() >= MAX_PATHS => (SearchPath::Unknown, 0),
            None => {
                paths.insert(path.clone(), next);
                (path, next)
            }
        }
    }
}

/// Of one session.
pub(crate) struct Judge {
    news: watch::Receiver<Arc<Known>>,
    known: Arc<Known>,
    paths: Arc<Paths>,
    path: SearchPath,
    path_number: u64,
    /// What `path` was made for.
    settings: Settings,
    /// What `is_readable` was made for.
    parameters: Arc<Parameters>,
    /// The server reads the session's texts as the grammar does.
    is_readable: bool,
    /// A request is asked about twice: where it shall run, and what it may do. Of what other sessions learn of their replies
    /// meanwhile the second answer says nothing: a session that repeats a text learns it by its own.
    last: Option<Verdict>,
    last_sql: Vec<u8>,
}

impl Judge {
    pub fn new(news: watch::Receiver<Arc<Known>>, paths: Arc<Paths>) -> Judge {
        let mut judge = Judge {
            news,
            known: Known::nothing(),
            paths,
            path: SearchPath::Unknown,
            path_number: 0,
            settings: Settings::default(),
            parameters: Arc::default(),
            is_readable: false,
            last: None,
            last_sql: Vec::new(),
        };
        judge.news.mark_changed();
        judge
    }

    /// The verdict on `sql` in a session with these settings, that was told these parameters.
    pub fn verdict(
        &mut self,
        sql: &[u8],
        settings: &Settings,
        parameters: &Arc<Parameters>,
    ) -> Option<Verdict> {
        self.look_up(settings, parameters);
        if !self.is_readable {
            return None;
        }
        if self.last.is_some() && self.last_sql == sql {
            return self.last;
        }
        let statement = self.ask(|classifier, session| classifier.classify(sql, session).statement);
        let verdict = Some(Verdict(statement));
        self.last = verdict.filter(|_| sql.len() <= MAX_LAST_BYTES);
        if self.last.is_some() {
            self.last_sql.clear();
            self.last_sql.extend_from_slice(sql);
        }
        verdict
    }

    /// A replica has refused `sql`, which was judged to be a read.
    pub fn refused(&mut self, sql: &[u8]) {
        self.last = None;
        self.ask(|classifier, session| classifier.refused(sql, session));
    }

    fn ask<T>(&self, ask: impl FnOnce(&mut Classifier, Session<'_>) -> T) -> T {
        let session = Session {
            catalog: &self.known.catalog,
            search_path: &self.path,
            search_path_id: self.path_number,
        };
        CLASSIFIER.with_borrow_mut(|classifier| ask(classifier, session))
    }

    fn look_up(&mut self, settings: &Settings, parameters: &Arc<Parameters>) {
        let is_news = self.news.has_changed().unwrap_or(false);
        if is_news || self.settings != *settings {
            self.look_up_path(settings);
        }
        if !Arc::ptr_eq(&self.parameters, parameters) {
            self.parameters = parameters.clone();
            self.is_readable = is_readable(parameters);
        }
    }

    #[cold]
    fn look_up_path(&mut self, settings: &Settings) {
        self.known = self.news.borrow_and_update().clone();
        self.settings = settings.clone();
        self.last = None;
        let (text, syntax) = match settings.get("search_path") {
            Some(Setting::Sql(text)) => (text, Quotes::Both),
            Some(Setting::Raw(text)) => (text, Quotes::Double),
            None => (&self.known.search_path, Quotes::Double),
        };
        let path = search_path(text, syntax, &self.known.role);
        (self.path, self.path_number) = self.paths.number(path);
    }
}

fn is_readable(parameters: &Parameters) -> bool {
    let is_on = |name: &[u8]| parameters.get(name).is_some_and(|value| value == b"on");
    let encoding = parameters.get(&b"client_encoding"[..]).map(Vec::as_slice).unwrap_or_default();
    is_on(b"standard_conforming_strings") && has_plain_ascii(encoding)
}

/// Whether a byte below 0x80 is always ASCII in this encoding.
fn has_plain_ascii(encoding: &[u8]) -> bool {
    let name: Vec<u8> =
        encoding.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_uppercase).collect();
    let families = [&b"UTF8"[..], b"UNICODE", b"SQLASCII", b"LATIN", b"ISO8859", b"EUC", b"KOI8", b"WIN125"];
    families.iter().any(|family| name.starts_with(family))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// As in a setting's value.
    Double,
    /// As in `SET search_path TO ...`: a text is a name as well.
    Both,
}

/// The schemas that `text` lists.
fn search_path(text: &str, quotes: Quotes, role: &str) -> SearchPath {
    let mut schemas = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let Some((schema, after)) = schema(rest, quotes) else { return SearchPath::Unknown };
        schemas.push(if schema == "$user" { role.to_owned() } else { schema });
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(more) if !more.trim().is_empty() => rest = more.trim_start(),
            None if rest.is_empty() => {}
            _ => return SearchPath::Unknown,
        }
    }
    SearchPath::of(schemas.iter().map(String::as_str))
}

/// The name at the front of `text`, and what follows it.
fn schema(text: &str, quotes: Quotes) -> Option<(String, &str)> {
    let quote = text.chars().next()?;
    if quote == '"' || quote == '\'' && quotes == Quotes::Both {
        let mut name = String::new();
        let mut rest = &text[1..];
        loop {
            let end = rest.find(quote)?;
            name.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix(quote) {
                Some(more) => {
                    name.push(quote);
                    rest = more;
                }
                None => return Some((name, rest)),
            }
        }
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    is_name.then(|| (text[..end].to_ascii_lowercase(), &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_path_is_read_as_the_server_reads_it() {
        let path = |text, quotes| search_path(text, quotes, "app");
        for (text, schemas) in [
            ("\"$user\", public", &["app", "public"][..]),
            ("One,\"Two, three\" ,\"a\"\"b\"", &["one", "Two, three", "a\"b"]),
            ("", &[]),
        ] {
            assert_eq!(path(text, Quotes::Double), SearchPath::of(schemas.iter().copied()), "{text}");
        }
        assert_eq!(path("'a, b', c", Quotes::Both), SearchPath::of(["a, b", "c"]));
        for text in ["'a', b", "\"a", "a b", "a,", "größe", "1a"] {
            assert_eq!(path(text, Quotes::Double), SearchPath::Unknown, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_judged_again_at_once_is_judged_by_what_is_known_then() {
        let sql = b"select 1";
        let known = watch::Sender::new(Known::nothing());
        let mut judge = Judge::new(known.subscribe(), Arc::default());
        let on = |encoding: &[u8]| {
            let strings = (b"standard_conforming_strings".to_vec(), b"on".to_vec());
            Arc::new(Parameters::from([strings, (b"client_encoding".to_vec(), encoding.to_vec())]))
        };
        let (settings, parameters) = (Settings::default(), on(b"UTF8"));
        let is_read = |verdict: Option<Verdict>| verdict.map(Verdict::is_plain_read);
        assert_eq!(is_read(judge.verdict(sql, &settings, &parameters)), Some(true));
        assert_eq!(is_read(judge.verdict(sql, &settings, &parameters)), Some(true));
        assert_eq!(is_read(judge.verdict(sql, &settings, &on(b"SJIS"))), None);
        assert_eq!(is_read(judge.verdict(b"select f(2)", &settings, &parameters)), Some(false));
        judge.refused(sql);
        assert_eq!(is_read(judge.verdict(sql, &settings, &parameters)), Some(false));
        assert_eq!(is_read(judge.verdict(sql, &settings, &parameters)), Some(false));
    }

    #[test]
    fn texts_that_the_server_reads_otherwise_are_not_judged() {
        let parameters = |strings: &str, encoding: &str| {
            Parameters::from([
                (b"standard_conforming_strings".to_vec(), strings.into()),
                (b"client_encoding".to_vec(), encoding.into()),
            ])
        };
        for encoding in ["UTF8", "utf-8", "SQL_ASCII", "LATIN1", "WIN1252"] {
            assert!(is_readable(&parameters("on", encoding)), "{encoding}");
            assert!(!is_readable(&parameters("off", encoding)), "{encoding}");
        }
        for encoding in ["SJIS", "BIG5", "GBK", "shift_jis_2004", "windows932", ""] {
            assert!(!is_readable(&parameters("on", encoding)), "{encoding}");
        }
        assert!(!is_readable(&Parameters::new()));
    }
}

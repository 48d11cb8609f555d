//! What there is to visit, by following the links of pages from `/`.
//!
//! For an app that nobody has visited yet, so that there is no log. It stays on the site, leaves forms that write alone,
//! and goes nowhere that looks as if it changed something. An app may send pages without end, redirect for ever, or say
//! nothing at all: everything here has a limit, and what a limit cut off is said.
//!
//! [`Crawl::next`] says what to ask for, [`Crawl::answered`] is told the answer. Nothing here connects to anything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::html::{self, Search};
use super::reference::MAX_PATH_BYTES;
use super::{Answer, Ask, NoAnswer, Page, Site, is_asset, is_delicate, is_search};
use crate::client::location;

/// How far it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub pages: usize,
    /// Requests, redirects and what is no page included.
    pub requests: usize,
    /// Links from `/`.
    pub depth: usize,
    /// Of one page. The rest of it is not read.
    pub page_bytes: usize,
    /// Of all.
    pub bytes: usize,
    pub time: Duration,
    /// One after the other.
    pub redirects: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            pages: 50,
            requests: 200,
            depth: 3,
            page_bytes: 1 << 20,
            bytes: 16 << 20,
            time: Duration::from_secs(15),
            redirects: 5,
        }
    }
}

/// Of one path with different queries: a calendar has a page for each day that ever was.
const VARIANTS: usize = 5;

/// Waiting to be asked for.
const MAX_WAITING: usize = 2_000;

/// Different forms for searches.
const SEARCHES: usize = 4;

/// Different words to search for.
const WORDS: usize = 32;

/// For a search on a page without a word.
const ANY_WORD: &str = "test";

/// What there is not, to know how the app says so.
const MISSING_PATH: &str = "/there-is-no-such-page";

/// Why there is nothing to visit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NothingFound {
    #[error("`/` was not answered: {0}")]
    NoAnswer(String),
    #[error("`/` is answered with {0}: say in `[rehearsal.visit.NAME]` what there is to visit")]
    Refused(u16),
    #[error(
        "`/` leads to `{0}`, which is another site: rehearse that, or say in `[rehearsal.visit.NAME]` what to visit"
    )]
    Elsewhere(String),
    #[error("`/` is redirected again and again, last to `{0}`")]
    Endless(String),
    #[error("`/` was not asked for in time")]
    NoTime,
}

#[derive(Debug)]
pub struct Crawl {
    scheme: &'static str,
    authority: String,
    limits: Limits,
    waiting: VecDeque<Want>,
    /// What the answers that are awaited are to.
    asked: BTreeMap<String, Want>,
    /// All paths that were ever waiting.
    known: BTreeSet<String>,
    /// How often each path without its query is among them.
    variants: BTreeMap<String, usize>,
    requests: usize,
    bytes: usize,
    /// In the order in which they were found.
    pages: Vec<Page>,
    links: BTreeMap<String, u64>,
    searches: Vec<Search>,
    words: Vec<String>,
    posts: BTreeSet<String>,
    missing: Option<u16>,
    /// What was done about `/`.
    start: Result<(), NothingFound>,
    cut: BTreeSet<Cut>,
    failed: Vec<String>,
}

#[derive(Debug, Clone)]
struct Want {
    path: String,
    depth: usize,
    redirects: usize,
    /// Whether it is `/`, or what that is redirected to.
    is_start: bool,
}

/// Which limit ended something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    Pages,
    Requests,
    PageBytes,
    Bytes,
    Time,
    Redirects,
}

impl Crawl {
    /// Of the site that calls itself `authority`, asked by `scheme`.
    pub fn new(scheme: &'static str, authority: &str, limits: Limits) -> Crawl {
        let mut crawl = Crawl {
            scheme,
            authority: authority.to_owned(),
            limits,
            waiting: VecDeque::new(),
            asked: BTreeMap::new(),
            known: BTreeSet::new(),
            variants: BTreeMap::new(),
            requests: 0,
            bytes: 0,
            pages: Vec::new(),
            links: BTreeMap::new(),
            searches: Vec::new(),
            words: Vec::new(),
            posts: BTreeSet::new(),
            missing: None,
            start: Err(NothingFound::NoTime),
            cut: BTreeSet::new(),
            failed: Vec::new(),
        };
        crawl.want(Want { path: "/".to_owned(), depth: 0, redirects: 0, is_start: true });
        crawl.want(Want { path: MISSING_PATH.to_owned(), depth: 0, redirects: 0, is_start: false });
        crawl
    }

    /// What to ask for next, `spent` after the first. `None`: no more.
    pub fn next(&mut self, spent: Duration) -> Option<Ask> {
        let limits = &self.limits;
        let reached = [
            (Cut::Pages, self.pages.len() >= limits.pages),
            (Cut::Requests, self.requests >= limits.requests),
            (Cut::Bytes, self.bytes >= limits.bytes),
            (Cut::Time, spent >= limits.time),
        ];
        let want = self.waiting.pop_front()?;
        if let Some((cut, _)) = reached.iter().find(|(_, reached)| *reached) {
            self.cut.insert(*cut);
            return None;
        }
        self.requests += 1;
        let path = want.path.clone();
        self.asked.insert(path.clone(), want);
        Some(Ask { path, max_bytes: self.limits.page_bytes })
    }

    /// What the app said to `path`, which [`Crawl::next`] had asked for.
    pub fn answered(&mut self, path: &str, answer: Result<Answer, NoAnswer>) {
        let Some(want) = self.asked.remove(path) else { return };
        let answer = match answer {
            Ok(answer) => answer,
            Err(NoAnswer(why)) => {
                if want.is_start {
                    self.start = Err(NothingFound::NoAnswer(why.clone()));
                }
                self.failed.push(format!("`{path}` was not answered: {why}"));
                return;
            }
        };
        self.bytes = self.bytes.saturating_add(answer.body.len());
        if path == MISSING_PATH {
            self.missing = Some(answer.status);
            return;
        }
        match answer.status {
            300..400 if answer.location.is_some() => self.redirected(&want, &answer),
            200..300 => self.found(&want, &answer),
            status => {
                if want.is_start {
                    self.start = Err(NothingFound::Refused(status));
                }
                if status >= 500 {
                    self.failed.push(format!("`{path}` is answered with {status}"));
                }
            }
        }
    }

    /// What was found, and what was not looked at.
    ///
    /// # Errors
    /// When not even `/` is a page.
    pub fn finish(mut self) -> Result<Site, NothingFound> {
        self.start.clone()?;
        let notes = self.notes();
        for page in &mut self.pages {
            page.hits = 1 + self.links.get(&page.path).copied().unwrap_or_default();
        }
        // The first is the start; the others by how many pages lead there.
        if let Some((_, others)) = self.pages.split_first_mut() {
            others.sort_by_key(|page| std::cmp::Reverse(page.hits));
        }
        let words = match self.words.is_empty() {
            true => vec![ANY_WORD.to_owned()],
            false => self.words,
        };
        let searches = self.searches.iter().flat_map(|search| words.iter().map(|word| search.path(word)));
        let searches = searches.filter(|path| path.len() <= MAX_PATH_BYTES && !is_delicate(path)).collect();
        Ok(Site { pages: self.pages, searches, missing: self.missing, notes })
    }

    fn want(&mut self, want: Want) {
        let plain = want.path.split('?').next().unwrap_or_default().to_owned();
        if self.waiting.len() >= MAX_WAITING || self.known.contains(&want.path) {
            return;
        }
        let variants = self.variants.entry(plain).or_default();
        if *variants >= VARIANTS {
            return;
        }
        *variants += 1;
        self.known.insert(want.path.clone());
        self.waiting.push_back(want);
    }

    fn redirected(&mut self, want: &Want, answer: &Answer) {
        let location = answer.location.as_deref().unwrap_or_default();
        match location::resolve(location, self.scheme, &self.authority, &want.path) {
            None if want.is_start => {
                let shown = location.escape_debug().take(100).collect();
                self.start = Err(NothingFound::Elsewhere(shown));
            }
            None => {}
            // Back to where it came from, or too often.
            Some(path) if want.redirects >= self.limits.redirects || self.known.contains(&path) => {
                if want.redirects >= self.limits.redirects {
                    self.cut.insert(Cut::Redirects);
                }
                if want.is_start {
                    self.start = Err(NothingFound::Endless(path));
                }
            }
            Some(path) => {
                let redirects = want.redirects + 1;
                self.want(Want { path, redirects, ..want.clone() });
                // It is what the visit to `/` leads to: the next to be looked at.
                if want.is_start {
                    self.waiting.rotate_right(1);
                }
            }
        }
    }

    fn found(&mut self, want: &Want, answer: &Answer) {
        let is_html = match &answer.content_type {
            Some(kind) => kind.trim_start().to_ascii_lowercase().starts_with("text/html"),
            None => answer.body.trim_ascii_start().starts_with(b"<"),
        };
        // An app that answers with data has no other pages, but this one.
        if !is_html && !want.is_start {
            return;
        }
        if want.is_start {
            self.start = Ok(());
        }
        if answer.cut {
            self.cut.insert(Cut::PageBytes);
        }
        let mut assets = Vec::new();
        if is_html {
            let page = html::read(&self.authority, &want.path, &answer.body);
            self.follow(want, page.links);
            for search in page.searches {
                let is_new = self.searches.len() < SEARCHES && !self.searches.contains(&search);
                if is_new && !is_delicate(&search.action) {
                    self.searches.push(search);
                }
            }
            self.posts.extend(page.posts);
            for word in page.words {
                if self.words.len() < WORDS && !self.words.contains(&word) {
                    self.words.push(word);
                }
            }
            assets = page.assets;
        }
        self.pages.push(Page { path: want.path.clone(), hits: 1, assets });
    }

    fn follow(&mut self, from: &Want, links: Vec<String>) {
        for path in links {
            *self.links.entry(path.clone()).or_default() += 1;
            let is_page = !is_asset(&path) && !is_delicate(&path) && !is_search(&path);
            if is_page && from.depth < self.limits.depth {
                self.want(Want { path, depth: from.depth + 1, redirects: 0, is_start: false });
            }
        }
    }

    fn notes(&self) -> Vec<String> {
        const NAMED: usize = 3;
        let mut notes: Vec<String> = self.cut.iter().map(|cut| cut.sentence(&self.limits)).collect();
        if !self.posts.is_empty() {
            let named: Vec<String> = self.posts.iter().take(NAMED).map(|path| format!("`{path}`")).collect();
            notes.push(format!(
                "Forms that write are not sent, such as {}: `[rehearsal.visit.NAME]` can say which may.",
                named.join(", ")
            ));
        }
        if !self.failed.is_empty() {
            notes.push(format!("{}.", self.failed[..self.failed.len().min(NAMED)].join("; ")));
        }
        notes
    }
}

impl Cut {
    fn sentence(self, limits: &Limits) -> String {
        match self {
            Cut::Pages => format!("There are more pages than the {} that were looked at.", limits.pages),
            Cut::Requests => format!("There is more to ask for than the {} that were.", limits.requests),
            Cut::PageBytes => format!("Of a page only the first {} bytes were read.", limits.page_bytes),
            Cut::Bytes => format!("After {} bytes no more pages were read.", limits.bytes),
            Cut::Time => format!("After {} seconds no more pages were read.", limits.time.as_secs()),
            Cut::Redirects => format!("What was redirected more than {} times was left.", limits.redirects),
        }
    }
}

#[cfg(test)]
mod tests;

//! The access log of the edge, read for what is asked for, how often, and together with what.
//!
//! A line is one object of JSON. What is taken from it: when, what, with which status, from which page and by whom. Lines
//! that cannot be read, or are too long, are counted and passed over, so that a log which was cut anywhere gives what it has.
//!
//! Memory is bounded however long a log is and whatever clients asked for: of pages beyond a limit those that were asked
//! for least are forgotten, and their assets with them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, Read};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::mix::Mix;
use super::rates::Rates;
use super::reference::{Target, resolve, same_authority};
use super::{Page, Site, can_be_asked_for, is_asset, is_delicate, is_search};

/// Of one line. The edge takes no longer head than that.
const MAX_LINE_BYTES: u64 = 256 * 1024;

/// A longer path is a client's invention.
const MAX_PATH_BYTES: usize = 1_024;
const MAX_ASSET_BYTES: usize = 256;

/// Of each of these; those asked for least are forgotten.
const MAX_PATHS: usize = 4_096;

/// Of one page.
const MAX_ASSETS: usize = 60;

/// What a site has of each in the end.
const PAGES: usize = 100;
const SEARCHES: usize = 100;

/// An asset of fewer than one in so many of the page's visits is somebody's own, or gone.
const RARE_ASSET: u64 = 50;

/// In the `User-Agent` of our own requests, those of rehearsals and of drills, which say nothing of the app's visitors.
const OWN_AGENTS: [&str; 2] = ["switchback-rehearsal", "switchback-drill"];

/// Words in the `User-Agent` of machines that read.
const MACHINES: &[&str] =
    &["bot", "crawl", "spider", "slurp", "externalhit", "preview", "curl/", "python-requests"];

/// Fewer page requests say nothing of how visitors behave.
const LEAST_PAGES_FOR_A_MIX: u64 = 1_000;

/// What a log says, so far.
#[derive(Debug, Default)]
pub struct AccessLog {
    /// Lines that were read.
    pub lines: u64,
    /// Lines that were not.
    pub unreadable: u64,
    pub classes: Classes,
    /// Visits, by when they began.
    pub rates: Rates,
    pages: Paths,
    searches: Paths,
}

/// Requests by what they were for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Classes {
    /// Pages that were asked for from elsewhere, by people. Each is a visit that begins.
    pub landings: u64,
    /// Pages that were asked for from another page of the app.
    pub further: u64,
    pub searches: u64,
    pub assets: u64,
    /// Any of machines that read.
    pub machines: u64,
    /// What there is not.
    pub missing: u64,
    /// POST, PUT and the like. They are not repeated: that would leave data behind.
    pub writes: u64,
    /// Those of rehearsals and drills.
    pub own: u64,
}

#[derive(Debug, Default)]
struct Paths {
    by_path: HashMap<String, Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    hits: u64,
    landings: u64,
    assets: BTreeMap<String, u64>,
}

/// What of a line counts here.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow, default)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    host: Cow<'a, str>,
    #[serde(borrow, default)]
    path: Cow<'a, str>,
    status: u16,
    #[serde(borrow, default)]
    user_agent: Cow<'a, str>,
    #[serde(borrow, default)]
    referer: Cow<'a, str>,
}

impl AccessLog {
    /// Adds what a log says. Several, the oldest first, are read one after the other.
    ///
    /// # Errors
    /// When it cannot be read on.
    pub fn read(&mut self, log: impl BufRead) -> io::Result<()> {
        each_line(log, |line| match line {
            Some(line) => self.line(line),
            None => self.unreadable += 1,
        })
    }

    /// Adds one line, with or without its end.
    pub fn line(&mut self, line: &[u8]) {
        let Ok(read) = serde_json::from_slice::<Line<'_>>(line) else {
            self.unreadable += u64::from(!line.trim_ascii().is_empty());
            return;
        };
        let Ok(time) = read.time.parse::<Timestamp>() else {
            self.unreadable += 1;
            return;
        };
        self.lines += 1;
        if read.is_own() {
            self.classes.own += 1;
            return;
        }
        self.request(&read, time.as_second());
    }

    fn request(&mut self, line: &Line<'_>, unix_s: i64) {
        let is_get = line.method == "GET";
        if !is_get && line.method != "HEAD" {
            self.classes.writes += 1;
            return;
        }
        let agent = line.user_agent.to_ascii_lowercase();
        if MACHINES.iter().any(|word| agent.contains(word)) {
            self.classes.machines += 1;
            return;
        }
        let from = own_page(line);
        let begins = from.is_none();
        if line.status == 404 || line.status == 410 {
            self.classes.missing += 1;
        } else if is_get && is_asset(&line.path) {
            self.classes.assets += 1;
            if let (Some(page), true) = (from, is_found(line.status)) {
                self.pages.asset(&page, &line.path);
            }
        } else if is_get && is_found(line.status) {
            if begins {
                self.classes.landings += 1;
                self.rates.count(unix_s);
            } else {
                self.classes.further += 1;
            }
            if is_search(&line.path) {
                self.classes.searches += 1;
                self.searches.hit(&line.path, begins);
            } else {
                self.pages.hit(&line.path, begins);
            }
        }
    }

    /// What there is to visit, by what was visited.
    pub fn site(&self) -> Site {
        let mut site = Site {
            pages: self.pages.most(PAGES),
            searches: self.searches.most(SEARCHES).into_iter().map(|page| page.path).collect(),
            missing: (self.classes.missing > 0).then_some(404),
            notes: Vec::new(),
        };
        if let Some((path, counts)) = self.pages.first() {
            site.pages.retain(|page| page.path != *path);
            site.pages.insert(0, counts.page(path));
        }
        if self.classes.writes > 0 {
            site.notes.push(format!(
                "{} of the log are not repeated, as they would leave data behind: `[rehearsal.visit.NAME]` can say which may.",
                model::counted(self.classes.writes as usize, "write"),
            ));
        }
        if self.unreadable > 0 {
            let lines = model::counted(self.unreadable as usize, "line");
            site.notes.push(format!("{lines} of the log could not be read."));
        }
        site
    }

    /// How visitors behaved, for a replay. `None`: there were too few to know.
    pub fn mix(&self) -> Option<Mix> {
        let classes = self.classes;
        let pages = classes.landings + classes.further;
        if pages < LEAST_PAGES_FOR_A_MIX {
            return None;
        }
        let of = |count: u64, all: u64| if all == 0 { 0.0 } else { (count as f64 / all as f64).min(1.0) };
        let visits = classes.landings + classes.machines + classes.missing;
        let landed = self.pages.first().map_or(0, |(_, counts)| counts.landings);
        let further = of(classes.further, classes.landings);
        Some(Mix {
            first_page: of(landed, classes.landings),
            second: further,
            // As if each page were left for another by the same share.
            third: further * further,
            search: of(classes.searches, visits),
            machines: of(classes.machines, visits),
            missing: of(classes.missing, visits),
        })
    }
}

impl Paths {
    fn hit(&mut self, path: &str, begins: bool) {
        if path.len() > MAX_PATH_BYTES || !can_be_asked_for(path) || is_delicate(path) {
            return;
        }
        if !self.by_path.contains_key(path) {
            if self.by_path.len() >= MAX_PATHS {
                self.forget();
            }
            self.by_path.insert(path.to_owned(), Counts::default());
        }
        if let Some(counts) = self.by_path.get_mut(path) {
            counts.hits += 1;
            counts.landings += u64::from(begins);
        }
    }

    /// At least half of them: those that were asked for least.
    fn forget(&mut self) {
        let mut hits: Vec<u64> = self.by_path.values().map(|counts| counts.hits).collect();
        let middle = hits.len() / 2;
        let (_, least, _) = hits.select_nth_unstable(middle);
        let least = *least;
        self.by_path.retain(|_, counts| counts.hits > least);
    }

    fn asset(&mut self, page: &str, asset: &str) {
        let is_plain = asset.len() <= MAX_ASSET_BYTES && can_be_asked_for(asset);
        if let (Some(counts), true) = (self.by_path.get_mut(page), is_plain) {
            if let Some(count) = counts.assets.get_mut(asset) {
                *count += 1;
            } else if counts.assets.len() < MAX_ASSETS {
                counts.assets.insert(asset.to_owned(), 1);
            }
        }
    }

    /// Where most visits begin.
    fn first(&self) -> Option<(&String, &Counts)> {
        let landed = self.by_path.iter().filter(|(_, counts)| counts.landings > 0);
        // Of two alike always the same.
        landed.max_by_key(|(path, counts)| (counts.landings, std::cmp::Reverse(*path)))
    }

    fn most(&self, count: usize) -> Vec<Page> {
        let mut pages: Vec<(&String, &Counts)> = self.by_path.iter().collect();
        pages.sort_by_key(|(path, counts)| (std::cmp::Reverse(counts.hits), *path));
        pages.truncate(count);
        pages.into_iter().map(|(path, counts)| counts.page(path)).collect()
    }
}

impl Counts {
    fn page(&self, path: &str) -> Page {
        let usual = self.assets.iter().filter(|(_, count)| **count * RARE_ASSET >= self.hits);
        let mut assets: Vec<(&String, &u64)> = usual.collect();
        assets.sort_by_key(|(path, count)| (std::cmp::Reverse(**count), *path));
        Page {
            path: path.to_owned(),
            hits: self.hits,
            assets: assets.into_iter().map(|(path, _)| path.clone()).collect(),
        }
    }
}

impl Line<'_> {
    fn is_own(&self) -> bool {
        OWN_AGENTS.iter().any(|own| self.user_agent.contains(own))
    }
}

/// Requests since then that were none of ours, by a log or the end of one. A line that cannot be read is nobody's.
///
/// # Errors
/// When it cannot be read on.
pub fn requests_of_others(log: impl BufRead, since: Timestamp) -> io::Result<u64> {
    let mut count = 0;
    each_line(log, |line| {
        let read = line.and_then(|line| serde_json::from_slice::<Line<'_>>(line).ok());
        let is_theirs =
            |line: Line<'_>| !line.is_own() && line.time.parse::<Timestamp>().is_ok_and(|time| time >= since);
        count += u64::from(read.is_some_and(is_theirs));
    })?;
    Ok(count)
}

/// `None` for a line that is too long to be one.
fn each_line(mut log: impl BufRead, mut heard: impl FnMut(Option<&[u8]>)) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = log.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if read as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
            heard(None);
            pass_over_line(&mut log)?;
        } else {
            heard(Some(&line));
        }
    }
}

fn pass_over_line(log: &mut impl BufRead) -> io::Result<()> {
    loop {
        let waiting = log.fill_buf()?;
        let (length, is_end) = match waiting.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (waiting.len(), waiting.is_empty()),
        };
        log.consume(length);
        if is_end {
            return Ok(());
        }
    }
}

/// The page of the same site that the request came from.
fn own_page(line: &Line<'_>) -> Option<String> {
    let (_, rest) = line.referer.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if !same_authority(authority, &line.host) {
        return None;
    }
    match resolve(&line.host, "/", &line.referer) {
        Target::Here(path) => Some(path),
        Target::Elsewhere => None,
    }
}

fn is_found(status: u16) -> bool {
    (200..300).contains(&status) || status == 304
}

#[cfg(test)]
mod tests;

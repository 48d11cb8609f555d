//! Whether what a rehearsal will ask for is there: each path once, before the crowd comes.
//!
//! A log remembers pages and assets of earlier releases, and a page may name what never was. Left in, these would count
//! as failures of the app for as long as the rehearsal lasts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Answer, Ask, NoAnswer, Site};

/// Beyond it a path is taken as it is.
const MAX_REQUESTS: usize = 500;

/// Of a body: its beginning is enough.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// All of it.
const MAX_TIME: Duration = Duration::from_secs(15);

/// So many paths are named in a note.
const NAMED: usize = 3;

/// Asks for what a site has.
#[derive(Debug)]
pub struct Check {
    site: Site,
    waiting: VecDeque<String>,
    asked: usize,
    /// Why, for each that is not there.
    gone: BTreeMap<String, String>,
}

impl Check {
    pub fn of(site: Site) -> Check {
        let pages = site.pages.iter().map(|page| &page.path);
        let assets = site.pages.iter().flat_map(|page| &page.assets);
        let mut known = BTreeSet::new();
        let paths =
            pages.chain(&site.searches).chain(assets).filter(|path| known.insert(*path)).cloned().collect();
        Check { waiting: paths, asked: 0, gone: BTreeMap::new(), site }
    }

    /// What to ask for next, `spent` after the first. `None`: no more.
    pub fn next(&mut self, spent: Duration) -> Option<Ask> {
        if self.asked >= MAX_REQUESTS || spent >= MAX_TIME {
            return None;
        }
        self.asked += 1;
        self.waiting.pop_front().map(|path| Ask { path, max_bytes: MAX_BODY_BYTES })
    }

    pub fn answered(&mut self, path: &str, answer: &Result<Answer, NoAnswer>) {
        let why = match answer {
            Ok(answer) if (200..400).contains(&answer.status) => return,
            Ok(answer) => format!("is answered with {}", answer.status),
            Err(NoAnswer(why)) => format!("was not answered: {why}"),
        };
        self.gone.insert(path.to_owned(), why);
    }

    /// What is there, with a note of what is not.
    pub fn finish(self) -> Site {
        let Check { mut site, gone, .. } = self;
        if gone.is_empty() {
            return site;
        }
        site.pages.retain(|page| !gone.contains_key(&page.path));
        site.searches.retain(|path| !gone.contains_key(path));
        for page in &mut site.pages {
            page.assets.retain(|asset| !gone.contains_key(asset));
        }
        let named: Vec<String> =
            gone.iter().take(NAMED).map(|(path, why)| format!("`{path}` {why}")).collect();
        let others = match gone.len().saturating_sub(NAMED) {
            0 => String::new(),
            others => format!(", and {others} more"),
        };
        site.notes.push(format!("Left out, as it is not there: {}{others}.", named.join(", ")));
        site
    }
}

#[cfg(test)]
mod tests {
    use super::super::Page;
    use super::*;

    fn checked(answer: impl Fn(&str) -> Result<Answer, NoAnswer>) -> Site {
        let page = |path: &str, assets: &[&str]| Page {
            path: path.to_owned(),
            hits: 1,
            assets: assets.iter().map(ToString::to_string).collect(),
        };
        let site = Site {
            pages: vec![page("/", &["/app.css", "/old.js"]), page("/old", &["/app.css"])],
            searches: vec!["/search?q=red".to_owned()],
            ..Site::default()
        };
        let mut check = Check::of(site);
        let mut asked = Vec::new();
        while let Some(ask) = check.next(Duration::ZERO) {
            check.answered(&ask.path, &answer(&ask.path));
            asked.push(ask.path);
        }
        assert_eq!(asked, ["/", "/old", "/search?q=red", "/app.css", "/old.js"]);
        check.finish()
    }

    fn status(status: u16) -> Result<Answer, NoAnswer> {
        Ok(Answer { status, ..Answer::default() })
    }

    #[test]
    fn what_is_gone_is_left_out_and_said() {
        let site = checked(|path| status(if path.contains("old") { 404 } else { 200 }));
        assert_eq!(site.pages.iter().map(|page| page.path.as_str()).collect::<Vec<_>>(), ["/"]);
        assert_eq!(site.pages[0].assets, ["/app.css"]);
        assert_eq!(
            site.notes,
            ["Left out, as it is not there: `/old` is answered with 404, `/old.js` is answered with 404."]
        );
    }

    #[test]
    fn a_site_that_is_all_there_is_as_it_was() {
        let site = checked(|_| status(304));
        assert_eq!((site.pages.len(), site.searches.len(), site.notes.len()), (2, 1, 0));
    }

    #[test]
    fn an_app_that_answers_nothing_leaves_nothing() {
        let site = checked(|_| Err(NoAnswer("no connection".to_owned())));
        assert_eq!((site.pages.len(), site.searches.len()), (0, 0));
        assert!(
            site.notes[0].contains("`/` was not answered: no connection")
                && site.notes[0].ends_with(", and 2 more.")
        );
    }

    #[test]
    fn it_ends_in_time() {
        let mut check = Check::of(Site {
            searches: (0..2_000).map(|at| format!("/?q={at}")).collect(),
            ..Site::default()
        });
        assert_eq!(check.next(MAX_TIME), None);
        assert_eq!((0..).take_while(|_| check.next(Duration::ZERO).is_some()).count(), MAX_REQUESTS);
    }
}

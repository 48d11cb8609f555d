//! Whether what a rehearsal will ask for is there: each path once, before the crowd comes.
//!
//! A log remembers pages and assets of earlier releases, and a page may name what never was. Left in, these would count
//! as failures of the app for as long as the rehearsal lasts. A page that only leads to another site is not there either: nobody
//! follows it, so what it measures is a redirect. What answers that it has failed (500 and above) is there: it stays, as a failure
//! of the app that visitors will see, and is told beforehand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Answer, Ask, NoAnswer, Page, Site};
use crate::client::location::{self, Leads};

/// Beyond it a path is taken as it is.
const MAX_REQUESTS: usize = 500;

/// Of a body. What does not end by then is nothing that a visitor takes.
const MAX_BODY_BYTES: usize = 64 << 20;

/// All of it.
const MAX_TIME: Duration = Duration::from_secs(15);

/// So many paths are named in a note.
const NAMED: usize = 3;

/// Characters of where a path leads.
const MOST_OF_LOCATION: usize = 100;

/// Asks for what a site has.
#[derive(Debug)]
pub struct Check {
    site: Site,
    scheme: &'static str,
    authority: String,
    waiting: VecDeque<String>,
    asked: usize,
    /// Why, for each that is not there.
    gone: BTreeMap<String, String>,
    /// How, for each that fails.
    failing: BTreeMap<String, String>,
}

/// No page is answered as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no page is answered as it should be, before any load: {0}")]
pub struct AllFail(String);

impl Check {
    /// Of the site that calls itself `authority`, asked by `scheme`.
    pub fn of(site: Site, scheme: &'static str, authority: &str) -> Check {
        let pages = site.pages.iter().map(|page| &page.path);
        let assets = site.pages.iter().flat_map(|page| &page.assets);
        let mut known = BTreeSet::new();
        let paths =
            pages.chain(&site.searches).chain(assets).filter(|path| known.insert(*path)).cloned().collect();
        Check {
            waiting: paths,
            asked: 0,
            gone: BTreeMap::new(),
            failing: BTreeMap::new(),
            site,
            scheme,
            authority: authority.to_owned(),
        }
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
        let (list, why) = match answer {
            Ok(answer) if answer.cut => (&mut self.gone, "does not end".to_owned()),
            Ok(answer) if (200..400).contains(&answer.status) => match self.leads_elsewhere(path, answer) {
                Some(location) => (&mut self.gone, format!("leads to another site ({location})")),
                None => return,
            },
            Ok(answer) if answer.status >= 500 => {
                (&mut self.failing, format!("is answered with {}", answer.status))
            }
            Ok(answer) => (&mut self.gone, format!("is answered with {}", answer.status)),
            Err(NoAnswer(why)) => (&mut self.gone, format!("was not answered: {why}")),
        };
        list.insert(path.to_owned(), why);
    }

    /// Where to, of a page that does. Files may well be kept elsewhere.
    fn leads_elsewhere(&self, path: &str, answer: &Answer) -> Option<String> {
        let location = answer.location.as_deref();
        let leads = location::follow(answer.status, location, self.scheme, &self.authority, path);
        let is_asset = || self.site.pages.iter().flat_map(|page| &page.assets).any(|asset| asset == path);
        let location = location.filter(|_| leads == Leads::Elsewhere && !is_asset())?;
        Some(location.escape_debug().take(MOST_OF_LOCATION).collect())
    }

    /// What is there, with a note of what is not and of what fails.
    ///
    /// # Errors
    /// When all of its pages are gone or fail.
    pub fn finish(self) -> Result<Site, AllFail> {
        let Check { mut site, gone, failing, .. } = self;
        let is_bad = |page: &Page| gone.contains_key(&page.path) || failing.contains_key(&page.path);
        if !site.pages.is_empty() && site.pages.iter().all(is_bad) {
            let pages: BTreeSet<&str> = site.pages.iter().map(|page| page.path.as_str()).collect();
            let bad = failing.iter().chain(&gone).filter(|(path, _)| pages.contains(path.as_str()));
            return Err(AllFail(named(bad)));
        }
        site.pages.retain(|page| !gone.contains_key(&page.path));
        site.searches.retain(|path| !gone.contains_key(path));
        for page in &mut site.pages {
            page.assets.retain(|asset| !gone.contains_key(asset));
        }
        if !gone.is_empty() {
            site.notes.push(format!("Left out, as it is not there: {}.", named(gone.iter())));
        }
        if !failing.is_empty() {
            let named = named(failing.iter());
            site.notes.push(format!("Fails before any load, and counts as a failure: {named}."));
        }
        Ok(site)
    }
}

/// The first few, each with what is wrong with it.
fn named<'a>(bad: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let all: Vec<String> = bad.map(|(path, why)| format!("`{path}` {why}")).collect();
    let first = all[..all.len().min(NAMED)].join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => first,
        others => format!("{first}, and {others} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(answer: impl Fn(&str) -> Result<Answer, NoAnswer>) -> Result<Site, AllFail> {
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
        let mut check = Check::of(site, "http", "shop.example");
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
        let site = checked(|path| status(if path.contains("old") { 404 } else { 200 })).unwrap();
        assert_eq!(site.pages.iter().map(|page| page.path.as_str()).collect::<Vec<_>>(), ["/"]);
        assert_eq!(site.pages[0].assets, ["/app.css"]);
        assert_eq!(
            site.notes,
            ["Left out, as it is not there: `/old` is answered with 404, `/old.js` is answered with 404."]
        );
    }

    #[test]
    fn a_site_that_is_all_there_is_as_it_was() {
        let site = checked(|_| status(304)).unwrap();
        assert_eq!((site.pages.len(), site.searches.len(), site.notes.len()), (2, 1, 0));
    }

    /// It is no page of an earlier release: visitors ask for it, and it fails them.
    #[test]
    fn what_fails_stays_and_is_said() {
        let site =
            checked(|path| status(if path == "/old" || path == "/app.css" { 503 } else { 200 })).unwrap();
        assert_eq!((site.pages.len(), site.pages[0].assets.len(), site.searches.len()), (2, 2, 1));
        assert_eq!(
            site.notes,
            [
                "Fails before any load, and counts as a failure: `/app.css` is answered with 503, `/old` is answered with 503."
            ]
        );
    }

    #[test]
    fn an_app_whose_pages_all_fail_is_refused_with_how() {
        let refused = checked(|path| status(if path == "/" { 500 } else { 404 })).unwrap_err().to_string();
        assert_eq!(
            refused,
            "no page is answered as it should be, before any load: `/` is answered with 500, `/old` is answered with 404"
        );
        let refused = checked(|_| Err(NoAnswer("no connection".to_owned()))).unwrap_err().to_string();
        assert!(refused.contains("`/` was not answered: no connection"), "{refused}");
    }

    fn redirect(to: &str) -> Result<Answer, NoAnswer> {
        Ok(Answer { status: 301, location: Some(to.to_owned()), ..Answer::default() })
    }

    /// As with an app that wants TLS and is asked without: it would pass by its redirects, and nothing of it was measured.
    #[test]
    fn an_app_that_only_leads_to_another_site_is_refused_with_where() {
        let refused =
            checked(|path| redirect(&format!("https://shop.example{path}"))).unwrap_err().to_string();
        assert_eq!(
            refused,
            "no page is answered as it should be, before any load: `/` leads to another site (https://shop.example/), \
             `/old` leads to another site (https://shop.example/old)"
        );
    }

    #[test]
    fn a_page_that_leads_to_another_site_is_left_out_and_one_that_leads_to_another_page_is_not() {
        let site = checked(|path| match path {
            "/old" => redirect("//elsewhere.example/"),
            "/search?q=red" => redirect("/search"),
            // Where the app keeps its files.
            "/app.css" => redirect("https://files.example/app.css"),
            _ => status(200),
        });
        let site = site.unwrap();
        assert_eq!((site.pages.len(), site.pages[0].assets.len(), site.searches.len()), (1, 2, 1));
        assert_eq!(
            site.notes,
            ["Left out, as it is not there: `/old` leads to another site (//elsewhere.example/)."]
        );
    }

    #[test]
    fn it_ends_in_time() {
        let searches = (0..2_000).map(|at| format!("/?q={at}")).collect();
        let mut check = Check::of(Site { searches, ..Site::default() }, "http", "shop.example");
        assert_eq!(check.next(MAX_TIME), None);
        assert_eq!((0..).take_while(|_| check.next(Duration::ZERO).is_some()).count(), MAX_REQUESTS);
    }
}

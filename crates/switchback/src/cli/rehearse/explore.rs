//! What there is to visit: from the app's own access log, or by following the links of its pages.

use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

use model::Rehearsal;
use rehearsal::fetch::Fetcher;
use rehearsal::load::{Origin, Visit};
use rehearsal::record::SEARCH;
use rehearsal::site::Site;
use rehearsal::site::access_log::AccessLog;
use rehearsal::site::check::{AllFail, Check};
use rehearsal::site::crawl::{Crawl, Limits, NothingFound};
use rehearsal::site::mix::{self, Mix};
use rehearsal::site::rates::Rates;
use tokio::runtime::Runtime;

use super::target::Target;
use crate::cli::connect::App;
use crate::cli::say::{self, Problem};
use crate::cli::up::{INTERRUPTED, Interrupts};

/// A log of fewer landings is no sample of what visitors do.
const LEAST_LANDINGS: u64 = 100;

/// Who comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowd {
    /// Those who always come: they do what the log says.
    Usual,
    /// Those whom a link elsewhere brings: few of them look further than where it leads.
    New,
}

impl Crowd {
    /// Of a profile: `viral` and `soak` are more of those who always come, and what an app serves is asked of these.
    pub fn of(profile: &str) -> Crowd {
        match profile {
            SEARCH | "replay" | "soak" | "viral" => Crowd::Usual,
            _ => Crowd::New,
        }
    }

    /// What they do, and by what that is known: `found` in a log that is long enough or not.
    fn mix(self, found: Option<Mix>) -> (Mix, &'static str) {
        match (self, found) {
            (Crowd::Usual, Some(mix)) => (mix, "pages and what visitors do as in the access log"),
            (Crowd::Usual, None) => {
                (Mix::CROWD, "pages as in the access log, which is too short for what visitors do")
            }
            (Crowd::New, _) => (Mix::CROWD, "pages as in the access log, visited as newcomers do"),
        }
    }
}

pub struct Explored {
    pub visits: Vec<Visit>,
    /// When visits began, by the log.
    pub rates: Option<Rates>,
    /// What people should know of how it came about.
    pub notes: Vec<String>,
}

/// Asks for every page and asset once, so that what is gone does not count as a failure of the app.
///
/// # Errors
/// When nothing is there to be visited, or it is interrupted.
pub fn explore(
    runtime: &Runtime,
    app: &App,
    target: &Target,
    own: Option<&Rehearsal>,
    crowd: Crowd,
    interrupts: &Interrupts,
) -> Result<Explored, Problem> {
    let log = if target.is_ours { read_log(app)? } else { AccessLog::default() };
    let fetcher = Fetcher::new(&target.origin).map_err(|error| Problem::failed(local::chain(&error)))?;
    let mut notes = Vec::new();
    let is_known = log.classes.landings >= LEAST_LANDINGS;
    let found = async {
        match is_known {
            true => checked(&fetcher, log.site(), &target.origin).await.map_err(|none| none.to_string()),
            false => crawled(&fetcher, &target.origin).await.map_err(|none| none.to_string()),
        }
    };
    let mix = if is_known {
        let (mix, by) = crowd.mix(log.mix());
        notes.push(format!("{by}; it has {} visits", log.rates.visits()));
        mix
    } else {
        say::talk("looking at what there is to visit");
        Mix::CROWD
    };
    let found = runtime.block_on(async {
        tokio::select! {
            found = found => Ok(found),
            () = interrupts.heard() => {
                say::talk("interrupted: nothing was measured");
                Err(Problem::Said(INTERRUPTED))
            }
        }
    })?;
    let site = match found {
        Ok(site) => site,
        // An app whose front page says nothing is visited all the same, as its manifest says.
        Err(nothing) if own.is_some() => Site { notes: vec![nothing], ..Site::default() },
        Err(nothing) => {
            return Err(Problem::failed(nothing)
                .hint("`switchback logs` may say why; `[rehearsal.visit.NAME]` in the manifest says what visitors do"));
        }
    };
    notes.extend(site.notes.iter().cloned());
    let rates = (log.rates.visits() > 0).then_some(log.rates);
    Ok(Explored { visits: mix::visits(&site, &mix, own), rates, notes })
}

fn read_log(app: &App) -> Result<AccessLog, Problem> {
    let now = app.state.access_log();
    let mut log = AccessLog::default();
    // The one before first: a log that was just begun anew has hardly a visit.
    for path in [now.with_extension("log.1"), now] {
        let failed = |error: std::io::Error| Problem::failed(format!("{}: {error}", path.display()));
        match File::open(&path) {
            Ok(file) => log.read(BufReader::new(file)).map_err(failed)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(log)
}

async fn checked(fetcher: &Fetcher, site: Site, origin: &Origin) -> Result<Site, AllFail> {
    let began = Instant::now();
    let mut check = Check::of(site, origin.scheme(), &origin.authority);
    while let Some(ask) = check.next(began.elapsed()) {
        let answer = fetcher.fetch(&ask).await;
        check.answered(&ask.path, &answer);
    }
    check.finish()
}

async fn crawled(fetcher: &Fetcher, origin: &Origin) -> Result<Site, NothingFound> {
    let began = Instant::now();
    let mut crawl = Crawl::new(origin.scheme(), &origin.authority, Limits::default());
    while let Some(ask) = crawl.next(began.elapsed()) {
        let answer = fetcher.fetch(&ask).await;
        crawl.answered(&ask.path, answer);
    }
    crawl.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_always_comes_does_as_the_log_says_and_newcomers_do_not() {
        let logged = Mix { machines: 0.5, ..Mix::CROWD };
        for profile in ["find", "replay", "soak", "viral"] {
            let (mix, by) = Crowd::of(profile).mix(Some(logged));
            assert_eq!((mix, by), (logged, "pages and what visitors do as in the access log"), "{profile}");
            let (mix, by) = Crowd::of(profile).mix(None);
            assert!(mix == Mix::CROWD && by.ends_with("too short for what visitors do"), "{profile}");
        }
        for profile in ["front-page", "hn", "reddit", "overload", "tv-ad"] {
            let (mix, by) = Crowd::of(profile).mix(Some(logged));
            assert!(mix == Mix::CROWD && by.ends_with("as newcomers do"), "{profile}");
        }
    }
}

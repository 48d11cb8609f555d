//! What visitors of a site do, as visits of a load.

use std::collections::BTreeSet;

use model::{Rehearsal, RehearsedMethod, RehearsedVisit};
use serde::Serialize;

use super::{Page, Site};
use crate::load::{Method, Step, Visit};

/// Which shares of the visits do what, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mix {
    /// Of people, who begin at the first page of the site. The others begin at one of the others.
    pub first_page: f64,
    /// Of people, who look at a second page.
    pub second: f64,
    /// Of people, who look at a third.
    pub third: f64,
    /// Of all, who search.
    pub search: f64,
    /// Of all, who are machines that read.
    pub machines: f64,
    /// Of all, who ask for what there is not.
    pub missing: f64,
}

impl Mix {
    /// Those whom a link on somebody's front page brings.
    pub const CROWD: Mix =
        Mix { first_page: 0.8, second: 0.3, third: 0.1, search: 0.05, machines: 0.1, missing: 0.01 };
}

/// Between two pages.
const THINK_MEDIAN_MS: u64 = 12_000;

/// Of those who saw a failure.
const RETRIES: f64 = 0.5;

/// Pages of a site that get visits of their own; the others are further pages only.
const LANDING_PAGES: usize = 20;

/// Machines ask for a page under an address of their own, which no cache has.
const MARK: &str = "utm_source={random}";

/// What there is not, surely.
const MISSING_PATH: &str = "/there-is-no-such-page";

/// The visits of the mix, and of those that the app's manifest describes: these have the share of all that they say.
pub fn visits(site: &Site, mix: &Mix, own: Option<&Rehearsal>) -> Vec<Visit> {
    let own: Vec<Visit> = own.map(|own| described(own, site)).unwrap_or_default();
    let share_of_own = own.iter().map(|visit| visit.weight).sum::<f64>().min(1.0);
    let mut visits = found(site, mix);
    let all: f64 = visits.iter().map(|visit| visit.weight).sum();
    for visit in &mut visits {
        visit.weight *= (1.0 - share_of_own) / all;
    }
    visits.extend(own);
    visits.retain(|visit| visit.weight > 0.0);
    visits
}

/// Requests of one visit, on average, when all goes well.
pub fn requests_per_visit(visits: &[Visit]) -> f64 {
    let all: f64 = visits.iter().map(|visit| visit.weight).sum();
    let weighted: f64 = visits.iter().map(|visit| visit.weight * requests(visit)).sum();
    if all > 0.0 { weighted / all } else { 0.0 }
}

fn requests(visit: &Visit) -> f64 {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let (mut requests, mut reached) = (0.0, 1.0);
    for step in &visit.steps {
        reached *= step.probability;
        let new = step.assets.iter().filter(|asset| seen.insert(asset.as_str())).count();
        requests += reached * (1.0 + if visit.fetches_assets { new as f64 } else { 0.0 });
    }
    requests
}

/// None of a site without a page.
fn found(site: &Site, mix: &Mix) -> Vec<Visit> {
    let [first, others @ ..] = &site.pages[..] else { return Vec::new() };
    let search = if site.searches.is_empty() { 0.0 } else { mix.search };
    let people = (1.0 - search - mix.machines - mix.missing).max(0.0);
    let at_first = if others.is_empty() { 1.0 } else { mix.first_page };
    let mut visits = vec![reader("reader", people * at_first, first, others, mix)];
    let landing = &others[..others.len().min(LANDING_PAGES)];
    let hits: f64 = landing.iter().map(|page| page.hits.max(1) as f64).sum();
    for page in landing {
        let share = page.hits.max(1) as f64 / hits;
        visits.push(reader("reader-elsewhere", people * (1.0 - at_first) * share, page, &site.pages, mix));
    }
    if !site.searches.is_empty() {
        let steps = vec![page_step(first), further("search", site.searches.clone(), Vec::new(), 1.0)];
        visits.push(visit("searcher", search, steps));
    }
    let pages = site.pages.iter().take(LANDING_PAGES).map(marked).collect();
    visits.push(machine("crawler", mix.machines / 2.0, Method::Get, pages));
    visits.push(machine("unfurler", mix.machines / 2.0, Method::Head, vec![first.path.clone()]));
    visits.push(missing(site, mix.missing));
    visits
}

/// Somebody who looks at a page and perhaps at two others.
fn reader(name: &str, weight: f64, landing: &Page, others: &[Page], mix: &Mix) -> Visit {
    let others: Vec<&Page> = others.iter().filter(|page| page.path != landing.path).collect();
    let mut steps = vec![page_step(landing)];
    if !others.is_empty() && mix.second > 0.0 {
        let paths: Vec<String> = others.iter().map(|page| page.path.clone()).collect();
        let assets = common_assets(&others);
        steps.push(further("page", paths.clone(), assets.clone(), mix.second.min(1.0)));
        steps.push(further("page", paths, assets, (mix.third / mix.second).min(1.0)));
    }
    visit(name, weight, steps)
}

/// What all of the pages have. What only some have is not known before it is known which it is.
fn common_assets(pages: &[&Page]) -> Vec<String> {
    let [first, others @ ..] = pages else { return Vec::new() };
    let common = first.assets.iter().filter(|asset| others.iter().all(|page| page.assets.contains(asset)));
    common.cloned().collect()
}

fn page_step(page: &Page) -> Step {
    Step { think_median_ms: 0, ..further("page", vec![page.path.clone()], page.assets.clone(), 1.0) }
}

fn further(class: &str, paths: Vec<String>, assets: Vec<String>, probability: f64) -> Step {
    Step {
        class: class.to_owned(),
        probability,
        think_median_ms: THINK_MEDIAN_MS,
        method: Method::Get,
        paths,
        form: Vec::new(),
        expect: Vec::new(),
        assets,
    }
}

fn visit(name: &str, weight: f64, steps: Vec<Step>) -> Visit {
    Visit { name: name.to_owned(), weight, steps, fetches_assets: true, retries: RETRIES }
}

/// One that reads a page and nothing else.
fn machine(name: &str, weight: f64, method: Method, paths: Vec<String>) -> Visit {
    let mut step = Step { think_median_ms: 0, method, ..further("bot", paths, Vec::new(), 1.0) };
    if method == Method::Head {
        // To be told that an app has no HEAD is an answer.
        step.expect = vec![200, 204, 301, 302, 303, 304, 307, 308, 405, 501];
    }
    Visit { fetches_assets: false, retries: 0.0, ..visit(name, weight, vec![step]) }
}

fn marked(page: &Page) -> String {
    let joined_by = if page.path.contains('?') { '&' } else { '?' };
    format!("{}{joined_by}{MARK}", page.path)
}

fn missing(site: &Site, weight: f64) -> Visit {
    let mut step = page_step(&Page { path: MISSING_PATH.to_owned(), hits: 1, assets: Vec::new() });
    step.class = "missing".to_owned();
    // An app that shows its front page instead does so for everybody.
    step.expect = match site.missing {
        Some(status) => vec![status],
        None => vec![404, 410, 200, 301, 302, 303, 307, 308],
    };
    Visit { fetches_assets: false, retries: 0.0, ..visit("lost", weight, vec![step]) }
}

fn described(own: &Rehearsal, site: &Site) -> Vec<Visit> {
    own.visits.iter().map(|(name, visit)| described_visit(name, visit, site)).collect()
}

fn described_visit(name: &str, described: &RehearsedVisit, site: &Site) -> Visit {
    let steps = described.steps.iter().map(|step| {
        let (class, method) = match step.method {
            RehearsedMethod::Get => ("page", Method::Get),
            RehearsedMethod::Post => ("write", Method::Post),
        };
        let page = site.pages.iter().find(|page| method == Method::Get && page.path == step.path);
        Step {
            class: class.to_owned(),
            probability: 1.0,
            think_median_ms: step.think_ms,
            method,
            paths: vec![step.path.clone()],
            form: step.form.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            expect: step.expect.into_iter().collect(),
            assets: page.map(|page| page.assets.clone()).unwrap_or_default(),
        }
    });
    let mut visit = visit(name, f64::from(described.weight) / 100.0, steps.collect());
    // Whoever is not sure whether it was done does not do it twice.
    visit.retries = if described.writes() { 0.0 } else { RETRIES };
    visit
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::RehearsedStep;

    use super::*;

    fn page(path: &str, hits: u64, assets: &[&str]) -> Page {
        Page { path: path.to_owned(), hits, assets: assets.iter().map(ToString::to_string).collect() }
    }

    fn site() -> Site {
        Site {
            pages: vec![
                page("/", 90, &["/app.css", "/app.js", "/hero.jpg"]),
                page("/books", 30, &["/app.css", "/app.js", "/books.jpg"]),
                page("/maps?p=1", 10, &["/app.css", "/app.js"]),
            ],
            searches: vec!["/search?q=red".to_owned(), "/search?q=blue".to_owned()],
            missing: Some(404),
            notes: Vec::new(),
        }
    }

    fn named<'a>(visits: &'a [Visit], name: &str) -> Vec<&'a Visit> {
        visits.iter().filter(|visit| visit.name == name).collect()
    }

    fn weight(visits: &[Visit], name: &str) -> f64 {
        named(visits, name).iter().map(|visit| visit.weight).sum()
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn a_crowd_lands_on_one_page_and_a_third_of_it_looks_further() {
        let visits = visits(&site(), &Mix::CROWD, None);
        assert!(close(visits.iter().map(|visit| visit.weight).sum(), 1.0));
        for (name, share) in [
            ("reader", 0.84 * 0.8),
            ("reader-elsewhere", 0.84 * 0.2),
            ("searcher", 0.05),
            ("crawler", 0.05),
            ("unfurler", 0.05),
            ("lost", 0.01),
        ] {
            assert!(close(weight(&visits, name), share), "{name}: {}", weight(&visits, name));
        }
        let reader = named(&visits, "reader")[0];
        let taken: Vec<f64> = reader.steps.iter().map(|step| step.probability).collect();
        assert!(taken[0] == 1.0 && close(taken[1], 0.3) && close(taken[1] * taken[2], 0.1), "{taken:?}");
        assert_eq!(reader.steps[0].paths, ["/"]);
        assert_eq!(reader.steps[1].paths, ["/books", "/maps?p=1"]);
        assert_eq!(reader.steps[1].assets, ["/app.css", "/app.js"]);
        assert_eq!(
            reader.steps.iter().map(|step| step.think_median_ms).collect::<Vec<_>>(),
            [0, 12_000, 12_000]
        );
    }

    #[test]
    fn other_pages_are_landed_on_as_often_as_they_were_asked_for() {
        let visits = visits(&site(), &Mix::CROWD, None);
        let elsewhere = named(&visits, "reader-elsewhere");
        assert_eq!(elsewhere.len(), 2);
        assert!(close(elsewhere[0].weight, elsewhere[1].weight * 3.0));
    }

    #[test]
    fn machines_fetch_no_assets_and_half_of_them_are_unknown_to_any_cache() {
        let visits = visits(&site(), &Mix::CROWD, None);
        for visit in [named(&visits, "crawler"), named(&visits, "unfurler")].concat() {
            assert!(!visit.fetches_assets && visit.steps[0].assets.is_empty());
            assert_eq!(visit.steps[0].class, "bot");
        }
        let paths = &named(&visits, "crawler")[0].steps[0].paths;
        let marked = ["/?utm_source={random}", "/books?utm_source={random}", "/maps?p=1&utm_source={random}"];
        assert_eq!(paths[..], marked);
    }

    #[test]
    fn what_there_is_not_is_expected_to_be_missing() {
        let visits = visits(&site(), &Mix::CROWD, None);
        assert_eq!(named(&visits, "lost")[0].steps[0].expect, [404]);
    }

    #[test]
    fn without_searches_or_other_pages_the_rest_is_as_it_was() {
        let alone = Site { pages: vec![page("/", 1, &[])], ..Site::default() };
        let visits = visits(&alone, &Mix::CROWD, None);
        assert!(close(weight(&visits, "reader"), 0.89) && close(weight(&visits, "crawler"), 0.05));
        assert_eq!(named(&visits, "reader")[0].steps.len(), 1);
        assert!(named(&visits, "searcher").is_empty());
    }

    fn rehearsal(weight: u32) -> Rehearsal {
        let step = |method, path: &str, form: &[(&str, &str)]| RehearsedStep {
            method,
            path: path.to_owned(),
            form: form.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            think_ms: 2_000,
            expect: (method == RehearsedMethod::Post).then_some(303),
        };
        let steps = vec![
            step(RehearsedMethod::Get, "/books", &[]),
            step(RehearsedMethod::Post, "/sign", &[("name", "{random}")]),
        ];
        let visits = BTreeMap::from([("signer".to_owned(), RehearsedVisit { weight, steps })]);
        Rehearsal { slo: Vec::new(), visits }
    }

    #[test]
    fn a_visit_of_the_manifest_has_the_share_of_all_that_it_says() {
        let own = rehearsal(2);
        assert!(own.writes());
        let visits = visits(&site(), &Mix::CROWD, Some(&own));
        assert!(close(weight(&visits, "signer"), 0.02));
        assert!(close(weight(&visits, "reader"), 0.84 * 0.8 * 0.98));
        let signer = named(&visits, "signer")[0];
        assert_eq!(signer.steps[0].assets, ["/app.css", "/app.js", "/books.jpg"]);
        let write = &signer.steps[1];
        assert_eq!(
            (write.class.as_str(), write.method, &write.expect[..]),
            ("write", Method::Post, &[303][..])
        );
        assert_eq!(write.form, [("name".to_owned(), "{random}".to_owned())]);
        assert_eq!(signer.retries, 0.0);
    }

    #[test]
    fn a_site_without_a_page_has_no_visits() {
        assert_eq!(visits(&Site::default(), &Mix::CROWD, None), []);
    }

    #[test]
    fn visits_of_the_manifest_may_be_all_there_are() {
        let visits = visits(&site(), &Mix::CROWD, Some(&rehearsal(100)));
        assert_eq!(visits.iter().map(|visit| visit.name.as_str()).collect::<Vec<_>>(), ["signer"]);
    }

    #[test]
    fn nothing_but_the_manifest_makes_a_rehearsal_write() {
        let visits = visits(&site(), &Mix::CROWD, None);
        let methods = visits.iter().flat_map(|visit| &visit.steps).map(|step| step.method);
        assert!(methods.into_iter().all(|method| method != Method::Post));
    }

    #[test]
    fn requests_of_a_visit_are_its_pages_and_each_asset_once() {
        let reader = Visit { weight: 3.0, ..visits(&site(), &Mix::CROWD, None)[0].clone() };
        // The landing page with three assets, then pages that have nothing new.
        assert!(close(requests_per_visit(std::slice::from_ref(&reader)), 4.0 + 0.3 + 0.1));
        let machine = machine("crawler", 1.0, Method::Get, vec!["/".to_owned()]);
        assert!(close(requests_per_visit(&[reader, machine]), (3.0 * 4.4 + 1.0) / 4.0));
        assert_eq!(requests_per_visit(&[]), 0.0);
    }
}

//! A load, looked at before anything is sent, and made ready for many visitors.

use std::time::Duration;

use crate::chance;
use crate::load::{Load, Method, Phase, Step, Visit};
use crate::profile::{LONGEST_HOURS, LONGEST_MS};

const CLASS_ASSET: &str = "asset";
/// Visits per second.
const MAX_RATE: f64 = 1e6;
/// What a profile is refused beyond, and what rounding its parts may add.
const MAX_LASTS_MS: u64 = LONGEST_MS + 1_000;
const MAX_PATIENCE_MS: u64 = 600_000;
const MAX_THINK_MS: u64 = 3_600_000;
const MAX_PHASES: usize = 1_000;
const MAX_VISITS: usize = 1_000;
const MAX_STEPS: usize = 1_000;
const MAX_ASSETS: usize = 1_000;
const MAX_CLASSES: usize = 100;
const MAX_TEXT_BYTES: usize = 8 * 1024;
const MAX_FORM_FIELDS: usize = 100;
const MAX_VISITORS: u32 = 1_000_000;
const MAX_CONNECTIONS_PER_VISIT: u32 = 64;
const MAX_REDIRECTS: u32 = 100;
const MAX_THREADS: u32 = 256;

/// In a value of a form or in a path: a word of the visit's own.
pub const RANDOM: &str = "{random}";

/// Why a load is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct Refusal {
    /// Such as `visits[0].steps[2].paths`.
    pub at: String,
    pub what: String,
}

fn refuse<T>(at: impl Into<String>, what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { at: at.into(), what: what.into() })
}

/// Index of a class in [`Script::classes`].
pub type Class = usize;

pub struct Script {
    pub load: Load,
    pub classes: Vec<String>,
    pub asset_class: Class,
    pub visits: Vec<VisitScript>,
    /// Weights of the visits, each with those before it; the last is the sum.
    weights: Vec<f64>,
    pub lasts: Duration,
    pub patience: Duration,
    /// Of words alone, and of this run alone: what an app may have only once must not come again with the seed.
    words: u64,
}

pub struct VisitScript {
    pub visit: Visit,
    pub steps: Vec<StepScript>,
    /// Each once.
    pub assets: Vec<String>,
    /// Where its forms go. Other forms of a page are nothing to it.
    pub posts: Vec<String>,
}

pub struct StepScript {
    pub class: Class,
    /// Indices into [`VisitScript::assets`].
    pub assets: Vec<u16>,
    /// A later step sends a form, whose hidden fields may be on this page.
    pub wants_page: bool,
}

impl Script {
    /// # Errors
    /// When the load is beyond what a generator takes, or says what cannot be done.
    pub fn new(load: Load) -> Result<Script, Refusal> {
        check_origin(&load)?;
        check_phases(&load.phases)?;
        check_limits(&load)?;
        if !(0.0..=10.0).contains(&load.noise) {
            return refuse("noise", "must be from 0 to 10");
        }
        if load.visits.is_empty() || load.visits.len() > MAX_VISITS {
            return refuse("visits", format!("there must be 1 to {MAX_VISITS}"));
        }
        let mut classes = vec![CLASS_ASSET.to_owned()];
        let mut visits = Vec::new();
        let mut weights = Vec::new();
        for (at, visit) in load.visits.iter().enumerate() {
            let place = format!("visits[{at}]");
            check_visit(&place, visit)?;
            weights.push(weights.last().unwrap_or(&0.0) + visit.weight);
            visits.push(visit_script(visit, &mut classes));
        }
        if classes.len() > MAX_CLASSES {
            return refuse("visits", format!("there are {} classes, more than {MAX_CLASSES}", classes.len()));
        }
        if weights.last().is_none_or(|sum| *sum <= 0.0) {
            return refuse("visits", "one of them must have a weight above 0");
        }
        let lasts = Duration::from_millis(load.phases.iter().map(|phase| phase.lasts_ms).sum());
        let patience = Duration::from_millis(load.limits.patience_ms);
        let words = chance::unforeseen();
        Ok(Script { load, classes, asset_class: 0, visits, weights, lasts, patience, words })
    }

    /// One of the visits, by their weights.
    pub fn choose(&self, random: &mut fastrand::Rng) -> &VisitScript {
        let drawn = random.f64() * self.weights.last().copied().unwrap_or(0.0);
        let at = self.weights.partition_point(|weight| *weight <= drawn);
        &self.visits[at.min(self.visits.len() - 1)]
    }

    /// Whole seconds that requests can be meant for.
    pub fn seconds(&self) -> u32 {
        u32::try_from(self.lasts.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
    }

    /// What is random in one visit, but for its word.
    pub fn random(&self, thread: u64, visit: u64) -> fastrand::Rng {
        chance::stream(chance::stream(self.load.seed, thread).u64(..), visit)
    }

    /// Of the visitor with this number among those of all threads: what [`RANDOM`] stands for.
    pub fn word(&self, visitor: u64) -> String {
        chance::word(&mut chance::stream(self.words, visitor))
    }
}

fn visit_script(visit: &Visit, classes: &mut Vec<String>) -> VisitScript {
    let (mut steps, mut all_assets) = (Vec::new(), Vec::new());
    for (at, step) in visit.steps.iter().enumerate() {
        let wants_page = visit.steps[at + 1..].iter().any(|later| later.method == Method::Post);
        let assets = step.assets.iter().map(|asset| place(&mut all_assets, asset) as u16).collect();
        steps.push(StepScript { class: place(classes, &step.class), assets, wants_page });
    }
    let posts = visit.steps.iter().filter(|step| step.method == Method::Post);
    let posts = posts.flat_map(|step| step.paths.clone()).collect();
    VisitScript { visit: visit.clone(), steps, assets: all_assets, posts }
}

/// Where `text` is in `list`, to which it is added if it is not.
fn place(list: &mut Vec<String>, text: &str) -> usize {
    list.iter().position(|other| other == text).unwrap_or_else(|| {
        list.push(text.to_owned());
        list.len() - 1
    })
}

fn check_origin(load: &Load) -> Result<(), Refusal> {
    let authority = &load.origin.authority;
    let is_clean = authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
    if authority.is_empty() || authority.len() > 255 || !is_clean {
        return refuse("origin.authority", "must be a host, and a port where that is not the usual one");
    }
    Ok(())
}

fn check_phases(phases: &[Phase]) -> Result<(), Refusal> {
    if phases.is_empty() || phases.len() > MAX_PHASES {
        return refuse("phases", format!("there must be 1 to {MAX_PHASES}"));
    }
    for (at, phase) in phases.iter().enumerate() {
        if [phase.from, phase.to].iter().any(|rate| !(0.0..=MAX_RATE).contains(rate)) {
            return refuse(format!("phases[{at}]"), format!("rates must be from 0 to {MAX_RATE} visits/s"));
        }
        if phase.lasts_ms > MAX_LASTS_MS {
            let what = format!("is longer than {LONGEST_HOURS} hours");
            return refuse(format!("phases[{at}].lasts_ms"), what);
        }
    }
    let lasts: u64 = phases.iter().map(|phase| phase.lasts_ms).sum();
    if lasts == 0 || lasts > MAX_LASTS_MS {
        let what =
            format!("must last for more than nothing, and at most {LONGEST_HOURS} hours, all together");
        return refuse("phases", what);
    }
    Ok(())
}

fn check_limits(load: &Load) -> Result<(), Refusal> {
    let limits = &load.limits;
    let between = |name: &str, value: u64, least: u64, most: u64| {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        refuse(format!("limits.{name}"), format!("is {value}, and must be from {least} to {most}"))
    };
    between("visitors", limits.visitors.into(), 1, MAX_VISITORS.into())?;
    between("connections", limits.connections.into(), 1, MAX_VISITORS.into())?;
    between(
        "connections_per_visit",
        limits.connections_per_visit.into(),
        1,
        MAX_CONNECTIONS_PER_VISIT.into(),
    )?;
    between("patience_ms", limits.patience_ms, 1, MAX_PATIENCE_MS)?;
    between("redirects", limits.redirects.into(), 0, MAX_REDIRECTS.into())?;
    between("threads", limits.threads.into(), 1, MAX_THREADS.into())?;
    if limits.visitors < limits.threads || limits.connections < limits.threads {
        return refuse("limits.threads", "each thread must have at least one visitor and one connection");
    }
    Ok(())
}

fn check_visit(place: &str, visit: &Visit) -> Result<(), Refusal> {
    if !(0.0..=1e9).contains(&visit.weight) {
        return refuse(format!("{place}.weight"), "must be from 0 to a thousand million");
    }
    check_share(&format!("{place}.retries"), visit.retries)?;
    if visit.steps.is_empty() || visit.steps.len() > MAX_STEPS {
        return refuse(format!("{place}.steps"), format!("there must be 1 to {MAX_STEPS}"));
    }
    if visit.steps.iter().map(|step| step.assets.len()).sum::<usize>() > MAX_ASSETS {
        return refuse(format!("{place}.steps"), format!("there are more than {MAX_ASSETS} assets"));
    }
    for (at, step) in visit.steps.iter().enumerate() {
        check_step(&format!("{place}.steps[{at}]"), step)?;
    }
    Ok(())
}

fn check_step(place: &str, step: &Step) -> Result<(), Refusal> {
    check_share(&format!("{place}.probability"), step.probability)?;
    if step.class.is_empty() || step.class.len() > 64 {
        return refuse(format!("{place}.class"), "must be a word of at most 64 bytes");
    }
    if step.think_median_ms > MAX_THINK_MS {
        return refuse(format!("{place}.think_median_ms"), "is longer than an hour");
    }
    if step.paths.is_empty() {
        return refuse(format!("{place}.paths"), "there must be one");
    }
    let paths = step.paths.iter().map(|path| ("paths", path));
    for (list, path) in paths.chain(step.assets.iter().map(|path| ("assets", path))) {
        if !path.starts_with('/') || path.len() > MAX_TEXT_BYTES || !is_target(path) {
            return refuse(
                format!("{place}.{list}"),
                format!("`{path}` is no path: it begins with /, and has no spaces and no fragment"),
            );
        }
    }
    if !step.form.is_empty() && step.method != Method::Post {
        return refuse(format!("{place}.form"), "is sent by POST only");
    }
    let is_short = |(name, value): &(String, String)| name.len() + value.len() <= MAX_TEXT_BYTES;
    if step.form.len() > MAX_FORM_FIELDS || !step.form.iter().all(is_short) {
        return refuse(format!("{place}.form"), "is larger than a visitor would fill in");
    }
    if !step.expect.iter().all(|status| (200..=599).contains(status)) {
        return refuse(format!("{place}.expect"), "a status is from 200 to 599");
    }
    Ok(())
}

fn check_share(at: &str, share: f64) -> Result<(), Refusal> {
    if (0.0..=1.0).contains(&share) { Ok(()) } else { refuse(at, "must be from 0 to 1") }
}

/// Whether it can stand in a request as it is, once a word is put in.
fn is_target(path: &str) -> bool {
    path.replace(RANDOM, "")
        .bytes()
        .all(|byte| (b'!'..=b'~').contains(&byte) && !b"#\"<>\\^`{|}".contains(&byte))
}

#[cfg(test)]
pub mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use model::{REQUEST_CLASSES, Rehearsal, RehearsedMethod, RehearsedStep, RehearsedVisit};

    use super::*;
    use crate::load::{Limits, Origin, Protocol};
    use crate::site::mix::{self, Mix};
    use crate::site::{Page, Site};

    pub fn step(path: &str) -> Step {
        Step {
            class: "page".to_owned(),
            probability: 1.0,
            think_median_ms: 0,
            method: Method::Get,
            paths: vec![path.to_owned()],
            form: vec![],
            expect: vec![],
            assets: vec![],
        }
    }

    pub fn load(steps: Vec<Step>) -> Load {
        Load {
            origin: Origin {
                authority: "127.0.0.1:80".to_owned(),
                address: "127.0.0.1:80".parse().unwrap(),
                protocol: Protocol::Http1,
                tls: None,
            },
            seed: 1,
            phases: vec![Phase { name: "all".to_owned(), lasts_ms: 1_500, from: 10.0, to: 10.0 }],
            noise: 0.0,
            visits: vec![Visit {
                name: "a".to_owned(),
                weight: 1.0,
                steps,
                fetches_assets: true,
                retries: 0.0,
            }],
            limits: Limits {
                visitors: 100,
                connections: 100,
                connections_per_visit: 6,
                body_bytes: 1 << 20,
                patience_ms: 1_000,
                redirects: 5,
                threads: 1,
            },
            judged_by_us: None,
        }
    }

    fn refused(change: impl FnOnce(&mut Load)) -> String {
        let mut load = load(vec![step("/")]);
        change(&mut load);
        Script::new(load).err().map(|refusal| refusal.at).unwrap_or_default()
    }

    #[test]
    fn a_load_that_cannot_be_carried_out_is_refused_where_it_says_so() {
        assert_eq!(refused(|_| {}), "");
        assert_eq!(refused(|load| load.origin.authority = "a\r\nb".to_owned()), "origin.authority");
        assert_eq!(refused(|load| load.phases.clear()), "phases");
        assert_eq!(refused(|load| load.phases[0].lasts_ms = 0), "phases");
        let lasts = |ms: u64| refused(move |load| load.phases[0].lasts_ms = ms);
        assert_eq!(lasts(MAX_LASTS_MS), "");
        assert_eq!(lasts(MAX_LASTS_MS + 1), "phases[0].lasts_ms");
        assert_eq!(refused(|load| load.phases[0].to = f64::NAN), "phases[0]");
        assert_eq!(refused(|load| load.phases[0].from = -1.0), "phases[0]");
        assert_eq!(refused(|load| load.noise = f64::INFINITY), "noise");
        assert_eq!(refused(|load| load.limits.threads = 0), "limits.threads");
        assert_eq!(refused(|load| load.limits.threads = 200), "limits.threads");
        assert_eq!(refused(|load| load.limits.patience_ms = 0), "limits.patience_ms");
        assert_eq!(refused(|load| load.visits.clear()), "visits");
        assert_eq!(refused(|load| load.visits[0].weight = 0.0), "visits");
        assert_eq!(refused(|load| load.visits[0].steps.clear()), "visits[0].steps");
        let step = |change: fn(&mut Step)| refused(|load| change(&mut load.visits[0].steps[0]));
        assert_eq!(step(|step| step.paths = vec!["x".to_owned()]), "visits[0].steps[0].paths");
        assert_eq!(step(|step| step.paths = vec!["/ HTTP/1.1\r\n".to_owned()]), "visits[0].steps[0].paths");
        assert_eq!(step(|step| step.assets = vec!["http://x/".to_owned()]), "visits[0].steps[0].assets");
        assert_eq!(step(|step| step.probability = 2.0), "visits[0].steps[0].probability");
        assert_eq!(step(|step| step.form = vec![Default::default()]), "visits[0].steps[0].form");
        assert_eq!(step(|step| step.expect = vec![0]), "visits[0].steps[0].expect");
        assert_eq!(step(|step| step.paths = vec!["/?q={random}".to_owned()]), "");
    }

    /// Of another class nothing could be required, and of one that there is not anything.
    #[test]
    fn requests_are_of_the_classes_that_a_threshold_may_name() {
        let page = |path: &str| Page { path: path.to_owned(), hits: 1, assets: Vec::new() };
        let site = Site {
            pages: vec![page("/"), page("/books")],
            searches: vec!["/search?q=red".to_owned()],
            missing: Some(404),
            notes: Vec::new(),
        };
        let steps = vec![RehearsedStep {
            method: RehearsedMethod::Post,
            path: "/sign".to_owned(),
            form: BTreeMap::new(),
            think_ms: 0,
            expect: None,
        }];
        let visits = BTreeMap::from([("signer".to_owned(), RehearsedVisit { weight: 2, steps })]);
        let own = Rehearsal { slo: Vec::new(), visits };
        let load = Load { visits: mix::visits(&site, &Mix::CROWD, Some(&own)), ..load(Vec::new()) };
        let classes = Script::new(load).unwrap().classes;
        let named: BTreeSet<&str> = classes.iter().map(String::as_str).collect();
        assert_eq!(named, BTreeSet::from(REQUEST_CLASSES));
    }

    #[test]
    fn visits_are_chosen_by_their_weights() {
        let mut load = load(vec![step("/")]);
        load.visits.push(Visit { name: "b".to_owned(), weight: 3.0, ..load.visits[0].clone() });
        load.visits.push(Visit { name: "never".to_owned(), weight: 0.0, ..load.visits[0].clone() });
        let script = Script::new(load).unwrap();
        let mut random = script.random(0, 0);
        let chosen: Vec<&str> = (0..10_000).map(|_| script.choose(&mut random).visit.name.as_str()).collect();
        let share = chosen.iter().filter(|name| **name == "b").count() as f64 / 10_000.0;
        assert!((share - 0.75).abs() < 0.02, "{share}");
        assert!(!chosen.contains(&"never"));
    }

    #[test]
    fn only_pages_before_a_form_are_looked_at() {
        let mut post = step("/post");
        post.method = Method::Post;
        let script = Script::new(load(vec![step("/"), post, step("/")])).unwrap();
        let wants: Vec<bool> = script.visits[0].steps.iter().map(|step| step.wants_page).collect();
        assert_eq!(wants, [true, false, false]);
        assert_eq!(script.visits[0].posts, ["/post"]);
        assert_eq!(script.seconds(), 2);
    }
}

//! The edge beside HAProxy, nginx and Varnish: the same backend, the same clients, in turn, several rounds.
//!
//! What counts is processor time per request of the whole process tree: it says how much machine the front door
//! leaves to the app, and it is the steadiest figure on a machine that is not ours alone. Rates and latencies stand
//! beside it. Each peer is configured as its own guides say (the files in `bench/edge/`), with timeouts, health
//! checks and metrics on in all, and the access log off in all, then on in all.

mod case;
mod clients;
mod peer;
mod report;
mod scene;
mod websocket;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::machine::CpuTimes;
use super::page;
use super::quiet::{self, Busy};
use crate::demo;
use crate::failure::{Failure, Result};
use crate::flags::Flags;
use crate::setup;

use case::{Case, Logging};
use peer::Peer;
use report::{Report, Series};
use scene::Scene;

const DEFAULT_ROUNDS: u32 = 5;
const DEFAULT_SECONDS: u32 = 4;
/// Fills pools and caches before what is measured.
const WARM_UP: Duration = Duration::from_secs(1);

struct Options {
    rounds: u32,
    duration: Duration,
    threads: Vec<usize>,
    only: Option<Case>,
    json: Option<PathBuf>,
    busy: Busy,
    /// Measured in place of one that is built now: for comparing two versions.
    program: Option<PathBuf>,
}

impl Options {
    fn from_flags(flags: &mut Flags) -> Result<Options> {
        let threads = flags.option::<String>("--threads")?.unwrap_or_else(|| "1,2".to_owned());
        let threads =
            threads.split(',').map(|word| word.trim().parse::<usize>().ok().filter(|count| *count > 0));
        let threads: Option<Vec<usize>> = threads.collect();
        let only = flags.option::<String>("--only")?.map(|name| Case::named(&name)).transpose()?;
        let seconds = flags.option("--seconds")?.unwrap_or(DEFAULT_SECONDS).max(1);
        Ok(Options {
            rounds: flags.option("--rounds")?.unwrap_or(DEFAULT_ROUNDS).max(1),
            duration: Duration::from_secs(seconds.into()),
            threads: threads.ok_or_else(|| Failure::usage("--threads takes numbers such as 1,2"))?,
            only,
            json: flags.option::<String>("--json")?.map(PathBuf::from),
            program: flags.option::<String>("--program")?.map(PathBuf::from),
            busy: if flags.switch("--anyway") { Busy::Measure } else { Busy::Refuse },
        })
    }

    fn cases(&self) -> Vec<Case> {
        Case::ALL.into_iter().filter(|case| self.only.is_none_or(|only| only == *case)).collect()
    }
}

/// # Errors
/// When something is missing, does not build, or answers wrongly; and on a busy machine.
pub fn run(mut flags: Flags) -> Result {
    let consent = setup::Consent::from_flags(&mut flags);
    let options = Options::from_flags(&mut flags)?;
    flags.end()?;
    setup::install(setup::Needs::BENCH_EDGE, consent)?;
    let switchback = match &options.program {
        Some(program) => program.clone(),
        None => {
            demo::build_switchback()?;
            demo::program()
        }
    };
    let watch = quiet::must_be_quiet(options.busy)?;
    let before = CpuTimes::now();
    let (mut all, mut logged) = (Vec::new(), Vec::new());
    for &threads in &options.threads {
        for logging in [Logging::Off, Logging::On] {
            let measured = measure(&options, &switchback, threads, logging)?;
            all.extend(measured.series);
            logged.extend(measured.logged);
        }
    }
    let busy = watch.end();
    let stolen = CpuTimes::now().since(&before).steal_percent;
    let threads: Vec<String> = options.threads.iter().map(ToString::to_string).collect();
    let (rounds, seconds) = (options.rounds, options.duration.as_secs());
    let command = format!(
        "cargo xtask bench edge --rounds {rounds} --seconds {seconds} --threads {}",
        threads.join(",")
    );
    let report = Report { series: all, logged, busy, stolen_percent: stolen, command, switchback };
    print!("{}", report.markdown());
    // A part of the cases is for the one who tunes; the page shows all of them.
    if options.only.is_none() && options.json.is_none() {
        page::publish("edge", &report.markdown(), &report.json())?;
    }
    if let Some(path) = &options.json {
        page::write_json(path, &report.json())?;
    }
    Ok(())
}

struct Measured {
    series: Vec<Series>,
    /// See [`Scene::logged`].
    logged: Vec<(Peer, f64)>,
}

/// All rounds of all cases with one number of threads and one kind of logging.
fn measure(options: &Options, switchback: &Path, threads: usize, logging: Logging) -> Result<Measured> {
    let mut scene = Scene::set(switchback, threads, logging)?;
    let mut all: Vec<Series> = Vec::new();
    for case in options.cases() {
        let mut series: Vec<Series> =
            peer::ALL.iter().map(|peer| Series::new(*peer, case, threads, logging)).collect();
        for round in 0..options.rounds {
            // Another one begins each time, so that nobody always follows the same neighbour.
            for turn in 0..series.len() {
                let at = (turn + round as usize) % series.len();
                let peer = series[at].peer;
                if round == 0 {
                    scene.measure(peer, case, WARM_UP)?;
                }
                let run = scene.measure(peer, case, options.duration)?;
                eprintln!(
                    "    {} threads {threads} {logging} round {}: {run}",
                    series[at].title(),
                    round + 1
                );
                series[at].add(&run);
            }
        }
        all.extend(series);
    }
    let logged = if logging == Logging::On { scene.logged() } else { Vec::new() };
    Ok(Measured { series: all, logged })
}

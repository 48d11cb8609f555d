//! pgproxy beside PgBouncer and pgpool-II: the same PostgreSQL, the same clients, in turn, several rounds.
//!
//! What counts is processor time per query of the whole process tree, as for the edge. Each peer is configured as its own
//! guides say (the files in `bench/pgproxy/`). First there is a primary alone; then a replica too, for those who can send
//! reads to it.

mod clients;
mod load;
mod peer;
mod postgres;
mod report;
mod scene;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::machine::CpuTimes;
use super::page;
use super::quiet::{self, Busy};
use crate::demo;
use crate::failure::{Failure, Result};
use crate::flags::Flags;
use crate::setup;

use load::{Load, Split};
use peer::{Peer, SESSIONS};
use report::{Report, Series};
use scene::{Idle, Scene};

const DEFAULT_ROUNDS: u32 = 5;
const DEFAULT_SECONDS: u32 = 3;
const DEFAULT_CLIENTS: &str = "1,16,200";
const DEFAULT_SPLIT: &str = "both";

struct Options {
    rounds: u32,
    duration: Duration,
    clients: Vec<u32>,
    split: String,
    only: Option<Load>,
    json: Option<PathBuf>,
    busy: Busy,
    /// Measured in place of one that is built now: for comparing two versions.
    program: Option<PathBuf>,
}

impl Options {
    fn from_flags(flags: &mut Flags) -> Result<Options> {
        let clients = flags.option::<String>("--clients")?.unwrap_or_else(|| DEFAULT_CLIENTS.to_owned());
        let possible = 1..=SESSIONS;
        let clients: Option<Vec<u32>> = clients
            .split(',')
            .map(|word| word.trim().parse().ok().filter(|count| possible.contains(count)))
            .collect();
        let only = flags.option::<String>("--only")?.map(|name| Load::named(&name)).transpose()?;
        Ok(Options {
            rounds: flags.option("--rounds")?.unwrap_or(DEFAULT_ROUNDS).max(1),
            duration: Duration::from_secs(
                flags.option("--seconds")?.unwrap_or(DEFAULT_SECONDS).max(1).into(),
            ),
            clients: clients.ok_or_else(|| {
                Failure::usage(format!("--clients takes numbers up to {SESSIONS}, such as 1,16"))
            })?,
            split: flags.option("--split")?.unwrap_or_else(|| DEFAULT_SPLIT.to_owned()),
            only,
            json: flags.option::<String>("--json")?.map(PathBuf::from),
            program: flags.option::<String>("--program")?.map(PathBuf::from),
            busy: if flags.switch("--anyway") { Busy::Measure } else { Busy::Refuse },
        })
    }

    fn loads(&self) -> Vec<Load> {
        Load::ALL.into_iter().filter(|load| self.only.is_none_or(|only| only == *load)).collect()
    }

    /// Whether it is all that the page shows.
    fn is_whole(&self) -> bool {
        self.only.is_none() && self.clients_text() == DEFAULT_CLIENTS && self.split == DEFAULT_SPLIT
    }

    fn clients_text(&self) -> String {
        let clients: Vec<String> = self.clients.iter().map(ToString::to_string).collect();
        clients.join(",")
    }
}

/// # Errors
/// When something is missing, does not build, or answers wrongly; and on a busy machine.
pub fn run(mut flags: Flags) -> Result {
    let consent = setup::Consent::from_flags(&mut flags);
    let options = Options::from_flags(&mut flags)?;
    flags.end()?;
    let splits = Split::named(&options.split)?;
    setup::install(setup::Needs::BENCH_PGPROXY, consent)?;
    let switchback = match &options.program {
        Some(program) => program.clone(),
        None => {
            demo::build_switchback()?;
            demo::program()
        }
    };
    let watch = quiet::must_be_quiet(options.busy)?;
    let before = CpuTimes::now();
    let (mut series, mut idle, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for split in splits {
        let measured = measure(&options, &switchback, split)?;
        series.extend(measured.series);
        failures.extend(measured.failures);
        idle.extend(measured.idle.into_iter().map(|idle| (split, idle)));
    }
    let busy = watch.end();
    let stolen_percent = CpuTimes::now().since(&before).steal_percent;
    let (rounds, seconds) = (options.rounds, options.duration.as_secs());
    let (clients, split) = (options.clients_text(), &options.split);
    let command = format!(
        "cargo xtask bench pgproxy --rounds {rounds} --seconds {seconds} --clients {clients} --split {split}"
    );
    let report = Report { series, idle, failures, busy, stolen_percent, command, switchback };
    print!("{}", report.markdown());
    // A part of it is for the one who tunes; the page shows all.
    if options.is_whole() && options.json.is_none() {
        page::publish("pgproxy", &report.markdown(), &report.json())?;
    }
    if let Some(path) = &options.json {
        page::write_json(path, &report.json())?;
    }
    Ok(())
}

struct Measured {
    series: Vec<Series>,
    idle: Vec<Idle>,
    failures: Vec<String>,
}

/// All rounds of all loads with one kind of cluster.
fn measure(options: &Options, switchback: &Path, split: Split) -> Result<Measured> {
    let peers: Vec<Peer> = peer::ALL.into_iter().filter(|peer| peer.can(split)).collect();
    let mut scene = Scene::set(switchback, split, &peers)?;
    let mut idle = Vec::new();
    for &peer in &peers {
        idle.extend(scene.idle(peer)?);
    }
    let (mut all, mut failures) = (Vec::new(), Vec::new());
    for load in options.loads() {
        for &clients in &options.clients {
            let mut series: Vec<Series> =
                peers.iter().map(|peer| Series::new(*peer, load, clients, split)).collect();
            let mut failed: Vec<Peer> = Vec::new();
            for round in 0..options.rounds {
                // Another one begins each time, so that nobody always follows the same neighbour.
                let mut runs = Vec::new();
                for turn in 0..series.len() {
                    let at = (turn + round as usize) % series.len();
                    let peer = series[at].peer;
                    if failed.contains(&peer) {
                        continue;
                    }
                    match scene.measure(peer, load, clients, options.duration) {
                        Ok(run) => {
                            eprintln!("    {}, round {}: {run}", series[at].title(), round + 1);
                            runs.push((at, run));
                        }
                        // What others cannot do is said in the report, and is no reason to have none.
                        Err(failure) if matches!(peer, Peer::PgBouncer | Peer::Pgpool) => {
                            eprintln!("    {}, round {}: {failure}", series[at].title(), round + 1);
                            failures.push(format!("{}: {failure}", series[at].title()));
                            failed.push(peer);
                        }
                        Err(failure) => return Err(failure),
                    }
                }
                let direct = runs.iter().find(|(at, _)| series[*at].peer == Peer::Direct);
                let direct_p50_ms = direct.map(|(_, run)| run.seen.p50_ms);
                for (at, run) in &runs {
                    series[*at].add(run, direct_p50_ms);
                }
            }
            all.extend(series);
        }
    }
    Ok(Measured { series: all, idle, failures })
}

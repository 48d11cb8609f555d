//! `journey`: the whole story on the user's own app, stage by stage, under load, with one report.
//!
//! It runs beside the app and never touches it: the same code and the same manifest, in a state folder of its own, with an
//! empty database that its release command fills, and ports of its own. Every instance and every database node has one small
//! size, so that one more of them is worth something on one machine.
//!
//! At each stage a staircase finds what the app serves and what gives way. Then the next stage is taken while visitors come
//! at a rate that the stage below serves, and none of their requests may fail.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use local::machine::StopMode;
use local::paths::StateDir;
use manifest::Manifest;
use model::{Cpu, Resource, ResourceGraph, Threshold};
use rehearsal::capacity::{Effort, Staircase};
use rehearsal::diagnosis;
use rehearsal::load::{Phase, Visit};
use rehearsal::record::Record;
use rehearsal::report::journey::{Leg, table};
use rehearsal::report::{Document, Part, Passed, Verdict};
use rehearsal::site::mix;
use rehearsal::summary::Summary;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::climb::{Climb, climb};
use super::conduct::{Conductor, Subject};
use super::explore::Crowd;
use super::observe::Observer;
use super::target::{Target, TargetArgs};
use super::{FIRST_PROBE, LIMITS, MOST_REQUESTS, explore, hurried, load, objective, shape, write};
use crate::api::{Outcome, Planned, Request, Status};
use crate::cli::connect::App;
use crate::cli::down::take_down;
use crate::cli::progress::Progress;
use crate::cli::say::{self, BOLD, GREEN, Problem, RED, Stream, YELLOW, paint};
use crate::cli::status::must_be_whole;
use crate::cli::up::Interrupts;
use crate::cli::{Place, manifest as file};

/// Of the machine's cores, what one instance or database node has.
const SIZE: f64 = 1.0 / 8.0;
/// Of what a stage serves, how many visitors come while the next is taken.
const MOVING: f64 = 0.5;
/// They come for so long before.
const BEFORE: Duration = Duration::from_secs(3);
/// And after: longer than a visitor's patience, so that whatever the move has held up has failed by then.
const AFTER: Duration = Duration::from_secs(10);
/// A move that takes longer has failed.
const MOVE_LIMIT: Duration = Duration::from_secs(300);

#[derive(Debug, clap::Args)]
pub struct JourneyArgs {
    /// Three minutes instead of ten: coarser steps, so rougher figures
    #[arg(long)]
    quick: bool,
    /// What is required, such as `p99 < 250ms` [default: `slo` of the manifest]
    #[arg(long = "threshold", value_name = "THRESHOLD")]
    thresholds: Vec<Threshold>,
    /// Of all that is drawn at random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the report there, as FILE.html and FILE.json [default: in the state folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

/// One stage.
struct Stage {
    graph: ResourceGraph,
    record: Record,
    climb: Climb,
    /// Requests that failed while this stage was taken, and at rates that it serves.
    failed: u64,
    moved_in: Option<Duration>,
}

pub fn journey(place: &Place, args: &JourneyArgs) -> Result<(), Problem> {
    let app = place.app()?;
    app.must_be_ours()?;
    let manifest = file::read(&app.dir)?;
    let interrupts = Interrupts::listen()?;
    let copy = Copy::make(&app, &manifest)?;
    let travelled = copy.travel(&manifest, args, &interrupts);
    copy.remove()?;
    let (stages, was_cut_short) = travelled?;
    report(&app, args, stages, was_cut_short)
}

/// The app once more, beside itself. Taken down when dropped.
struct Copy {
    app: App,
    is_removed: bool,
}

impl Copy {
    fn make(app: &App, manifest: &Manifest) -> Result<Copy, Problem> {
        // What stands in the app's own state folder must be whole, or this one would seem to be all of it.
        StateDir::open(app.state.root())
            .map_err(|error| Problem::refused(error.to_string()).hint(error.hint()))?;
        let state = StateDir::at(&app.state.journey());
        let copy = Copy { app: App { dir: app.dir.clone(), state }, is_removed: false };
        if copy.app.state.database().exists() {
            say::talk("removing what an earlier journey has left");
            let (daemon, _) = copy.app.ensure_daemon(&manifest.graph().app, None)?;
            take_down(&copy.app, &daemon, StopMode::Now, true)?;
        }
        Ok(copy)
    }

    /// The stages that were reached, and whether it was interrupted.
    fn travel(
        &self,
        manifest: &Manifest,
        args: &JourneyArgs,
        interrupts: &Interrupts,
    ) -> Result<(Vec<Stage>, bool), Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Problem::failed(error.to_string()))?;
        let own = manifest.graph().rehearsal.clone();
        let objective = objective(&args.thresholds, own.as_ref());
        let dir = &self.app.dir;
        let mut graphs = manifest::PRESETS.iter().map(|preset| {
            let graph = file::at_stage(dir, manifest, preset.stage)?;
            Ok::<_, Problem>(small(graph))
        });
        let first = graphs.next().ok_or_else(|| Problem::failed("there is no stage"))??;
        say::talk(&format!(
            "{} the app beside itself, with an empty database, at {}",
            paint(Stream::Err, BOLD, "journey:"),
            shape::words(&first)
        ));
        self.app.ensure_daemon(&first.app, None)?;
        let progress = Progress::new();
        let up = Request::Up { graph: first.clone(), destroy: BTreeSet::new() };
        self.app.ask::<Outcome>(&up, |event| progress.hear(event))?;
        drop(progress);
        let status = self.status()?;
        if let Some(because) = &status.machine.unlimited_because {
            say::talk(&format!(
                "{} sizes are not enforced here ({because}), so that one more instance is worth little on one machine",
                paint(Stream::Err, YELLOW, "careful:")
            ));
        }
        let target = Target::of(&TargetArgs::default(), &status)?;
        let explored = explore::explore(&runtime, &self.app, &target, own.as_ref(), Crowd::New, interrupts)?;
        for note in &explored.notes {
            say::talk(&format!("{} {note}", paint(Stream::Err, BOLD, "note:")));
        }
        let trip = Trip {
            copy: self,
            manifest,
            runtime: &runtime,
            target: &target,
            visits: hurried(explored.visits),
            objective: &objective,
            effort: if args.quick { Effort::Quick } else { Effort::Full },
            seed: args.seed,
            interrupts,
        };
        let mut stages: Vec<Stage> = Vec::new();
        let mut next = Some(first);
        while let Some(graph) = next {
            let stage = trip.stage(graph, stages.last())?;
            let was_cut_short = stage.record.cut_short.is_some();
            stages.push(stage);
            if was_cut_short {
                return Ok((stages, true));
            }
            next = graphs.next().transpose()?;
        }
        Ok((stages, false))
    }

    fn status(&self) -> Result<Status, Problem> {
        self.app.ask(&Request::Status, |_| {})
    }

    fn remove(mut self) -> Result<(), Problem> {
        self.is_removed = true;
        self.take_down()
    }

    fn take_down(&self) -> Result<(), Problem> {
        match self.app.hello() {
            Some(daemon) => take_down(&self.app, &daemon, StopMode::Now, true),
            None => Ok(()),
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if !self.is_removed
            && let Err(problem) = self.take_down()
        {
            problem.report();
        }
    }
}

/// What all stages have in common.
struct Trip<'a> {
    copy: &'a Copy,
    manifest: &'a Manifest,
    runtime: &'a Runtime,
    target: &'a Target,
    visits: Vec<Visit>,
    objective: &'a [Threshold],
    effort: Effort,
    seed: u64,
    interrupts: &'a Interrupts,
}

impl Trip<'_> {
    /// Takes a stage, from the one below while that is visited, and climbs.
    fn stage(&self, graph: ResourceGraph, below: Option<&Stage>) -> Result<Stage, Problem> {
        let began = Instant::now();
        let subject = Subject {
            app: graph.app.to_string(),
            shape: shape::words(&graph),
            target: self.target.url.clone(),
            profile: "journey".to_owned(),
        };
        say::talk(&format!("{} {}", paint(Stream::Err, BOLD, "stage:"), subject.shape));
        let observer = Observer::start(&self.copy.app.state.daemon_socket(), began);
        let load = load(self.target, self.visits.clone(), self.seed, 0.0);
        let mut conductor =
            Conductor::begin(subject, load, observer, began, super::SEARCH_LASTS, self.interrupts)?;
        let (mut failed, mut moved_in) = (0, None);
        if let Some(below) = below {
            let rate = below.climb.capacity.at_objective.map_or(FIRST_PROBE, |rate| rate.visits_per_second);
            let (seconds, took) = self.move_to(&graph, rate * MOVING, &mut conductor)?;
            failed += seconds;
            moved_in = Some(took);
        }
        let requests_per_visit = mix::requests_per_visit(&self.visits);
        // What the stage below serves is where to begin.
        let start = below.and_then(|below| below.climb.capacity.at_objective);
        let staircase = Staircase {
            start: start.map_or(FIRST_PROBE, |rate| rate.visits_per_second / 2.0),
            ceiling: MOST_REQUESTS / requests_per_visit.max(1.0),
            requests_per_visit,
            effort: self.effort,
        };
        let shape = shape::shape(&self.copy.app.dir, self.manifest, &graph, &self.copy.status()?)?;
        let climb = self.runtime.block_on(climb(&mut conductor, &staircase, self.objective, shape))?;
        failed += climb.failed_while_kept;
        Ok(Stage { graph, record: conductor.end(), climb, failed, moved_in })
    }

    /// The next stage, while visitors come. How many of their requests failed, and how long it took.
    fn move_to(
        &self,
        graph: &ResourceGraph,
        rate: f64,
        conductor: &mut Conductor<'_>,
    ) -> Result<(u64, Duration), Problem> {
        let lasts_ms = u64::try_from(MOVE_LIMIT.as_millis()).unwrap_or(u64::MAX);
        let phase = Phase { name: "moving".to_owned(), lasts_ms, from: rate, to: rate };
        let (moved, mut is_moved) = oneshot::channel();
        let (app, graph) = (self.copy.app.clone(), graph.clone());
        let moving = std::thread::spawn(move || {
            std::thread::sleep(BEFORE);
            let began = Instant::now();
            let done = change(&app, &graph);
            let took = began.elapsed();
            std::thread::sleep(AFTER);
            // Whoever was interrupted listens no more.
            let _ = moved.send(());
            done.map(|()| took)
        });
        let until = async {
            let _ = (&mut is_moved).await;
        };
        let played = self.runtime.block_on(conductor.play(vec![phase], until))?;
        let took = moving.join().map_err(|_| Problem::failed("the move to the next stage was lost"))??;
        // Requests of the last seconds were cut with the load, and say nothing.
        let seconds = conductor.seconds(&played);
        let patience = usize::try_from(LIMITS.patience_ms.div_ceil(1_000)).unwrap_or(usize::MAX);
        let summary = Summary::of(&seconds[..seconds.len().saturating_sub(patience + 1)]);
        let failed = summary.sent - summary.ok();
        conductor.note(format!(
            "moved within {:.1} s under {:.0} visits/s: {} of {} requests failed",
            took.as_secs_f64(),
            rate,
            failed,
            summary.sent
        ));
        Ok((failed, took))
    }
}

/// Plans and applies, and waits until everything is whole.
fn change(app: &App, graph: &ResourceGraph) -> Result<(), Problem> {
    let planned: Planned =
        app.ask(&Request::Plan { graph: graph.clone(), destroy: BTreeSet::new() }, |_| {})?;
    app.ask::<Outcome>(&Request::Apply { plan: planned.plan }, |_| {})?;
    let deadline = Instant::now() + MOVE_LIMIT;
    loop {
        let status: Status = app.ask(&Request::Status, |_| {})?;
        match must_be_whole(&status, "the next stage") {
            Ok(()) => return Ok(()),
            Err(problem) if Instant::now() >= deadline => return Err(problem),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The graph with a front door of its own and one small size for each instance and database node.
fn small(mut graph: ResourceGraph) -> ResourceGraph {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let cpu = Cpu::from_millis((cores * SIZE * 1e3) as u32).unwrap_or(Cpu::MIN);
    for resource in graph.resources.values_mut() {
        match resource {
            Resource::LoadBalancer(edge) => {
                edge.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                edge.tls = None;
                edge.metrics = None;
            }
            Resource::Service(service) => service.size.cpu = Some(cpu),
            Resource::DatabaseCluster(cluster) => {
                cluster.size.cpu = Some(cpu);
                // Nobody restores what is deleted at the end, and the app's own folder of backups is not ours.
                cluster.backups = None;
            }
        }
    }
    graph
}

fn report(app: &App, args: &JourneyArgs, stages: Vec<Stage>, was_cut_short: bool) -> Result<(), Problem> {
    let legs: Vec<Leg> = stages.iter().map(leg).collect();
    let app_name = stages.first().map_or_else(String::new, |stage| stage.record.app.clone());
    let table = table(&legs);
    let failed: u64 = stages.iter().map(|stage| stage.failed).sum();
    let faults: Vec<&String> = stages.iter().flat_map(|stage| &stage.record.validity.faults).collect();
    let verdict = Verdict {
        passed: match (was_cut_short || !faults.is_empty(), failed) {
            (true, _) => Passed::NotAsked,
            (false, 0) => Passed::Yes,
            (false, _) => Passed::No,
        },
        sentence: sentence(&stages, failed),
    };
    let evidence = stages.iter().map(|stage| {
        let said = &stage.climb.diagnosis;
        let next =
            said.recommendation.as_ref().map_or(String::new(), |next| format!(" To do: {}.", next.says));
        format!("{}: {}{next}", stage.record.shape, said.sentence)
    });
    let evidence: Vec<String> = evidence.collect();
    let parts = stages.into_iter().map(part).collect();
    let title = format!("{app_name}: journey");
    let document = Document { title, verdict, evidence, tables: vec![table.clone()], parts };
    let written = write::document(app, args.out.as_deref(), &document)?;
    if args.json {
        say::json(&json!({
            "verdict": document.verdict,
            "stages": table.rows,
            "evidence": document.evidence,
            "page": written.page,
            "record": written.json,
        }))?;
    } else {
        let colour = match document.verdict.passed {
            Passed::Yes => GREEN,
            Passed::No => RED,
            Passed::NotAsked => YELLOW,
        };
        say::data(&format!("{}\n", paint(Stream::Out, colour, &document.verdict.sentence)))?;
        say::data(&columns(&table.head, &table.rows))?;
        for line in &document.evidence {
            say::data(&format!("  {line}\n"))?;
        }
        say::talk(&format!("{} {}", paint(Stream::Err, GREEN, "report:"), written.page.display()));
    }
    match document.verdict.passed {
        Passed::Yes => Ok(()),
        Passed::No | Passed::NotAsked => Err(Problem::Said(1)),
    }
}

fn leg(stage: &Stage) -> Leg {
    let Climb { capacity, diagnosis: found, .. } = &stage.climb;
    let at = capacity.at_objective;
    let step = at.and_then(|at| capacity.steps.iter().find(|step| step.visits == at.visits_per_second));
    let predicted = found.recommendation.as_ref().and_then(|next| next.predicted.as_ref());
    Leg {
        stage: stage.graph.stage.to_string(),
        shape: stage.record.shape.clone(),
        capacity: at.map(|at| at.requests_per_second),
        p99_us: step.and_then(|step| step.p99_us),
        gave_way: match found.verdict {
            diagnosis::Verdict::NoBottleneckUpTo => None,
            diagnosis::Verdict::Invalid | diagnosis::Verdict::Unexplained => Some("not known".to_owned()),
            _ => Some(
                found.causes.iter().map(|cause| cause.kind.to_string()).collect::<Vec<_>>().join(", or "),
            ),
        },
        predicted_gain: predicted.map(|predicted| predicted.gain),
        failed: stage.failed,
        cost: None,
    }
}

fn part(stage: Stage) -> Part {
    let mut findings = vec![stage.climb.capacity.to_string(), stage.climb.diagnosis.sentence.clone()];
    findings.extend(stage.climb.diagnosis.evidence.iter().map(ToString::to_string));
    Part {
        title: stage.record.shape.clone(),
        change: stage
            .moved_in
            .map(|took| format!("taken within {:.1} s, while visitors came", took.as_secs_f64())),
        findings,
        record: stage.record,
    }
}

fn sentence(stages: &[Stage], failed: u64) -> String {
    let served =
        |stage: &Stage| stage.climb.capacity.at_objective.map_or(0.0, |rate| rate.requests_per_second);
    let (Some(first), Some(last)) = (stages.first(), stages.last()) else {
        return "Nothing was reached.".to_owned();
    };
    let failures = match failed {
        0 => "no request failed on the way".to_owned(),
        1 => "1 request failed on the way".to_owned(),
        failed => format!("{failed} requests failed on the way"),
    };
    format!(
        "The app serves {:.0} requests/s at stage {} and {:.0} at stage {}, each instance having {:.2} cores; {failures}.",
        served(first),
        first.graph.stage,
        served(last),
        last.graph.stage,
        std::thread::available_parallelism().map_or(1, usize::from) as f64 * SIZE,
    )
}

/// A table for a terminal.
fn columns(head: &[String], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = std::iter::once(head).chain(rows.iter().map(Vec::as_slice));
        cells.filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    std::iter::once(line(head)).chain(rows.iter().map(|row| line(row))).collect()
}

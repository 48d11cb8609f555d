//! The way itself: at each stage a staircase finds what the copy serves and what gives way, then the next stage is taken while
//! visitors come at a rate that the one below serves.
//!
//! What was measured outlives whatever ends a journey: a stage is given as far as it came, with what came between.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use manifest::{Manifest, PRESETS};
use model::{Cpu, Rehearsal, Resource, ResourceGraph, Threshold};
use rehearsal::capacity::{Effort, Staircase};
use rehearsal::load::{Phase, Visit};
use rehearsal::record::{Record, Second};
use rehearsal::site::mix;
use rehearsal::summary::Summary;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::advice::Because;
use super::copy::Copy;
use super::time::{Budget, Knowing};
use crate::api::{Outcome, Planned, Request, Status};
use crate::cli::connect::App;
use crate::cli::manifest as file;
use crate::cli::rehearse::climb::{Climb, climb};
use crate::cli::rehearse::conduct::{Conductor, Subject};
use crate::cli::rehearse::explore::{self, Crowd, Explored};
use crate::cli::rehearse::observe::Observer;
use crate::cli::rehearse::target::{Target, TargetArgs};
use crate::cli::rehearse::{FIRST_PROBE, LIMITS, MOST_REQUESTS, SEARCH_LASTS, hurried, load};
use crate::cli::say::{self, BOLD, Problem, Stream, YELLOW, paint};
use crate::cli::status::must_be_whole;
use crate::cli::up::{INTERRUPTED, Interrupts, wait_for};
use crate::rehearse::shape;

/// Of the machine's cores, what one instance or database node has.
pub const SIZE: f64 = 1.0 / 8.0;
/// Requests per second at which a quick search begins: from four visits on it would take half a minute to be there.
const QUICK_PROBE: f64 = 100.0;
/// Of what a stage serves, how many visitors come while the next is taken. What is moved has to share with them: a copy of the
/// primary is made by its own processors.
const MOVING: f64 = 1.0 / 3.0;
/// They come for so long before.
pub const BEFORE: Duration = Duration::from_secs(3);
/// And after: longer than a visitor's patience, so that whatever the move has held up has failed by then.
pub const AFTER: Duration = Duration::from_secs(10);
/// A move that takes longer has failed.
const MOVE_LIMIT: Duration = Duration::from_secs(300);

/// What a journey is to be.
pub struct Wish<'a> {
    pub manifest: &'a Manifest,
    pub own: Option<&'a Rehearsal>,
    pub objective: Vec<Threshold>,
    pub effort: Effort,
    pub seed: u64,
    /// Only as far as the diagnosis asks for it.
    pub only_advised: bool,
}

/// What was measured, and why no more.
pub struct Travelled {
    /// At least one.
    pub stages: Vec<Stage>,
    pub end: End,
}

pub enum End {
    /// There is no further stage.
    Whole,
    /// The diagnosis asked for something else, which this says, and nothing else was wished for.
    AsAdvised(String),
    /// Something came between.
    Early { why: String, problem: Option<Problem> },
}

/// One stage, as far as it came.
pub struct Stage {
    pub graph: ResourceGraph,
    pub because: Because,
    pub record: Record,
    /// `None`: it did not come to that.
    pub climb: Option<Climb>,
    pub moved: Option<Move>,
}

/// How the stage was taken.
pub struct Move {
    /// What the plan changed, such as `db: a standby db.2 in zone b, from a copy of the primary`.
    pub changes: Vec<String>,
    pub took: Duration,
    pub visits_per_second: f64,
    pub sent: u64,
    pub failed: u64,
    /// Refused as too many: said, and no failure.
    pub shed: u64,
}

impl Stage {
    /// Requests that failed while it was taken, and at rates that it serves.
    pub fn failed(&self) -> u64 {
        let moving = self.moved.as_ref().map_or(0, |moved| moved.failed);
        moving + self.climb.as_ref().map_or(0, |climb| climb.failed_while_kept)
    }

    /// What it serves may be more than was seen: it was not seen to give way, or what was seen is no proof.
    pub fn is_at_least(&self) -> bool {
        let is_proof = self.record.is_proof();
        self.climb.as_ref().is_some_and(|climb| climb.capacity.gave_way.is_none() || !is_proof)
    }

    /// Visits per second that it serves.
    fn serves(&self) -> Option<f64> {
        Some(self.climb.as_ref()?.capacity.at_objective?.visits_per_second)
    }
}

/// `app` is the one that is copied: what its visitors do says what those of the copy do.
///
/// # Errors
/// When nothing was measured.
pub fn travel(
    app: &App,
    copy: &Copy,
    wish: &Wish<'_>,
    budget: &mut Budget,
    interrupts: &Interrupts,
) -> Result<Travelled, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Problem::failed(error.to_string()))?;
    let mut graphs = PRESETS.iter().map(|preset| graph_at(app, wish.manifest, preset.stage));
    let first = graphs.next().ok_or_else(|| Problem::failed("there is no stage"))??;
    say::talk(&format!(
        "{} the app beside itself, with an empty database, at {}",
        paint(Stream::Err, BOLD, "journey:"),
        shape::words(&first)
    ));
    let because = |problem| copy.because(problem);
    let up = Request::Up { graph: first.clone(), destroy: BTreeSet::new() };
    let brought_up = wait_for::<Outcome>(&copy.app, up, interrupts, 1);
    if matches!(brought_up, Err(Problem::Said(INTERRUPTED))) {
        say::talk("interrupted: nothing was measured");
    }
    brought_up.map_err(because)?;
    budget.is_up(Instant::now());
    let status = copy.status()?;
    if let Some(because) = &status.machine.unlimited_because {
        say::talk(&format!(
            "{} sizes are not enforced here ({because}), so that one more instance is worth little on one machine",
            paint(Stream::Err, YELLOW, "careful:")
        ));
    }
    let target = Target::of(&TargetArgs::default(), &status)?;
    let explored = explored(&runtime, app, copy, &target, wish.own, interrupts).map_err(because)?;
    for note in &explored.notes {
        say::talk(&format!("{} {note}", paint(Stream::Err, BOLD, "note:")));
    }
    let visits = hurried(explored.visits);
    let trip = Trip { copy, wish, runtime: &runtime, target: &target, visits, interrupts, budget };
    let mut stages = Vec::new();
    let end = trip.go(first, graphs, &mut stages);
    Ok(Travelled { stages, end })
}

/// What there is to visit, by the app's own access log where that has enough, and the copy has what it names.
fn explored(
    runtime: &Runtime,
    app: &App,
    copy: &Copy,
    target: &Target,
    own: Option<&Rehearsal>,
    interrupts: &Interrupts,
) -> Result<Explored, Problem> {
    let explore = |log_of: &App| explore::explore(runtime, log_of, target, own, Crowd::New, interrupts);
    // Beside those of the manifest, which are there in any case.
    let known = own.map_or(0, |own| own.visits.len());
    match explore(app) {
        Ok(by_log) if by_log.visits.len() > known => Ok(by_log),
        Err(problem @ Problem::Said(_)) => Err(problem),
        Ok(_) | Err(_) => explore(&copy.app),
    }
}

/// What all stages have in common.
struct Trip<'a> {
    copy: &'a Copy,
    wish: &'a Wish<'a>,
    runtime: &'a Runtime,
    target: &'a Target,
    visits: Vec<Visit>,
    interrupts: &'a Interrupts,
    budget: &'a Budget,
}

impl Trip<'_> {
    /// Goes on until something ends it, and leaves in `stages` what was measured.
    fn go(
        &self,
        first: ResourceGraph,
        mut graphs: impl ExactSizeIterator<Item = Result<ResourceGraph, Problem>>,
        stages: &mut Vec<Stage>,
    ) -> End {
        let mut next = (first, Because::Begin);
        loop {
            let (graph, because) = next;
            let further = graphs.len();
            let (stage, problem) = match self.stage(graph, because, stages.last(), further) {
                Ok(stage) => stage,
                Err(problem) => return End::Early { why: problem.message(), problem: Some(problem) },
            };
            let cut_short = stage.record.cut_short.clone();
            stages.push(stage);
            match (problem, cut_short) {
                (Some(problem), _) => return End::Early { why: problem.message(), problem: Some(problem) },
                (None, Some(why)) => return End::Early { why, problem: None },
                (None, None) => {}
            }
            let graph = match graphs.next() {
                None => return End::Whole,
                Some(Ok(graph)) => graph,
                Some(Err(problem)) => {
                    return End::Early { why: problem.message(), problem: Some(problem) };
                }
            };
            let found = stages.last().and_then(|stage| stage.climb.as_ref()).map(|climb| &climb.diagnosis);
            let because = Because::of(found, graph.stage);
            if let (Because::NotAsked { instead }, true) = (&because, self.wish.only_advised) {
                return End::AsAdvised(instead.clone());
            }
            if !self.budget.has_another(Instant::now(), graphs.len()) {
                let why = format!("its time was over before stage {}", graph.stage);
                return End::Early { why, problem: None };
            }
            next = (graph, because);
        }
    }

    /// Takes a stage, from the one below while that is visited, and climbs. With what came between.
    ///
    /// # Errors
    /// When there is not even a record.
    fn stage(
        &self,
        graph: ResourceGraph,
        because: Because,
        below: Option<&Stage>,
        further: usize,
    ) -> Result<(Stage, Option<Problem>), Problem> {
        let began = Instant::now();
        let subject = Subject {
            app: graph.app.to_string(),
            shape: shape::words(&graph),
            target: self.target.url.clone(),
            profile: "journey".to_owned(),
        };
        say::talk(&format!("{} {}", paint(Stream::Err, BOLD, "stage:"), subject.shape));
        if let Some(below) = below {
            say::talk(&format!("taken because {}", because.words(below.graph.stage)));
        }
        let observer = Observer::start(&self.copy.app.state.daemon_socket(), began);
        let load = load(self.target, self.visits.clone(), self.wish.seed, 0.0, &self.wish.objective);
        let mut conductor = Conductor::begin(subject, load, observer, began, SEARCH_LASTS, self.interrupts)?;
        let (mut climbed, mut moved) = (None, None);
        let done = self.move_and_climb(&graph, below, further, &mut conductor, &mut moved, &mut climbed);
        let problem = done.err().map(|problem| self.copy.because(problem));
        if let Some(problem) = &problem {
            conductor.cut_short(&problem.message());
        }
        let mut record = conductor.end();
        // A generator that was killed has said so itself.
        if record.cut_short.is_some() && problem.is_none() && self.interrupts.count() > 0 {
            record.cut_short = Some(self.copy.why_interrupted().to_owned());
        }
        Ok((Stage { graph, because, record, climb: climbed, moved }, problem))
    }

    fn move_and_climb(
        &self,
        graph: &ResourceGraph,
        below: Option<&Stage>,
        further: usize,
        conductor: &mut Conductor<'_>,
        moved: &mut Option<Move>,
        climbed: &mut Option<Climb>,
    ) -> Result<(), Problem> {
        let served = below.and_then(Stage::serves);
        if below.is_some() {
            *moved = self.move_to(graph, served.unwrap_or(FIRST_PROBE) * MOVING, conductor)?;
            if moved.is_none() {
                return Ok(());
            }
        }
        let requests_per_visit = mix::requests_per_visit(&self.visits);
        let staircase = Staircase {
            // What the stage below serves is where to begin.
            start: served.unwrap_or_else(|| first_probe(self.wish.effort, requests_per_visit)),
            ceiling: MOST_REQUESTS / requests_per_visit.max(1.0),
            requests_per_visit,
            effort: self.wish.effort,
        };
        let above = file::above(&self.copy.app.dir, self.wish.manifest, graph.stage);
        let shape = shape::of(graph, &above, &self.copy.status()?);
        let begins = if served.is_some() { Knowing::Where } else { Knowing::Nothing };
        let until = self.budget.search_until(Instant::now(), begins, further);
        let objective = &self.wish.objective;
        let climb = climb(conductor, &staircase, objective, shape, Some(until));
        *climbed = Some(self.runtime.block_on(climb)?);
        Ok(())
    }

    /// The next stage, while visitors come. `None`: it was interrupted.
    fn move_to(
        &self,
        graph: &ResourceGraph,
        rate: f64,
        conductor: &mut Conductor<'_>,
    ) -> Result<Option<Move>, Problem> {
        let left = self.budget.left(Instant::now()).saturating_sub(BEFORE + AFTER);
        let limit = MOVE_LIMIT.min(left);
        let lasts_ms = u64::try_from((BEFORE + limit + AFTER).as_millis()).unwrap_or(u64::MAX);
        let phase = Phase { name: "moving".to_owned(), lasts_ms, from: rate, to: rate };
        let (tell, told) = oneshot::channel();
        let (app, to) = (self.copy.app.clone(), graph.clone());
        // Held until the visitors are gone: after an interrupt nothing is waited for, and nothing is begun.
        let (_goes_on, over) = channel::<()>();
        self.copy.spawn(move || {
            if over.recv_timeout(BEFORE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let began = Instant::now();
            let changed = change(&app, &to, limit).map(|changes| (changes, began.elapsed()));
            if changed.is_ok() {
                let _ = over.recv_timeout(AFTER);
            }
            // Whoever was interrupted listens no more.
            let _ = tell.send(changed);
        });
        let mut outcome = None;
        let until = async { outcome = told.await.ok() };
        let played = self.runtime.block_on(conductor.play(vec![phase], until))?;
        let Requests { sent, failed, shed } = Requests::of(conductor.seconds(&played));
        let requests =
            format!("under {rate:.0} visits/s {failed} of {sent} requests failed, {shed} were shed");
        let (changes, took) = match outcome {
            Some(Ok(changed)) => changed,
            None if conductor.was_cut_short() => return Ok(None),
            failed => {
                conductor.note(format!("not moved; {requests}"));
                let (stage, seconds) = (graph.stage, limit.as_secs());
                let late = || Problem::failed(format!("stage {stage} was not reached within {seconds} s"));
                return Err(failed.and_then(Result::err).unwrap_or_else(late));
            }
        };
        conductor.note(format!("moved within {:.1} s; {requests}", took.as_secs_f64()));
        Ok(Some(Move { changes, took, visits_per_second: rate, sent, failed, shed }))
    }
}

/// That visitors made while a stage was taken.
#[derive(Debug, PartialEq, Eq)]
struct Requests {
    sent: u64,
    failed: u64,
    shed: u64,
}

impl Requests {
    /// Of all `seconds` of a load that was stopped. What had no answer by then was cut with the load, and says nothing, where
    /// it had not had all the time that visitors have; before, it has failed.
    fn of(seconds: &[Second]) -> Requests {
        let patience = usize::try_from(LIMITS.patience_ms.div_ceil(1_000)).unwrap_or(usize::MAX);
        let (whole, last) = seconds.split_at(seconds.len().saturating_sub(patience.saturating_add(1)));
        let (whole, last) = (Summary::of(whole), Summary::of(last));
        Requests {
            sent: whole.sent + last.settled(),
            failed: whole.sent - whole.ok() - whole.shed() + last.failed(),
            shed: whole.shed() + last.shed(),
        }
    }
}

/// Visits per second at which a search begins that knows nothing.
fn first_probe(effort: Effort, requests_per_visit: f64) -> f64 {
    match effort {
        Effort::Full => FIRST_PROBE,
        Effort::Quick => QUICK_PROBE / requests_per_visit.max(1.0),
    }
}

/// Plans and applies, and waits until everything is whole. What was changed.
fn change(app: &App, graph: &ResourceGraph, limit: Duration) -> Result<Vec<String>, Problem> {
    let deadline = Instant::now() + limit;
    let planned: Planned =
        app.ask(&Request::Plan { graph: graph.clone(), destroy: BTreeSet::new() }, |_| {})?;
    let changes = planned.plan.changes.iter();
    let changes = changes.map(|change| format!("{}: {}", change.resource, change.why)).collect();
    app.ask::<Outcome>(&Request::Apply { plan: planned.plan }, |_| {})?;
    loop {
        let status: Status = app.ask(&Request::Status, |_| {})?;
        match must_be_whole(&status, "the next stage") {
            Ok(()) => return Ok(changes),
            Err(problem) if Instant::now() >= deadline => return Err(problem),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The app at a stage, with a front door of its own and one small size for each instance and database node, so that one more
/// of them is worth something on one machine.
fn graph_at(app: &App, manifest: &Manifest, stage: u8) -> Result<ResourceGraph, Problem> {
    let mut graph = file::at_stage(&app.dir, manifest, stage)?;
    let cpu = Cpu::from_millis((shape::cores() * SIZE * 1e3) as u32).unwrap_or(Cpu::MIN);
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
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use rehearsal::record::{ClassSecond, Outcome as Ended};

    use super::*;

    /// Of ten requests, those that did not end well, and so many without an end.
    fn second(at: u32, ended: &[(Ended, u32)], without_end: u32) -> Second {
        let badly: u32 = ended.iter().map(|(_, count)| count).sum();
        let outcomes = ended.iter().copied().chain([(Ended::Ok, 10 - badly - without_end)]).collect();
        let class = ClassSecond { sent: 10, outcomes, ..ClassSecond::default() };
        Second { at, classes: [("page".to_owned(), class)].into(), ..Second::default() }
    }

    /// Those are the seconds in which the new stage serves alone.
    #[test]
    fn what_failed_in_the_last_seconds_of_a_move_is_counted_and_what_was_cut_with_the_load_is_not() {
        let mut seconds: Vec<Second> = (0..20).map(|at| second(at, &[], 0)).collect();
        assert_eq!(Requests::of(&seconds), Requests { sent: 200, failed: 0, shed: 0 });
        seconds[12] = second(12, &[(Ended::Status, 2), (Ended::Shed, 1)], 0);
        seconds[19] = second(19, &[(Ended::Broken, 1), (Ended::Shed, 2)], 4);
        assert_eq!(Requests::of(&seconds), Requests { sent: 196, failed: 3, shed: 3 });
        // Before, whoever has no answer had waited for it as long as visitors do.
        seconds[10] = second(10, &[(Ended::Status, 1), (Ended::Shed, 1)], 3);
        assert_eq!(Requests::of(&seconds), Requests { sent: 196, failed: 7, shed: 4 });
        assert_eq!(Requests::of(&seconds[19..]), Requests { sent: 6, failed: 1, shed: 2 });
    }
}

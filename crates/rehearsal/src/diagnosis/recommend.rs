//! What would help, and by how much: for each row of the table what can be done, the nearest first, judged by the law.

use serde::{Deserialize, Serialize};

use super::candidates::Candidate;
use super::evidence::{more, tier};
use super::knee::Knee;
use super::law::{Bound, Demands, Plant};
use super::{Kind, Rung, Shape, Staircase, say};

/// What gains less is not worth a change.
const WORTH_IT: f64 = 1.15;

/// Something that can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    Stage {
        stage: u8,
        web_instances: u32,
        read_replicas: u32,
    },
    Instances {
        count: u32,
    },
    /// Of each instance, in cores.
    WebSize {
        cores: f64,
    },
    /// More workers or threads in each instance, or less waiting for what is outside.
    Workers,
    /// Twice as many connections: the pool grows with the memory of the database's size.
    LargerPool,
    /// Of each PostgreSQL, in cores.
    DatabaseSize {
        cores: f64,
    },
    ReadReplicas {
        count: u32,
    },
    /// For the statement that takes most of the time.
    Index,
    ShorterTransactions,
    FewerWrites,
    LessContention,
    MoreMemory,
    FasterDisk,
    HigherLimit,
    /// What holds the edge is a limit of its control group, in cores, which is nobody's size.
    EdgeLimit {
        cores: f64,
    },
    LargerMachine {
        cores: f64,
    },
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    pub change: Change,
    /// What to do, as a sentence without its full stop.
    pub says: String,
    /// `None`: what it gains cannot be said beforehand.
    pub predicted: Option<Prediction>,
}

/// By the utilisation law.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Of the capacity there is: 2 is twice as much.
    pub gain: f64,
    /// Requests per second at which the objective is then kept.
    pub capacity: f64,
    /// How it was computed, with all figures.
    pub formula: String,
    /// All bounds there are then, the least first: the first is what gives way next.
    pub bounds: Vec<Bound>,
}

/// The best that can be done about `causes`, the likeliest first, and what else could be. Of two that are as full, what helps
/// one alone gains next to nothing; a stage may have more of both.
pub(super) fn recommend(
    staircase: &Staircase,
    knee: &Knee,
    causes: &[Candidate],
) -> (Recommendation, Vec<Recommendation>) {
    let mut all: Vec<Recommendation> = Vec::new();
    for cause in causes {
        let today = Today::of(staircase, knee, cause);
        for change in changes(cause.kind, staircase) {
            if !all.iter().any(|there| there.change == change) {
                all.push(today.judge(change));
            }
        }
    }
    all.sort_by_key(|it| !matches!(it.change, Change::Stage { .. }));
    // What helps nothing is no advice, unless there is no other.
    let is_worth_it =
        |it: &Recommendation| it.predicted.as_ref().is_none_or(|predicted| predicted.gain >= WORTH_IT);
    let gain = |it: &Recommendation| it.predicted.as_ref().map_or(0.0, |predicted| predicted.gain);
    let most = || (0..all.len()).max_by(|a, b| gain(&all[*a]).total_cmp(&gain(&all[*b])));
    let best = all.iter().position(is_worth_it).or_else(most).unwrap_or(0);
    let best = all.remove(best);
    all.retain(is_worth_it);
    (best, all)
}

/// What can be done about a row, the nearest first, and a larger machine at last.
fn changes(kind: Kind, staircase: &Staircase) -> Vec<Change> {
    let shape = &staircase.shape;
    let larger = Change::LargerMachine { cores: shape.machine_cores * 2.0 };
    let stages = |fits: fn(&Rung, &Shape) -> bool| -> Vec<Change> {
        let fitting = shape.next.iter().filter(|rung| fits(rung, shape));
        fitting
            .map(|&Rung { stage, web_instances, read_replicas, .. }| Change::Stage {
                stage,
                web_instances,
                read_replicas,
            })
            .collect()
    };
    let more_web = stages(|rung, shape| rung.web_instances > shape.web_instances);
    let more_replicas = stages(|rung, shape| rung.read_replicas > shape.read_replicas);
    let instances = Change::Instances { count: shape.web_instances.max(1) * 2 };
    let double = |cores: Option<f64>| cores.map(|cores| cores * 2.0);
    let web_size = double(shape.web_cores).map(|cores| Change::WebSize { cores });
    let database_size = double(shape.database_cores).map(|cores| Change::DatabaseSize { cores });
    let replicas = Change::ReadReplicas { count: shape.read_replicas + 1 };
    let then = |first: Vec<Change>, others: &[Option<Change>]| {
        first.into_iter().chain(others.iter().copied().flatten()).collect::<Vec<Change>>()
    };
    match kind {
        Kind::WebCpu => then(more_web, &[Some(instances), web_size, Some(larger)]),
        Kind::WebThread => then(more_web, &[Some(instances), Some(larger)]),
        // It costs nothing, and another stage would have the same workers.
        Kind::WebWorkers => vec![Change::Workers, instances],
        Kind::EdgeCpu => vec![edge_limit(staircase).unwrap_or(larger)],
        Kind::ProxyCpu => vec![larger],
        Kind::Pool => vec![Change::ShorterTransactions, Change::LargerPool],
        Kind::PrimaryReads => then(more_replicas, &[Some(replicas), database_size, Some(larger)]),
        Kind::MissingIndex => vec![Change::Index],
        Kind::PrimaryWrites => then(Vec::new(), &[database_size, Some(Change::FewerWrites), Some(larger)]),
        Kind::ReplicaLag => vec![Change::FewerWrites],
        Kind::ReplicaCpu => then(Vec::new(), &[Some(replicas), database_size, Some(larger)]),
        Kind::Locks => vec![Change::LessContention],
        Kind::DataDisk => vec![Change::MoreMemory],
        Kind::LogDisk => vec![Change::FasterDisk],
        Kind::LimitTooLow => vec![Change::HigherLimit],
    }
}

fn edge_limit(staircase: &Staircase) -> Option<Change> {
    let cores = staircase.steps.last()?.tier(tier::EDGE).cpu_allowed;
    (cores > 0.0 && cores < staircase.shape.machine_cores).then_some(Change::EdgeLimit { cores })
}

/// The app as it is, and what holds it.
struct Today<'a> {
    shape: &'a Shape,
    plant: Plant,
    demands: Demands,
    /// Of the primary's time, by the statement that has most.
    top_share: f64,
    top_statement: Option<&'a str>,
    /// Requests per second at which the objective is kept.
    capacity: f64,
    idle_in_transaction: f64,
}

impl<'a> Today<'a> {
    fn of(staircase: &'a Staircase, knee: &Knee, cause: &Candidate) -> Today<'a> {
        let shape = &staircase.shape;
        let primary = knee.full.tier(tier::PRIMARY);
        let top = primary.more(more::TOP_IN_FLIGHT).unwrap_or(0.0);
        let mut plant = Plant::of(shape);
        if !cause.is_working || cause.kind == Kind::WebThread {
            // Each holds at the rate that was seen, and lets through as much more as there is more of it.
            plant.ceiling =
                Some(Bound { tier: cause.tier.to_owned(), cores: 0.0, demand: 0.0, rate: knee.full.rate() });
        }
        Today {
            shape,
            plant,
            demands: Demands::of(knee, shape),
            top_share: if primary.in_flight > 0.0 { (top / primary.in_flight).min(1.0) } else { 0.0 },
            top_statement: staircase.top_statement.as_deref(),
            capacity: knee.last_good.achieved,
            idle_in_transaction: primary.more(more::SESSIONS_IDLE_IN_TRANSACTION).unwrap_or(0.0),
        }
    }

    fn judge(&self, change: Change) -> Recommendation {
        let predicted = self.after(change).map(|(plant, demands)| self.predict(plant, demands));
        Recommendation { change, says: self.says(change), predicted }
    }

    /// What there is after a change. `None` where that cannot be said.
    fn after(&self, change: Change) -> Option<(Plant, Demands)> {
        let mut plant = self.plant.clone();
        let mut demands = self.demands;
        let with_instances = |plant: &mut Plant, count: u32| {
            let times = f64::from(count) / plant.web_instances.max(1.0);
            if let Some(ceiling) = plant.ceiling.as_mut().filter(|ceiling| ceiling.tier == tier::WEB) {
                ceiling.rate *= times;
            }
            plant.web_instances = f64::from(count);
        };
        let with_replicas = |plant: &mut Plant, demands: &mut Demands, count: u32| {
            if plant.replicas == 0.0 && count > 0 {
                *demands = demands.with_first_replicas();
            }
            plant.replicas = f64::from(count);
        };
        match change {
            Change::Stage { stage, web_instances, read_replicas } => {
                with_instances(&mut plant, web_instances);
                with_replicas(&mut plant, &mut demands, read_replicas);
                let rung = self.shape.next.iter().find(|rung| rung.stage == stage)?;
                plant.standbys = f64::from(rung.standbys);
            }
            Change::Instances { count } => with_instances(&mut plant, count),
            Change::WebSize { cores } => plant.web_cores = cores.min(plant.machine_cores),
            Change::Workers | Change::HigherLimit => plant.ceiling = None,
            Change::DatabaseSize { cores } => plant.database_cores = cores.min(plant.machine_cores),
            Change::LargerPool => {
                if let Some(ceiling) = &mut plant.ceiling {
                    ceiling.rate *= 2.0;
                }
            }
            Change::ReadReplicas { count } => with_replicas(&mut plant, &mut demands, count),
            Change::Index => demands = demands.without_of_primary(self.top_share),
            Change::LargerMachine { cores } => {
                let times = cores / plant.machine_cores;
                let grows = |limit: Option<f64>, now: f64| if limit.is_none() { now * times } else { now };
                plant.web_cores = grows(self.shape.web_cores, plant.web_cores);
                plant.database_cores = grows(self.shape.database_cores, plant.database_cores);
                plant.machine_cores = cores;
            }
            Change::EdgeLimit { .. }
            | Change::ShorterTransactions
            | Change::FewerWrites
            | Change::LessContention
            | Change::MoreMemory
            | Change::FasterDisk => return None,
        }
        Some((plant, demands))
    }

    fn predict(&self, plant: Plant, demands: Demands) -> Prediction {
        let least = |bounds: &[Bound]| bounds.first().map_or(f64::INFINITY, |bound| bound.rate);
        let before = self.plant.bounds(&self.demands);
        let bounds = plant.bounds(&demands);
        let gain = if before.is_empty() { 1.0 } else { least(&bounds) / least(&before) };
        let formula = format!(
            "X <= min(c / D): {}/s now ({}), {}/s then ({})",
            say::figure(least(&before)),
            say::bound(before.first()),
            say::figure(least(&bounds)),
            say::bound(bounds.first()),
        );
        Prediction { gain, capacity: self.capacity * gain, formula, bounds }
    }

    fn says(&self, change: Change) -> String {
        let statement = self.top_statement.map(|text| format!(": {text}")).unwrap_or_default();
        match change {
            Change::Stage { stage, web_instances, read_replicas } => {
                let has = match read_replicas {
                    0 => format!("{web_instances} instances"),
                    1 => format!("{web_instances} instances, 1 read replica"),
                    count => format!("{web_instances} instances, {count} read replicas"),
                };
                format!("go to stage {stage} ({has}): `switchback stage {stage}`")
            }
            Change::Instances { count } => format!("run {count} instances: `instances = {count}` under [web]"),
            Change::WebSize { cores } => {
                format!("give each instance {}: `size` under [web]", say::cores(cores))
            }
            Change::Workers => {
                "let each instance work on more at once (its workers or threads), or make shorter what it waits for outside"
                    .to_owned()
            }
            Change::DatabaseSize { cores } => {
                format!("give the database {}: `size` under [db]", say::cores(cores))
            }
            Change::LargerPool => {
                "give the database twice the memory, and it has twice the connections: `size` under [db]".to_owned()
            }
            Change::ReadReplicas { count: 1 } => {
                "add a read replica: `read_replicas = 1` under [db]".to_owned()
            }
            Change::ReadReplicas { count } => {
                format!("have {count} read replicas: `read_replicas = {count}` under [db]")
            }
            Change::Index => format!(
                "add an index for the statement that takes {} of the primary's time{statement}",
                say::percent(self.top_share)
            ),
            Change::ShorterTransactions if self.idle_in_transaction >= 1.0 => {
                "end transactions sooner: they hold their connection while they ask for nothing".to_owned()
            }
            Change::ShorterTransactions => "hold connections for shorter: fewer statements in a transaction".to_owned(),
            Change::FewerWrites => "write less, or more at a time".to_owned(),
            Change::LessContention => {
                format!("let fewer requests change the same rows: replicas and larger sizes do not help{statement}")
            }
            Change::MoreMemory => {
                "give the database more memory, so that its data stays there: `size` under [db]".to_owned()
            }
            Change::FasterDisk => "use a disk that writes faster, or commit more at a time".to_owned(),
            Change::HigherLimit => {
                format!("raise the limit that refuses requests: what is full then is {}", self.next_without_ceiling())
            }
            Change::EdgeLimit { cores } => {
                format!("let the edge use more: its control group holds it to {}", say::cores(cores))
            }
            Change::LargerMachine { cores } => format!("use a larger machine: {}", say::cores(cores)),
        }
    }

    fn next_without_ceiling(&self) -> String {
        let plant = Plant { ceiling: None, ..self.plant.clone() };
        plant.bounds(&self.demands).first().map_or_else(|| "unknown".to_owned(), |bound| bound.tier.clone())
    }
}

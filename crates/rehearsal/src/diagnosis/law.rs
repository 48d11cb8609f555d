//! What could be served at most: `X <= min(c / D)` over all that has processors, the machine that they share among them.
//!
//! `D`, the demand, is processor time for each request. It is measured where the tiers are nearly full, for it is not the
//! same at other loads; constant demands measured at a low load are the classic error of such predictions. `c` is what a
//! tier may use. On one machine each tier has its size, and all together what the machine has.

use serde::{Deserialize, Serialize};

use super::Shape;
use super::Step;
use super::evidence::{more, tier};
use super::knee::Knee;

/// Of the processor time that a change costs a primary, what a follower spends to replay it, where no follower has been
/// measured. It plans nothing, locks nothing and answers nobody.
const REPLAY: f64 = 0.3;

/// Processor time for each request, in core-seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Demands {
    pub(super) edge: f64,
    pub(super) web: f64,
    pub(super) proxy: f64,
    /// Of the primary, what only the primary can do.
    pub(super) writes: f64,
    /// Reads that are on the primary now.
    pub(super) reads_on_primary: f64,
    /// Reads that are on replicas now.
    pub(super) reads_on_replicas: f64,
    /// Of each follower, to replay what was written.
    pub(super) replay: f64,
    pub(super) generator: f64,
    /// In cores, whatever the load.
    pub(super) foreign: f64,
}

/// What there is to use.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plant {
    pub(super) web_instances: f64,
    /// Of each instance, in cores.
    pub(super) web_cores: f64,
    /// Of each PostgreSQL, in cores.
    pub(super) database_cores: f64,
    pub(super) standbys: f64,
    pub(super) replicas: f64,
    pub(super) machine_cores: f64,
    /// What else holds, and at which rate.
    pub(super) ceiling: Option<Bound>,
}

/// A rate that a part does not exceed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    pub tier: String,
    /// In cores, all members together.
    pub cores: f64,
    /// Core-seconds for each request. 0: it is not processors that hold it.
    pub demand: f64,
    /// Requests per second.
    pub rate: f64,
}

impl Demands {
    /// Of the last good step and the full one together.
    pub(super) fn of(knee: &Knee, shape: &Shape) -> Demands {
        let steps = [knee.last_good, knee.full];
        let rate: f64 = steps.iter().map(|step| step.rate()).sum();
        let each = |read: &dyn Fn(&Step) -> f64| {
            if rate > 0.0 { steps.iter().map(|step| read(step)).sum::<f64>() / rate } else { 0.0 }
        };
        let cpu = |name: &'static str| each(&|step| step.tier(name).cpu);
        let of_machine =
            |name: &'static str| each(&|step| step.tier(tier::MACHINE).more(name).unwrap_or(0.0));
        let primary = knee.full.tier(tier::PRIMARY);
        let reads = match primary.more(more::READS_IN_FLIGHT) {
            Some(reads) if primary.in_flight > 0.0 => (reads / primary.in_flight).min(1.0),
            _ => 0.0,
        };
        let on_primary = cpu(tier::PRIMARY);
        let writes = on_primary * (1.0 - reads);
        let replay = match shape.standbys {
            0 => REPLAY * writes,
            standbys => cpu(tier::STANDBYS) / f64::from(standbys),
        };
        let on_replicas = cpu(tier::REPLICAS) - replay * f64::from(shape.read_replicas);
        Demands {
            edge: cpu(tier::EDGE),
            web: cpu(tier::WEB),
            proxy: cpu(tier::PROXY),
            writes,
            reads_on_primary: on_primary - writes,
            reads_on_replicas: on_replicas.max(0.0),
            replay,
            generator: of_machine(more::GENERATOR_CPU),
            foreign: of_machine(more::FOREIGN_CPU) * rate / 2.0,
        }
    }

    pub(super) fn primary(&self) -> f64 {
        self.writes + self.reads_on_primary
    }

    /// With replicas where there were none: what reads goes to them.
    pub(super) fn with_first_replicas(self) -> Demands {
        Demands {
            reads_on_replicas: self.reads_on_replicas + self.reads_on_primary,
            reads_on_primary: 0.0,
            ..self
        }
    }

    /// Without so much of the primary's work.
    pub(super) fn without_of_primary(self, share: f64) -> Demands {
        let left = (1.0 - share).max(0.0);
        // What is taken away reads; a write that goes through as many rows is rarer by far.
        let saved = self.primary() * (1.0 - left);
        let from_reads = saved.min(self.reads_on_primary);
        Demands {
            reads_on_primary: self.reads_on_primary - from_reads,
            writes: (self.writes - (saved - from_reads)).max(0.0),
            ..self
        }
    }
}

impl Plant {
    pub(super) fn of(shape: &Shape) -> Plant {
        let limit = |cores: Option<f64>| match cores {
            Some(cores) if shape.limits_enforced => cores.min(shape.machine_cores),
            _ => shape.machine_cores,
        };
        Plant {
            web_instances: f64::from(shape.web_instances),
            web_cores: limit(shape.web_cores),
            database_cores: limit(shape.database_cores),
            standbys: f64::from(shape.standbys),
            replicas: f64::from(shape.read_replicas),
            machine_cores: shape.machine_cores,
            ceiling: None,
        }
    }

    /// What each part could serve, the least first.
    pub(super) fn bounds(&self, demands: &Demands) -> Vec<Bound> {
        let mut bounds = Vec::new();
        let mut add = |tier: &str, cores: f64, demand: f64| {
            // What uses next to nothing bounds nothing, and its demand is noise.
            if demand > 1e-6 {
                bounds.push(Bound { tier: tier.to_owned(), cores, demand, rate: cores / demand });
            }
        };
        add(tier::WEB, self.web_instances * self.web_cores, demands.web);
        add(tier::PRIMARY, self.database_cores, demands.primary());
        if self.replicas > 0.0 {
            let demand = demands.reads_on_replicas + self.replicas * demands.replay;
            add(tier::REPLICAS, self.replicas * self.database_cores, demand);
        }
        let followers = self.standbys + self.replicas;
        let all = demands.edge
            + demands.web
            + demands.proxy
            + demands.primary()
            + demands.reads_on_replicas
            + demands.replay * followers
            + demands.generator;
        add(tier::MACHINE, self.machine_cores - demands.foreign, all);
        bounds.extend(self.ceiling.clone());
        bounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plant() -> Plant {
        Plant {
            web_instances: 1.0,
            web_cores: 0.5,
            database_cores: 0.5,
            standbys: 0.0,
            replicas: 0.0,
            machine_cores: 2.0,
            ceiling: None,
        }
    }

    fn demands() -> Demands {
        Demands { web: 0.005, writes: 0.0005, reads_on_primary: 0.0015, replay: 0.0001, ..Demands::default() }
    }

    fn first(plant: &Plant, demands: &Demands) -> (String, f64) {
        let first = plant.bounds(demands).remove(0);
        (first.tier, first.rate.round())
    }

    #[test]
    fn the_tier_with_the_least_room_for_its_demand_bounds_all() {
        assert_eq!(first(&plant(), &demands()), (tier::WEB.to_owned(), 100.0));
        let twice = Plant { web_instances: 4.0, ..plant() };
        assert_eq!(first(&twice, &demands()), (tier::PRIMARY.to_owned(), 250.0));
    }

    #[test]
    fn replicas_take_the_reads_and_replay_the_writes() {
        let plant = Plant { web_instances: 10.0, replicas: 2.0, machine_cores: 100.0, ..plant() };
        let demands = demands().with_first_replicas();
        let bounds = plant.bounds(&demands);
        let rate = |name: &str| bounds.iter().find(|bound| bound.tier == name).unwrap().rate.round();
        assert_eq!(rate(tier::PRIMARY), 1_000.0);
        assert_eq!(rate(tier::REPLICAS), 588.0);
    }

    #[test]
    fn tiers_of_one_machine_have_no_more_than_the_machine_together() {
        let plant = Plant { web_instances: 16.0, database_cores: 2.0, ..plant() };
        assert_eq!(first(&plant, &demands()), (tier::MACHINE.to_owned(), 286.0));
    }

    #[test]
    fn an_index_takes_its_statement_away_from_the_primary() {
        let left = demands().without_of_primary(0.5);
        assert!((left.primary() - 0.001).abs() < 1e-9);
        assert!((left.writes - 0.0005).abs() < 1e-9);
    }
}

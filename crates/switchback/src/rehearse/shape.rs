//! What the app consists of by its manifest, and what it would at each stage above: what a diagnosis recommends from.

use model::{ResourceGraph, Size};
use rehearsal::diagnosis::{Rung, Shape};

/// `above`: what the same manifest expands to at each stage above, the nearest first. `limits_enforced`: whether sizes are more
/// than wishes on this machine, which has so many `cores`.
pub fn of(graph: &ResourceGraph, above: &[ResourceGraph], cores: f64, limits_enforced: bool) -> Shape {
    let Rung { stage, web_instances, standbys, read_replicas } = rung(graph);
    let limit = |size: Size| size.cpu.map(|cpu| f64::from(cpu.millis()) / 1e3);
    Shape {
        stage,
        machine_cores: cores,
        web_instances,
        web_cores: graph.services().next().and_then(|(_, service)| limit(service.size)),
        web_workers: None,
        database_cores: graph.databases().next().and_then(|(_, database)| limit(database.size)),
        standbys,
        read_replicas,
        limits_enforced,
        next: above.iter().map(rung).collect(),
    }
}

fn rung(graph: &ResourceGraph) -> Rung {
    let database = graph.databases().next().map(|(_, database)| database);
    Rung {
        stage: graph.stage,
        web_instances: graph.services().map(|(_, service)| service.instances).sum(),
        standbys: database.map_or(0, |database| database.standbys),
        read_replicas: database.map_or(0, |database| database.read_replicas),
    }
}

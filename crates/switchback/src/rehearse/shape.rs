//! What the app consists of by its manifest, and what it would at each stage above: what a diagnosis recommends from.

use model::{ResourceGraph, Size, counted};
use rehearsal::diagnosis::{Rung, Shape};

use crate::api::Status;

/// `above`: what the same manifest expands to at each stage above, the nearest first. `status`: of the app, by which sizes are
/// more than wishes here or not.
pub fn of(graph: &ResourceGraph, above: &[ResourceGraph], status: &Status) -> Shape {
    let Rung { stage, web_instances, standbys, read_replicas } = rung(graph);
    let limit = |size: Size| size.cpu.map(|cpu| f64::from(cpu.millis()) / 1e3);
    Shape {
        stage,
        machine_cores: cores(),
        web_instances,
        web_cores: graph.services().next().and_then(|(_, service)| limit(service.size)),
        web_workers: None,
        database_cores: graph.databases().next().and_then(|(_, database)| limit(database.size)),
        standbys,
        read_replicas,
        limits_enforced: status.machine.unlimited_because.is_none(),
        next: above.iter().map(rung).collect(),
    }
}

/// Such as `stage 2: 2 instances, 1 primary, 1 standby`.
pub fn words(graph: &ResourceGraph) -> String {
    let Rung { stage, web_instances, standbys, read_replicas } = rung(graph);
    let primaries = graph.databases().count() as u32;
    let all = [
        (web_instances, "instance"),
        (primaries, "primary"),
        (standbys, "standby"),
        (read_replicas, "read replica"),
    ];
    let there = all.into_iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> = there.map(|(count, what)| counted(count as usize, what)).collect();
    format!("stage {stage}: {}", words.join(", "))
}

/// Of this machine.
pub fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
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

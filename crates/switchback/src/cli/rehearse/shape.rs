//! What the app consists of, in words and in figures.

use std::path::Path;

use manifest::Manifest;
use model::{Resource, ResourceGraph, counted};
use rehearsal::diagnosis::{Rung, Shape};

use crate::api::Status;
use crate::cli::manifest as file;
use crate::cli::say::Problem;

/// The sums of a graph.
struct Counts {
    web: u32,
    web_cores: Option<f64>,
    databases: u32,
    database_cores: Option<f64>,
    standbys: u32,
    read_replicas: u32,
}

impl Counts {
    fn of(graph: &ResourceGraph) -> Counts {
        let mut counts = Counts {
            web: 0,
            web_cores: None,
            databases: 0,
            database_cores: None,
            standbys: 0,
            read_replicas: 0,
        };
        for resource in graph.resources.values() {
            match resource {
                Resource::Service(service) => {
                    counts.web += service.instances;
                    counts.web_cores = service.size.cpu.map(|cpu| f64::from(cpu.millis()) / 1e3);
                }
                Resource::DatabaseCluster(cluster) => {
                    counts.databases += 1;
                    counts.database_cores = cluster.size.cpu.map(|cpu| f64::from(cpu.millis()) / 1e3);
                    counts.standbys += cluster.standbys;
                    counts.read_replicas += cluster.read_replicas;
                }
                Resource::LoadBalancer(_) => {}
            }
        }
        counts
    }
}

/// Such as `stage 2: 2 instances, 1 primary, 1 standby`.
pub fn words(graph: &ResourceGraph) -> String {
    let counts = Counts::of(graph);
    let mut words = vec![counted(counts.web as usize, "instance")];
    if counts.databases > 0 {
        words.push("1 primary".to_owned());
    }
    for (count, what) in [(counts.standbys, "standby"), (counts.read_replicas, "read replica")] {
        if count > 0 {
            words.push(counted(count as usize, what));
        }
    }
    format!("stage {}: {}", graph.stage, words.join(", "))
}

/// # Errors
/// When the manifest of a higher stage does not hold.
pub fn shape(
    dir: &Path,
    manifest: &Manifest,
    graph: &ResourceGraph,
    status: &Status,
) -> Result<Shape, Problem> {
    let counts = Counts::of(graph);
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    Ok(Shape {
        stage: graph.stage,
        machine_cores: cores,
        web_instances: counts.web,
        web_cores: counts.web_cores,
        web_workers: None,
        database_cores: counts.database_cores,
        standbys: counts.standbys,
        read_replicas: counts.read_replicas,
        limits_enforced: status.machine.unlimited_because.is_none(),
        next: above(dir, manifest, graph.stage)?,
    })
}

/// What the stages above have, the nearest first.
fn above(dir: &Path, manifest: &Manifest, stage: u8) -> Result<Vec<Rung>, Problem> {
    let mut rungs = Vec::new();
    for preset in manifest::PRESETS.iter().filter(|preset| preset.stage > stage) {
        let graph = file::at_stage(dir, manifest, preset.stage)?;
        let counts = Counts::of(&graph);
        rungs.push(Rung {
            stage: preset.stage,
            web_instances: counts.web,
            standbys: counts.standbys,
            read_replicas: counts.read_replicas,
        });
    }
    Ok(rungs)
}

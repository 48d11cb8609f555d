//! `restart`: the nodes of a database, one after the other.

use std::collections::BTreeSet;

use model::{NodeId, ResourceId};

use super::say::{self, GREEN, Problem, Stream, paint};
use super::{Place, progress};
use crate::api::{Request, Restarted};

pub fn restart(place: &Place, cluster: ResourceId, as_json: bool) -> Result<(), Problem> {
    let restarted: Restarted = progress::ask(&place.app()?, Request::RestartNodes { cluster })?;
    if as_json {
        return say::json(&restarted);
    }
    let nodes: Vec<String> = restarted.nodes.iter().map(NodeId::to_string).collect();
    let done = paint(Stream::Err, GREEN, "restarted:");
    let versions: BTreeSet<&str> = restarted.versions.values().map(String::as_str).collect();
    let runs = if versions.is_empty() {
        String::new()
    } else {
        format!("; PostgreSQL {}", Vec::from_iter(versions).join(" and "))
    };
    say::talk(&format!("{done} {}, in {} ms{runs}", nodes.join(", "), restarted.took_ms));
    Ok(())
}

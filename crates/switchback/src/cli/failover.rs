//! `failover`: a planned change of primary.

use model::{NodeId, ResourceId};

use super::Place;
use super::say::{self, GREEN, Problem, Stream, paint};
use crate::api::{Request, SwitchedOver};

pub fn failover(
    place: &Place,
    cluster: ResourceId,
    to: Option<NodeId>,
    as_json: bool,
) -> Result<(), Problem> {
    let switched: SwitchedOver = place.app()?.ask(&Request::SwitchOver { cluster, to }, |_| {})?;
    if as_json {
        return say::json(&switched);
    }
    let SwitchedOver { from, to, took_ms } = switched;
    let done = paint(Stream::Err, GREEN, "switched over:");
    say::talk(&format!("{done} {to} is the primary, {from} follows it again after {took_ms} ms in all"));
    Ok(())
}

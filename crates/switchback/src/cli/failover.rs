//! `failover`: a planned change of primary.

use model::{NodeId, ResourceId};

use super::say::{self, GREEN, Problem, Stream, paint};
use super::{Place, progress};
use crate::api::{Request, SwitchedOver};

pub fn failover(
    place: &Place,
    cluster: ResourceId,
    to: Option<NodeId>,
    as_json: bool,
) -> Result<(), Problem> {
    let switched: SwitchedOver = progress::ask(&place.app()?, Request::SwitchOver { cluster, to })?;
    if as_json {
        return say::json(&switched);
    }
    let SwitchedOver { from, to, took_ms } = switched;
    let done = paint(Stream::Err, GREEN, "switched over:");
    say::talk(&format!("{done} {to} is the primary, {from} follows it again after {took_ms} ms in all"));
    Ok(())
}

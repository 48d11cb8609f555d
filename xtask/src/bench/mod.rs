//! Measurements, side by side with what people would use otherwise.

mod edge;
mod failover;
mod figures;
mod generator;
mod idle;
mod machine;
mod page;
mod pgproxy;
mod ports;
mod processes;
mod up;

use crate::failure::{Failure, Result};
use crate::flags::Flags;

/// # Errors
/// When something cannot be built or measured, or the machine is busy with something else.
pub fn run(mut flags: Flags) -> Result {
    match flags.word().as_deref() {
        Some("edge") => edge::run(flags),
        Some("failover") => failover::run(flags),
        Some("generator") => generator::run(flags),
        Some("idle") => idle::run(flags),
        Some("pgproxy") => pgproxy::run(flags),
        Some("up") => up::run(flags),
        Some(other) => Err(Failure::usage(format!(
            "no bench `{other}`: there are edge, failover, generator, idle, pgproxy and up"
        ))),
        None => Err(Failure::usage("bench what? There are edge, failover, generator, idle, pgproxy and up")),
    }
}

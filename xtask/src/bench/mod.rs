//! Measurements, side by side with what people would use otherwise.

mod edge;
mod failover;
mod figures;
mod generator;
mod idle;
mod journey;
pub mod machine;
pub mod page;
mod pgproxy;
mod ports;
mod processes;
pub mod quiet;
mod report;
mod up;

use std::time::Duration;

use crate::failure::{Failure, Result};
use crate::flags::Flags;

/// For the load average that a bench leaves behind: by then that of two dozen processes is below what is refused.
const QUIET_LIMIT: Duration = Duration::from_secs(180);

type Bench = fn(Flags) -> Result;

/// By name, in the order in which people are told of them.
const BENCHES: [(&str, Bench); 8] = [
    ("edge", edge::run),
    ("failover", failover::run),
    ("generator", generator::run),
    ("idle", idle::run),
    ("journey", journey::run),
    ("pgproxy", pgproxy::run),
    ("report", report::run),
    ("up", up::run),
];

/// One or several, one after the other; flags are those of each.
///
/// # Errors
/// When something cannot be built or measured, or the machine is busy with something else.
pub fn run(mut flags: Flags) -> Result {
    let known = || BENCHES.map(|(name, _)| name).join(", ");
    let mut wanted = Vec::new();
    while let Some(word) = flags.word() {
        let bench = BENCHES.iter().find(|(name, _)| *name == word);
        let bench =
            bench.ok_or_else(|| Failure::usage(format!("no bench `{word}`: there are {}", known())))?;
        wanted.push(bench.1);
    }
    if wanted.is_empty() {
        return Err(Failure::usage(format!("bench what? There are {}", known())));
    }
    let waits = !flags.clone().switch("--anyway");
    for (at, bench) in wanted.into_iter().enumerate() {
        if at > 0 && waits {
            quiet::wait(QUIET_LIMIT);
        }
        bench(flags.clone())?;
    }
    Ok(())
}

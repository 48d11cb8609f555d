//! Clients that write and read while the database behind them is killed, stopped and switched over: nothing that they were
//! told may turn out untrue. The crate `consistency` does it; this builds and runs it.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::demo;
use crate::failure::{Failure, Result};
use crate::flags::Flags;
use crate::house;
use crate::setup;
use crate::shell;

const DEFAULT_SECONDS: u64 = 60;
const DEFAULT_STAGE: u8 = 2;

/// # Errors
/// When it does not come up, does not become whole again, or something was lost, doubled, torn or taken back.
pub fn run(mut flags: Flags) -> Result {
    let seconds = flags.option("--seconds")?.unwrap_or(DEFAULT_SECONDS);
    let stage = flags.option("--stage")?.unwrap_or(DEFAULT_STAGE);
    let seed: u64 = match flags.option("--seed")? {
        Some(seed) => seed,
        None => {
            let now =
                SystemTime::now().duration_since(UNIX_EPOCH).map_err(Failure::while_doing("the clock"))?;
            now.as_secs()
        }
    };
    let mut faults = Vec::new();
    while let Some(fault) = flags.option::<String>("--fault")? {
        faults.push(fault);
    }
    if faults.is_empty() {
        faults.push("all".to_owned());
    }
    let consent = setup::Consent::from_flags(&mut flags);
    flags.end()?;
    setup::install(setup::Needs::TEST, consent)?;
    demo::build_switchback()?;
    shell::run(shell::cargo().args(["build", "--release", "--locked", "--package", "consistency"]))?;
    let mut program = Command::new(house::target().join("release/consistency"));
    program.arg(demo::program()).args([seconds.to_string(), seed.to_string(), stage.to_string()]);
    shell::run(program.arg(house::target().join("consistency")).args(faults))
}

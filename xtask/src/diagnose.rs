//! Faults put into a real app, and what a rehearsal says gave way: about an hour on a machine that nobody else uses, where
//! others would make every answer "the run says nothing".

use crate::failure::Result;
use crate::flags::Flags;
use crate::setup;
use crate::shell;

/// # Errors
/// When an answer was wrong, or none could be had.
pub fn run(mut flags: Flags) -> Result {
    let only: String = flags.option("--only")?.unwrap_or_default();
    let consent = setup::Consent::from_flags(&mut flags);
    flags.end()?;
    setup::install(setup::Needs::TEST, consent)?;
    let mut tests = shell::cargo();
    tests.args(["test", "--release", "--locked", "--package", "switchback", "--test", "it", "--"]);
    tests.args(["--ignored", "--nocapture", "--test-threads", "1"]);
    shell::run(tests.arg(format!("drill_diagnosis::{only}")))
}

//! What the load generator costs, and whether it does what it is told: against nginx, which is hardly ever what is slow.
//!
//! Two loads. A steady one of 10,000 requests/s on kept connections shows the processor time of a request, the rate and the
//! schedule. A crowd of 50,000 who read, with a connection each as far as there are descriptors, shows the memory of a visitor.

mod load;
mod report;
mod run;
mod scene;

use std::path::PathBuf;

use super::machine::CpuTimes;
use super::page;
use super::quiet::{self, Busy};
use crate::demo;
use crate::failure::Result;
use crate::flags::Flags;
use crate::setup;

use report::Report;
use scene::Scene;

const DEFAULT_ROUNDS: u32 = 3;
const DEFAULT_SECONDS: u32 = 20;
/// At once.
const CROWD: u32 = 50_000;

/// # Errors
/// When something is missing, does not build, or answers wrongly; and on a busy machine.
pub fn run(mut flags: Flags) -> Result {
    let consent = setup::Consent::from_flags(&mut flags);
    let rounds = flags.option("--rounds")?.unwrap_or(DEFAULT_ROUNDS).max(1);
    let seconds = flags.option("--seconds")?.unwrap_or(DEFAULT_SECONDS).max(1);
    let crowd = flags.option("--crowd")?.unwrap_or(CROWD).max(1);
    let program = flags.option::<String>("--program")?.map(PathBuf::from);
    let busy = if flags.switch("--anyway") { Busy::Measure } else { Busy::Refuse };
    flags.end()?;
    setup::install(setup::Needs::BENCH_GENERATOR, consent)?;
    let switchback = match program {
        Some(program) => program,
        None => {
            demo::build_switchback()?;
            demo::program()
        }
    };
    load::build_schedule()?;
    let watch = quiet::must_be_quiet(busy)?;
    let before = CpuTimes::now();
    let scene = Scene::set()?;
    let mut steady = report::Steady::default();
    for round in 1..=rounds {
        let measured = run::steady(&switchback, &scene, seconds, round.into())?;
        eprintln!(
            "steady {round}/{rounds}: {:.1} us/request at {:.0} requests/s",
            measured.cpu_us_per_request, measured.requests_per_second
        );
        steady.add(measured);
    }
    let crowd = run::crowd(&switchback, &scene, crowd)?;
    let busy = watch.end();
    let stolen_percent = CpuTimes::now().since(&before).steal_percent;
    let command = format!("cargo xtask bench generator --rounds {rounds} --seconds {seconds}");
    let report = Report { steady, crowd, busy, stolen_percent, command, switchback, seconds };
    print!("{}", report.markdown());
    page::publish("generator", &report.markdown(), &report.json())
}

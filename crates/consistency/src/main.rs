//! One run against an app of its own: `consistency PROGRAM SECONDS SEED STAGE KEEP [FAULT ...]`, as `cargo xtask
//! consistency` calls it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use consistency::Options;
use consistency::faults::Kind;
use testkit::Switchback;

fn kinds(names: &[String]) -> Option<Vec<Kind>> {
    match names {
        [all] if all == "all" => Some(Kind::ALL.to_vec()),
        [none] if none == "none" => Some(Vec::new()),
        names => names.iter().map(|name| Kind::ALL.into_iter().find(|kind| kind.name() == name)).collect(),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, seconds, seed, stage, keep, faults @ ..] = arguments.as_slice() else {
        eprintln!("error: run it by `cargo xtask consistency`");
        return ExitCode::from(2);
    };
    let (Ok(seconds), Ok(seed), Ok(stage), Some(faults)) =
        (seconds.parse(), seed.parse(), stage.parse(), kinds(faults))
    else {
        eprintln!("error: a number or a fault is none: {arguments:?}");
        return ExitCode::from(2);
    };
    let switchback = Switchback::up(program, consistency::app(stage));
    let options = Options { seed, duration: Duration::from_secs(seconds), faults, keep: PathBuf::from(keep) };
    let report = consistency::run(&switchback, &options);
    println!("{report}");
    if report.is_consistent() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

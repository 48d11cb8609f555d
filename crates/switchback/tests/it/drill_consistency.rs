//! What clients of the database were told stays true, whatever is killed, stopped or replaced behind its address.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use consistency::faults::Kind;
use consistency::{Options, Report};

use crate::up;

/// `cargo xtask consistency` runs longer.
const SECONDS: u64 = 30;
/// A run of that length breaks some ten things, and fewer on a machine that is busy.
const LEAST_FAULTS: usize = 3;
const LEAST_KINDS: usize = 2;

/// Another one each time, unless the environment has it.
fn seed() -> u64 {
    let any = || u64::from(UNIX_EPOCH.elapsed().unwrap().subsec_micros());
    std::env::var("CONSISTENCY_SEED").map_or_else(|_| any(), |text| text.parse().expect("CONSISTENCY_SEED"))
}

fn check(stage: u8) -> Report {
    let seed = seed();
    println!("CONSISTENCY_SEED={seed}");
    let switchback = up(consistency::app(stage));
    let options = Options {
        seed,
        duration: Duration::from_secs(SECONDS),
        faults: Kind::ALL.to_vec(),
        keep: Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("consistency/stage-{stage}")),
    };
    let report = consistency::run(&switchback, &options);
    println!("{report}");
    assert!(report.is_consistent(), "{report}");
    assert!(report.lists.ok > 100 && report.bank.ok > 30, "hardly anything was tried: {report}");
    let kinds: BTreeSet<&str> = report.faults.iter().map(|fault| fault.name).collect();
    let is_broken = report.faults.len() >= LEAST_FAULTS && kinds.len() >= LEAST_KINDS;
    assert!(is_broken, "hardly anything was broken: {report}");
    assert!(!report.errors.contains_key("no answer in time"), "somebody was forgotten: {report}");
    report
}

#[test]
fn clients_may_believe_what_they_are_told_whatever_is_broken() {
    check(2);
}

/// Some reads come from replicas: no older than what was acknowledged or shown to their client, and of the same history.
#[test]
fn clients_may_believe_what_they_read_from_replicas_whatever_is_broken() {
    let report = check(3);
    assert!(report.on_replicas > 100, "hardly anything was read there: {report}");
}

//! What clients of the database were told stays true, whatever is killed, stopped or replaced behind its address.

use std::path::Path;
use std::time::Duration;

use consistency::faults::Kind;
use consistency::{Options, Report};

use crate::up;

/// `cargo xtask consistency` runs longer, with other seeds.
const SECONDS: u64 = 20;

fn check(seed: u64, stage: u8) -> Report {
    let switchback = up(consistency::app(stage));
    let options = Options {
        seed,
        duration: Duration::from_secs(SECONDS),
        faults: Kind::ALL.to_vec(),
        keep: Path::new(env!("CARGO_TARGET_TMPDIR")).join("consistency"),
    };
    let report = consistency::run(&switchback, &options);
    println!("{report}");
    assert!(report.is_consistent(), "{report}");
    assert!(report.lists.ok > 100 && report.bank.ok > 30, "hardly anything was tried: {report}");
    assert!(!report.faults.is_empty(), "hardly anything was broken: {report}");
    assert!(!report.errors.contains_key("no answer in time"), "somebody was forgotten: {report}");
    report
}

#[test]
fn clients_may_believe_what_they_are_told_whatever_is_broken() {
    check(1, 2);
}

/// Some reads come from replicas: no older than what was acknowledged or shown to their client, and of the same history.
#[test]
fn clients_may_believe_what_they_read_from_replicas_whatever_is_broken() {
    let report = check(2, 3);
    assert!(report.on_replicas > 100, "hardly anything was read there: {report}");
}

//! What clients of the database were told stays true, whatever is killed, stopped or replaced behind its address.

use std::path::Path;
use std::time::Duration;

use consistency::Options;
use consistency::faults::Kind;
use testkit::App;

use crate::up;

/// `cargo xtask consistency` runs longer, with other seeds.
const SECONDS: u64 = 30;

fn check(seed: u64, stage: u8, faults: &[Kind]) -> consistency::Report {
    let switchback = up(App::guestbook("shop").stage(stage));
    let options = Options {
        seed,
        duration: Duration::from_secs(SECONDS),
        faults: faults.to_vec(),
        keep: Path::new(env!("CARGO_TARGET_TMPDIR")).join("consistency"),
    };
    let report = consistency::run(&switchback, &options);
    println!("{report}");
    assert!(report.is_consistent(), "{report}");
    assert!(report.lists.ok > 1_000 && report.bank.ok > 100, "hardly anything was tried: {report}");
    report
}

#[test]
fn clients_may_believe_what_they_are_told_whatever_is_broken() {
    let report = check(1, 2, &Kind::ALL);
    assert!(report.faults.len() >= 3, "hardly anything was broken: {report}");
}

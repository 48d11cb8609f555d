//! Statements that nobody thought of, as many as one likes: the tests with sqlsmith, longer than they are by default.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::failure::Result;
use crate::flags::Flags;
use crate::setup;
use crate::shell;

const DEFAULT_QUERIES: u64 = 20_000;

/// # Errors
/// When a test fails; it says which statement and which seed.
pub fn run(mut flags: Flags) -> Result {
    let queries = flags.option("--queries")?.unwrap_or(DEFAULT_QUERIES).max(1);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // sqlsmith takes a number of 32 bits.
    let seed = flags.option::<u32>("--seed")?.unwrap_or(clock.subsec_nanos());
    let consent = setup::Consent::from_flags(&mut flags);
    flags.end()?;
    setup::install(setup::Needs::TEST, consent)?;
    eprintln!("    {queries} queries, --seed {seed}");
    for package in ["sqlclass", "pgproxy"] {
        let mut test = shell::cargo();
        test.args(["test", "--locked", "--package", package, "--test", "it", "sqlsmith"]);
        test.args(["--", "--nocapture"]);
        test.env("SQLSMITH_QUERIES", queries.to_string()).env("SQLSMITH_SEED", seed.to_string());
        shell::run(&mut test)?;
    }
    Ok(())
}

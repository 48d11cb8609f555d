//! How many visits a load has, by its seed: what `cargo xtask bench generator` compares with what was begun.
//!
//! `cargo run -p rehearsal --example scheduled_visits < LOAD.json`

use std::io::stdin;

use rehearsal::arrivals;
use rehearsal::load::Load;

fn main() -> Result<(), serde_json::Error> {
    let load: Load = serde_json::from_reader(stdin().lock())?;
    println!("{}", arrivals::scheduled(&load));
    Ok(())
}

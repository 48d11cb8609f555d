//! Pages that are made from the code. The tests that hold them fresh can also write them, so that there is one way to
//! make them and this program need not link the crates they come from.

use crate::failure::Result;
use crate::shell;

/// # Errors
/// When they cannot be made.
pub fn run() -> Result {
    let mut make = shell::cargo();
    make.args(["test", "--quiet", "--package", "manifest", "--test", "it", "committed"]);
    shell::run(make.env("UPDATE_COMMITTED", "1"))?;
    eprintln!("made: docs/manifest.md, docs/manifest.schema.json");
    Ok(())
}

//! Measurements, side by side with what people would use otherwise.

use crate::failure::{Failure, Result};
use crate::flags::Flags;

/// # Errors
/// When something cannot be built or measured.
pub fn run(mut flags: Flags) -> Result {
    match flags.word() {
        Some(other) => Err(Failure::usage(format!("no bench `{other}`"))),
        None => Err(Failure::usage("bench what?")),
    }
}

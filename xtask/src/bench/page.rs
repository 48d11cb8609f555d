//! Where the figures of a run go.

use std::path::Path;

use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::house;

/// Puts the page of a bench into `docs/bench/`, with the same as JSON beside it.
///
/// # Errors
/// When it cannot be written.
pub fn publish(name: &str, markdown: &str, json: &Value) -> Result {
    let folder = house::root().join("docs/bench");
    write(&folder.join(name).with_extension("md"), markdown)?;
    write_json(&folder.join(name).with_extension("json"), json)
}

/// # Errors
/// When it cannot be written.
pub fn write_json(path: &Path, json: &Value) -> Result {
    write(path, &format!("{json:#}\n"))
}

fn write(path: &Path, text: &str) -> Result {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Failure::while_doing(parent.display()))?;
    }
    std::fs::write(path, text).map_err(Failure::while_doing(path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

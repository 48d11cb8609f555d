//! Where the figures of a run go.

use std::path::Path;

use crate::failure::{Failure, Result};

/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: &str) -> Result {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Failure::while_doing(parent.display()))?;
    }
    std::fs::write(path, text).map_err(Failure::while_doing(path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

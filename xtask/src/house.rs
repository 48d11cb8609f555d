//! Where things are: the root of the repository, and the folder cargo builds into.

use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where the workspace is built: as the environment says, otherwise `target`.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => root().join(path),
        None => root().join("target"),
    }
}

/// Tools that are built for this house alone.
pub fn tools() -> PathBuf {
    target().join("tools")
}

pub fn frontpage() -> PathBuf {
    root().join("examples/frontpage")
}

/// Number of cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

//! What can be known of an app while no daemon runs: what its state folder holds.
//!
//! Daemons are held off for as long as a [`Stopped`] lives, so it is made, asked and dropped within milliseconds; one
//! that begins meanwhile waits for that.

use std::fs::File;

use crate::paths::{StateDir, StateError};
use crate::store::{Decision, Resting, StoreError, World};

pub struct Stopped {
    file: Resting,
    _held: File,
}

/// Why the folder of an app cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum StoppedError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Stopped {
    /// # Errors
    /// When a daemon has the folder, or we may not read it.
    pub fn open(state: &StateDir) -> Result<Stopped, StoppedError> {
        let held = state.hold()?;
        Ok(Stopped { file: Resting::open(&state.database())?, _held: held })
    }

    /// What stood last.
    ///
    /// # Errors
    /// When the state file cannot be read.
    pub fn world(&self) -> Result<World, StoreError> {
        self.file.world()
    }

    /// The newest decisions, oldest first.
    ///
    /// # Errors
    /// When the state file cannot be read.
    pub fn decisions(&self, limit: usize) -> Result<Vec<Decision>, StoreError> {
        self.file.decisions(limit)
    }
}

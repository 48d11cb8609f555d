//! What can be known of an app while no daemon runs: what its state folder holds.
//!
//! Daemons are held off for as long as a [`Stopped`] lives, so it is made, asked and dropped within milliseconds; one
//! that begins meanwhile waits for that.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use model::{NodeId, ResourceId};

use crate::paths::{StateDir, StateError};
use crate::store::{Decision, Resting, StoreError, World};

pub struct Stopped {
    state: StateDir,
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

/// Why what was put aside is not deleted.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error("a plan is not over, and may yet need what was put aside")]
    PlanInProgress,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("what was put aside cannot be moved")]
    Io(#[from] io::Error),
}

impl Stopped {
    /// # Errors
    /// When a daemon has the folder, or we may not read it.
    pub fn open(state: &StateDir) -> Result<Stopped, StoppedError> {
        let held = state.hold()?;
        Ok(Stopped { state: state.clone(), file: Resting::open(&state.database())?, _held: held })
    }

    /// Takes what restores of this cluster have put aside out of the way. Returns the nodes it was of and the folders, for
    /// who may take the time to delete them; the next plan deletes what is left of them.
    ///
    /// # Errors
    /// When a plan is not over, which may yet need it, or the folders cannot be moved.
    pub fn forget_replaced(&self, cluster: &ResourceId) -> Result<(Vec<NodeId>, Vec<PathBuf>), ForgetError> {
        if self.file.journal()?.is_some() {
            return Err(ForgetError::PlanInProgress);
        }
        let nodes = self.state.replaced_of(cluster);
        let retired = self.state.retired();
        let mut folders = Vec::new();
        for node in &nodes {
            fs::create_dir_all(&retired)?;
            let to = retired.join(format!("{node}-forgotten-{}", jiff::Timestamp::now().as_millisecond()));
            fs::rename(self.state.replaced().join(node.to_string()), &to)?;
            folders.push(to);
        }
        Ok((nodes, folders))
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

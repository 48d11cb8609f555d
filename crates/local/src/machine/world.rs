//! The one place where what stands changes.
//!
//! A plan takes its steps while failovers happen. Each change is therefore applied to what stands at that moment, made
//! durable, and only then seen; none overwrites what another has changed in between.

use std::sync::{MutexGuard, PoisonError};

use model::Topology;
use plan::Action;

use super::{Machine, StepError};
use crate::store::{Journal, StoreError, World};

/// Why a change was not made. What stood before stands.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotChanged {
    #[error(transparent)]
    Refused(#[from] plan::Unmet),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<NotChanged> for StepError {
    fn from(error: NotChanged) -> StepError {
        match error {
            NotChanged::Refused(unmet) => StepError::new(unmet.to_string()),
            NotChanged::Store(error) => {
                StepError::new(crate::chain(&error)).hint("see that the disk is not full")
            }
        }
    }
}

/// What becomes of the journal in the same transaction.
pub(super) enum Journaling<'a> {
    Keep,
    Write(&'a Journal),
    Clear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Running {
    Yes,
    No,
}

impl Machine {
    /// What stands, as of the last step taken.
    pub fn world(&self) -> World {
        self.world_now().clone()
    }

    pub(super) fn is_running(&self) -> bool {
        self.world_now().running
    }

    /// Whether the app is meant to run, from now on and for the next daemon.
    ///
    /// # Errors
    /// When it cannot be written down; this daemon goes by it all the same.
    pub(super) fn set_running(&self, running: Running) -> Result<(), StoreError> {
        let wished = running == Running::Yes;
        let changed = self.change_world(Journaling::Keep, |world| {
            world.running = wished;
            Ok(())
        });
        match changed {
            Err(NotChanged::Store(error)) => {
                self.world_now().running = wished;
                Err(error)
            }
            Ok(_) | Err(NotChanged::Refused(_)) => Ok(()),
        }
    }

    /// What roles are told from: what stands, with the step that is being taken.
    pub(super) fn topology(&self) -> Topology {
        let mut topology = self.world_now().topology.clone();
        if let Some(action) = self.ahead().as_ref() {
            // One that no longer fits changes nothing; its step will say so.
            let _ = action.apply(&mut topology);
        }
        topology
    }

    /// # Errors
    /// When `change` refuses, or the disk does. What stood before stands.
    pub(super) fn change_world(
        &self,
        journaling: Journaling<'_>,
        change: impl FnOnce(&mut World) -> Result<(), plan::Unmet>,
    ) -> Result<World, NotChanged> {
        let mut standing = self.world_now();
        let mut next = standing.clone();
        change(&mut next)?;
        let store = &self.inner.store;
        match journaling {
            Journaling::Keep => store.commit_world(&next)?,
            Journaling::Write(journal) => store.commit(&next, Some(journal))?,
            Journaling::Clear => store.commit(&next, None)?,
        }
        standing.clone_from(&next);
        if !matches!(journaling, Journaling::Keep) {
            *self.ahead() = None;
        }
        Ok(next)
    }

    /// Lets roles be told of `action` before it is committed: a crash here takes the step again. When `change` fails they
    /// are told from what stands.
    pub(super) async fn ahead_of(
        &self,
        action: &Action,
        change: impl Future<Output = Result<(), StepError>>,
    ) -> Result<(), StepError> {
        *self.ahead() = Some(action.clone());
        let changed = change.await;
        if changed.is_err() {
            *self.ahead() = None;
        }
        changed
    }

    /// What was not written down does not stand, whatever roles were told meanwhile.
    pub(super) fn forget_what_is_ahead(&self) {
        *self.ahead() = None;
    }

    fn ahead(&self) -> MutexGuard<'_, Option<Action>> {
        self.inner.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn world_now(&self) -> MutexGuard<'_, World> {
        // Changed as a whole, so a panic elsewhere left nothing half done.
        self.inner.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

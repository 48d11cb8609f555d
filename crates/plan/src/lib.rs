//! Decisions as functions of values: given what stands and what is wished for, which steps lead from one to the other.
//!
//! [`plan`] reads a [`model::Topology`] and a [`model::ResourceGraph`] and answers with a [`Plan`]: immutable, naming
//! the generation it starts from, exact to the port, in order. Executors make no choices. Every [`Action`] knows its
//! precondition, its effect on a topology and its inverse, so that going back is the same code run on the inverses.
//!
//! Nothing here reads a clock, a file or a socket.

mod action;
mod databases;
mod diff;
mod explain;
pub mod failover;
mod instances;
mod restore;

pub use action::{Action, EdgeChange, Unmet};
pub use diff::{FoundData, PlanError, Request, plan};
pub use restore::{Restore, follow_again, restore};

use std::fmt;

use model::{AppName, ResourceId};
use serde::{Deserialize, Serialize};

/// What will be done, and why. Never changed once made; a plan whose parent is no longer what stands is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Sixteen hex digits over the app, the parent and the steps.
    pub id: String,
    pub app: AppName,
    /// The generation of the topology that the steps start from.
    pub parent: u64,
    /// For people: one entry per resource that changes.
    pub changes: Vec<Change>,
    pub steps: Vec<Step>,
}

/// One change of one resource, in CloudFormation's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub resource: ResourceId,
    pub kind: ChangeKind,
    pub why: String,
    pub interruption: Interruption,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Create,
    Update,
    Replace,
    Delete,
}

/// What clients of the app are expected to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interruption {
    None,
    /// New work waits about this long; what else is cut stands in the text of the change.
    EstimatedMs(u64),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    #[serde(flatten)]
    pub action: Action,
    pub interruption: Interruption,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChangeKind::Create => "create",
            ChangeKind::Update => "update",
            ChangeKind::Replace => "replace",
            ChangeKind::Delete => "delete",
        })
    }
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interruption::None => f.write_str("none"),
            Interruption::EstimatedMs(ms) => write!(f, "about {ms} ms"),
        }
    }
}

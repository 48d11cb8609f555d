//! What the command line and the daemon say to each other: JSON lines over a Unix socket that only its owner reaches.
//! A daemon of root has a second one, for the owner of the app's folder, who may look and change nothing.
//!
//! A connection carries one request. The daemon answers with any number of [`Message::Event`] lines while it works and
//! ends with [`Message::Done`] or [`Message::Failed`]. A client that hangs up stops nothing: what was begun is
//! finished.

pub mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use local::machine::{Event, MachineStatus, StopMode};
use local::release::{ReleaseError, Releases};
use model::{NodeId, RecoveryTarget, ReleaseId, ResourceGraph, ResourceId, Topology};
use plan::Plan;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest request line: a plan of thousands of steps stays below it.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Version and pid.
    Hello,
    /// Brings everything up as `graph` says; makes the first release where there is none.
    Up {
        graph: ResourceGraph,
        destroy: BTreeSet<ResourceId>,
    },
    Plan {
        graph: ResourceGraph,
        destroy: BTreeSet<ResourceId>,
    },
    /// Carries out exactly this plan.
    Apply {
        plan: Plan,
    },
    /// Builds, stores and rolls out a new release.
    Deploy {
        graph: ResourceGraph,
    },
    /// Rolls out an earlier release; `None`: the one before the current.
    Rollback {
        graph: ResourceGraph,
        release: Option<ReleaseId>,
    },
    Releases,
    Status,
    Why {
        limit: usize,
    },
    /// Prometheus text of every role.
    Metrics,
    /// What every tier has done so far, as totals: [`local::machine::Observation`]. `named`: processes of whoever asks.
    Observe {
        named: Vec<u32>,
    },
    /// Lets processes use no more than so many thousandths of a core, for a time. Answered when that is over, and everything
    /// is as it was.
    Intervene {
        cpu_millis: BTreeMap<String, u32>,
        lasts_ms: u64,
    },
    /// Writes down what a rehearsal found, for `why`.
    Remember {
        decision: String,
        evidence: String,
    },
    /// Hands the edge over to a new process.
    ReplaceEdge,
    /// Hands every proxy over to a new process, while the old one keeps the sessions it has.
    ReplaceProxies,
    /// Lets a standby take over from the primary; `None`: the one that is nearest.
    SwitchOver {
        cluster: ResourceId,
        to: Option<NodeId>,
    },
    /// Restarts the nodes of a database one after the other.
    RestartNodes {
        cluster: ResourceId,
    },
    /// Makes a copy of a database now.
    Backup {
        cluster: ResourceId,
    },
    Backups {
        cluster: ResourceId,
        /// The folder of another cluster's, where it is not this one's own.
        from: Option<PathBuf>,
    },
    /// Restores the newest backup beside the app and compares it.
    ProveBackup {
        cluster: ResourceId,
    },
    /// Whether a database could be brought back to that moment, as far as can be told before.
    CheckRestore {
        cluster: ResourceId,
        to: RecoveryTarget,
        from: Option<PathBuf>,
    },
    /// Brings a database back to an earlier moment.
    Restore {
        cluster: ResourceId,
        to: RecoveryTarget,
        from: Option<PathBuf>,
    },
    /// Deletes the data that restores have put aside.
    ForgetReplaced {
        cluster: ResourceId,
    },
    /// Ends a daemon that runs nothing; others stay.
    Leave,
    /// Stops everything and then the daemon. With `destroy` all data is deleted.
    Down {
        mode: StopMode,
        destroy: bool,
    },
}

impl Request {
    /// Whether it leaves everything as it is, and tells nothing that the owner of the app's folder may not know.
    pub fn only_looks(&self) -> bool {
        matches!(
            self,
            Request::Hello
                | Request::Releases
                | Request::Backups { from: None, .. }
                | Request::Status
                | Request::Why { .. }
                | Request::Metrics
                | Request::Observe { .. }
        )
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    Event { event: Event },
    Done { value: Value },
    Failed(Failure),
}

/// Why a request failed, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    pub hint: Option<String>,
    pub last_lines: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    Failed,
    /// Refused to protect data, or because the world has moved.
    Refused,
    /// Refused because somebody else changes things: nothing was begun.
    Busy,
}

impl Failure {
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure { kind: FailureKind::Failed, message: message.into(), hint: None, last_lines: Vec::new() }
    }

    pub fn refused(message: impl Into<String>) -> Failure {
        Failure { kind: FailureKind::Refused, ..Failure::failed(message) }
    }

    pub fn busy(message: impl Into<String>) -> Failure {
        Failure { kind: FailureKind::Busy, ..Failure::failed(message) }
    }

    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: String,
    pub pid: u32,
    /// A service manager starts it again when it ends.
    #[serde(default)]
    pub supervised: bool,
}

/// `status --json`. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    #[serde(flatten)]
    pub machine: MachineStatus,
    pub daemon: Hello,
    /// What is being done now, and for how long.
    pub operation: Option<Operation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub name: String,
    pub running_ms: u64,
}

/// Answer to [`Request::Releases`]: one for each that is kept, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRelease {
    pub id: ReleaseId,
    pub created: Timestamp,
    pub files: u64,
    pub bytes: u64,
    pub serving: bool,
    /// Why it was taken back when it was last tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl StoredRelease {
    /// # Errors
    /// When the folder of releases does not read.
    pub fn all(releases: &Releases, topology: &Topology) -> Result<Vec<StoredRelease>, ReleaseError> {
        let shown = releases.list()?.into_iter().map(|stored| StoredRelease {
            serving: topology.releases.values().any(|release| release.id == stored.id),
            id: stored.id,
            created: stored.created,
            files: stored.files,
            bytes: stored.bytes,
            failed: stored.failed.map(|failed| failed.because),
        });
        Ok(shown.collect())
    }
}

/// Answer to [`Request::Plan`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    pub plan: Plan,
    /// Why this plan can only be looked at.
    pub preview_because: Option<String>,
    /// What stands and does not run, in the order in which `up` starts it before it carries out the plan.
    #[serde(default)]
    pub starts: Vec<String>,
    pub notes: Vec<String>,
}

/// Answer to `up`, `apply`, `deploy` and `rollback`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub steps: usize,
    pub front: Vec<String>,
    pub releases: BTreeMap<String, String>,
    pub notes: Vec<String>,
}

/// A change of primary, as it was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchedOver {
    pub from: NodeId,
    pub to: NodeId,
    pub took_ms: u64,
}

/// The nodes of a database that were started anew, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarted {
    pub nodes: Vec<NodeId>,
    /// Of PostgreSQL, that each of them runs by now, where it has said so.
    #[serde(default)]
    pub versions: BTreeMap<NodeId, String>,
    pub took_ms: u64,
}

/// A database that was brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The number of the backup that it began with.
    pub backup: u32,
    pub primary: NodeId,
    /// Whose data is kept aside.
    pub kept_aside: NodeId,
    pub took_ms: u64,
    pub notes: Vec<String>,
}

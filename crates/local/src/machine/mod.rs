//! This machine, running one app: what should stand, the keepers that hold it up, and the one place where both change.
//!
//! [`Machine`] carries out plans ([`Machine::apply`]), takes over what an earlier daemon left running
//! ([`Machine::open`]), brings everything up again ([`Machine::restore`]) and down ([`Machine::stop`]). It makes no
//! choices: a plan names every port, zone and order.

mod adopt;
mod apply;
mod aside;
mod backups;
mod certificates;
mod clusters;
mod compare;
mod departing;
mod edge_config;
mod found;
mod intervene;
mod nodes;
mod observe;
mod perform;
mod proxy_config;
mod releases;
mod roles;
mod status;
mod stop;
mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{InstanceId, NodeId, ResourceId, Size};
use plan::Action;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::control::ControlError;
use crate::jobs::instance::ChosenProbe;
use crate::keeper::{Keeper, KeptState, out_of_memory};
use crate::setup::Setup;
use crate::store::{Decision, Store, StoreError, World};

pub use crate::keeper::Phase;
pub use apply::{Applied, ApplyError, CrashPoint, Event, FailoverMoment, Moment, Report};
pub use backups::{BackupDoing, BackupState, BackupStatus, BackupWork};
pub use clusters::Commits;
pub use intervene::LONGEST_INTERVENTION;
pub use observe::{DAEMON, DatabaseObserved, MachineObserved, Observation, ProcessObserved};
pub use releases::{build_environment, memory};
pub use status::{CommitsStatus, MachineStatus, ProcessKind, ProcessStatus, TlsStatus};
pub use stop::StopMode;

use backups::Backups;
use clusters::Clusters;
use departing::Departing;
use nodes::NodeUnit;
use roles::RoleUnit;

/// Handle on the machine; clones share it.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Inner>,
}

struct Inner {
    setup: Arc<Setup>,
    store: Store,
    world: Mutex<World>,
    /// The step that is being taken, once roles are told of it.
    ahead: Mutex<Option<Action>>,
    clusters: Clusters,
    backups: Backups,
    units: Mutex<Units>,
    /// Grows with every change of any kept process.
    changed: watch::Sender<u64>,
    /// One configuration at a time goes to the edges, in order.
    pushing: AsyncMutex<()>,
    /// And to the proxies.
    pushing_proxies: AsyncMutex<()>,
    samples: Mutex<status::Samples>,
    /// Cancelled when everything is to stop at once, whatever somebody waits for.
    hurry: CancellationToken,
    /// Replaced roles finishing what they have.
    background: TaskTracker,
    crash_point: Option<CrashPoint>,
}

/// What is kept running, by what it is.
#[derive(Default)]
struct Units {
    instances: BTreeMap<InstanceId, InstanceUnit>,
    nodes: BTreeMap<NodeId, NodeUnit>,
    /// By the name of the role's unit: `edge`, `pgproxy-db`.
    roles: BTreeMap<String, RoleUnit>,
    /// Roles that were replaced and finish what they have, by the name of the process.
    departing: BTreeMap<String, Departing>,
}

struct InstanceUnit {
    keeper: Keeper,
    size: Arc<Mutex<Size>>,
    /// Where it answers health checks.
    chosen: ChosenProbe,
    /// Left the rotation and finishes what it has.
    draining: bool,
}

/// Why a step could not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    /// A sentence without its full stop.
    pub reason: String,
    /// What to do about it, where something can be done.
    pub hint: Option<String>,
    /// What the process said last.
    pub last_lines: Vec<String>,
    /// Trying again is of no use: what was read is not what was written.
    pub damaged: bool,
}

impl StepError {
    fn new(reason: impl Into<String>) -> StepError {
        StepError { reason: reason.into(), hint: None, last_lines: Vec::new(), damaged: false }
    }

    fn hint(self, hint: impl Into<String>) -> StepError {
        StepError { hint: Some(hint.into()), ..self }
    }

    /// The reason and what to do about it, in one line.
    fn said(self) -> String {
        match self.hint {
            Some(hint) => format!("{}; hint: {hint}", self.reason),
            None => self.reason,
        }
    }

    fn of(name: &str, state: KeptState) -> StepError {
        let why = state.reason.unwrap_or_else(|| "was stopped".to_owned());
        let reason = format!("{name}: {why}");
        StepError { hint: state.hint, last_lines: state.last_lines, ..StepError::new(reason) }
    }
}

impl From<ControlError> for StepError {
    fn from(error: ControlError) -> StepError {
        StepError::new(crate::chain(&error))
    }
}

impl From<String> for StepError {
    fn from(reason: String) -> StepError {
        StepError::new(reason)
    }
}

impl Machine {
    pub fn setup(&self) -> &Setup {
        &self.inner.setup
    }

    /// That the app has no database of this name, and what it has.
    pub fn no_such_database(&self, id: &ResourceId) -> StepError {
        let names: Vec<String> = self.topology().clusters.keys().map(ResourceId::to_string).collect();
        if names.is_empty() {
            return StepError::new("the app has no database").hint(
                "`[db]` with `engine = \"postgres\"` in switchback.toml adds one, then `switchback apply`",
            );
        }
        StepError::new(format!("{id} is no database of this app"))
            .hint(format!("it has {}", names.join(", ")))
    }

    /// The newest decisions, oldest first.
    ///
    /// # Errors
    /// When the state file cannot be read.
    pub fn decisions(&self, limit: usize) -> Result<Vec<Decision>, StoreError> {
        self.inner.store.decisions(limit)
    }

    /// Writes down why something was done.
    pub fn remember(&self, subject: &str, decision: impl Into<String>, evidence: impl Into<String>) {
        let decision = Decision {
            time: jiff::Timestamp::now(),
            subject: subject.to_owned(),
            decision: decision.into(),
            evidence: evidence.into(),
        };
        tracing::info!(subject, decision = decision.decision, evidence = decision.evidence, "decided");
        if let Err(error) = self.inner.store.remember(&decision) {
            tracing::warn!(error = crate::chain(&error), "a decision could not be written down");
        }
    }

    /// Keeps the edges told of what is ready and writes down what ended and came back, until cancelled.
    pub async fn supervise(&self) {
        let mut changed = self.inner.changed.subscribe();
        let mut seen: BTreeMap<String, KeptState> = BTreeMap::new();
        let mut looks = certificates::Looks::new();
        let mut sample = tokio::time::interval(status::SAMPLE_INTERVAL);
        sample.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                alive = changed.changed() => if alive.is_err() { return },
                _ = sample.tick() => {
                    self.sample().await;
                    self.look_at_certificates(&mut looks).await;
                    continue;
                }
            }
            let pushed = self.push_roles().await;
            if let Err(error) = pushed.and_then(|()| self.departing_have_taken()) {
                tracing::warn!(error = error.reason, "a role did not take its configuration; trying again");
                // The role may be restarting: its next change of state brings us back here, and so does this.
                tokio::time::sleep(Duration::from_millis(100)).await;
                self.inner.changed.send_modify(|count| *count += 1);
            }
            self.write_down_changes(&mut seen);
        }
    }

    fn write_down_changes(&self, seen: &mut BTreeMap<String, KeptState>) {
        use crate::keeper::Phase;
        let now = self.kept_states();
        for (name, state) in &now {
            let before = seen.get(name);
            let restarted = before.is_some_and(|before| before.restarts != state.restarts);
            let new_phase = before.is_none_or(|before| before.phase != state.phase);
            let reason = state.reason.clone().unwrap_or_default();
            match state.phase {
                Phase::Restarting if restarted => self.remember(name, "restart it", reason),
                Phase::CrashLooping if restarted && new_phase => {
                    self.remember(name, "crash-looping: restart it at the longest backoff only", reason);
                }
                Phase::Unresponsive if new_phase => {
                    self.remember(name, "wait for its next answers, then restart it", reason)
                }
                Phase::Failed if new_phase => self.remember(name, "give up its first start", reason),
                _ => {}
            }
            if state.oom_kills > before.map_or(0, |before| before.oom_kills) {
                let evidence =
                    format!("the kernel killed a process of it, {}", out_of_memory(state.memory_limit));
                self.remember(name, "go on with what is left of it", evidence);
            }
        }
        *seen = now;
    }

    fn kept_states(&self) -> BTreeMap<String, KeptState> {
        let units = self.units();
        let instances = units.instances.iter().map(|(id, unit)| (id.to_string(), unit.keeper.state()));
        let nodes = units.nodes.iter().map(|(id, unit)| (id.to_string(), unit.keeper.state()));
        let roles = units.roles.iter().map(|(name, unit)| (name.clone(), unit.keeper.state()));
        instances.chain(nodes).chain(roles).collect()
    }

    fn units(&self) -> MutexGuard<'_, Units> {
        self.inner.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

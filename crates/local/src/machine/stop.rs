//! Bringing everything down, in the reverse order of coming up, with nothing lost.

use std::time::Duration;

use model::DatabaseRole;
use tokio::task::JoinSet;

use super::roles::{edge_unit, proxy_unit};
use super::world::{Journaling, Running};
use super::{Event, Machine, Report, StepError};
use crate::store::{StoreError, World};

/// For clients of the front door to finish, where no instance gives them more.
const EDGE_DRAIN: Duration = Duration::from_secs(10);
/// Sessions of instances have ended by then; others get this much.
const PROXY_DRAIN: Duration = Duration::from_secs(2);

/// For what is left over: PostgreSQL, if it was never taken over, writes a checkpoint.
const SWEEP_GRACE: Duration = Duration::from_secs(60);

/// How much patience there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Requests in flight finish, instances get their grace.
    Graceful,
    /// Instances are killed at once. PostgreSQL still shuts down in order: its data is never cut short.
    Now,
}

impl Machine {
    /// Stops everything; the data and the topology stay, so that [`Machine::restore`] brings the same back.
    ///
    /// # Errors
    /// When it cannot be written down that the app is not meant to run; everything is stopped all the same.
    pub async fn stop(&self, mode: StopMode, report: &Report) -> Result<(), StoreError> {
        let written = self.set_running(Running::No);
        let world = self.world();

        if mode == StopMode::Now {
            self.inner.hurry.cancel();
        }
        // Of two that come at almost the same time, the one in haste may come first.
        let is_in_haste = || self.inner.hurry.is_cancelled();
        let graces =
            world.topology.instances.values().map(|instance| Duration::from_millis(instance.grace_ms));
        let patience = graces.max().unwrap_or_default().max(EDGE_DRAIN);
        for edge in world.topology.edges.keys() {
            report(Event::Note { text: format!("closing {edge}") });
            let drain = if is_in_haste() { Duration::ZERO } else { patience };
            self.stop_role(&edge_unit(edge), drain).await;
        }
        let mut stopping = JoinSet::new();
        let ids: Vec<_> = self.units().instances.keys().cloned().collect();
        for id in ids {
            let grace = match world.topology.instances.get(&id) {
                Some(instance) if !is_in_haste() => Duration::from_millis(instance.grace_ms),
                _ => Duration::ZERO,
            };
            report(Event::Note { text: format!("stopping {id}") });
            let machine = self.clone();
            stopping.spawn(async move { machine.stop_instance(&id, grace).await });
        }
        while stopping.join_next().await.is_some() {}
        for proxy in world.topology.proxies.keys() {
            let drain = if is_in_haste() { Duration::ZERO } else { PROXY_DRAIN };
            self.stop_role(&proxy_unit(proxy), drain).await;
        }
        let mut nodes: Vec<_> = self.units().nodes.keys().cloned().collect();
        // The primary first: it waits until its followers have all it wrote, and then nobody has to be rewound.
        nodes.sort_by_key(|node| world.topology.role_of(node) != DatabaseRole::Primary);
        for node in nodes {
            report(Event::Note { text: format!("stopping {node}") });
            self.stop_node(&node).await;
        }
        // Builds, release commands, roles that were draining, and whatever was never taken over.
        for process in self.inner.setup.processes.find_all() {
            let name = process.name().to_owned();
            crate::keeper::end(&process, SWEEP_GRACE).await;
            self.inner.setup.processes.forget(&name);
        }
        self.inner.setup.processes.cgroups().remove_empty();
        written
    }
}

impl Machine {
    /// Deletes everything of an app that was stopped: data, releases, credentials, logs. There is no way back.
    ///
    /// # Errors
    /// When something cannot be deleted.
    pub async fn destroy(&self) -> Result<(), StepError> {
        let state = &self.inner.setup.state;
        for folder in [
            state.root().join("data"),
            state.backups(),
            state.releases(),
            state.credentials(),
            state.tls(),
            state.logs(),
        ] {
            Machine::remove_tree(folder).await?;
        }
        // Last: what was not deleted yet must not be forgotten.
        self.change_world(Journaling::Clear, |world| {
            *world = World::default();
            Ok(())
        })?;
        Ok(())
    }
}

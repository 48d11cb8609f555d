//! The first things a daemon does: take over what runs, bring back what should run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{DatabaseNode, DatabaseRole, NodeId, Topology};
use plan::Action;
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::aside::Aside;
use super::backups::Backups;
use super::clusters::Clusters;
use super::roles::{edge_addresses, edge_unit, incarnation, proxy_addresses, proxy_unit};
use super::world::Running;
use super::{CrashPoint, Event, Inner, Machine, Report, StepError, Units, status};
use crate::jobs::role::Role;
use crate::keeper::Begin;
use crate::process::Process;
use crate::setup::{Setup, instance_process};
use crate::store::{Direction, Store, StoreError};

/// For each thing that is brought back. A recovering PostgreSQL may need longer, and is given it.
const RESTORE_WAIT: Duration = Duration::from_secs(60);

/// Nodes that wait to be told what to come back as.
const NODES_DOWN: usize = 16;

impl Machine {
    /// Reads what stands. Nothing is started or taken over yet.
    ///
    /// # Errors
    /// When the state file cannot be read.
    pub fn open(setup: Setup, crash_point: Option<CrashPoint>) -> Result<Machine, StoreError> {
        let store = Store::open(&setup.state.database())?;
        let world = store.world()?;
        let (downs, ended) = mpsc::channel(NODES_DOWN);
        let inner = Inner {
            setup: Arc::new(setup),
            store,
            world: Mutex::new(world),
            ahead: Mutex::new(None),
            clusters: Clusters::new(downs, ended),
            backups: Backups::default(),
            units: Mutex::new(Units::default()),
            changed: watch::channel(0).0,
            pushing: AsyncMutex::new(()),
            pushing_proxies: AsyncMutex::new(()),
            samples: Mutex::new(status::Samples::default()),
            hurry: CancellationToken::new(),
            background: TaskTracker::new(),
            crash_point,
        };
        Ok(Machine { inner: Arc::new(inner) })
    }

    /// Takes over every process of an earlier daemon that still runs, without restarting any. Returns how many.
    pub async fn adopt(&self, report: &Report) -> usize {
        let topology = self.topology();
        let mut adopted = 0;
        let mut roles: Vec<Process> = Vec::new();
        for process in self.inner.setup.processes.find_all() {
            let name = process.name().to_owned();
            let instance =
                topology.instances.values().find(|instance| instance_process(&instance.id) == name);
            let node = topology.nodes.values().find(|node| node.id.to_string() == name);
            let size = instance.map(|instance| instance.size).or(node.map(|node| node.size));
            self.give_back_cpu(&process, size.unwrap_or(model::Size::UNLIMITED));
            let taken = if let Some(instance) = instance {
                self.start_instance(instance, &topology, Begin::Adopt(process)).await
            } else if let Some(node) = node {
                self.start_node(node, Begin::Adopt(process), report).await
            } else {
                roles.push(process);
                continue;
            };
            match taken {
                Ok(()) => adopted += 1,
                Err(error) => {
                    report(Event::Note { text: format!("{name} cannot be taken over: {}", error.reason) })
                }
            }
        }
        // The newest process of a role serves; older ones are draining for it.
        roles.sort_by_key(|process| {
            std::cmp::Reverse(incarnation(process.name()).map_or(0, |(_, number)| number))
        });
        for process in roles {
            let name = process.name().to_owned();
            match self.adopt_as_role(process, &topology).await {
                Ok(Taken::Adopted) => adopted += 1,
                Ok(Taken::Draining) => self.finish_role(name, &topology),
                // Left by a step that was not committed: the step is taken again and clears it.
                Ok(Taken::Unknown) => {}
                Err(error) => {
                    // Started and not yet listening when its daemon died, or hung: nobody could steer it.
                    report(Event::Note { text: format!("{name} cannot be taken over: {}", error.reason) });
                    if let Some(process) = self.inner.setup.processes.find(&name) {
                        crate::keeper::end(&process, Duration::from_secs(5)).await;
                    }
                    self.inner.setup.processes.forget(&name);
                }
            }
        }
        self.inner.changed.send_modify(|count| *count += 1);
        adopted
    }

    /// A process that an earlier daemon has replaced.
    fn finish_role(&self, process: String, topology: &Topology) {
        let unit = incarnation(&process).map_or_else(String::new, |(unit, _)| unit.to_owned());
        let is_proxy = topology.proxies.keys().any(|id| proxy_unit(id) == unit);
        let role = if is_proxy { Role::Pgproxy } else { Role::Edge };
        self.departs(role, &process, &unit, None);
        self.let_depart(role, process);
    }

    async fn adopt_as_role(&self, process: Process, topology: &Topology) -> Result<Taken, StepError> {
        let name = process.name().to_owned();
        let Some((unit, _)) = incarnation(&name) else { return Ok(Taken::Unknown) };
        let edge = topology.edges.values().find(|edge| edge_unit(&edge.id) == unit);
        let proxy = topology.proxies.values().find(|proxy| proxy_unit(&proxy.id) == unit);
        if self.units().roles.contains_key(unit) {
            return Ok(Taken::Draining);
        }
        match (edge, proxy) {
            (Some(edge), _) => {
                let (addresses, threads) = (edge_addresses(edge), edge.settings.threads);
                self.adopt_role(unit, Role::Edge, process, &addresses, threads).await?;
                Ok(Taken::Adopted)
            }
            (None, Some(proxy)) => {
                self.adopt_role(unit, Role::Pgproxy, process, &proxy_addresses(proxy), Some(1)).await?;
                Ok(Taken::Adopted)
            }
            (None, None) => Ok(Taken::Unknown),
        }
    }

    /// Starts everything that should stand and does not, what others need first. What does not become ready is kept
    /// being started; the first such error is returned after everything was begun.
    ///
    /// # Errors
    /// When something cannot be begun at all, or is not ready in its time.
    pub async fn restore(&self, report: &Report) -> Result<(), StepError> {
        if !self.is_running() {
            self.set_running(Running::Yes).map_err(|error| crate::chain(&error))?;
        }
        let topology = &self.world().topology;
        let mut first_error = None;
        let leaves = self.about_to_leave();
        let mut nodes: Vec<&DatabaseNode> =
            topology.nodes.values().filter(|node| Some(&node.id) != leaves.as_ref()).collect();
        // Whoever has to be rewound needs its primary for that.
        nodes.sort_by_key(|node| topology.role_of(&node.id) != DatabaseRole::Primary);
        for node in nodes {
            if !self.units().nodes.contains_key(&node.id) {
                report(Event::Note { text: format!("starting {}", node.id) });
                let started = within(RESTORE_WAIT, self.start_node(node, Begin::Restore, report));
                first_error = first_error.or(started.await.err());
            }
        }
        for proxy in topology.proxies.values() {
            // As it stands by now: its primary may have been started again.
            let topology = self.world().topology;
            let started = within(RESTORE_WAIT, self.start_proxy(proxy, &topology, Begin::Restore));
            first_error = first_error.or(started.await.err());
        }
        for edge in topology.edges.values() {
            let started = within(RESTORE_WAIT, self.start_edge(edge, topology, Begin::Restore));
            first_error = first_error.or(started.await.err());
        }
        let mut starting = tokio::task::JoinSet::new();
        for instance in topology.instances.values().cloned() {
            if self.units().instances.contains_key(&instance.id) {
                continue;
            }
            report(Event::Note { text: format!("starting {}", instance.id) });
            let (machine, topology) = (self.clone(), topology.clone());
            starting.spawn(async move {
                let limit = Duration::from_millis(instance.health.start_timeout_ms);
                let started = machine.start_instance(&instance, &topology, Begin::Restore);
                match tokio::time::timeout(limit, started).await {
                    Ok(result) => result,
                    Err(_) => Err(machine.not_ready(&instance.id)),
                }
            });
        }
        while let Some(started) = starting.join_next().await {
            let result = started.unwrap_or_else(|error| Err(StepError::new(error.to_string())));
            first_error = first_error.or(result.err());
        }
        if let Err(error) = self.push_roles().await {
            first_error = first_error.or(Some(error));
        }
        first_error.map_or(Ok(()), Err)
    }

    /// What [`Machine::restore`] starts where nothing runs, in this order.
    pub fn what_restore_starts(&self) -> Vec<String> {
        let topology = self.world().topology;
        let nodes = topology.nodes.keys().map(ToString::to_string);
        let proxies = topology.proxies.keys().map(proxy_unit);
        let edges = topology.edges.keys().map(edge_unit);
        let instances = topology.instances.keys().map(ToString::to_string);
        nodes.chain(proxies).chain(edges).chain(instances).collect()
    }

    /// The follower that the plan in progress removes next. It may be half deleted, and would be copied to be deleted.
    fn about_to_leave(&self) -> Option<NodeId> {
        let journal = self.inner.store.journal().ok()??;
        let step =
            journal.plan.steps.get(journal.cursor).filter(|_| journal.direction == Direction::Forward)?;
        match &step.action {
            Action::RemoveFollower { node, .. } => Some(node.id.clone()),
            _ => None,
        }
    }

    fn not_ready(&self, id: &model::InstanceId) -> StepError {
        let state = self.units().instances.get(id).map(|unit| unit.keeper.state());
        match state {
            Some(state) => StepError::of(&id.to_string(), state),
            None => StepError::new(format!("{id} was stopped")),
        }
    }

    /// Stops processes of this app that nothing in the topology accounts for, once no plan is in progress, and deletes
    /// what the last one was told to destroy.
    pub async fn clear_strays(&self, report: &Report) {
        let topology = self.topology();
        for process in self.inner.setup.processes.find_all() {
            let name = process.name().to_owned();
            let unit = incarnation(&name).map_or("", |(unit, _)| unit);
            let known = topology.instances.keys().any(|id| instance_process(id) == name)
                || topology.nodes.keys().any(|id| id.to_string() == name)
                || topology.edges.keys().any(|id| edge_unit(id) == unit)
                || topology.proxies.keys().any(|id| proxy_unit(id) == unit);
            if !known {
                report(Event::Note { text: format!("stopping {name}, which nothing accounts for") });
                crate::keeper::end(&process, Duration::from_secs(5)).await;
                self.inner.setup.processes.forget(&name);
            }
        }
        if matches!(self.inner.store.journal(), Ok(None)) {
            self.close_output_of_the_gone();
            self.delete_what_stands_aside(Aside::Destroyed, report).await;
        }
    }
}

/// For what does not become ready its keeper goes on; the rest must not wait for it.
async fn within(
    limit: Duration,
    started: impl Future<Output = Result<(), StepError>>,
) -> Result<(), StepError> {
    match tokio::time::timeout(limit, started).await {
        Ok(result) => result,
        Err(_) => {
            let reason =
                format!("not everything was ready within {} s; it is still being started", limit.as_secs());
            Err(StepError::new(reason).hint("`switchback status` shows what is missing and why"))
        }
    }
}

enum Taken {
    Adopted,
    /// A successor serves; this one only finishes.
    Draining,
    Unknown,
}

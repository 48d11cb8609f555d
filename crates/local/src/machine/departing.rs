//! Replacing a role: what the old process has stays with it until it ends. Meanwhile it is told of every change as its
//! successor is.
//!
//! Clients keep their connections to an edge, idle ones too, and it answers each once more before it closes it. By then the
//! instances that it was told of last may all be gone.
//!
//! A session with a proxy cannot be moved to another process without the app's noticing, and an app keeps its connections
//! for long. So both processes serve for a while: the new one accepts whoever connects, the old one keeps the sessions it has
//! until they end. The two share what PostgreSQL bears in connections. What is idle when [`SESSIONS_DRAIN`] is over is closed
//! between two transactions.
//!
//! One thing is lost: a cancel request comes by a connection of its own, so the new process gets it, and it knows nothing
//! of a query that runs in the old one.

use std::time::Duration;

use model::ProxyProcess;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::roles::{RoleUnit, bind_all, encode, proxy_addresses, proxy_unit};
use super::{Machine, StepError};
use crate::control::{self, Request};
use crate::jobs::role::Role;
use crate::keeper::Begin;

/// How long a replaced edge may take to finish what it has. Longer than any request timeout that makes sense, and than idle
/// connections are kept.
const REQUESTS_DRAIN: Duration = Duration::from_secs(90);
/// And a proxy. Pools of connections mostly renew theirs within half an hour.
const SESSIONS_DRAIN: Duration = Duration::from_secs(3_600);
/// Beyond the drain's own last grace.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Nobody waits longer for a process that only finishes what it has.
const CONFIGURE_TIMEOUT: Duration = Duration::from_secs(1);

/// A process that was replaced and still has clients.
pub(super) struct Departing {
    pub(super) role: Role,
    /// The unit it was of.
    unit: String,
    /// Of the last configuration; `None` until the process was asked.
    generation: Option<u64>,
    /// What it was told last, if it has said that it took it.
    told: Option<Value>,
}

impl Machine {
    /// Hands every proxy over to a new process of this program.
    ///
    /// # Errors
    /// When a successor does not become ready; the proxy before it then still serves.
    pub async fn replace_proxies(&self) -> Result<(), StepError> {
        let topology = self.topology();
        for proxy in topology.proxies.values() {
            self.replace_proxy(proxy).await?;
            self.remember(&proxy_unit(&proxy.id), "handed over to a new process", "it was asked for");
        }
        Ok(())
    }

    async fn replace_proxy(&self, proxy: &ProxyProcess) -> Result<(), StepError> {
        let unit = proxy_unit(&proxy.id);
        let number = self.newest_incarnation(&unit) + 1;
        let does_not_run = || StepError::new(format!("{unit} does not run"));
        let (mut old, sockets, config) = {
            let _in_order = self.inner.pushing_proxies.lock().await;
            let running = self
                .units()
                .roles
                .get(&unit)
                .map(|role| (role.process.clone(), role.generation, role.sockets.clone()));
            let (process, generation, kept) = running.ok_or_else(does_not_run)?;
            let sockets = bind_all(&proxy_addresses(proxy), &kept)?;
            // The configuration counts it.
            self.departs(Role::Pgproxy, &process, &unit, Some(generation));
            let begun = self.proxy_config(proxy, &self.topology()).and_then(|config| {
                let config = encode(&config)?;
                let old = self.units().roles.remove(&unit).ok_or_else(does_not_run)?;
                Ok((old, sockets, config))
            });
            begun.inspect_err(|_| drop(self.units().departing.remove(&process)))?
        };
        // Not in the lock: a failover must not wait for it, and is told to both.
        let started = self.start_role(&unit, Role::Pgproxy, number, sockets, config, Some(1), Begin::Fresh);
        if let Err(error) = started.await {
            let mut units = self.units();
            // It may have been told that it is one of two.
            let told = units.departing.remove(&old.process).and_then(|departing| departing.generation);
            old.generation = told.unwrap_or(old.generation);
            old.taken = false;
            units.roles.insert(unit, old);
            drop(units);
            self.inner.changed.send_modify(|count| *count += 1);
            return Err(error);
        }
        let RoleUnit { keeper, process, .. } = old;
        keeper.release().await;
        self.let_depart(Role::Pgproxy, process);
        // What has changed since the successor was given what it began with.
        self.push_proxies().await
    }

    /// From now on this process of a unit serves only what it has.
    pub(super) fn departs(&self, role: Role, process: &str, unit: &str, generation: Option<u64>) {
        let departing = Departing { role, unit: unit.to_owned(), generation, told: None };
        self.units().departing.insert(process.to_owned(), departing);
    }

    /// Waits in the background until a departing process has ended.
    pub(super) fn let_depart(&self, role: Role, process: String) {
        let machine = self.clone();
        let (drain, last_grace) = match role {
            Role::Edge => (REQUESTS_DRAIN, Duration::ZERO),
            Role::Pgproxy => (SESSIONS_DRAIN, pgproxy::LAST_GRACE),
        };
        self.inner.background.spawn(async move {
            let setup = &machine.inner.setup;
            let control = setup.state.control_socket(&process);
            if let Some(running) = setup.processes.find(&process) {
                let deadline_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
                if let Err(error) = control::ask(&control, &Request::Drain { deadline_ms }).await {
                    tracing::warn!(process, error = crate::chain(&error), "cannot be told to drain");
                }
                if timeout(drain + last_grace + END_LIMIT, running.exited()).await.is_err() {
                    crate::keeper::end(&running, Duration::from_secs(5)).await;
                }
            }
            tracing::info!(process, "has finished what it had, and has ended");
            machine.units().departing.remove(&process);
            setup.processes.forget(&process);
            let _ = std::fs::remove_file(control);
            let _ = std::fs::remove_file(setup.state.role_config(&process));
            // The other one may have all connections now.
            machine.inner.changed.send_modify(|count| *count += 1);
        });
    }

    /// The departing processes of a unit.
    pub(super) fn departing_of(&self, unit: &str) -> Vec<String> {
        let units = self.units();
        units.departing.iter().filter(|(_, one)| one.unit == unit).map(|(name, _)| name.clone()).collect()
    }

    /// Tells the departing processes of a unit what its serving one is told. Those that do not take it are told again by
    /// [`Machine::supervise`].
    pub(super) async fn push_departing(&self, unit: &str, config: &Value) {
        let mut telling = JoinSet::new();
        for name in self.departing_of(unit) {
            let (machine, config) = (self.clone(), config.clone());
            telling.spawn(async move {
                if let Err(error) = machine.tell_departing(&name, config).await {
                    tracing::warn!(process = name, error = error.reason, "does not hear of a change");
                    machine.inner.changed.send_modify(|count| *count += 1);
                }
            });
        }
        telling.join_all().await;
    }

    async fn tell_departing(&self, name: &str, mut config: Value) -> Result<(), StepError> {
        let control = self.inner.setup.state.control_socket(name);
        let ask = async |request: Request| match timeout(CONFIGURE_TIMEOUT, control::ask(&control, &request))
            .await
        {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(StepError::new("it does not answer")),
        };
        let known = self.units().departing.get(name).and_then(|one| one.generation);
        let before = match known {
            Some(generation) => generation,
            None => ask(Request::Status).await?["generation"].as_u64().unwrap_or_default(),
        };
        {
            let mut units = self.units();
            let Some(one) = units.departing.get_mut(name) else { return Ok(()) };
            config["generation"] = before.into();
            if one.told.as_ref() == Some(&config) {
                return Ok(());
            }
            one.generation = Some(before + 1);
            one.told = None;
            config["generation"] = (before + 1).into();
        }
        ask(Request::Configure { config: config.clone() }).await?;
        if let Some(one) = self.units().departing.get_mut(name) {
            one.told = Some(config);
        }
        Ok(())
    }

    /// Whether every departing process has taken what it was told last.
    ///
    /// # Errors
    /// Names one that has not.
    pub(super) fn departing_have_taken(&self) -> Result<(), StepError> {
        let units = self.units();
        let behind = units.departing.iter().find(|(_, one)| one.told.is_none());
        behind.map_or(Ok(()), |(name, _)| {
            Err(StepError::new(format!("{name} has not taken its configuration")))
        })
    }

    /// Ends the departing processes of a unit that nobody needs any more.
    pub(super) async fn end_departing(&self, unit: &str) {
        for name in self.departing_of(unit) {
            if let Some(process) = self.inner.setup.processes.find(&name) {
                crate::keeper::end(&process, Duration::from_secs(5)).await;
            }
        }
    }
}

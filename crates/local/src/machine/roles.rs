//! Roles: binding their sockets, starting, replacing and configuring them.
//!
//! The daemon holds a copy of every listening socket it hands to a role. So a role may crash, be restarted or be
//! replaced by its successor, and a client that connects meanwhile waits in the socket's queue instead of being
//! refused. A new daemon fetches the copies from the running role.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{EdgeProcess, ProxyProcess, ResourceId, Topology};
use serde_json::Value;
use tokio::time::timeout;

use super::certificates::FRONT_TLS;
use super::{Machine, StepError};
use crate::control::{self, Request};
use crate::jobs::role::{Role, RoleJob, Sockets, write_private};
use crate::keeper::{Begin, Keeper};
use crate::listener::{self, Listener};
use crate::process::Process;

/// The names of an edge's sockets, beside [`FRONT_TLS`].
pub(super) const FRONT: &str = "front";
const METRICS: &str = "metrics";

/// Connections that may wait for `accept`, as high as the kernel's own `somaxconn` on current systems.
const BACKLOG: i32 = 4096;
/// A role takes a configuration at once or is in trouble.
const CONFIGURE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct RoleUnit {
    pub(super) keeper: Keeper,
    /// `edge.3`: the third process of this unit.
    pub(super) process: String,
    pub(super) sockets: Sockets,
    pub(super) config: Arc<Mutex<Value>>,
    /// The generation of the last configuration.
    pub(super) generation: u64,
    /// Whether the process has said that it took that configuration, or began with it.
    pub(super) taken: bool,
}

pub(super) fn edge_unit(id: &ResourceId) -> String {
    id.to_string()
}

pub(super) fn proxy_unit(id: &ResourceId) -> String {
    format!("pgproxy-{id}")
}

/// The unit and incarnation of a role's process, from its name.
pub(super) fn incarnation(process: &str) -> Option<(&str, u32)> {
    let (unit, number) = process.rsplit_once('.')?;
    Some((unit, number.parse().ok()?))
}

/// The sockets an edge listens on, by the names its configuration uses.
pub(super) fn edge_addresses(edge: &EdgeProcess) -> BTreeMap<String, SocketAddr> {
    let mut addresses = BTreeMap::from([(FRONT.to_owned(), edge.front.address)]);
    if let Some(tls) = &edge.front_tls {
        addresses.insert(FRONT_TLS.to_owned(), tls.address);
    }
    if let Some(metrics) = edge.settings.metrics {
        addresses.insert(METRICS.to_owned(), metrics);
    }
    addresses
}

pub(super) fn proxy_addresses(proxy: &ProxyProcess) -> BTreeMap<String, SocketAddr> {
    BTreeMap::from([(proxy.id.to_string(), SocketAddr::from(([127, 0, 0, 1], proxy.port)))])
}

/// Binds what `kept` does not already hold.
pub(super) fn bind_all(
    addresses: &BTreeMap<String, SocketAddr>,
    kept: &BTreeMap<String, OwnedFd>,
) -> Result<Sockets, StepError> {
    let mut sockets = BTreeMap::new();
    for (name, address) in addresses {
        let held = kept.get(name).filter(|socket| listens_on(socket, *address));
        let socket = match held {
            Some(socket) => socket.try_clone().map_err(|error| StepError::new(error.to_string()))?,
            None => bind(name, *address)?,
        };
        sockets.insert(name.clone(), socket);
    }
    Ok(Arc::new(sockets))
}

fn listens_on(socket: &OwnedFd, address: SocketAddr) -> bool {
    let copy = socket.try_clone().map(TcpListener::from).and_then(|listener| listener.local_addr());
    copy.is_ok_and(|local| local == address)
}

fn bind(name: &str, address: SocketAddr) -> Result<OwnedFd, StepError> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let bound = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).and_then(|socket| {
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    });
    bound.map_err(|error| {
        let reason = format!("cannot listen on {address}: {error}");
        match error {
            rustix::io::Errno::ADDRINUSE => StepError::new(reason).hint(in_use(name, address)),
            rustix::io::Errno::ACCESS => StepError::new(reason).hint(
                "ports below 1024 need root or CAP_NET_BIND_SERVICE; a port above is free for everyone",
            ),
            rustix::io::Errno::ADDRNOTAVAIL => {
                StepError::new(reason).hint("this machine has no such address")
            }
            _ => StepError::new(reason),
        }
    })
}

/// Who has the address of the socket `name`, and what can be done about it.
fn in_use(name: &str, address: SocketAddr) -> String {
    let port = address.port();
    let who = match listener::in_the_way_of(address) {
        Some(Listener { pid, program, app: None }) => format!("{program} (pid {pid}) has port {port}"),
        Some(Listener { pid, app: Some(app), .. }) => {
            let (dir, state_dir) = (app.dir.display(), app.state_dir.display());
            let kept = match app.state_dir == app.dir.join(".switchback") {
                true => String::new(),
                false => format!(" --state-dir {state_dir}"),
            };
            format!("the app in {dir} (pid {pid}) has port {port}; `switchback down -C {dir}{kept}` stops it")
        }
        None => format!("another program has port {port}: `ss -ltnp 'sport = :{port}'` shows which"),
    };
    let key = match name {
        FRONT => "listen",
        FRONT_TLS => "listen_tls",
        METRICS => "metrics",
        // A proxy's port is Switchback's own choice.
        _ => return format!("{who}. Stop it: the port is remembered for the database's proxy"),
    };
    format!("{who}. Stop it, or choose another with `{key}` under [edge]")
}

impl Machine {
    /// Starts the edge, or takes over the one that runs.
    pub(super) async fn start_edge(
        &self,
        edge: &EdgeProcess,
        topology: &Topology,
        begin: Begin,
    ) -> Result<(), StepError> {
        let unit = edge_unit(&edge.id);
        if self.units().roles.contains_key(&unit) {
            return Ok(());
        }
        self.clear_role(&unit).await;
        let sockets = bind_all(&edge_addresses(edge), &BTreeMap::new())?;
        let config = self.edge_config(edge, topology)?;
        self.start_role(&unit, Role::Edge, 1, sockets, encode(&config)?, edge.settings.threads, begin).await
    }

    pub(super) async fn start_proxy(
        &self,
        proxy: &ProxyProcess,
        topology: &Topology,
        begin: Begin,
    ) -> Result<(), StepError> {
        let unit = proxy_unit(&proxy.id);
        if self.units().roles.contains_key(&unit) {
            return Ok(());
        }
        self.clear_role(&unit).await;
        let sockets = bind_all(&proxy_addresses(proxy), &BTreeMap::new())?;
        let config = encode(&self.proxy_config(proxy, topology)?)?;
        self.start_role(&unit, Role::Pgproxy, 1, sockets, config, Some(1), begin).await
    }

    /// The highest number that a running process of the unit has; 0 when none runs.
    pub(super) fn newest_incarnation(&self, unit: &str) -> u32 {
        let running = self.inner.setup.processes.find_all();
        let numbers = running.iter().filter_map(|process| incarnation(process.name()));
        numbers.filter(|(of, _)| *of == unit).map(|(_, number)| number).max().unwrap_or(0)
    }

    /// Ends what an earlier daemon started within the same step: it holds the sockets that are to be bound.
    async fn clear_role(&self, unit: &str) {
        for process in self.inner.setup.processes.find_all() {
            if incarnation(process.name()).is_some_and(|(of, _)| of == unit) {
                crate::keeper::end(&process, Duration::from_secs(1)).await;
                self.inner.setup.processes.forget(process.name());
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one unit, named at the two places that call this"
    )]
    pub(super) async fn start_role(
        &self,
        unit: &str,
        role: Role,
        number: u32,
        sockets: Sockets,
        config: Value,
        threads: Option<u16>,
        begin: Begin,
    ) -> Result<(), StepError> {
        let process = format!("{unit}.{number}");
        let generation = config.get("generation").and_then(Value::as_u64).unwrap_or(0);
        let config = Arc::new(Mutex::new(config));
        let job = RoleJob {
            setup: Arc::clone(&self.inner.setup),
            role,
            process: process.clone(),
            sockets: Arc::clone(&sockets),
            config: Arc::clone(&config),
            threads: threads.unwrap_or(self.inner.setup.cores),
        };
        let keeper =
            Keeper::begin(job, self.inner.setup.processes.clone(), begin, self.inner.changed.clone());
        let mut watched = keeper.watch();
        let made = RoleUnit { keeper, process: process.clone(), sockets, config, generation, taken: true };
        let replaced = self.units().roles.insert(unit.to_owned(), made);
        drop(replaced);
        watched.ready().await.map_err(|state| {
            self.units().roles.remove(unit);
            StepError::of(&process, state)
        })
    }

    /// Takes over a role that an earlier daemon started, with its sockets.
    pub(super) async fn adopt_role(
        &self,
        unit: &str,
        role: Role,
        process: Process,
        addresses: &BTreeMap<String, SocketAddr>,
        threads: Option<u16>,
    ) -> Result<(), StepError> {
        let name = process.record().name.clone();
        let control = self.inner.setup.state.control_socket(&name);
        let held = control::listeners(&control).await?;
        let sockets = bind_all(addresses, &held)?;
        let status = control::ask(&control, &Request::Status).await?;
        let generation = status.get("generation").and_then(Value::as_u64).unwrap_or(0);
        let config = std::fs::read(self.inner.setup.state.role_config(&name))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or(Value::Null);
        let config = Arc::new(Mutex::new(config));
        let job = RoleJob {
            setup: Arc::clone(&self.inner.setup),
            role,
            process: name.clone(),
            sockets: Arc::clone(&sockets),
            config: Arc::clone(&config),
            threads: threads.unwrap_or(self.inner.setup.cores),
        };
        let begin = Begin::Adopt(process);
        let keeper =
            Keeper::begin(job, self.inner.setup.processes.clone(), begin, self.inner.changed.clone());
        let adopted = RoleUnit { keeper, process: name, sockets, config, generation, taken: true };
        self.units().roles.insert(unit.to_owned(), adopted);
        Ok(())
    }

    /// A new process takes the sockets over, then the old one drains and ends by itself. Also how a new version of
    /// the program is taken into use.
    ///
    /// # Errors
    /// When the successor does not become ready; the old one then still serves.
    pub(super) async fn replace_edge(&self, to: &EdgeProcess, topology: &Topology) -> Result<(), StepError> {
        let unit = edge_unit(&to.id);
        if !self.units().roles.contains_key(&unit) {
            // It could not be started as it was: somebody else has its address.
            return self.start_edge(to, topology, Begin::Fresh).await;
        }
        // Nobody configures the successor before it is ready: what it begins with is right.
        let _in_order = self.inner.pushing.lock().await;
        let (kept, number) = {
            let units = self.units();
            let old = units.roles.get(&unit).ok_or_else(|| StepError::new(format!("{unit} does not run")))?;
            (Arc::clone(&old.sockets), self.newest_incarnation(&unit))
        };
        let sockets = bind_all(&edge_addresses(to), &kept)?;
        let config = self.edge_config(to, topology)?;
        let old = self.units().roles.remove(&unit);
        let threads = to.settings.threads;
        let started = self
            .start_role(&unit, Role::Edge, number + 1, sockets, encode(&config)?, threads, Begin::Fresh)
            .await;
        match (started, old) {
            (Ok(()), Some(old)) => {
                let RoleUnit { keeper, process, generation, .. } = old;
                keeper.release().await;
                self.departs(Role::Edge, &process, &unit, Some(generation));
                self.let_depart(Role::Edge, process);
                Ok(())
            }
            (Err(error), Some(old)) => {
                self.units().roles.insert(unit, old);
                Err(error)
            }
            (result, None) => result,
        }
    }

    /// Tells every role what stands and is ready now. Does nothing where nothing changed.
    pub(super) async fn push_roles(&self) -> Result<(), StepError> {
        let proxies = self.push_proxies().await;
        let edges = self.push_edges().await;
        proxies.and(edges)
    }

    async fn push_edges(&self) -> Result<(), StepError> {
        let _in_order = self.inner.pushing.lock().await;
        let topology = self.topology();
        for edge in topology.edges.values() {
            let config = encode(&self.edge_config(edge, &topology)?)?;
            let unit = edge_unit(&edge.id);
            let (told, ()) =
                tokio::join!(self.push_role(&unit, config.clone()), self.push_departing(&unit, &config));
            told?;
        }
        Ok(())
    }

    /// Apart from the edges, because a failover waits for it.
    pub(super) async fn push_proxies(&self) -> Result<(), StepError> {
        let _in_order = self.inner.pushing_proxies.lock().await;
        let topology = self.topology();
        for proxy in topology.proxies.values() {
            let config = encode(&self.proxy_config(proxy, &topology)?)?;
            let unit = proxy_unit(&proxy.id);
            let (told, ()) =
                tokio::join!(self.push_role(&unit, config.clone()), self.push_departing(&unit, &config));
            told?;
        }
        Ok(())
    }

    pub(super) async fn push_role(&self, unit: &str, mut config: Value) -> Result<(), StepError> {
        let mut watched = {
            let units = self.units();
            let Some(role) = units.roles.get(unit) else { return Ok(()) };
            role.keeper.watch()
        };
        // One that is just being restarted begins with what it is told below, or is told when it is ready.
        if timeout(CONFIGURE_TIMEOUT, watched.ready()).await.is_err() {
            return Err(StepError::new(format!("{unit} is not ready to be configured")));
        }
        let (process, generation) = {
            let mut units = self.units();
            let Some(role) = units.roles.get_mut(unit) else { return Ok(()) };
            let mut current = role.config.lock().unwrap_or_else(PoisonError::into_inner);
            config["generation"] = role.generation.into();
            if *current == config && role.taken {
                return Ok(());
            }
            role.generation += 1;
            role.taken = false;
            config["generation"] = role.generation.into();
            // First what a restart begins with: a crash right after the answer must not bring the old one back.
            *current = config.clone();
            (role.process.clone(), role.generation)
        };
        let path = self.inner.setup.state.role_config(&process);
        // Only for the next daemon, which tells it all anew where this is older. A full disk must not keep a change from
        // a role that runs.
        if let Err(error) = write_private(&path, &config) {
            tracing::warn!(%error, path = %path.display(), "a configuration could not be kept");
        }
        let request = Request::Configure { config };
        let control = self.inner.setup.state.control_socket(&process);
        match timeout(CONFIGURE_TIMEOUT, control::ask(&control, &request)).await {
            Ok(Ok(_)) => {
                let mut units = self.units();
                if let Some(role) = units.roles.get_mut(unit).filter(|role| role.generation == generation) {
                    role.taken = true;
                }
                Ok(())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(StepError::new(format!("{process} does not take its configuration"))),
        }
    }

    /// The control socket of the running process of a unit.
    pub(super) fn control_of(&self, unit: &str) -> Option<std::path::PathBuf> {
        self.units().roles.get(unit).map(|role| self.inner.setup.state.control_socket(&role.process))
    }

    /// Lets a role finish what it has, then ends it.
    pub(super) async fn stop_role(&self, unit: &str, drain: Duration) {
        let Some(role) = self.units().roles.remove(unit) else { return };
        // Its end is wanted now: nobody must start it again.
        role.keeper.release().await;
        let setup = &self.inner.setup;
        let control = setup.state.control_socket(&role.process);
        if let Some(running) = setup.processes.find(&role.process) {
            let deadline_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
            // A role that cannot be asked is stopped below.
            let asked = control::ask(&control, &Request::Drain { deadline_ms }).await;
            let mut grace = Duration::from_secs(5);
            if asked.is_ok() {
                let drained = timeout(drain + Duration::from_secs(1), nothing_in_flight(&control, &running));
                tokio::select! {
                    _ = drained => {}
                    () = self.inner.hurry.cancelled() => grace = Duration::ZERO,
                }
            }
            crate::keeper::end(&running, grace).await;
        }
        setup.processes.forget(&role.process);
        let _ = std::fs::remove_file(control);
        let _ = std::fs::remove_file(setup.state.role_config(&role.process));
    }
}

/// Resolves when the role has ended, or says that no request is in flight: connections that are merely open need not
/// be waited for when there will be no successor.
async fn nothing_in_flight(control: &std::path::Path, running: &Process) {
    loop {
        let in_flight = tokio::select! {
            _ = running.exited() => return,
            status = control::ask(control, &Request::Status) => {
                status.ok().and_then(|status| status.get("in_flight").and_then(Value::as_u64))
            }
        };
        if in_flight == Some(0) {
            return;
        }
        tokio::select! {
            _ = running.exited() => return,
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
}

pub(super) fn encode(config: &impl serde::Serialize) -> Result<Value, StepError> {
    serde_json::to_value(config).map_err(|error| StepError::new(error.to_string()))
}

impl Machine {
    /// Hands every edge over to a new process of this program.
    ///
    /// # Errors
    /// When a successor does not become ready; the edge before it then still serves.
    pub async fn replace_edges(&self) -> Result<(), StepError> {
        let topology = self.topology();
        for edge in topology.edges.values() {
            self.replace_edge(edge, &topology).await?;
            self.remember(edge.id.as_str(), "handed over to a new process", "it was asked for");
        }
        Ok(())
    }

    /// Prometheus text of the machine and of every role. One that cannot be asked is left out.
    pub async fn metrics(&self) -> String {
        let units: Vec<String> = self.units().roles.keys().cloned().collect();
        let mut text = self.own_metrics();
        for unit in units {
            let Some(socket) = self.control_of(&unit) else { continue };
            let asked = timeout(CONFIGURE_TIMEOUT, control::ask(&socket, &Request::Metrics)).await;
            if let Ok(Ok(Value::String(part))) = asked {
                text.push_str(&part);
            }
        }
        text
    }
}

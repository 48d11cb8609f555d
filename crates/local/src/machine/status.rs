//! What runs, as `status` shows it: from the topology, the keepers, the edge's counters and the kernel's accounting.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use edge::status::EndpointStatus;
use model::{DatabaseRole, EdgeProcess};
use serde::{Deserialize, Serialize};
use telemetry::metrics::{Exposition, Kind};
use tokio::time::Instant;

use super::Machine;
use super::backups::BackupStatus;
use super::clusters::{Commits, free_bytes};
use super::departing::Departing;
use super::roles::{edge_unit, proxy_unit};
use crate::jobs::role::Role;
use crate::keeper::{KeptState, Phase};
use crate::setup::instance_process;
use crate::usage;

/// Between two samples of what grows: the window of rates in `status`.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineStatus {
    pub app: String,
    pub stage: u8,
    pub zones: Vec<String>,
    /// Where clients connect.
    pub front: Vec<String>,
    pub generation: u64,
    pub running: bool,
    /// A plan is being carried out or taken back.
    pub plan_in_progress: bool,
    /// The release each service serves.
    pub releases: BTreeMap<String, String>,
    pub processes: Vec<ProcessStatus>,
    /// Proxies that were replaced and serve the sessions they still have, by the name of the process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departing: Vec<String>,
    /// Of each database.
    #[serde(default)]
    pub backups: Vec<BackupStatus>,
    /// Of each database that has standbys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commits: Vec<CommitsStatus>,
    /// That there is too little space for any change, where it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_low: Option<String>,
    /// Why sizes are not enforced, where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlimited_because: Option<String>,
}

/// Who confirms the commits of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitsStatus {
    pub database: String,
    pub state: Commits,
    /// For how long, as far as this daemon has seen.
    pub for_s: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessKind {
    Edge,
    Pgproxy,
    Postgres,
    Web,
}

/// One process. Absent figures are not known, not zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    pub name: String,
    pub kind: ProcessKind,
    pub zone: String,
    pub pid: Option<u32>,
    pub address: String,
    /// Of an edge that has a TLS listener beside `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsStatus>,
    pub state: Phase,
    /// Absent for what is no part of the app.
    pub release: Option<String>,
    pub restarts: u32,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// What to do about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    pub last_lines: Vec<String>,
    /// Of PostgreSQL: its version, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Of PostgreSQL: `primary`, `standby`, `read_replica`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<DatabaseRole>,
    /// Of a node that follows: whether its primary streams to it. These three are absent where the primary does not see
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streaming: Option<bool>,
    /// Written by the primary and not yet to be seen on this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_lag_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_lag_ms: Option<u64>,
    /// Of a node that runs and does not follow its primary: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_following: Option<String>,
    /// Of a standby: whether commits count on it, so that it can take over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirms_commits: Option<bool>,
    /// Of a read replica: whether the proxy is told of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serves_reads: Option<bool>,
    /// Of a read replica: when it is further behind, it gets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replica_lag_ms: Option<u64>,
    /// Of PostgreSQL: on the disk of its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// As the edge sees an instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<edge::status::Health>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_rotation: Option<bool>,
    pub in_flight: Option<u64>,
    pub requests_per_second: Option<f64>,
    /// Of one core.
    pub cpu_percent: Option<f64>,
    pub memory_bytes: Option<u64>,
}

/// Where an edge speaks TLS, and what a client has to know for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsStatus {
    pub address: String,
    /// Whom its certificate is for. Not known of one that is given by files, without a `domain`.
    pub name: Option<String>,
    /// The app's own authority, where that has issued it.
    pub authority: Option<PathBuf>,
}

/// The two newest samples of counters.
#[derive(Default)]
pub(super) struct Samples {
    before: Option<Sample>,
    newest: Option<Sample>,
}

#[derive(Clone)]
struct Sample {
    at: Instant,
    endpoints: BTreeMap<String, EndpointStatus>,
    usage: BTreeMap<String, usage::Usage>,
}

impl Machine {
    pub(super) async fn sample(&self) {
        let endpoints = self.endpoint_statuses().await;
        let processes = &self.inner.setup.processes;
        let names = self.kept_processes();
        let used = names.iter().filter_map(|(shown, name)| {
            let process = processes.find(name)?;
            Some((shown.clone(), usage::of(&process)))
        });
        let sample = Sample { at: Instant::now(), endpoints, usage: used.collect() };
        let mut samples = self.inner.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.before = samples.newest.replace(sample);
    }

    /// The names people see and the names of the processes behind them.
    pub(super) fn kept_processes(&self) -> Vec<(String, String)> {
        let units = self.units();
        let instances = units.instances.keys().map(|id| (id.to_string(), instance_process(id)));
        let nodes = units.nodes.keys().map(|id| (id.to_string(), id.to_string()));
        let roles = units.roles.iter().map(|(name, unit)| (name.clone(), unit.process.clone()));
        instances.chain(nodes).chain(roles).collect()
    }

    pub async fn status(&self) -> MachineStatus {
        let world = self.world();
        let topology = &world.topology;
        let endpoints = self.endpoint_statuses().await;
        let states = self.kept_states();
        let rates = self.rates();
        let mut processes = Vec::new();
        let mut add = |name: String, kind, zone: &model::Zone, address: String| {
            let state = states.get(&name);
            let rate = rates.get(&name);
            processes.push(ProcessStatus {
                kind,
                zone: zone.to_string(),
                pid: state.and_then(|state| state.pid),
                address,
                tls: None,
                state: state.map_or(Phase::Stopped, |state| state.phase),
                release: None,
                restarts: state.map_or(0, |state| state.restarts),
                reason: state.and_then(|state| state.reason.clone()),
                hint: state.and_then(|state| state.hint.clone()),
                last_lines: state.map(|state: &KeptState| state.last_lines.clone()).unwrap_or_default(),
                version: None,
                role: None,
                streaming: None,
                replay_lag_bytes: None,
                replay_lag_ms: None,
                not_following: None,
                confirms_commits: None,
                serves_reads: None,
                max_replica_lag_ms: None,
                disk_free_bytes: None,
                health: None,
                in_rotation: None,
                in_flight: None,
                requests_per_second: None,
                cpu_percent: rate.and_then(|rate| rate.cpu_percent),
                memory_bytes: rate.and_then(|rate| rate.memory_bytes),
                name,
            });
            processes.len() - 1
        };
        let mut edges = Vec::new();
        for edge in topology.edges.values() {
            let address = edge.front.address.to_string();
            edges.push((add(edge_unit(&edge.id), ProcessKind::Edge, &edge.zone, address), edge));
        }
        for proxy in topology.proxies.values() {
            add(
                proxy_unit(&proxy.id),
                ProcessKind::Pgproxy,
                &proxy.zone,
                format!("127.0.0.1:{}", proxy.port),
            );
        }
        let mut nodes = Vec::new();
        for node in topology.nodes.values() {
            let address = self.node_socket(node).display().to_string();
            nodes.push((add(node.id.to_string(), ProcessKind::Postgres, &node.zone, address), node));
        }
        let mut instances = Vec::new();
        for instance in topology.instances.values() {
            let address = format!("127.0.0.1:{}", instance.port);
            instances
                .push((add(instance.id.to_string(), ProcessKind::Web, &instance.zone, address), instance));
        }
        for (index, node) in nodes {
            let shown = &mut processes[index];
            let role = topology.role_of(&node.id);
            shown.role = Some(role);
            shown.version =
                self.node_kept(&node.id).and_then(|job| job.runs()).map(|version| version.to_string());
            let cluster = topology.clusters.get(node.id.resource());
            shown.confirms_commits = cluster
                .filter(|_| role == DatabaseRole::Standby)
                .map(|cluster| cluster.synchronous.contains(&node.id));
            shown.serves_reads = (role == DatabaseRole::ReadReplica).then(|| self.serves_reads(&node.id));
            shown.max_replica_lag_ms = topology
                .proxies
                .get(node.id.resource())
                .filter(|_| role == DatabaseRole::ReadReplica)
                .map(|proxy| proxy.pool.max_replica_lag_ms);
            if shown.state != Phase::Ready && self.node_kept(&node.id).is_some_and(|job| job.waits_for_disk())
            {
                shown.reason = Some("its disk does not answer; it is started when that does".to_owned());
                shown.hint =
                    Some("look at the disk of its data; `dmesg` may say what it waits for".to_owned());
            }
            shown.disk_free_bytes = free_bytes(&self.inner.setup.state.node(&node.id));
            let lag = self.lag(&node.id);
            shown.streaming = lag.map(|lag| lag.streaming);
            shown.replay_lag_bytes = lag.map(|lag| lag.bytes);
            shown.replay_lag_ms = lag.map(|lag| lag.ms);
            shown.not_following = self.not_following(&node.id);
        }
        for (index, instance) in instances {
            let shown = &mut processes[index];
            let seen = endpoints.get(&shown.name);
            shown.release = Some(instance.release.to_string());
            shown.in_rotation = Some(instance.in_rotation);
            shown.health = seen.map(|endpoint| endpoint.health);
            shown.in_flight = seen.map(|endpoint| endpoint.in_flight);
            shown.requests_per_second = rates.get(&shown.name).and_then(|rate| rate.requests_per_second);
        }
        for (index, edge) in edges {
            processes[index].tls = self.tls_status(edge);
            // One front door takes it all.
            processes[index].in_flight = Some(endpoints.values().map(|endpoint| endpoint.in_flight).sum());
            processes[index].requests_per_second =
                rates.values().filter_map(|rate| rate.requests_per_second).reduce(|sum, rate| sum + rate);
        }
        let is_proxy = |(name, one): (&String, &Departing)| (one.role == Role::Pgproxy).then(|| name.clone());
        let departing = self.units().departing.iter().filter_map(is_proxy).collect();
        MachineStatus {
            app: self.inner.setup.app.to_string(),
            stage: topology.stage,
            zones: topology.zones.iter().map(ToString::to_string).collect(),
            front: front(topology),
            generation: world.generation,
            running: world.running,
            plan_in_progress: self.inner.store.journal().ok().flatten().is_some(),
            releases: topology
                .releases
                .iter()
                .map(|(id, release)| (id.to_string(), release.id.to_string()))
                .collect(),
            processes,
            departing,
            backups: self.backup_statuses().await,
            commits: self.commit_statuses(),
            disk_low: self.disk_low().map(|low| low.to_string()),
            unlimited_because: self.inner.setup.processes.cgroups().unavailable().map(ToString::to_string),
        }
    }

    fn tls_status(&self, edge: &EdgeProcess) -> Option<TlsStatus> {
        let (listener, settings) = (edge.front_tls.as_ref()?, edge.settings.tls.as_ref()?);
        let address = listener.address.to_string();
        Some(match settings.certificate {
            Some(_) => TlsStatus { address, name: edge.settings.domain.clone(), authority: None },
            None => TlsStatus {
                address,
                name: Some("localhost".to_owned()),
                authority: Some(edge::local_ca::authority(&self.inner.setup.state.tls())),
            },
        })
    }

    fn commit_statuses(&self) -> Vec<CommitsStatus> {
        let status = |(id, (state, since)): (model::ResourceId, (Commits, Duration))| CommitsStatus {
            database: id.to_string(),
            state,
            for_s: since.as_secs(),
        };
        self.commits().into_iter().map(status).collect()
    }

    /// What the machine itself has to say, for Prometheus.
    pub(super) fn own_metrics(&self) -> String {
        let mut page = Exposition::new();
        let mut family = page.family(
            "switchback_database_commits",
            Kind::Gauge,
            "1 for who confirms commits: a standby, nobody so that they wait, or the primary alone.",
        );
        for (id, (commits, _)) in self.commits() {
            for (state, named) in
                [(Commits::Confirmed, "confirmed"), (Commits::Waiting, "waiting"), (Commits::Alone, "alone")]
            {
                family.sample(&[("database", id.as_str()), ("state", named)], u8::from(commits == state));
            }
        }
        page.finish()
    }

    fn rates(&self) -> BTreeMap<String, Rates> {
        let samples = self.inner.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(newest) = &samples.newest else { return BTreeMap::new() };
        let before = samples.before.as_ref();
        let seconds =
            before.map(|before| (newest.at - before.at).as_secs_f64()).filter(|seconds| *seconds > 0.0);
        let mut rates: BTreeMap<String, Rates> = BTreeMap::new();
        for (name, usage) in &newest.usage {
            let rate = rates.entry(name.clone()).or_default();
            rate.memory_bytes = Some(usage.memory_bytes);
            rate.cpu_percent =
                before.and_then(|before| before.usage.get(name)).map(|old| usage.cores_since(old) * 100.0);
        }
        for (name, endpoint) in &newest.endpoints {
            if let (Some(seconds), Some(old)) =
                (seconds, before.and_then(|before| before.endpoints.get(name)))
            {
                let answered = endpoint.requests_total.saturating_sub(old.requests_total) as f64;
                rates.entry(name.clone()).or_default().requests_per_second = Some(answered / seconds);
            }
        }
        rates
    }
}

#[derive(Default)]
struct Rates {
    requests_per_second: Option<f64>,
    cpu_percent: Option<f64>,
    memory_bytes: Option<u64>,
}

fn front(topology: &model::Topology) -> Vec<String> {
    let mut urls = Vec::new();
    for edge in topology.edges.values() {
        urls.push(format!("http://{}", reachable(edge.front.address)));
        if let Some(tls) = &edge.front_tls {
            urls.push(format!("https://{}", reachable(tls.address)));
        }
    }
    urls
}

/// An address that a person on this machine can open.
fn reachable(address: std::net::SocketAddr) -> std::net::SocketAddr {
    let mut shown = address;
    if address.ip().is_unspecified() {
        shown.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    shown
}

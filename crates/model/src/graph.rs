//! The wish: what a manifest expands to. Says what there should be and why it hangs together, not where it runs:
//! ports, instance numbers and data directories are the planner's business.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{AppName, ByteSize, ResourceId, Size, Threshold, Zone};

/// Everything an app consists of, by id. Serialises with its kinds in the open, for `explain --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceGraph {
    pub app: AppName,
    /// The preset that filled in what the manifest left out. A label for people: nothing decides by it.
    pub stage: u8,
    /// At least one; the first is where what exists only once is placed.
    pub zones: Vec<Zone>,
    pub resources: BTreeMap<ResourceId, Resource>,
    /// How the app is rehearsed. Nothing that stands depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Rehearsal>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Resource {
    LoadBalancer(LoadBalancer),
    Service(Service),
    DatabaseCluster(DatabaseCluster),
}

/// The front door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// Where clients connect. Port 0 asks for a free one, which is then kept.
    pub listen: SocketAddr,
    /// A second, TLS listener.
    pub tls: Option<FrontTls>,
    /// Prometheus metrics over plain HTTP, for a scraper. Closed by default.
    pub metrics: Option<SocketAddr>,
    /// The host name that certificates of the local CA carry beside `localhost`.
    pub domain: Option<String>,
    /// The service that `/` goes to.
    pub default_service: ResourceId,
    /// Threads; `None`: one for each core.
    pub threads: Option<u16>,
    pub access_log: bool,
    pub request_timeout_ms: u64,
    pub max_body: ByteSize,
    /// CIDR blocks of proxies in front of us whose forwarding headers are believed.
    pub trusted_proxies: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrontTls {
    pub listen: SocketAddr,
    /// `None`: certificates of a local CA, made for this app, for development.
    pub certificate: Option<CertificateFiles>,
}

/// Paths as the manifest gives them, relative to the app's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertificateFiles {
    pub certificate_chain: String,
    pub private_key: String,
}

/// One of the app's process types, run in a number of instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// A shell command line that serves HTTP on `PORT`.
    pub run: String,
    /// Run once in the app's folder before a release is stored.
    pub build: Option<String>,
    /// Run once per release before it takes traffic.
    pub release: Option<String>,
    /// Paths beyond what is not ignored by git that belong to a release.
    pub include: Vec<String>,
    pub instances: u32,
    pub size: Size,
    /// Beside `PORT` and `DATABASE_URL`.
    pub env: BTreeMap<String, String>,
    pub protocol: ServiceProtocol,
    pub health: HealthProbe,
    /// From SIGTERM to SIGKILL.
    pub grace_ms: u64,
    /// The system user instances run as when the daemon is root; `None`: the owner of the app's folder.
    pub user: Option<String>,
    /// The cluster behind `DATABASE_URL`.
    pub database: Option<ResourceId>,
    pub compare: CompareGate,
    pub keep_releases: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceProtocol {
    Http1,
    /// HTTP/2 with prior knowledge, as gRPC servers speak it.
    H2c,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthProbe {
    /// `None`: the first of `/healthz`, `/up`, `/health` that answers 2xx or 3xx, otherwise a TCP connect.
    pub path: Option<String>,
    /// An instance that is not ready by then has failed to start.
    pub start_timeout_ms: u64,
}

/// When a new release answers worse than the one it replaces, the deployment goes back by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareGate {
    /// How long the first new instance serves beside the old ones before the next is replaced.
    pub window_ms: u64,
    /// Percentage points of 5xx and failures above the old release's share that turn the deployment back.
    pub max_worse_percent: u8,
    /// With fewer answers than this the new release is not judged by its answers.
    pub min_answers: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseCluster {
    pub engine: Engine,
    /// Of each node.
    pub size: Size,
    /// The database that `DATABASE_URL` names, and the role that owns it.
    pub database: String,
    /// Nodes that confirm each commit and take over when the primary is lost.
    pub standbys: u32,
    /// Nodes that follow without confirming, and answer reads.
    pub read_replicas: u32,
    pub without_standby: WithoutStandby,
    /// As it was before it could be said, where an older command line says nothing of it.
    #[serde(default)]
    pub pool: PoolPolicy,
    /// `None`: none are made.
    pub backups: Option<BackupPolicy>,
}

/// How clients of a database share its connections, and how long they may be kept waiting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolPolicy {
    pub mode: PoolMode,
    /// Sessions at once, those that wait included.
    pub clients: u32,
    /// How long what has not started waits while there is no primary.
    pub hold_ms: u64,
    /// A read replica that lacks what was written so long ago gets no reads.
    pub max_replica_lag_ms: u64,
}

/// As it was for every app while the manifest could not say it.
impl Default for PoolPolicy {
    fn default() -> PoolPolicy {
        PoolPolicy {
            mode: PoolMode::Transaction,
            clients: 1_000,
            hold_ms: 30_000,
            max_replica_lag_ms: 10_000,
        }
    }
}

/// When a client lets go of its connection to PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolMode {
    /// At the end of each transaction, unless the session has state of its own.
    Transaction,
    /// At the end of the session.
    Session,
}

/// How backups of a database are made and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupPolicy {
    /// A folder, as the manifest gives it, relative to the app's folder. `None`: in the state folder.
    pub to: Option<String>,
    /// From one copy of the whole database to the next; the log between them is kept all the time.
    pub every_ms: u64,
    /// Copies.
    pub keep: u32,
}

/// What a commit does while there should be a standby and none confirms it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutStandby {
    /// It waits: what was acknowledged is always on two nodes.
    Block,
    /// It is acknowledged by the primary alone, once that has been written down and said.
    Degrade,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    Postgres,
}

/// What a rehearsal requires of the app, and what its visitors do beside what is found by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// What is required under load.
    pub slo: Vec<Threshold>,
    pub visits: BTreeMap<String, RehearsedVisit>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RehearsedVisit {
    /// Of a hundred visits, so many are such.
    pub weight: u32,
    /// One after the other.
    pub steps: Vec<RehearsedStep>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RehearsedStep {
    pub method: RehearsedMethod,
    pub path: String,
    /// Fields that are sent with POST.
    pub form: BTreeMap<String, String>,
    /// Before it, to read and to write.
    pub think_ms: u64,
    /// The status that is success; `None`: 200 to 399, but for a redirect to another site.
    pub expect: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RehearsedMethod {
    Get,
    Post,
}

/// Of an app whose manifest says nothing of it.
const USUAL_SLO: [&str; 2] = ["p99 < 250ms", "errors < 0.1%"];

impl Default for Rehearsal {
    fn default() -> Rehearsal {
        let slo = USUAL_SLO.iter().filter_map(|text| text.parse().ok()).collect();
        Rehearsal { slo, visits: BTreeMap::new() }
    }
}

impl Rehearsal {
    /// Whether it leaves data behind in the app.
    pub fn writes(&self) -> bool {
        self.visits.values().any(RehearsedVisit::writes)
    }
}

impl RehearsedVisit {
    pub fn writes(&self) -> bool {
        self.steps.iter().any(|step| step.method == RehearsedMethod::Post)
    }
}

impl ResourceGraph {
    /// What `id` needs running before it can start, nearest first.
    pub fn dependencies(&self, id: &ResourceId) -> Vec<&ResourceId> {
        match self.resources.get(id) {
            Some(Resource::LoadBalancer(lb)) => vec![&lb.default_service],
            Some(Resource::Service(service)) => service.database.iter().collect(),
            Some(Resource::DatabaseCluster(_)) | None => Vec::new(),
        }
    }

    pub fn services(&self) -> impl Iterator<Item = (&ResourceId, &Service)> {
        self.resources.iter().filter_map(|(id, resource)| match resource {
            Resource::Service(service) => Some((id, service)),
            _ => None,
        })
    }

    pub fn databases(&self) -> impl Iterator<Item = (&ResourceId, &DatabaseCluster)> {
        self.resources.iter().filter_map(|(id, resource)| match resource {
            Resource::DatabaseCluster(cluster) => Some((id, cluster)),
            _ => None,
        })
    }

    pub fn load_balancers(&self) -> impl Iterator<Item = (&ResourceId, &LoadBalancer)> {
        self.resources.iter().filter_map(|(id, resource)| match resource {
            Resource::LoadBalancer(lb) => Some((id, lb)),
            _ => None,
        })
    }
}

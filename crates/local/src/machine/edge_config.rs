//! From the topology and what is ready now to what an edge is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use edge::config::{
    AccessLog, Config, Endpoint, HealthCheck, Limits, Listener, Route, Timeouts, Tls, Upstream,
    UpstreamProtocol,
};
use freshness::Freshness;
use model::{DatabaseRole, EdgeProcess, FrontTls, Instance, ResourceId, ServiceProtocol, Topology};

use super::certificates::{self, FRONT_TLS};
use super::roles::{FRONT, edge_unit};
use super::{Machine, StepError, Units};
use crate::keeper::Phase;
use crate::probe::Chosen;

/// The access log is begun anew at this size; with its predecessor it takes twice as much.
const ACCESS_LOG_ROTATE_BYTES: u64 = 64 * 1024 * 1024;

/// Where the edge asks for health: the path of the manifest, or the usual one that every instance answers at. Without
/// such a path a connect is the check.
fn health_path(instances: &[&Instance], units: &Units) -> Option<String> {
    if let Some(path) = instances.first().and_then(|instance| instance.health.path.clone()) {
        return Some(path);
    }
    let chosen =
        |instance: &&Instance| match units.instances.get(&instance.id)?.chosen.lock().ok()?.clone()? {
            Chosen::Path(path) | Chosen::Http2Path(path) => Some(path),
            Chosen::Tcp => None,
        };
    let mut paths = instances.iter().map(chosen);
    let first = paths.next()??;
    paths.all(|path| path.as_ref() == Some(&first)).then_some(first)
}

impl Machine {
    /// The whole configuration of one edge, of generation 1; whoever sends it numbers it.
    pub(super) fn edge_config(&self, edge: &EdgeProcess, topology: &Topology) -> Result<Config, StepError> {
        let settings = &edge.settings;
        let mut listeners =
            BTreeMap::from([(FRONT.to_owned(), Listener { address: edge.front.address, tls: None })]);
        if let (Some(front), Some(tls)) = (&edge.front_tls, &settings.tls) {
            let tls =
                self.certificate(&edge_unit(&edge.id), tls, settings.domain.as_deref(), front.address)?;
            listeners.insert(FRONT_TLS.to_owned(), Listener { address: front.address, tls: Some(tls) });
        }
        let service = &settings.default_service;
        let instances: Vec<&Instance> = topology.instances_of(service).collect();
        let upstream = self.upstream(&instances);
        let access_log = settings.access_log.then(|| AccessLog {
            path: self.inner.setup.state.access_log(),
            rotate_bytes: ACCESS_LOG_ROTATE_BYTES,
        });
        Ok(Config {
            generation: 1,
            listeners,
            routes: vec![Route { host: None, path_prefix: "/".into(), upstream: service.to_string() }],
            upstreams: BTreeMap::from([(service.to_string(), upstream)]),
            timeouts: Timeouts { response_head_ms: settings.request_timeout_ms, ..Timeouts::default() },
            limits: Limits { request_body_bytes: settings.max_body.bytes(), ..Limits::default() },
            access_log,
            trusted_proxies: settings.trusted_proxies.clone(),
            freshness: self.replicated_marks(topology),
            // One front door serves all zones.
            zone: None,
        })
    }

    /// Of the databases that serve reads from replicas: everywhere else whatever is read is the newest.
    fn replicated_marks(&self, topology: &Topology) -> BTreeMap<String, PathBuf> {
        let has_replicas = |id: &&ResourceId| {
            let mut nodes = topology.nodes_of(id);
            nodes.any(|node| topology.role_of(&node.id) == DatabaseRole::ReadReplica)
        };
        let databases = topology.proxies.keys().filter(has_replicas);
        databases.filter_map(|id| Some((id.to_string(), self.marks(id)?))).collect()
    }

    /// What edges and the proxy of a database share. Where it cannot be made, on a full disk, they serve without: then
    /// only a session finds what it has written itself.
    pub(super) fn marks(&self, database: &ResourceId) -> Option<PathBuf> {
        let path = self.inner.setup.state.marks(database);
        match Freshness::create(&path) {
            Ok(_) => Some(path),
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "no marks for {database}");
                None
            }
        }
    }

    fn upstream(&self, instances: &[&Instance]) -> Upstream {
        let units = self.units();
        let endpoints = instances.iter().filter_map(|instance| {
            let unit = units.instances.get(&instance.id)?;
            let phase = unit.keeper.state().phase;
            // One that misses its checks may only be slow; the edge checks it too, and judges for itself.
            if !matches!(phase, Phase::Ready | Phase::Unresponsive) {
                return None;
            }
            let draining = !instance.in_rotation;
            // Ready but never added: it waits for its step.
            if draining && !unit.draining {
                return None;
            }
            Some(Endpoint {
                id: instance.id.to_string(),
                address: SocketAddr::from(([127, 0, 0, 1], instance.port)),
                zone: Some(instance.zone.to_string()),
                release: Some(instance.release.to_string()),
                draining,
                weight: 100,
            })
        });
        let endpoints = endpoints.collect();
        let protocol = match instances.first().map(|instance| instance.protocol) {
            Some(ServiceProtocol::H2c) => UpstreamProtocol::H2c,
            Some(ServiceProtocol::Http1) | None => UpstreamProtocol::Http1,
        };
        let path = health_path(instances, &units);
        Upstream {
            protocol,
            endpoints,
            health: HealthCheck { path, interval_ms: 1_000, timeout_ms: 1_000, ..HealthCheck::default() },
            ..Upstream::of(protocol)
        }
    }

    fn certificate(
        &self,
        unit: &str,
        tls: &FrontTls,
        domain: Option<&str>,
        address: SocketAddr,
    ) -> Result<Tls, StepError> {
        match &tls.certificate {
            Some(files) => {
                let files = Tls {
                    certificate_chain: self.inner.setup.app_dir.join(&files.certificate_chain),
                    private_key: self.inner.setup.app_dir.join(&files.private_key),
                    revision: 0,
                };
                // What the edge has read stays in use until a look at the files has found that others load.
                let same = |in_use: &Tls| {
                    (&in_use.certificate_chain, &in_use.private_key)
                        == (&files.certificate_chain, &files.private_key)
                };
                let in_use = self.certificate_in_use(unit).filter(same);
                let revision = in_use.map_or_else(|| certificates::revision(&files), |tls| tls.revision);
                Ok(Tls { revision, ..files })
            }
            None => {
                let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
                names.push(format!("{}.localhost", self.inner.setup.app));
                names.extend(domain.map(str::to_owned));
                if !address.ip().is_unspecified() && !address.ip().is_loopback() {
                    names.push(address.ip().to_string());
                }
                let issued = edge::local_ca::ensure(&self.inner.setup.state.tls(), &names)
                    .map_err(|error| StepError::new(crate::chain(&error)))?;
                let (certificate_chain, private_key) = (issued.certificate_chain, issued.private_key);
                let files = Tls { certificate_chain, private_key, revision: 0 };
                Ok(Tls { revision: certificates::revision(&files), ..files })
            }
        }
    }
}

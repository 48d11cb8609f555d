//! From a [`Config`] to a [`Snapshot`], or the reason why it is refused. Nothing changes before all of it is known
//! to be right.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use freshness::Freshness;

use super::snapshot::{Certified, Limits, Listener, Network, Route, Snapshot, Timeouts, Upstream};
use crate::access_log::AccessLog;
use crate::balance::Cluster;
use crate::config::{self, Config};
use crate::marks::Marks;
use crate::tls::{self, TlsError};

/// A configuration that cannot be applied. The one in force stays.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("generation {offered} is older than {in_force}, which is in force")]
    Outdated { offered: u64, in_force: u64 },
    #[error("route `{prefix}` names upstream `{upstream}`, which is not configured")]
    UnknownUpstream { prefix: String, upstream: String },
    #[error("path prefix `{0}` does not begin with `/`")]
    PathPrefix(String),
    #[error("endpoint id `{0}` is used twice")]
    DuplicateEndpoint(String),
    #[error("weight of endpoint `{0}` is not within 1 to 1000")]
    Weight(String),
    #[error("listener `{0}` has no socket")]
    NoSocket(String),
    #[error("`{0}` is not a network such as 10.0.0.0/8")]
    Network(String),
    #[error("certificate of listener `{listener}`")]
    Tls {
        listener: String,
        #[source]
        source: Box<TlsError>,
    },
    #[error("access log {}", path.display())]
    AccessLog {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a listening socket cannot be used")]
    Socket(#[source] io::Error),
    #[error("the edge has stopped")]
    Stopped,
}

/// Checks `config` and makes it ready. Clusters of `previous` go on living; they are not touched yet: see [`adopt`].
pub(super) fn compile(
    config: &Config,
    previous: Option<&Snapshot>,
    sockets: &BTreeSet<String>,
) -> Result<Snapshot, ConfigError> {
    let mut listeners = BTreeMap::new();
    for (name, listener) in &config.listeners {
        if !sockets.contains(name) {
            return Err(ConfigError::NoSocket(name.clone()));
        }
        let kept = previous.and_then(|snapshot| snapshot.listeners.get(name)?.tls.clone());
        let tls = listener.tls.as_ref().map(|files| certified(files, kept)).transpose();
        let tls =
            tls.map_err(|source| ConfigError::Tls { listener: name.clone(), source: Box::new(source) })?;
        listeners.insert(name.clone(), Listener { tls });
    }
    check_endpoints(config)?;
    let names: Vec<&String> = config.upstreams.keys().collect();
    let routes = config.routes.iter().map(|route| compile_route(route, &names)).collect::<Result<_, _>>()?;
    let parse = |text: &String| Network::parse(text).ok_or_else(|| ConfigError::Network(text.clone()));
    let trusted = config.trusted_proxies.iter().map(parse).collect::<Result<_, _>>()?;

    let now = Instant::now();
    let known = |name: &str| {
        let mut clusters = previous.into_iter().flat_map(|snapshot| &snapshot.upstreams);
        clusters
            .find(|upstream| upstream.cluster.name() == name)
            .map(|upstream| Arc::clone(&upstream.cluster))
    };
    let upstreams = config.upstreams.iter().map(|(name, upstream)| Upstream {
        cluster: known(name).unwrap_or_else(|| Cluster::new(name, upstream, config.zone.as_deref(), now)),
        protocol: upstream.protocol,
        queue_timeout: Duration::from_millis(upstream.queue_timeout_ms),
        replay_body_bytes: upstream.replay_body_bytes,
        max_attempts: upstream.retry.max_attempts.max(1),
    });
    Ok(Snapshot {
        generation: config.generation,
        listeners,
        routes,
        upstreams: upstreams.collect(),
        timeouts: Timeouts::new(&config.timeouts),
        limits: Limits::new(&config.limits),
        access_log: open_log(config, previous)?,
        access_log_config: config.access_log.clone(),
        trusted,
        marks: open_marks(config),
    })
}

/// Tells the clusters their new configuration. Cannot fail.
pub(super) fn adopt(config: &Config, snapshot: &Snapshot) {
    let now = Instant::now();
    for upstream in &snapshot.upstreams {
        if let Some(wanted) = config.upstreams.get(upstream.cluster.name()) {
            upstream.cluster.reconfigure(wanted, config.zone.as_deref(), now);
        }
    }
}

/// Files that were read are not read again: a renewal that is under way must not get in the way of other changes.
fn certified(files: &config::Tls, kept: Option<Certified>) -> Result<Certified, TlsError> {
    match kept.filter(|kept| kept.files == *files) {
        Some(kept) => Ok(kept),
        None => Ok(Certified { files: files.clone(), server: tls::server_config(files)? }),
    }
}

fn check_endpoints(config: &Config) -> Result<(), ConfigError> {
    let mut ids = BTreeSet::new();
    for endpoint in config.upstreams.values().flat_map(|upstream| &upstream.endpoints) {
        if !ids.insert(&endpoint.id) {
            return Err(ConfigError::DuplicateEndpoint(endpoint.id.clone()));
        }
        if !(1..=1000).contains(&endpoint.weight) {
            return Err(ConfigError::Weight(endpoint.id.clone()));
        }
    }
    Ok(())
}

fn compile_route(route: &config::Route, names: &[&String]) -> Result<Route, ConfigError> {
    if !route.path_prefix.starts_with('/') {
        return Err(ConfigError::PathPrefix(route.path_prefix.clone()));
    }
    let upstream = names.iter().position(|name| **name == route.upstream).ok_or_else(|| {
        ConfigError::UnknownUpstream { prefix: route.path_prefix.clone(), upstream: route.upstream.clone() }
    })?;
    Ok(Route {
        host: route.host.as_ref().map(|host| host.as_bytes().into()),
        prefix: route.path_prefix.trim_end_matches('/').as_bytes().into(),
        upstream,
    })
}

/// Anew each time: a database that was destroyed and made again has another file of the same name. One that cannot be
/// opened is done without: requests are served, and reads may be older than the client's own writes.
fn open_marks(config: &Config) -> Option<Marks> {
    let open = |(database, path): (&String, &PathBuf)| {
        let warn = |error: &freshness::FreshnessError| {
            tracing::warn!(
                database,
                path = %path.display(),
                error = error as &dyn std::error::Error,
                "marks cannot be opened; a client's reads over another connection may miss its writes"
            );
        };
        Freshness::open(path).inspect_err(warn).ok()
    };
    Marks::of(config.freshness.iter().filter_map(open).collect())
}

fn open_log(config: &Config, previous: Option<&Snapshot>) -> Result<Option<Arc<AccessLog>>, ConfigError> {
    let Some(wanted) = &config.access_log else {
        return Ok(None);
    };
    if let Some(previous) = previous
        && previous.access_log_config.as_ref() == Some(wanted)
    {
        return Ok(previous.access_log.clone());
    }
    match AccessLog::open(wanted) {
        Ok(log) => Ok(Some(log)),
        Err(source) => Err(ConfigError::AccessLog { path: wanted.path.clone(), source }),
    }
}

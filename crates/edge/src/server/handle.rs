//! The handle by which the owner of an edge rules it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::compile::{ConfigError, adopt, compile};
use super::shared::{Control, Shared};
use super::thread::Command;
use crate::balance::{Cluster, Endpoint};
use crate::config::{Config, Upstream};
use crate::status::{Phase, Status};

/// After the deadline of a drain everything is cut; this long the threads may take to notice.
const CUT_GRACE: Duration = Duration::from_secs(5);

/// A running edge. Clones rule the same one; it is stopped when the last is dropped.
#[derive(Debug, Clone)]
pub struct Handle {
    owner: Arc<Owner>,
}

#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    joins: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        let joins = std::mem::take(&mut *self.joins.lock().unwrap_or_else(PoisonError::into_inner));
        for join in joins {
            // A thread that panicked has said so on stderr.
            let _ = join.join();
        }
    }
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>, joins: Vec<JoinHandle<()>>) -> Handle {
        Handle { owner: Arc::new(Owner { shared, joins: Mutex::new(joins) }) }
    }

    /// Puts a configuration in force, as a whole or not at all. When it returns, no thread picks an endpoint by the
    /// one before.
    ///
    /// # Errors
    /// When the configuration is refused; the one in force stays. A listener that is new needs a socket, unless the edge
    /// drains: see [`Handle::configure_with`].
    pub fn configure(&self, config: Config) -> Result<(), ConfigError> {
        self.configure_with(config, BTreeMap::new())
    }

    /// [`Handle::configure`] with sockets for new listeners. Sockets of listeners that are gone are closed here; they
    /// stay open wherever else they are.
    ///
    /// # Errors
    /// As [`Handle::configure`]. The new sockets are closed then.
    pub fn configure_with(
        &self,
        config: Config,
        new_sockets: BTreeMap<String, TcpListener>,
    ) -> Result<(), ConfigError> {
        let shared = &self.owner.shared;
        let mut control = self.control();
        if shared.stop.is_cancelled() {
            return Err(ConfigError::Stopped);
        }
        let previous = shared.snapshot.load_full();
        if config.generation < previous.generation {
            return Err(ConfigError::Outdated { offered: config.generation, in_force: previous.generation });
        }
        let mut names: BTreeSet<String> = control.sockets.keys().chain(new_sockets.keys()).cloned().collect();
        if shared.is_draining() {
            // It accepts nothing more, so its successor's listeners are none of its business.
            names.extend(config.listeners.keys().cloned());
        }
        for socket in new_sockets.values() {
            socket.set_nonblocking(true).map_err(ConfigError::Socket)?;
        }
        let snapshot = compile(&config, Some(&previous), &names)?;

        adopt(&config, &snapshot);
        for gone in &previous.upstreams {
            if !config.upstreams.contains_key(gone.cluster.name()) {
                empty(&gone.cluster);
                control.retired.push(Arc::clone(&gone.cluster));
            }
        }
        control.retired.retain(|cluster| !cluster.endpoints().is_empty());
        control.sockets.extend(new_sockets);
        control.sockets.retain(|name, _| config.listeners.contains_key(name));
        let clusters = snapshot.upstreams.iter().map(|upstream| Arc::clone(&upstream.cluster)).collect();
        shared.snapshot.store(Arc::new(snapshot));
        shared.clusters.send_replace(clusters);
        shared.tell_all(|| Command::Reconfigured);
        Ok(())
    }

    /// A snapshot of what the edge does now.
    pub fn status(&self) -> Status {
        let shared = &self.owner.shared;
        let phase = if *shared.running.borrow() == 0 {
            Phase::Stopped
        } else if shared.is_draining() {
            Phase::Draining
        } else {
            Phase::Serving
        };
        let now = Instant::now();
        let endpoints = self.endpoints();
        let requests = shared.metrics.requests();
        Status {
            generation: shared.snapshot.load().generation,
            phase,
            connections: u64::from(shared.connections.load(Ordering::Relaxed)),
            in_flight: shared.threads.iter().map(|link| link.in_flight.load(Ordering::Relaxed)).sum(),
            queued: self.clusters().iter().map(|cluster| u64::from(cluster.queued())).sum(),
            requests_total: requests.ended,
            request_us_total: requests.took_us,
            failed_total: requests.failed,
            shed_total: requests.shed,
            endpoints: endpoints.iter().map(|it| (it.id().to_owned(), it.status(now))).collect(),
        }
    }

    /// Appends the metrics in the Prometheus text format.
    pub fn metrics(&self, out: &mut String) {
        let shared = &self.owner.shared;
        let snapshot = shared.snapshot.load();
        let dropped = snapshot.access_log.as_ref().map_or(0, |log| log.dropped());
        out.push_str(&shared.metrics.expose(&self.clusters(), dropped, Instant::now()));
        out.push_str("# HELP switchback_edge_build_info The running program.\n# TYPE switchback_edge_build_info gauge\n");
        let version: String = shared.version.chars().filter(|c| !matches!(c, '"' | '\\' | '\n')).collect();
        out.push_str(&format!("switchback_edge_build_info{{version=\"{version}\"}} 1\n"));
    }

    /// Resolves when no request is in flight on the endpoint; at once when it is unknown. Cancel safe.
    pub async fn endpoint_idle(&self, id: &str) {
        let endpoint = self.endpoints().into_iter().find(|endpoint| endpoint.id() == id);
        if let Some(endpoint) = endpoint {
            endpoint.idle().await;
        }
    }

    /// Cuts what is still in flight on the endpoint.
    pub fn close_endpoint(&self, id: &str) {
        for endpoint in self.endpoints().iter().filter(|endpoint| endpoint.id() == id) {
            endpoint.close();
        }
        let id: Arc<str> = id.into();
        self.owner.shared.tell_all(|| Command::Cut(Arc::clone(&id)));
    }

    /// Ends in order: nothing new is accepted (the sockets stay open wherever else they are), every answer carries
    /// `Connection: close` or GOAWAY, and what is in flight ends by itself or is cut at the deadline. An idle
    /// HTTP/1.1 connection is kept until its next request or the deadline: closing it could cross a request on its
    /// way. Returns when all threads have ended.
    ///
    /// Not cancel safe in the sense that draining goes on when this future is dropped; call it again to wait.
    pub async fn drain(&self, deadline: Duration) {
        let shared = &self.owner.shared;
        shared.draining.store(true, Ordering::Relaxed);
        shared.drain.cancel();
        let mut running = shared.running.subscribe();
        let in_order = running.wait_for(|running| *running == 0);
        let in_time = tokio::time::timeout(deadline, in_order).await.is_ok();
        shared.stop.cancel();
        if !in_time {
            let cut = running.wait_for(|running| *running == 0);
            if tokio::time::timeout(CUT_GRACE, cut).await.is_err() {
                tracing::error!("threads of the edge did not end");
            }
        }
        if let Some(log) = &shared.snapshot.load().access_log {
            // Every thread has handed its lines over; this waits for the disk.
            log.sync();
        }
    }

    /// A duplicate of every listening socket by name, for a successor.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn listener_fds(&self) -> io::Result<BTreeMap<String, OwnedFd>> {
        let control = self.control();
        let copies =
            control.sockets.iter().map(|(name, socket)| Ok((name.clone(), socket.try_clone()?.into())));
        copies.collect()
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        // What it protects is changed in steps that each leave it whole.
        self.owner.shared.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clusters(&self) -> Vec<Arc<Cluster>> {
        let snapshot = self.owner.shared.snapshot.load();
        let serving = snapshot.upstreams.iter().map(|upstream| Arc::clone(&upstream.cluster));
        serving.chain(self.control().retired.iter().map(Arc::clone)).collect()
    }

    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.clusters().iter().flat_map(|cluster| cluster.endpoints()).collect()
    }
}

/// Takes every endpoint out of a cluster that left the configuration.
fn empty(cluster: &Cluster) {
    let nobody = Upstream { endpoints: Vec::new(), ..(*cluster.config()).clone() };
    cluster.reconfigure(&nobody, None, Instant::now());
}

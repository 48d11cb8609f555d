//! What all threads of an edge share.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::snapshot::Snapshot;
use super::thread::Command;
use crate::balance::Cluster;
use crate::metrics::Metrics;

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) snapshot: ArcSwap<Snapshot>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) threads: Vec<Link>,
    /// Open client connections of all threads.
    pub(super) connections: AtomicU32,
    pub(super) draining: AtomicBool,
    /// Cancelled when draining begins.
    pub(super) drain: CancellationToken,
    /// Cancelled to cut everything.
    pub(super) stop: CancellationToken,
    /// Threads that still run.
    pub(super) running: watch::Sender<usize>,
    pub(super) control: Mutex<Control>,
    /// What the health checks look at.
    pub(super) clusters: watch::Sender<Vec<Arc<Cluster>>>,
    pub(super) version: String,
}

/// What only changes of configuration touch.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) sockets: BTreeMap<String, TcpListener>,
    /// Clusters that left the configuration while requests were in flight on them.
    pub(super) retired: Vec<Arc<Cluster>>,
}

/// One thread seen from the others.
#[derive(Debug)]
pub(super) struct Link {
    /// Not bounded, but what goes through is: connections count against `max_connections`, the rest is rare.
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) connections: Arc<AtomicU32>,
    pub(super) in_flight: Arc<AtomicU64>,
}

impl Shared {
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The thread with the fewest connections, if `own` has clearly more: long-lived connections would otherwise
    /// gather wherever they happened to be accepted.
    pub(super) fn less_busy_than(&self, own: usize) -> Option<&Link> {
        let connections = |link: &Link| link.connections.load(Ordering::Relaxed);
        let least = self.threads.iter().min_by_key(|link| connections(link))?;
        let (ours, theirs) = (connections(&self.threads[own]), connections(least));
        (ours > theirs + theirs / 8 + 1).then_some(least)
    }

    pub(super) fn tell_all(&self, command: impl Fn() -> Command) {
        for link in &self.threads {
            // A thread that has ended needs no command.
            let _ = link.commands.send(command());
        }
    }
}

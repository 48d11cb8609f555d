//! The configuration in force as one thread sees it: the shared snapshot and the thread's own counters for it.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::snapshot::{Snapshot, Upstream};
use crate::metrics::{Recorder, UpstreamRecorder};

/// See the module.
#[derive(Debug)]
pub(crate) struct View {
    snapshot: Arc<Snapshot>,
    upstreams: Vec<UpstreamView>,
}

/// An upstream with this thread's counters.
#[derive(Debug)]
pub(crate) struct UpstreamView {
    snapshot: Arc<Snapshot>,
    index: usize,
    pub(crate) recorder: Arc<UpstreamRecorder>,
}

impl Deref for UpstreamView {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        &self.snapshot.upstreams[self.index]
    }
}

impl Deref for View {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl View {
    pub(super) fn new(snapshot: Arc<Snapshot>, recorder: &Recorder) -> View {
        let upstreams = snapshot.upstreams.iter().enumerate().map(|(index, upstream)| UpstreamView {
            snapshot: Arc::clone(&snapshot),
            index,
            recorder: recorder.upstream(upstream.cluster.name()),
        });
        View { upstreams: upstreams.collect(), snapshot }
    }

    pub(super) fn is_of(&self, snapshot: &Arc<Snapshot>) -> bool {
        Arc::ptr_eq(&self.snapshot, snapshot)
    }

    /// The upstream of the first route that matches.
    pub(crate) fn route(&self, authority: &[u8], path: &[u8]) -> Option<&UpstreamView> {
        let route = self.routes.iter().find(|route| route.matches(authority, path))?;
        self.upstreams.get(route.upstream)
    }

    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }

    pub(crate) fn logs(&self) -> bool {
        self.access_log.is_some()
    }
}

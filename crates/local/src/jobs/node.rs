//! A PostgreSQL node: the postmaster itself, started directly.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{NodeId, Size};
use tokio::time::Instant;

use crate::chain;
use crate::engines::PostgresEngine;
use crate::keeper::Job;
use crate::postgres::{self, Credentials, NodePaths, Owner, Readiness};
use crate::process::{Command, Priority, Spec, StopSignal};
use crate::setup::Setup;

/// Crash recovery replays up to `max_wal_size`; a slow disk takes minutes for that, and killing it would begin anew.
const START_TIMEOUT: Duration = Duration::from_secs(600);
/// A fast shutdown writes a checkpoint.
const GRACE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct NodeJob {
    pub(crate) setup: Arc<Setup>,
    pub(crate) id: NodeId,
    pub(crate) engine: Arc<PostgresEngine>,
    pub(crate) paths: NodePaths,
    pub(crate) credentials: Credentials,
    pub(crate) owner: Owner,
    /// Follows live changes, so that a restart does not fall back to an earlier size.
    pub(crate) size: Arc<Mutex<Size>>,
}

impl NodeJob {
    pub(crate) fn size(&self) -> Size {
        *self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the configuration that follows from the size.
    pub(crate) fn write_config(&self) -> Result<(), String> {
        let (memory, cores) = (self.setup.memory, u32::from(self.setup.cores));
        let settings = postgres::memory_settings(&self.size(), memory, cores);
        postgres::write_config(&self.paths, &self.engine.version, &settings).map_err(|error| said(&error))
    }
}

impl Job for NodeJob {
    fn name(&self) -> String {
        self.id.to_string()
    }

    async fn spec(&self) -> Result<Spec, String> {
        self.write_config()?;
        postgres::clear_stale_lock(&self.paths).await.map_err(|error| said(&error))?;
        let launch = postgres::command_line(&self.engine, &self.paths, &self.owner);
        Ok(Spec {
            name: self.name(),
            command: Command::Argv(launch.argv),
            cwd: launch.cwd,
            env: launch.env,
            user: launch.user,
            size: self.size(),
            output: self.setup.output(&self.name())?,
            priority: Priority::Normal,
            inherited_fds: Vec::new(),
            // PostgreSQL's own advice: the postmaster last, its children as everyone else.
            oom_score_adj: None,
            stop_signal: StopSignal::IntLeader,
        })
    }

    async fn ready(&self) -> Result<(), String> {
        let deadline = Instant::now() + START_TIMEOUT;
        let name = self.name();
        let say = |answer: &str| tracing::info!(node = name, answer, "not ready yet");
        postgres::wait_ready(&self.paths, &self.credentials, deadline, &say)
            .await
            .map_err(|error| said(&error))?;
        Ok(())
    }

    fn start_timeout(&self) -> Duration {
        START_TIMEOUT
    }

    async fn alive(&self) -> Result<(), String> {
        // A node that is full or refuses us lives; killing it would help nobody.
        match postgres::probe(&self.paths, &self.credentials).await {
            Ok(Readiness::Absent(reason)) => Err(reason),
            Ok(Readiness::Ready | Readiness::Starting(_)) | Err(_) => Ok(()),
        }
    }

    fn grace(&self) -> Duration {
        GRACE
    }

    fn last_lines(&self) -> Vec<String> {
        self.setup.last_lines(&self.name())
    }
}

/// The error and what to do about it, in one line.
pub(crate) fn said(error: &postgres::PostgresError) -> String {
    format!("{}; hint: {}", chain(error), error.hint())
}

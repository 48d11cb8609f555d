//! An instance of the app: one process group from a release, listening on `PORT`.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{Instance, Size};

use crate::keeper::{Job, Trouble, until_ready};
use crate::probe::{self, Chosen, NotReady, Probe, ProbeResult};
use crate::process::{Command, Exit, Priority, Spec, StopSignal};
use crate::setup::{Setup, instance_process};

/// One readiness or liveness check. Shorter than any client's patience, longer than a garbage collection.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct InstanceJob {
    setup: Arc<Setup>,
    instance: Instance,
    env: BTreeMap<String, String>,
    /// Follows live changes, so that a restart does not fall back to an earlier size.
    size: Arc<Mutex<Size>>,
    /// What the instance answered at when it became ready; the edge asks the same.
    chosen: ChosenProbe,
}

/// Shared with whoever configures the edge.
pub(crate) type ChosenProbe = Arc<Mutex<Option<Chosen>>>;

impl InstanceJob {
    pub(crate) fn new(
        setup: Arc<Setup>,
        instance: Instance,
        env: BTreeMap<String, String>,
        size: Arc<Mutex<Size>>,
        chosen: ChosenProbe,
    ) -> InstanceJob {
        InstanceJob { setup, instance, env, size, chosen }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.instance.port))
    }

    async fn becomes_ready(&self) -> bool {
        let probe = Probe::of(self.instance.health.path.as_deref(), self.instance.protocol);
        match probe::probe(self.address(), &probe, PROBE_TIMEOUT).await {
            ProbeResult::Ready(chosen) => {
                *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(chosen);
                true
            }
            ProbeResult::NotReady(_) => false,
        }
    }
}

impl Job for InstanceJob {
    fn name(&self) -> String {
        instance_process(&self.instance.id)
    }

    async fn spec(&self) -> Result<Spec, String> {
        // Whoever has the port would answer the checks in the app's place.
        if let Err(error) = TcpListener::bind(self.address()) {
            return Err(format!(
                "port {} of {} cannot be had: {error}",
                self.instance.port, self.instance.id
            ));
        }
        let user = self.setup.app_user(self.instance.user.as_deref()).map_err(|error| error.to_string())?;
        Ok(Spec {
            name: self.name(),
            command: Command::Shell(self.instance.run.clone()),
            cwd: self.setup.release_tree(&self.instance),
            env: self.env.clone(),
            user,
            size: *self.size.lock().unwrap_or_else(PoisonError::into_inner),
            output: self.setup.output(&self.name())?,
            priority: Priority::Normal,
            inherited_fds: Vec::new(),
            // Before the database and the roles when memory runs out.
            oom_score_adj: Some(300),
            stop_signal: StopSignal::TermGroup,
        })
    }

    async fn ready(&self) -> Result<(), String> {
        until_ready(|| self.becomes_ready()).await;
        Ok(())
    }

    fn start_timeout(&self) -> Duration {
        Duration::from_millis(self.instance.health.start_timeout_ms)
    }

    async fn alive(&self) -> Result<(), String> {
        // Whether it answers at all: an app that answers 500 is for the edge to judge, and a restart would lose its
        // other requests.
        let chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let usual = || Probe::of(self.instance.health.path.as_deref(), self.instance.protocol);
        match probe::probe(self.address(), &chosen.map_or_else(usual, Probe::from), PROBE_TIMEOUT).await {
            ProbeResult::Ready(chosen) => {
                *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(chosen);
                Ok(())
            }
            ProbeResult::NotReady(NotReady::Status { .. } | NotReady::NotHttp { .. }) => Ok(()),
            ProbeResult::NotReady(reason) => Err(reason.to_string()),
        }
    }

    fn grace(&self) -> Duration {
        Duration::from_millis(self.instance.grace_ms)
    }

    fn last_lines(&self) -> Vec<String> {
        self.setup.last_lines(&self.name())
    }

    fn note(&self, text: &str) {
        self.setup.note(&self.name(), text);
    }

    fn advice(&self, trouble: Trouble) -> Option<String> {
        let Instance { id, port, health, .. } = &self.instance;
        let table = id.resource();
        Some(match trouble {
            Trouble::OutOfMemory { limit: Some(_) } => {
                format!("a larger `memory` in `size` under [{table}] leaves it more")
            }
            Trouble::OutOfMemory { limit: None } => {
                "the machine has too little memory for all that runs on it".to_owned()
            }
            Trouble::Ended(Exit::Code(Exit::NO_SUCH_COMMAND)) => format!(
                "see `run` under [{table}]: what it names must be installed, or part of the release, whose folder it runs \
                 in; what git ignores is only part of it when `include` names it"
            ),
            Trouble::Ended(Exit::Code(Exit::MAY_NOT_EXECUTE)) => {
                "`chmod +x` it, and see that its first line (`#!`) names a program that is there".to_owned()
            }
            Trouble::Ended(Exit::Code(0)) => format!(
                "`run` under [{table}] must stay in the foreground for as long as it serves: no `&`, and no daemon mode"
            ),
            Trouble::Ended(_) => format!("`switchback logs {id}` has all it said"),
            Trouble::NotReady => {
                let checked = match &health.path {
                    Some(path) => format!("answer {path} with a status below 400"),
                    None => "accept connections there".to_owned(),
                };
                format!(
                    "the app must listen on the port in PORT (here {port}) and {checked}; `switchback logs {id}` has all \
                     it said"
                )
            }
        })
    }
}

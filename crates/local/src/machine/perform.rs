//! What each action does to this machine. Every one is safe to take again after a crash in its middle.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{Instance, InstanceId, Release, Size, Topology};
use plan::{Action, EdgeChange};
use tokio::time::{Instant, timeout, timeout_at};

use super::apply::{Event, Report};
use super::backups::Serve;
use super::roles::{edge_unit, proxy_unit};
use super::{InstanceUnit, Machine, StepError};
use crate::cgroup::LimitError;
use crate::chain;
use crate::control::{self, Request};
use crate::jobs::instance::{ChosenProbe, InstanceJob};
use crate::keeper::{Begin, Keeper};
use crate::process::{Command, Priority, Spec, StopSignal};
use crate::setup::instance_process;

/// A release command that runs longer has lost its way; migrations of large tables are run by hand.
const RELEASE_COMMAND_TIMEOUT: Duration = Duration::from_secs(1_800);
/// Between leaving the rotation and being cut, when an instance's own grace is shorter.
const MIN_DRAIN: Duration = Duration::from_secs(5);

impl Machine {
    pub(super) async fn perform(
        &self,
        action: &Action,
        next: &Topology,
        report: &Report,
    ) -> Result<(), StepError> {
        match action {
            Action::SetZones { .. } => Ok(()),
            Action::SetRelease { to, .. } => {
                if let Some(release) = to {
                    self.note_that_it_serves(&release.id);
                }
                Ok(())
            }
            Action::CreateNode { node, .. } => self.create_node(node, next, report).await,
            Action::TakeUpNode { node, .. } => self.take_up_node(node, next, report).await,
            Action::AddFollower { node, .. } => self.add_follower(node, next, report).await,
            Action::RemoveFollower { node, .. } => self.remove_follower(node).await,
            Action::SwitchOver { id, to, .. } => self.switch_over(id, to).await,
            // The guard of the clusters sees it when it is written down.
            Action::ConfigureCluster { .. } => Ok(()),
            Action::ConfigureBackups { id, .. } => self.configure_backups(id, next),
            Action::PrepareRestore { node, backup, timeline, to, from } => {
                self.prepare_restore(node, *backup, *timeline, *to, from.as_deref(), report).await
            }
            Action::DiscardRestored { node } => self.discard_restored(node).await,
            Action::ReplacePrimary { old, new, .. } => {
                self.replace_primary(action, (old, new), Serve::New, next, report).await
            }
            Action::BringPrimaryBack { old, new, .. } => {
                self.replace_primary(action, (old, new), Serve::Old, next, report).await
            }
            Action::RetireNode { node } => self.retire_node(node).await,
            Action::DestroyNode { node, .. } => self.set_node_aside(node).await,
            Action::RestoreNode { node, .. } => self.bring_node_back(node, next, report).await,
            Action::ResizeNode { id, to, restart, .. } => self.resize_node(id, *to, *restart, report).await,
            Action::StartProxy { proxy } => self.start_proxy(proxy, next, Begin::Fresh).await,
            Action::StopProxy { proxy } => {
                let unit = proxy_unit(&proxy.id);
                self.stop_role(&unit, MIN_DRAIN).await;
                self.end_departing(&unit).await;
                Ok(())
            }
            Action::ConfigureProxy { .. } => self.push_ahead_of(action).await,
            Action::StartEdge { edge } => self.start_edge(edge, next, Begin::Fresh).await,
            Action::StopEdge { edge } => {
                let unit = edge_unit(&edge.id);
                self.stop_role(&unit, MIN_DRAIN).await;
                self.end_departing(&unit).await;
                Ok(())
            }
            Action::ConfigureEdge { to, change: EdgeChange::Replace, .. } => {
                self.ahead_of(action, self.replace_edge(to, next)).await
            }
            Action::ConfigureEdge { change: EdgeChange::Live, .. } => self.push_ahead_of(action).await,
            Action::RunReleaseCommand { release, like, .. } => {
                self.run_release_command(release, like, next).await
            }
            Action::StartInstance { instance } => self.start_instance(instance, next, Begin::Fresh).await,
            Action::StopInstance { instance } => {
                self.stop_instance(&instance.id, Duration::from_millis(instance.grace_ms)).await;
                Ok(())
            }
            Action::AddEndpoint { id } => {
                // What clients write from now on is nobody's draft.
                self.keep_new_nodes();
                self.set_draining(id, Draining::No);
                self.push_ahead_of(action).await
            }
            Action::RemoveEndpoint { id } => self.drain_endpoint(id, action, next).await,
            Action::ResizeInstance { id, to, .. } => self.resize_instance(id, *to, report),
            Action::Compare { new, old, gate } => self.compare(new, old, gate, report).await,
        }
    }

    /// Going back must not hang on an old instance that no longer becomes ready: it is started for good and kept.
    pub(super) async fn perform_inverse(
        &self,
        inverse: &Action,
        next: &Topology,
        report: &Report,
    ) -> Result<(), StepError> {
        match inverse {
            Action::StartInstance { instance } => {
                let limit = Duration::from_millis(instance.health.start_timeout_ms);
                match timeout(limit, self.start_instance(instance, next, Begin::Restore)).await {
                    Ok(result) => result,
                    Err(_) => Err(StepError::new("not ready yet; it is still being started")),
                }
            }
            _ => self.perform(inverse, next, report).await,
        }
    }

    /// Removes what a failed step may have left behind.
    pub(super) async fn abandon(&self, action: &Action, report: &Report) {
        match action {
            Action::StartInstance { instance } => {
                let grace = Duration::from_millis(instance.grace_ms);
                self.stop_instance(&instance.id, grace).await;
            }
            Action::AddFollower { node, .. } => {
                if let Err(error) = self.take_follower_back(node).await {
                    tracing::warn!(node = %node.id, error = error.reason, "could not be removed");
                }
            }
            // Where it does not run: a daemon before may have been killed while it was removed.
            Action::RemoveFollower { node, .. } => {
                if let Err(error) = self.start_node(node, Begin::Restore, report).await {
                    tracing::warn!(node = %node.id, error = error.reason, "could not be started again");
                }
            }
            Action::TakeUpNode { node, .. } => self.stop_node(&node.id).await,
            Action::CreateNode { node, .. } => {
                if let Err(error) = self.retire_node(node).await {
                    tracing::warn!(node = %node.id, error = error.reason, "could not be set aside");
                }
            }
            Action::DestroyNode { node, cluster } => {
                let mut whole = self.topology();
                whole.clusters.insert(node.id.resource().clone(), cluster.clone());
                if let Err(error) = self.bring_node_back(node, &whole, report).await {
                    tracing::warn!(node = %node.id, error = error.reason, "could not be brought back");
                }
            }
            Action::ResizeNode { id, from, restart, .. } => {
                if let Err(error) = self.resize_node(id, *from, *restart, report).await {
                    tracing::warn!(node = %id, error = error.reason, "could not get its old size back");
                }
            }
            Action::PrepareRestore { node, .. } => {
                if let Err(error) = self.discard_restored(node).await {
                    tracing::warn!(node = %node.id, error = error.reason, "could not be discarded");
                }
            }
            Action::ReplacePrimary { old, new, cluster } => {
                self.abandon_replacement(old, new, cluster, report).await;
            }
            Action::ConfigureBackups { id, .. } => {
                if let Err(error) = self.tell_members(id, &self.world().topology) {
                    tracing::warn!(cluster = %id, error = error.reason, "could not be told where its log went");
                }
            }
            Action::ResizeInstance { id, from, .. } => {
                if let Err(error) = self.resize_instance(id, *from, report) {
                    tracing::warn!(instance = %id, error = error.reason, "could not get its old size back");
                }
            }
            Action::StartEdge { edge } => self.stop_role(&edge_unit(&edge.id), Duration::ZERO).await,
            Action::StartProxy { proxy } => self.stop_role(&proxy_unit(&proxy.id), Duration::ZERO).await,
            // They still know what stood before: they are told again.
            Action::AddEndpoint { .. }
            | Action::RemoveEndpoint { .. }
            | Action::ConfigureEdge { .. }
            | Action::ConfigureProxy { .. } => {
                if let Action::RemoveEndpoint { id } = action {
                    self.set_draining(id, Draining::No);
                }
                if let Err(error) = self.push_roles().await {
                    tracing::warn!(error = error.reason, "edge and proxy could not be told to go back");
                }
            }
            _ => {}
        }
    }

    async fn push_ahead_of(&self, action: &Action) -> Result<(), StepError> {
        self.ahead_of(action, self.push_roles()).await
    }

    pub(super) async fn start_instance(
        &self,
        instance: &Instance,
        topology: &Topology,
        begin: Begin,
    ) -> Result<(), StepError> {
        let env = self.inner.setup.app_env(instance, topology)?;
        if !matches!(begin, Begin::Adopt(_)) {
            // A copy that an earlier daemon started within this same step has no traffic: it is simply replaced.
            self.inner.setup.processes.clear(&instance_process(&instance.id)).await.map_err(|e| chain(&e))?;
        }
        let size = Arc::new(Mutex::new(instance.size));
        let chosen = ChosenProbe::default();
        let setup = Arc::clone(&self.inner.setup);
        let job = InstanceJob::new(setup, instance.clone(), env, Arc::clone(&size), Arc::clone(&chosen));
        let keeper =
            Keeper::begin(job, self.inner.setup.processes.clone(), begin, self.inner.changed.clone());
        let mut watched = keeper.watch();
        self.units()
            .instances
            .insert(instance.id.clone(), InstanceUnit { keeper, size, chosen, draining: false });
        watched.ready().await.map_err(|state| StepError::of(&instance.id.to_string(), state))
    }

    pub(super) async fn stop_instance(&self, id: &InstanceId, grace: Duration) {
        let unit = self.units().instances.remove(id);
        match unit {
            Some(unit) => unit.keeper.stop(grace).await,
            // Taken again after a crash: the process may have been adopted by nobody.
            None => {
                let name = instance_process(id);
                if let Some(process) = self.inner.setup.processes.find(&name) {
                    crate::keeper::end(&process, grace).await;
                }
                self.inner.setup.processes.forget(&name);
            }
        }
    }

    async fn drain_endpoint(
        &self,
        id: &InstanceId,
        action: &Action,
        next: &Topology,
    ) -> Result<(), StepError> {
        self.set_draining(id, Draining::Yes);
        self.push_ahead_of(action).await?;
        let grace =
            next.instances.get(id).map_or(MIN_DRAIN, |instance| Duration::from_millis(instance.grace_ms));
        let until = Instant::now() + grace.max(MIN_DRAIN);
        for edge in next.edges.keys() {
            let unit = edge_unit(edge);
            if let Some(control) = self.control_of(&unit) {
                self.idle_or_cut(&control, id, until).await?;
            }
            // Those that were replaced may have sent requests there, too.
            for process in self.departing_of(&unit) {
                // It may end meanwhile, which is as well.
                let _ = self.idle_or_cut(&self.inner.setup.state.control_socket(&process), id, until).await;
            }
        }
        Ok(())
    }

    /// Waits until an edge has nothing in flight on the endpoint, and then for nothing more.
    async fn idle_or_cut(&self, edge: &Path, id: &InstanceId, until: Instant) -> Result<(), StepError> {
        let idle = Request::EndpointIdle { id: id.to_string() };
        match timeout_at(until, control::ask(edge, &idle)).await {
            Ok(idle) => idle.map(drop)?,
            Err(_) => {
                self.remember(&id.to_string(), "cut what it still had in flight", "its grace was over");
                control::ask(edge, &Request::CloseEndpoint { id: id.to_string() }).await?;
            }
        }
        Ok(())
    }

    fn set_draining(&self, id: &InstanceId, draining: Draining) {
        if let Some(unit) = self.units().instances.get_mut(id) {
            unit.draining = draining == Draining::Yes;
        }
    }

    fn resize_instance(&self, id: &InstanceId, to: Size, report: &Report) -> Result<(), StepError> {
        if let Some(unit) = self.units().instances.get(id) {
            *unit.size.lock().unwrap_or_else(PoisonError::into_inner) = to;
        }
        self.limit(&instance_process(id), to, report)
    }

    /// Applies a size to a running process.
    pub(super) fn limit(&self, name: &str, to: Size, report: &Report) -> Result<(), StepError> {
        let cgroups = self.inner.setup.processes.cgroups();
        let Some(group) = cgroups.adopt(name) else {
            if let Some(why) = cgroups.unavailable() {
                report(Event::Note {
                    text: format!("the size of {name} is not enforced: {why}; {}", why.hint),
                });
            }
            return Ok(());
        };
        match group.apply(to) {
            Ok(()) => Ok(()),
            Err(error @ LimitError::MemoryBusy { .. }) => Err(StepError::new(chain(&error)).hint(
                "choose a larger `memory`, or restart it with the smaller one: `switchback deploy` starts new instances",
            )),
            Err(error) => Err(StepError::new(chain(&error))),
        }
    }

    async fn run_release_command(
        &self,
        release: &Release,
        like: &Instance,
        topology: &Topology,
    ) -> Result<(), StepError> {
        let Some(command) = &release.release_command else { return Ok(()) };
        let setup = &self.inner.setup;
        let name = format!("{}.release", like.id.resource());
        // One that an earlier daemon was killed in the middle of: it runs again from the start.
        setup.processes.clear(&name).await.map_err(|error| chain(&error))?;
        let mut env: BTreeMap<String, String> = setup.app_env(like, topology)?;
        env.remove("PORT");
        let output = setup.output(&name)?;
        let spec = Spec {
            name: name.clone(),
            command: Command::Shell(command.clone()),
            cwd: setup.release_tree(like),
            env,
            user: setup.app_user(like.user.as_deref()).map_err(|error| error.to_string())?,
            size: Size::UNLIMITED,
            output,
            priority: Priority::Normal,
            inherited_fds: Vec::new(),
            oom_score_adj: Some(300),
            stop_signal: StopSignal::TermGroup,
        };
        let process = setup.processes.spawn(spec).map_err(|error| StepError::new(chain(&error)))?;
        let exit = timeout(RELEASE_COMMAND_TIMEOUT, process.exited()).await;
        crate::keeper::end(&process, Duration::from_millis(like.grace_ms)).await;
        // Asked before it is forgotten, when it was started.
        let last_lines = setup.last_lines(&name);
        setup.processes.forget(&name);
        let failed = match exit {
            Ok(exit) if exit.success() => return Ok(()),
            Ok(exit) => StepError::new(format!("the release command `{command}` {exit}")),
            Err(_) => {
                StepError::new(format!("the release command `{command}` did not end within 30 minutes"))
            }
        };
        Err(StepError { last_lines, ..failed }
            .hint("the release before it still serves; fix the command and deploy again"))
    }

    /// Deletes a folder that may be large, off the runtime's threads.
    pub(super) async fn remove_tree(path: std::path::PathBuf) -> Result<(), StepError> {
        let shown = path.display().to_string();
        let removed = tokio::task::spawn_blocking(move || match fs::remove_dir_all(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result,
        });
        match removed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(StepError::new(format!("{shown}: {error}"))),
            Err(error) => Err(StepError::new(format!("{shown}: {error}"))),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Draining {
    Yes,
    No,
}

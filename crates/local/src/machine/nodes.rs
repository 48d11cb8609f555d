//! PostgreSQL nodes on this machine: made, resized, set aside, destroyed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{DatabaseNode, DatabaseRole, NodeId, ResourceId, Size, Topology, counted};
use tokio::time::timeout;

use super::apply::{Event, Report};
use super::{Machine, StepError};
use crate::chain;
use crate::engines::{self, PostgresEngine, Progress};
use crate::jobs::node::NodeJob;
use crate::keeper::{Begin, Job, Keeper};
use crate::postgres::{self, Change, Credentials, InitProgress, Need, NodePaths, choose_owner, database_url};
use crate::setup::{Setup, passable_by_others};

/// A fast shutdown that takes longer than this becomes an immediate one; the next start then recovers.
const STOP_GRACE: Duration = Duration::from_secs(60);

/// A node that does not come back with another size within this gets its old size again.
const RESTART_WAIT: Duration = Duration::from_secs(120);

pub(super) struct NodeUnit {
    pub(super) keeper: Keeper,
    pub(super) job: NodeJob,
}

impl Setup {
    pub(crate) fn database_url(&self, cluster: &ResourceId, port: u16) -> Result<String, String> {
        let path = self.state.database_credentials(cluster);
        let credentials =
            Credentials::load(&path).map_err(|error| format!("{}; {}", chain(&error), error.hint()))?;
        Ok(database_url(&credentials, port))
    }

    /// The folder that holds backups of this cluster and of others.
    pub(super) fn backups_of(&self, cluster: &ResourceId, topology: &Topology) -> Option<PathBuf> {
        let policy = topology.clusters.get(cluster)?.backups.as_ref()?;
        Some(policy.to.as_ref().map_or_else(|| self.state.backups(), |to| self.app_dir.join(to)))
    }

    fn node_paths(&self, node: &DatabaseNode) -> Result<NodePaths, StepError> {
        NodePaths::new(&self.state.node(&node.id), &self.state.sockets(), node.port)
            .map_err(|error| failed(&error))
    }
}

pub(super) fn failed(error: &postgres::PostgresError) -> StepError {
    let lines = error.log().unwrap_or_default().lines().map(str::to_owned).collect();
    let damaged = error.is_damage();
    StepError { last_lines: lines, damaged, ..StepError::new(chain(error)).hint(error.hint()) }
}

impl Machine {
    pub(super) async fn create_node(
        &self,
        node: &DatabaseNode,
        next: &Topology,
        report: &Report,
    ) -> Result<(), StepError> {
        let job = self.node_job(node, next, report).await?;
        self.mark_as_new(&job)?;
        let making = |progress: InitProgress| {
            if progress == InitProgress::RemovingPartial {
                report(Event::Note { text: "removing a half-made cluster; it never held data".into() });
            }
        };
        let made = postgres::init(&job.engine(), &job.paths, &job.credentials, &job.owner, &making).await;
        made.map_err(|error| failed(&error))?;
        self.begin_primary(job, node).await
    }

    /// Starts a cluster from data that is there.
    pub(super) async fn take_up_node(
        &self,
        node: &DatabaseNode,
        next: &Topology,
        report: &Report,
    ) -> Result<(), StepError> {
        let job = self.node_job(node, next, report).await?;
        // A daemon may have been killed before it removed it; this is nobody's draft.
        let mark = self.new_node_mark(&node.id);
        match fs::remove_file(&mark) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at(&mark, &error)),
            _ => {}
        }
        if !job.paths.has_cluster() || job.paths.standby_signal().exists() {
            let pgdata = job.paths.pgdata();
            return Err(StepError::new(format!("{} is not what was found there", pgdata.display()))
                .hint("`switchback up` looks again"));
        }
        postgres::take_up(&job.engine(), &job.paths, &job.owner).map_err(|error| failed(&error))?;
        self.begin_primary(job, node).await
    }

    /// Starts a cluster that is there, and makes what the app needs in it.
    async fn begin_primary(&self, job: NodeJob, node: &DatabaseNode) -> Result<(), StepError> {
        self.make_archive(&job)?;
        self.keep_node(job.clone(), node).await?;
        // One that was adopted counts as ready at once, and may not be.
        timeout(RESTART_WAIT, job.ready())
            .await
            .map_err(|_| StepError::new(format!("{} is not ready", node.id)))?
            .map_err(StepError::new)?;
        self.provision(&node.id).await
    }

    async fn provision(&self, id: &NodeId) -> Result<(), StepError> {
        let job = self.units().nodes.get(id).map(|unit| unit.job.clone());
        let Some(job) = job else { return Err(StepError::new(format!("{id} does not run"))) };
        postgres::provision(&job.paths, &job.credentials).await.map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Starts a node that has its data, or takes over one that runs.
    pub(super) async fn start_node(
        &self,
        node: &DatabaseNode,
        begin: Begin,
        report: &Report,
    ) -> Result<(), StepError> {
        if self.units().nodes.contains_key(&node.id) {
            return Ok(());
        }
        let topology = self.topology();
        let paths = self.inner.setup.node_paths(node)?;
        let follows = topology.role_of(&node.id) != DatabaseRole::Primary;
        // One that follows is copied anew.
        if !follows && !paths.has_cluster() {
            let reason = format!("the data of {} is not in {}", node.id, paths.pgdata().display());
            return Err(
                StepError::new(reason).hint("bring the folder back; nothing was created in its place")
            );
        }
        let job = self.node_job(node, &topology, report).await?;
        self.begin_node(job, node, begin).await
    }

    pub(super) async fn keep_node(&self, job: NodeJob, node: &DatabaseNode) -> Result<(), StepError> {
        // One that an earlier daemon started within this same step.
        let begin = match self.inner.setup.processes.find(&node.id.to_string()) {
            Some(process) => Begin::Adopt(process),
            None => Begin::Fresh,
        };
        self.begin_node(job, node, begin).await
    }

    pub(super) async fn begin_node(
        &self,
        job: NodeJob,
        node: &DatabaseNode,
        begin: Begin,
    ) -> Result<(), StepError> {
        if matches!(begin, Begin::Restore) {
            self.begins_again(&node.id).await;
        }
        let processes = self.inner.setup.processes.clone();
        if !matches!(begin, Begin::Adopt(_)) {
            job.hold(self.counts_on_nobody_at_start(&job).err().map(StepError::said));
        }
        let keeper = Keeper::begin(job.clone(), processes, begin, self.inner.changed.clone());
        let mut watched = keeper.watch();
        self.units().nodes.insert(node.id.clone(), NodeUnit { keeper, job });
        watched.ready().await.map_err(|state| StepError::of(&node.id.to_string(), state))
    }

    pub(super) async fn node_job(
        &self,
        node: &DatabaseNode,
        topology: &Topology,
        report: &Report,
    ) -> Result<NodeJob, StepError> {
        let setup = Arc::clone(&self.inner.setup);
        let engine = self.find_engine(report).await?;
        let (owner, notice) = choose_owner().map_err(|error| StepError::new(chain(&error)))?;
        if let Some(text) = notice {
            report(Event::Note { text });
        }
        let paths = setup.node_paths(node)?;
        if let Some(identity) = owner.identity()
            && let Err(closed) = passable_by_others(paths.root())
        {
            let reason =
                format!("PostgreSQL runs as `{}`, who cannot enter {}", identity.name, closed.display());
            return Err(StepError::new(reason).hint(format!(
                "keep the state elsewhere, such as `--state-dir /var/lib/switchback/{}`, or open the folder: \
                 `chmod o+x {}`",
                setup.app,
                closed.display()
            )));
        }
        let credentials_path = setup.state.database_credentials(node.id.resource());
        // Where there is data, only the passwords that it was made with open it.
        let credentials = if paths.has_cluster() || topology.role_of(&node.id) != DatabaseRole::Primary {
            Credentials::load(&credentials_path)
        } else {
            Credentials::load_or_create(&credentials_path, &node.database)
        };
        let credentials = credentials.map_err(|error| StepError::new(chain(&error)).hint(error.hint()))?;
        Ok(NodeJob {
            setup,
            id: node.id.clone(),
            engine: Arc::new(Mutex::new(engine)),
            runs: Arc::default(),
            paths,
            credentials,
            owner,
            size: Arc::new(Mutex::new(node.size)),
            membership: Arc::new(Mutex::new(self.membership(&node.id, topology))),
            told: Arc::default(),
            downs: self.inner.clusters.downs.clone(),
            need: Arc::new(Mutex::new(Need::Nothing)),
            held: Arc::default(),
            waits_for_disk: Arc::default(),
            disk_probe: Arc::default(),
        })
    }

    /// The PostgreSQL to start nodes with, as it is installed by now. Written to the lock file.
    pub(super) async fn find_engine(&self, report: &Report) -> Result<Arc<PostgresEngine>, StepError> {
        let setup = &self.inner.setup;
        let (folder, cache, heard) = (setup.app_dir.clone(), setup.cache_dir.clone(), Arc::clone(report));
        let found = tokio::task::spawn_blocking(move || {
            engines::find_postgres(&folder, &cache, &|progress| {
                let text = match progress {
                    Progress::Downloading { packages } => {
                        format!("fetching {} of PostgreSQL", counted(packages, "package"))
                    }
                    Progress::Unpacking { package } => format!("unpacking {package}"),
                    Progress::Notice(text) => text,
                };
                heard(Event::Note { text });
            })
        });
        let engine = found
            .await
            .map_err(|error| StepError::new(error.to_string()))?
            .map_err(|error| StepError::new(chain(&error)).hint(error.hint()))?;
        if let Err(error) = engines::write_lock(&setup.app_dir, &engine) {
            report(Event::Note { text: chain(&error) });
        }
        Ok(Arc::new(engine))
    }

    /// What is installed may have moved to another folder since the node was started last.
    ///
    /// # Errors
    /// When there is none any more that opens its data.
    pub(super) async fn follow_its_engine(&self, job: &NodeJob) -> Result<(), StepError> {
        let before = job.engine();
        if before.program("postgres").is_file() {
            return Ok(());
        }
        let log: Report = Arc::new(|event| tracing::info!(?event, "looking for PostgreSQL"));
        let found = self.find_engine(&log).await?;
        self.remember(
            &job.id.to_string(),
            format!("start it with PostgreSQL {} in {}", found.version, found.bin_dir.display()),
            format!("there is none in {} any more", before.bin_dir.display()),
        );
        job.start_with(found);
        Ok(())
    }

    pub(super) async fn resize_node(
        &self,
        id: &NodeId,
        to: Size,
        restart: bool,
        report: &Report,
    ) -> Result<(), StepError> {
        let Some(job) = self.node_kept(id) else {
            return Err(StepError::new(format!("{id} does not run")));
        };
        let (memory, cores) = (job.setup.memory, u32::from(job.setup.cores));
        let before = postgres::memory_settings(&job.size(), memory, cores);
        let after = postgres::memory_settings(&to, memory, cores);
        *job.size.lock().unwrap_or_else(PoisonError::into_inner) = to;
        job.write_config()?;
        if restart && before.change_to(&after) == Change::Restart {
            return self.restart_node(id).await;
        }
        self.limit(&id.to_string(), to, report)?;
        self.reload(id)
    }

    /// Lets a node read its configuration. One that does not run reads it when it starts.
    ///
    /// # Errors
    /// When its PostgreSQL is no longer where it was started from: it would end, for it reads files of that as well.
    pub(super) fn reload(&self, id: &NodeId) -> Result<(), StepError> {
        let Some(process) = self.inner.setup.processes.find(&id.to_string()) else { return Ok(()) };
        if !process.has_its_program() {
            let reason =
                format!("the PostgreSQL that {id} runs is gone, so it cannot read its configuration");
            return Err(StepError::new(reason).hint("`switchback restart` starts it with what there is"));
        }
        // One that has just ended reads it when it starts.
        let _ = process.signal(postgres::RELOAD_SIGNAL);
        Ok(())
    }

    /// Stops a node in order, so that the checkpoint is written before it is down, and waits until it is ready again.
    pub(super) async fn restart_node(&self, id: &NodeId) -> Result<(), StepError> {
        let watched = self.units().nodes.get(id).map(|unit| unit.keeper.watch());
        let mut watched = watched.ok_or_else(|| StepError::new(format!("{id} does not run")))?;
        let restarting = async {
            match timeout(RESTART_WAIT, watched.restart()).await {
                Ok(restarted) => restarted.map_err(|state| StepError::of(&id.to_string(), state)),
                Err(_) => Err(StepError::of(&id.to_string(), watched.state())),
            }
        };
        match self.topology().role_of(id) {
            DatabaseRole::ReadReplica => self.at_rest(id, restarting).await,
            DatabaseRole::Primary | DatabaseRole::Standby => restarting.await,
        }
    }

    pub(super) async fn stop_node(&self, id: &NodeId) {
        let unit = self.take_node(id);
        self.stop_taken(id, unit).await;
    }

    /// From now on the node takes part in nothing; it still runs.
    pub(super) fn take_node(&self, id: &NodeId) -> Option<NodeUnit> {
        self.units().nodes.remove(id)
    }

    pub(super) async fn stop_taken(&self, id: &NodeId, unit: Option<NodeUnit>) {
        if let Some(unit) = unit {
            unit.keeper.stop(STOP_GRACE).await;
        } else if let Some(process) = self.inner.setup.processes.find(&id.to_string()) {
            // What stops it last does not matter here: whoever survived SIGKILL is reported by the next start.
            crate::keeper::end(&process, STOP_GRACE).await;
            self.inner.setup.processes.forget(&id.to_string());
        }
    }

    /// Stops the node and keeps its folder under another name.
    pub(super) async fn retire_node(&self, node: &DatabaseNode) -> Result<(), StepError> {
        self.stop_node(&node.id).await;
        if !self.is_new(&node.id) {
            tracing::warn!(node = %node.id, "its data was there before this plan and stays where it is");
            return Ok(());
        }
        let from = self.inner.setup.state.node(&node.id);
        let retired = self.inner.setup.state.retired();
        fs::create_dir_all(&retired).map_err(|error| at(&retired, &error))?;
        let to = retired.join(format!("{}-{}", node.id, jiff::Timestamp::now().as_millisecond()));
        move_if_there(&from, &to)?;
        let credentials = self.inner.setup.state.database_credentials(node.id.resource());
        let kept: PathBuf = to.with_extension("credentials.json");
        move_if_there(&credentials, &kept)
    }
}

impl Machine {
    /// Stops a node that was taken out and deletes its folder.
    pub(super) async fn delete_taken(&self, id: &NodeId, unit: Option<NodeUnit>) -> Result<(), StepError> {
        self.stop_taken(id, unit).await;
        // Renamed first: half a data directory must never stand in the place of a whole one.
        let retired = self.inner.setup.state.retired();
        fs::create_dir_all(&retired).map_err(|error| at(&retired, &error))?;
        let doomed = retired.join(format!("{id}-destroyed-{}", jiff::Timestamp::now().as_millisecond()));
        move_if_there(&self.inner.setup.state.node(id), &doomed)?;
        Machine::remove_tree(doomed).await
    }

    /// Only what this plan makes may be set aside or deleted when it is taken back. Data that was there before is nobody's
    /// draft: nothing is made in its place.
    pub(super) fn mark_as_new(&self, job: &NodeJob) -> Result<(), StepError> {
        let mark = self.new_node_mark(&job.id);
        if !job.paths.has_cluster() {
            return fs::write(&mark, "").map_err(|error| at(&mark, &error));
        }
        if mark.exists() {
            return Ok(());
        }
        let reason = format!("{} holds data that nothing accounts for", job.paths.pgdata().display());
        Err(StepError::new(reason).hint("move the folder away; nothing was made in its place"))
    }

    /// Whether the plan in progress has made its data.
    pub(super) fn is_new(&self, id: &NodeId) -> bool {
        self.new_node_mark(id).exists()
    }

    fn new_node_mark(&self, id: &NodeId) -> PathBuf {
        new_mark(&self.inner.setup.state.node(id))
    }

    /// Nodes that a plan has made are the app's now: its clients write to them, or it has been carried out.
    pub(super) fn keep_new_nodes(&self) {
        let nodes: Vec<NodeId> = self.topology().nodes.keys().cloned().collect();
        for id in nodes {
            // Mostly there is none.
            let _ = fs::remove_file(self.new_node_mark(&id));
        }
    }
}

/// Beside a node's folder from before it is made until the plan that makes it has ended.
pub(super) fn new_mark(folder: &Path) -> PathBuf {
    let mut mark = folder.as_os_str().to_owned();
    mark.push(".new");
    mark.into()
}

pub(super) fn move_if_there(from: &Path, to: &Path) -> Result<(), StepError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(from, &error)),
        _ => Ok(()),
    }
}

pub(super) fn at(path: &Path, error: &std::io::Error) -> StepError {
    StepError::new(format!("{}: {error}", path.display()))
}

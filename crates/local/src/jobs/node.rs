//! A PostgreSQL node: the postmaster itself, started directly.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{NodeId, Size};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::backup::Archive;
use crate::chain;
use crate::engines::{PgVersion, PostgresEngine};
use crate::keeper::{Down, Job, Trouble};
use crate::postgres::{
    self, Archiving, Credentials, Followed, Membership, Need, NodePaths, Owner, Place, PostgresError,
    Readiness,
};
use crate::process::{Command, Exit, Priority, Spec, StopSignal};
use crate::setup::Setup;

/// Crash recovery replays up to `max_wal_size`; a slow disk takes minutes for that, and killing it would begin anew.
const START_TIMEOUT: Duration = Duration::from_secs(600);
/// A fast shutdown writes a checkpoint.
const GRACE: Duration = Duration::from_secs(60);
/// SIGKILL takes effect at once, or when the disk answers again. Whoever takes over sees to it that nobody can write.
const ORPHAN_LIMIT: Duration = Duration::from_millis(500);
/// A postmaster that does nothing about a new connection for this long has missed a check; after some in a row it is killed.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// Between two looks at whether a disk has let everybody go.
const DISK_POLL: Duration = Duration::from_millis(100);
/// A disk that takes longer to take a few bytes is worth a word.
const DISK_SAID_AFTER: Duration = Duration::from_secs(2);
/// For the disk of a primary, where somebody else could take over.
const DISK_LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct NodeJob {
    pub(crate) setup: Arc<Setup>,
    pub(crate) id: NodeId,
    /// What it is started with the next time. Looked for again by a rolling restart, and where it is gone.
    pub(crate) engine: Arc<Mutex<Arc<PostgresEngine>>>,
    /// What it says it is. `None` while it is not known.
    pub(crate) runs: Arc<Mutex<Option<PgVersion>>>,
    pub(crate) paths: NodePaths,
    pub(crate) credentials: Credentials,
    pub(crate) owner: Owner,
    /// Follows live changes, so that a restart does not fall back to an earlier size.
    pub(crate) size: Arc<Mutex<Size>>,
    /// Follows failovers, so that what was the primary comes back as a follower.
    pub(crate) membership: Arc<Mutex<Membership>>,
    /// What its configuration says by now; `None` where that is not known.
    pub(crate) told: Arc<Mutex<Option<Membership>>>,
    pub(crate) downs: mpsc::Sender<NodeDown>,
    /// What the next start of a follower has to do first. Taken by it.
    pub(crate) need: Arc<Mutex<Need>>,
    /// Why it must not be started, where that is so. Settled anew before each start.
    pub(crate) held: Arc<Mutex<Option<String>>>,
    /// Nothing may be written to its disk before that has taken a write: whoever tried would hang, too.
    pub(crate) waits_for_disk: Arc<AtomicBool>,
    /// What writes to its disk to see whether that answers. It hangs for as long as the disk does, so there is one at most.
    pub(crate) disk_probe: Arc<AsyncMutex<Option<JoinHandle<io::Result<()>>>>>,
}

/// A node is down and will be started again.
pub(crate) struct NodeDown {
    pub(crate) id: NodeId,
    pub(crate) why: Down,
    /// Dropped by whoever has decided: then it is started, as what its membership says by then.
    pub(crate) decided: oneshot::Sender<()>,
}

impl NodeJob {
    pub(crate) fn engine(&self) -> Arc<PostgresEngine> {
        Arc::clone(&self.engine.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From the next start on.
    pub(crate) fn start_with(&self, engine: Arc<PostgresEngine>) {
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = engine;
    }

    pub(crate) fn runs(&self) -> Option<PgVersion> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on it is not started, or is again where there is no reason.
    pub(crate) fn hold(&self, reason: Option<String>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn note_version(&self, version: Option<PgVersion>) {
        *self.runs.lock().unwrap_or_else(PoisonError::into_inner) = version;
    }

    pub(crate) fn membership(&self) -> Membership {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn size(&self) -> Size {
        *self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the configuration that follows from the size.
    pub(crate) fn write_config(&self) -> Result<(), String> {
        let (memory, cores) = (self.setup.memory, u32::from(self.setup.cores));
        let settings = postgres::memory_settings(&self.size(), memory, cores);
        let membership = self.membership();
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let archiving = self.archiving(&membership);
        if let Err(error) = &archiving {
            tracing::warn!(node = %self.id, %error, "which database it has cannot be read; its log stays on it");
        }
        // It is told again as long as that is not known.
        let told = archiving.is_ok().then(|| membership.clone());
        let archiving = archiving.unwrap_or(Archiving::Waits);
        postgres::write_config(&self.paths, &self.engine().version, &settings, &membership, &archiving)
            .map_err(|error| said(&error))?;
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
        Ok(())
    }

    /// Whether its configuration says what its membership does.
    pub(crate) fn is_told(&self) -> bool {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) == Some(self.membership())
    }

    /// Until its membership is settled anew nothing of its log is stored.
    pub(crate) fn keep_log(&self) {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner).keeps_log = true;
    }

    /// Where backups of its cluster are kept; `None` where none are made.
    ///
    /// # Errors
    /// When which cluster it is of cannot be read, or there is none yet.
    pub(crate) fn archive(&self) -> io::Result<Option<Archive>> {
        self.membership().backups.map(|folder| self.archive_in(&folder)).transpose()
    }

    fn archive_in(&self, folder: &Path) -> io::Result<Archive> {
        let system = self.paths.system_identifier()?;
        Ok(Archive::at(&folder.join(format!("{}-{system}", self.id.resource()))))
    }

    /// # Errors
    /// When it is not known where its log belongs. Nothing of it may be forgotten then.
    fn archiving(&self, membership: &Membership) -> io::Result<Archiving> {
        match &membership.backups {
            None => Ok(Archiving::Off),
            Some(_) if membership.keeps_log => Ok(Archiving::Waits),
            Some(folder) => {
                let archive = self.archive_in(folder)?;
                Ok(Archiving::To { program: self.setup.program.clone(), archive })
            }
        }
    }

    /// Whether its postmaster does nothing about a client that comes. Cancel safe.
    pub(crate) async fn is_silent(&self, limit: Duration) -> bool {
        let Some(process) = self.setup.processes.find(&self.name()) else { return false };
        postgres::is_silent(&self.paths, process.pid(), limit).await
    }

    /// Also when it was an earlier daemon that has killed who hangs over it.
    pub(crate) fn waits_for_disk(&self) -> bool {
        self.waits_for_disk.load(Relaxed) || postgres::killed_in_kernel(&self.paths.pgdata()) > 0
    }

    /// Resolves when nobody hangs in the kernel over this node's data any more, and its disk has taken a write. Cancel
    /// safe.
    async fn disk_answers(&self) {
        self.waits_for_disk.store(true, Relaxed);
        let answered = async {
            while postgres::killed_in_kernel(&self.paths.pgdata()) > 0 {
                sleep(DISK_POLL).await;
            }
            let mut probe = self.disk_probe.lock().await;
            let hangs = probe.take().filter(|probe| !probe.is_finished());
            let probe = probe.insert(hangs.unwrap_or_else(|| {
                let folder = self.paths.root().to_owned();
                // Not on the runtime's threads: it may take as long as it likes.
                tokio::task::spawn_blocking(move || touch_disk(&folder))
            }));
            let _ = probe.await;
        };
        tokio::pin!(answered);
        if timeout(DISK_SAID_AFTER, &mut answered).await.is_err() {
            tracing::warn!(node = %self.id, "its disk does not answer; it is started when that does");
            self.note("its disk does not answer; it is started when that does");
            answered.await;
        }
        self.waits_for_disk.store(false, Relaxed);
    }

    /// What PostgreSQL's last words mean, and what to do about it; `None` where that is not known.
    fn said_itself(&self) -> Option<String> {
        let log = self.last_lines().join("\n");
        match postgres::diagnose("postgres", &log, &self.paths.pgdata(), &self.owner.name()) {
            PostgresError::Failed { .. } => None,
            error => Some(format!("{error}: {}", error.hint())),
        }
    }

    /// Makes the data directory of a follower one that can follow.
    async fn prepare_to_follow(&self, primary_port: u16) -> Result<(), String> {
        let (engine, paths, credentials) = (&self.engine(), &self.paths, &self.credentials);
        let need = *self.need.lock().unwrap_or_else(PoisonError::into_inner);
        let followed =
            postgres::follow(engine, &self.id, paths, credentials, &self.owner, primary_port, need);
        match followed.await.map_err(|error| said(&error))? {
            Followed::AsItWas => {}
            Followed::Copied => tracing::info!(node = %self.id, "copied from its primary"),
            Followed::Rewound => {
                tracing::info!(node = %self.id, "rewound to where it and its primary parted")
            }
            Followed::CopiedInsteadOfRewinding(why) => {
                tracing::warn!(node = %self.id, why, "could not be rewound and was copied anew");
            }
        }
        *self.need.lock().unwrap_or_else(PoisonError::into_inner) = Need::Nothing;
        Ok(())
    }
}

impl Job for NodeJob {
    fn name(&self) -> String {
        self.id.to_string()
    }

    async fn spec(&self) -> Result<Spec, String> {
        self.note_version(None);
        if let Some(reason) = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(reason);
        }
        match self.membership().place {
            // A standby may have every commit that could not be asked when this one ended. Ending once more asks again.
            Place::Primary { confirmed_by } if !confirmed_by.is_empty() => {
                let answered = timeout(DISK_LIMIT, self.disk_answers()).await;
                answered.map_err(|_| "its disk does not answer".to_owned())?;
            }
            Place::Primary { .. } | Place::Follower { .. } => self.disk_answers().await,
        }
        if let Place::Follower { primary_port } = self.membership().place {
            self.prepare_to_follow(primary_port).await?;
        }
        self.write_config()?;
        postgres::clear_stale_lock(&self.paths).await.map_err(|error| said(&error))?;
        let launch = postgres::command_line(&self.engine(), &self.paths, &self.owner);
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
        let version = postgres::wait_ready(&self.paths, &self.credentials, deadline, &say)
            .await
            .map_err(|error| said(&error))?;
        self.note_version(version);
        Ok(())
    }

    fn start_timeout(&self) -> Duration {
        START_TIMEOUT
    }

    async fn alive(&self) -> Result<(), String> {
        if self.is_silent(SILENT_AFTER).await {
            return Err("it lets nobody in and does nothing about it".to_owned());
        }
        // A node that is full or refuses us lives; killing it would help nobody.
        match postgres::probe(&self.paths, &self.credentials).await {
            Ok(Readiness::Absent(reason)) => Err(reason),
            Ok(Readiness::Ready(version)) => {
                self.note_version(version);
                Ok(())
            }
            Ok(Readiness::Starting(_)) | Err(_) => Ok(()),
        }
    }

    fn grace(&self) -> Duration {
        GRACE
    }

    /// Whoever takes over waits until none of them can write any more.
    fn orphan_grace(&self) -> Duration {
        Duration::ZERO
    }

    fn orphan_limit(&self) -> Duration {
        ORPHAN_LIMIT
    }

    async fn down(&self, why: Down) {
        let (decided, decision) = oneshot::channel();
        let down = NodeDown { id: self.id.clone(), why, decided };
        if self.downs.send(down).await.is_ok() {
            // Only ever dropped.
            let _ = decision.await;
        }
    }

    fn last_lines(&self) -> Vec<String> {
        self.setup.last_lines(&self.name())
    }

    fn note(&self, text: &str) {
        self.setup.note(&self.name(), text);
    }

    fn advice(&self, trouble: Trouble) -> Option<String> {
        match trouble {
            Trouble::OutOfMemory { .. } => {
                Some(format!("a larger `memory` in `size` under [{}]", self.id.resource()))
            }
            // It has said why itself. By a signal it ends in the middle of something, but for the one of a PANIC.
            Trouble::Ended(Exit::Code(_) | Exit::Signal(libc::SIGABRT)) => self.said_itself(),
            Trouble::Ended(_) | Trouble::NotReady => None,
        }
    }
}

/// Whether it could be written is not asked here: a full disk answers, too.
fn touch_disk(folder: &Path) -> io::Result<()> {
    let path = folder.join("disk.probe");
    let file = std::fs::File::create(&path)?;
    io::Write::write_all(&mut &file, b"switchback")?;
    file.sync_all()?;
    std::fs::remove_file(&path)
}

/// The error and what to do about it, in one line.
pub(crate) fn said(error: &postgres::PostgresError) -> String {
    format!("{}; hint: {}", chain(error), error.hint())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use model::ByteSize;

    use super::*;
    use crate::cgroup::Cgroups;
    use crate::engines::Source;
    use crate::output::Logs;
    use crate::paths::StateDir;
    use crate::process::{BaseEnv, Processes};

    /// A primary in `folder` that was never made.
    fn primary(folder: &Path) -> NodeJob {
        let id: NodeId = "db.1".parse().unwrap();
        let cgroups = Cgroups::none("test", "switched off by the test");
        let setup = Setup {
            app: "shop".parse().unwrap(),
            app_dir: folder.to_owned(),
            state: StateDir::at(folder),
            cache_dir: folder.join("cache"),
            program: folder.join("switchback"),
            processes: Processes::new(folder, cgroups, BaseEnv::default()),
            logs: Logs::at(folder.join("logs")),
            build_env: BTreeMap::new(),
            cores: 1,
            memory: ByteSize::from_bytes(ByteSize::GB),
        };
        let engine = PostgresEngine {
            bin_dir: folder.join("bin"),
            version: PgVersion::parse("17.5").unwrap(),
            source: Source::Installed,
            env: BTreeMap::new(),
        };
        fs::create_dir(folder.join("db.1")).unwrap();
        NodeJob {
            setup: Arc::new(setup),
            engine: Arc::new(Mutex::new(Arc::new(engine))),
            runs: Arc::default(),
            paths: NodePaths::new(&folder.join("db.1"), folder, 5432).unwrap(),
            credentials: Credentials::generate("shop").unwrap(),
            owner: Owner::Ourselves,
            size: Arc::new(Mutex::new(Size::UNLIMITED)),
            membership: Arc::new(Mutex::new(Membership::alone(&id))),
            id,
            told: Arc::default(),
            downs: mpsc::channel(1).0,
            need: Arc::new(Mutex::new(Need::Nothing)),
            held: Arc::default(),
            waits_for_disk: Arc::default(),
            disk_probe: Arc::default(),
        }
    }

    /// So that whether a standby takes over is asked again. The disk is a pipe here: who opens it to write hangs until
    /// somebody reads.
    #[tokio::test(start_paused = true)]
    async fn a_primary_that_a_standby_could_replace_waits_for_its_disk_a_few_seconds_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let job = primary(folder.path());
        let pipe = job.paths.root().join("disk.probe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let within_a_minute = async || {
            let minute = Duration::from_secs(60);
            tokio::join!(timeout(minute, job.spec()), tokio::time::advance(minute)).0
        };
        assert!(within_a_minute().await.is_err(), "nobody could replace it: it waits");

        job.membership.lock().unwrap().place = Place::Primary { confirmed_by: vec!["db_2".to_owned()] };
        for _ in 0..3 {
            let refused = within_a_minute().await.expect("it waits without end").unwrap_err();
            assert!(refused.contains("its disk does not answer"), "{refused}");
            assert!(job.waits_for_disk());
        }
        assert_eq!(fs::read_to_string(&pipe).unwrap(), "switchback", "one at a time tries the disk");

        fs::remove_file(&pipe).unwrap();
        job.spec().await.unwrap();
        assert!(!job.waits_for_disk());
    }
}

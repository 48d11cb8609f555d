//! Nodes that are made from a backup and are no part of the cluster: one that is about to become its primary, one that
//! only proves that the backup is whole. Both stand in a folder of their own, where nothing else is, and may be deleted
//! whenever nobody works on them.

use std::path::PathBuf;
use std::time::Duration;

use model::{DatabaseNode, Size};
use tokio::time::{Instant, sleep};

use super::elsewhere::supervisor;
use crate::backup::{Archive, BaseBackup, Catalog};
use crate::jobs::node::NodeJob;
use crate::keeper;
use crate::machine::apply::{Event, Report};
use crate::machine::nodes::{at, failed};
use crate::machine::{Machine, StepError};
use crate::postgres::{
    self, Archiving, Membership, NodePaths, PostgresError, Replay, Session, admit_supervisor,
    mark_for_recovery, recovery_command, unpack,
};
use crate::process::{Command, Priority, Process, Spec, StopSignal};

/// Between two looks at a replay.
const REPLAY_POLL: Duration = Duration::from_millis(50);
/// Between two words about it.
const REPLAY_WORD: Duration = Duration::from_secs(10);
/// A replay that takes longer needs a newer copy to begin with, not more patience.
const REPLAY_LIMIT: Duration = Duration::from_secs(6 * 3_600);
/// For the checkpoint of its shutdown.
const STOP_GRACE: Duration = Duration::from_secs(60);
/// What this program says, run by PostgreSQL, of a file of the log that does not unpack.
const ARCHIVE_DAMAGED: &str = " is damaged";
/// What PostgreSQL says when the log ends before the target.
const TOO_SHORT: &str = "recovery ended before configured recovery target was reached";

/// A node made from a backup.
pub(super) struct Scratch {
    /// As the primary's, but for where it is.
    pub(super) job: NodeJob,
    /// Of its record and its log.
    pub(super) name: String,
    /// It is of another cluster, and has the passwords of that one.
    pub(super) is_elsewhere: bool,
}

/// What a node is made from, and how far.
pub(super) struct Recovery<'a> {
    pub(super) archive: &'a Archive,
    pub(super) backup: &'a BaseBackup,
    /// To arrive on.
    pub(super) timeline: u32,
    pub(super) replay: Replay,
}

impl Scratch {
    pub(super) async fn session(&self) -> Result<Session, PostgresError> {
        Session::open(&self.job.paths, &self.job.credentials).await
    }
}

impl Machine {
    /// Names a node in `folder`, without touching anything. `like` is a node of the cluster.
    pub(super) fn scratch(
        &self,
        like: &NodeJob,
        folder: PathBuf,
        node: &DatabaseNode,
    ) -> Result<Scratch, StepError> {
        let paths =
            NodePaths::new(&folder, &self.inner.setup.state.sockets(), node.port).map_err(|e| failed(&e))?;
        let job = NodeJob { id: node.id.clone(), paths, ..like.clone() };
        Ok(Scratch { job, name: format!("{}.recovery", node.id), is_elsewhere: false })
    }

    /// Stops what runs of it and deletes it. That there is nothing is fine.
    pub(super) async fn discard(&self, scratch: &Scratch) -> Result<(), StepError> {
        self.inner.setup.processes.clear(&scratch.name).await.map_err(|error| crate::chain(&error))?;
        let root = scratch.job.paths.root();
        for folder in [scratch.job.paths.pgdata(), root.to_owned()] {
            // A program that unpacks for a daemon that was killed.
            postgres::end_backup_work_in(&folder).await.map_err(|error| at(&folder, &error))?;
        }
        Machine::remove_tree(root.to_owned()).await
    }

    /// Unpacks a copy where nothing is, starts it, and returns when it has replayed the log as far as it is to. It still
    /// runs. Nothing is left of one that fails: it is as large as the database, and may have failed because the disk is full.
    pub(super) async fn recover(
        &self,
        scratch: &Scratch,
        from: &Recovery<'_>,
        report: &Report,
    ) -> Result<Process, StepError> {
        let recovered = self.unpack_and_replay(scratch, from, report).await;
        if recovered.is_err()
            && let Err(error) = self.discard(scratch).await
        {
            tracing::warn!(node = %scratch.job.id, error = error.reason, "what was unpacked could not be deleted");
        }
        recovered
    }

    async fn unpack_and_replay(
        &self,
        scratch: &Scratch,
        from: &Recovery<'_>,
        report: &Report,
    ) -> Result<Process, StepError> {
        let Recovery { archive, backup, timeline, replay } = *from;
        let NodeJob { paths, owner, .. } = &scratch.job;
        let engine = &scratch.job.engine();
        let major = engine.version.major().to_string();
        if backup.postgres.split('.').next() != Some(major.as_str()) {
            let reason = format!(
                "backup {} was made by PostgreSQL {}, and this is {major}",
                backup.number, backup.postgres
            );
            return Err(
                StepError::new(reason).hint("install that version; `switchback.lock` names the one in use")
            );
        }
        let note = |text: String| report(Event::Note { text });
        note(format!("unpacking backup {} and checking every file of it", backup.number));
        let folder = Catalog::of(archive).folder(backup.number);
        unpack(engine, paths, owner, &folder).await.map_err(|error| failed(&error))?;
        self.write_scratch_config(scratch)?;
        if scratch.is_elsewhere {
            admit_supervisor(paths, &supervisor()?).map_err(|error| failed(&error))?;
        }
        mark_for_recovery(paths, owner).map_err(|error| at(&paths.pgdata(), &error))?;
        note(format!("replaying the log from {} on", backup.ended));
        let setup = &self.inner.setup;
        let launch = recovery_command(engine, paths, owner, &setup.program, archive, timeline, replay);
        let spec = Spec {
            name: scratch.name.clone(),
            command: Command::Argv(launch.argv),
            cwd: launch.cwd,
            env: launch.env,
            user: launch.user,
            size: Size::UNLIMITED,
            output: setup.output(&scratch.name)?,
            priority: Priority::Build,
            inherited_fds: Vec::new(),
            oom_score_adj: None,
            stop_signal: StopSignal::IntLeader,
        };
        let process = setup.processes.spawn(spec).map_err(|error| StepError::new(crate::chain(&error)))?;
        match self.replayed(scratch, &process, replay, report).await {
            Ok(()) => Ok(process),
            Err(error) => {
                self.stop_scratch(scratch, &process).await;
                Err(error)
            }
        }
    }

    fn write_scratch_config(&self, scratch: &Scratch) -> Result<(), StepError> {
        let job = &scratch.job;
        let settings = postgres::memory_settings(&job.size(), job.setup.memory, u32::from(job.setup.cores));
        let alone = Membership::alone(&job.id);
        postgres::write_config(&job.paths, &job.engine().version, &settings, &alone, &Archiving::Waits)
            .map_err(|error| failed(&error))
    }

    async fn replayed(
        &self,
        scratch: &Scratch,
        process: &Process,
        replay: Replay,
        report: &Report,
    ) -> Result<(), StepError> {
        let began = Instant::now();
        let mut said = began;
        while began.elapsed() < REPLAY_LIMIT {
            self.room_is_left()?;
            let arrived = async {
                let session = scratch.session().await?;
                match replay {
                    Replay::Promote(_) => session
                        .position()
                        .await
                        .map(|position| matches!(position, postgres::Position::Primary(_))),
                    Replay::PauseAt(_) => session.replay_is_paused().await,
                }
            };
            tokio::select! {
                // Until it takes connections it is on its way.
                arrived = arrived => if arrived.unwrap_or(false) { return Ok(()) },
                exit = process.exited() => return Err(self.ended_early(scratch, &exit.to_string())),
            }
            if said.elapsed() >= REPLAY_WORD {
                said = Instant::now();
                report(Event::Note { text: format!("still replaying, for {} s", began.elapsed().as_secs()) });
            }
            sleep(REPLAY_POLL).await;
        }
        Err(StepError::new(format!("the log was not replayed within {} h", REPLAY_LIMIT.as_secs() / 3_600)))
    }

    fn ended_early(&self, scratch: &Scratch, exit: &str) -> StepError {
        let last_lines = self.inner.setup.last_lines(&scratch.name);
        let said = |words: &str| last_lines.iter().any(|line| line.contains(words));
        let error = if said(TOO_SHORT) {
            StepError::new("the log ends before the moment that was asked for").hint(
                "ask for an earlier one, or for `latest`; `switchback backup list` says how far the log goes",
            )
        } else if let Some(line) = last_lines.iter().rev().find_map(|line| line.split_once("wal-fetch: ")) {
            let error = StepError::new(format!("the log could not be read: {}", line.1)).hint(
                "look at the disk that backups are on; a moment before that file can still be restored",
            );
            StepError { damaged: line.1.contains(ARCHIVE_DAMAGED), ..error }
        } else {
            StepError::new(format!("{} {exit} while it replayed the log", scratch.name))
                .hint("its last words say why")
        };
        StepError { last_lines, ..error }
    }

    pub(super) async fn stop_scratch(&self, scratch: &Scratch, process: &Process) {
        keeper::end(process, STOP_GRACE).await;
        self.inner.setup.processes.forget(&scratch.name);
    }
}

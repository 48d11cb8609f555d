//! Making a release: the build, at the lowest priority, and the snapshot of what it left.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use model::{ByteSize, Cpu, Release, ReleaseId, ResourceId, Service, Size, counted};
use plan::Action;

use super::apply::{Event, Report};
use super::{Machine, StepError};
use crate::chain;
use crate::process::{Command, OutputFiles, Priority, Spec, StopSignal};
use crate::release::{self, Build, DiskFloor, Progress, Releases, Source};

/// A build that takes longer waits for something that will not come.
const BUILD_TIMEOUT: Duration = Duration::from_secs(3_600);
/// How often it is tried whether another build in the folder has ended.
const LOOK: Duration = Duration::from_millis(100);
/// Of the app's folder, in a build. Above the numbers that shell scripts choose.
const FOLDER_FD: i32 = 100;
/// After the build was asked to end.
const BUILD_GRACE: Duration = Duration::from_secs(5);

impl Machine {
    /// Builds the app's folder and stores what is there then. Content that is stored already gives the same release.
    ///
    /// # Errors
    /// When the build fails, a file changes meanwhile, or the disk is too full.
    pub async fn make_release(
        &self,
        id: &ResourceId,
        service: &Service,
        report: &Report,
    ) -> Result<Release, StepError> {
        let folder = self.have_folder(report).await?;
        if let Some(command) = &service.build {
            self.build(id, service, command, &folder, report).await?;
        }
        report(Event::Note { text: "storing the release".into() });
        let setup = Arc::clone(&self.inner.setup);
        let service = service.clone();
        let said = Arc::clone(report);
        let stored = tokio::task::spawn_blocking(move || {
            let source = Source {
                app_dir: &setup.app_dir,
                include: &service.include,
                run: &service.run,
                release_command: service.release.as_deref(),
            };
            let mut tenths = 0;
            Releases::at(setup.state.releases()).snapshot(&source, DiskFloor::default(), &mut |progress| {
                if let Progress::Copying { bytes, of_bytes, .. } = progress
                    && bytes.saturating_mul(10) / of_bytes.max(1) > tenths
                {
                    tenths = bytes.saturating_mul(10) / of_bytes.max(1);
                    // Small releases are stored before anybody could read about it.
                    if of_bytes > 256 * 1024 * 1024 {
                        said(Event::Note { text: format!("storing the release: {} %", tenths * 10) });
                    }
                }
            })
        });
        let snapshot = stored
            .await
            .map_err(|error| StepError::new(error.to_string()))?
            .map_err(|error| StepError::new(chain(&error)).hint(error.hint()))?;
        for link in &snapshot.outward_links {
            tracing::info!(link = %link.display(), "points out of the release and was kept as it is");
        }
        let metadata = snapshot.metadata;
        let size = ByteSize::from_bytes(metadata.bytes).rounded();
        let text = match snapshot.was_stored {
            true => format!("release {} is stored already", metadata.id),
            false => {
                format!(
                    "stored release {}: {}, {size}",
                    metadata.id,
                    counted(metadata.files as usize, "file")
                )
            }
        };
        report(Event::Note { text });
        Ok(metadata.release())
    }

    /// Whoever builds in the app's folder, and stores what is there, has it alone: another daemon may hold up the same app,
    /// with a state folder of its own.
    async fn have_folder(&self, report: &Report) -> Result<Folder, StepError> {
        let path = &self.inner.setup.app_dir;
        let failed = |error: io::Error| StepError::new(format!("{}: {error}", path.display()));
        let folder = fs::File::open(path).map_err(failed)?;
        let began = Instant::now();
        let mut is_said = false;
        loop {
            match folder.try_lock() {
                Ok(()) => return Ok(Folder(folder)),
                Err(fs::TryLockError::WouldBlock) if began.elapsed() < BUILD_TIMEOUT => {}
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(StepError::new("another build in the app's folder does not end"));
                }
                Err(fs::TryLockError::Error(error)) => {
                    // Some network file systems have no locks. Then it is as it was without this.
                    tracing::warn!(%error, "the app's folder cannot be locked for a build");
                    return Ok(Folder(folder));
                }
            }
            if !std::mem::replace(&mut is_said, true) {
                report(Event::Note { text: "waiting for another build in the app's folder".into() });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn build(
        &self,
        id: &ResourceId,
        service: &Service,
        command: &str,
        folder: &Folder,
        report: &Report,
    ) -> Result<(), StepError> {
        let setup = &self.inner.setup;
        let name = format!("{id}.build");
        setup.processes.clear(&name).await.map_err(|error| chain(&error))?;
        report(Event::Note { text: format!("building: {command}") });
        let user = setup.app_user(service.user.as_deref()).map_err(|error| error.to_string())?;
        let log = setup.state.logs().join("build.log");
        let mut env = setup.build_env.clone();
        if user.is_some() {
            // Whose they are is settled by whom the build runs as: tools keep their caches there.
            for name in ["HOME", "USER", "LOGNAME"] {
                env.remove(name);
            }
        }
        env.extend(service.env.clone());
        let spec = Spec {
            name: name.clone(),
            command: Command::Shell(command.to_owned()),
            cwd: setup.app_dir.clone(),
            env,
            user,
            size: self.build_size(),
            output: OutputFiles { stdout: log.clone(), stderr: log.clone() },
            priority: Priority::Build,
            // It goes on when this daemon is killed, and has the folder until it ends.
            inherited_fds: vec![(folder.copy()?, FOLDER_FD)],
            oom_score_adj: Some(900),
            stop_signal: StopSignal::TermGroup,
        };
        let order = Build {
            app_dir: &setup.app_dir,
            command,
            log: &log,
            floor: DiskFloor::default(),
            time_limit: BUILD_TIMEOUT,
        };
        let running = async {
            let process = setup.processes.spawn(spec).map_err(|error| io::Error::other(chain(&error)))?;
            Ok(process.exited().await)
        };
        let mut said = |line: &str| report(Event::BuildLine { line: line.to_owned() });
        let built = release::build(&order, running, &mut said).await;
        // Dropped or ended: nothing of it may go on.
        if let Some(process) = setup.processes.find(&name) {
            crate::keeper::end(&process, BUILD_GRACE).await;
        }
        let _ = setup.processes.clear(&name).await;
        setup.processes.forget(&name);
        let built = built.map_err(|error| {
            let lines = error.last_lines().to_vec();
            StepError { last_lines: lines, ..StepError::new(chain(&error)).hint(error.hint()) }
        })?;
        report(Event::Note { text: format!("built in {:.1} s", built.took.as_secs_f64()) });
        Ok(())
    }

    /// Notes of a release that has not served yet that it was taken back, where `action`, which failed, was a trial of it.
    pub(super) fn note_that_it_failed(&self, action: &Action, because: &str) {
        let topology = self.world().topology;
        let tried = match action {
            Action::RunReleaseCommand { release, .. } => Some(&release.id),
            Action::StartInstance { instance } => Some(&instance.release),
            Action::Compare { new, .. } => topology.instances.get(new).map(|instance| &instance.release),
            _ => None,
        };
        let serves = |id: &ReleaseId| topology.releases.values().any(|release| release.id == *id);
        // On a full disk it is the disk that failed.
        let Some(tried) = tried.filter(|id| !serves(id) && self.disk_low().is_none()) else { return };
        if let Err(error) = self.stored_releases().mark_failed(tried, because) {
            tracing::warn!(release = %tried, error = chain(&error), "that it failed could not be noted");
        }
    }

    pub(super) fn note_that_it_serves(&self, release: &ReleaseId) {
        if let Err(error) = self.stored_releases().mark_serving(release) {
            tracing::warn!(%release, error = chain(&error), "that it failed before could not be forgotten");
        }
    }

    fn stored_releases(&self) -> Releases {
        Releases::at(self.inner.setup.state.releases())
    }

    /// While the app serves, a build gets what leaves a core, or half of the only one, to it.
    fn build_size(&self) -> Size {
        let serves = self.topology().instances.values().any(|instance| instance.in_rotation);
        let millis = match u32::from(self.inner.setup.cores) {
            _ if !serves => return Size::UNLIMITED,
            0 | 1 => 500,
            cores => (cores - 1) * 1_000,
        };
        Size { cpu: Cpu::from_millis(millis), memory: None }
    }
}

/// The app's folder, locked.
struct Folder(fs::File);

impl Folder {
    /// The lock is that of the open file, and lives as long as any copy does.
    fn copy(&self) -> Result<OwnedFd, StepError> {
        self.0.try_clone().map(OwnedFd::from).map_err(|error| StepError::new(error.to_string()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What a build has left running, such as a compiler's server, has a copy and is no build.
        let _ = self.0.unlock();
    }
}

/// The environment of a build is that of whoever runs the daemon: toolchains and proxies are configured in it.
pub fn build_environment(
    vars: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    vars.filter_map(text).filter(|(name, _)| !name.starts_with("SWITCHBACK_")).collect()
}

/// All memory of this machine.
pub fn memory() -> model::ByteSize {
    let info = rustix::system::sysinfo();
    model::ByteSize::from_bytes(info.totalram.saturating_mul(u64::from(info.mem_unit)))
}

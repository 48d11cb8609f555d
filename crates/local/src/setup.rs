//! What every part of this room needs to know of the app and the machine, settled once when the daemon starts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::{AppName, ByteSize, Instance, InstanceId, Topology};

use crate::output::Logs;
use crate::paths::StateDir;
use crate::process::{OutputFiles, Processes};
use crate::user::{self, Identity, UserError};

/// Lines of a failed process's output that are kept with its state and shown with an error.
const LAST_LINES: usize = 20;

/// Immutable for the life of the daemon.
#[derive(Debug, Clone)]
pub struct Setup {
    pub app: AppName,
    /// Where the manifest and the code stand.
    pub app_dir: PathBuf,
    pub state: StateDir,
    /// Where unpacked engines are kept, shared by all apps of a user.
    pub cache_dir: PathBuf,
    /// This program, to run roles from.
    pub program: PathBuf,
    pub processes: Processes,
    pub logs: Logs,
    pub build_env: BTreeMap<String, String>,
    /// What this process may use; also the threads of an edge whose settings leave it open.
    pub cores: u16,
    /// All there is, for PostgreSQL's settings.
    pub memory: ByteSize,
}

impl Setup {
    pub(crate) fn output(&self, name: &str) -> Result<OutputFiles, String> {
        self.logs.files(name).map_err(|error| format!("the logs of {name} cannot be opened: {error}"))
    }

    /// The last lines a process said since it was started, the oldest first; none of one that was forgotten. For
    /// messages: what cannot be read is left out.
    pub(crate) fn last_lines(&self, name: &str) -> Vec<String> {
        let Some(record) = self.processes.record(name) else { return Vec::new() };
        let lines = self.logs.last_lines(name, record.spawned_at, LAST_LINES).unwrap_or_default();
        lines.into_iter().map(|record| record.line).collect()
    }

    /// Says something in the log of a process that it could not say itself. What cannot be written is in `why` as well.
    pub(crate) fn note(&self, name: &str, text: &str) {
        use std::io::Write;
        let Ok(files) = self.logs.files(name) else { return };
        // Made by its start, for whom it runs as; never by us.
        if let Ok(mut file) = fs::OpenOptions::new().append(true).open(files.stderr) {
            let _ = file.write_all(format!("switchback: {text}\n").as_bytes());
        }
    }

    /// The user instances run as: `None` keeps the daemon's own.
    ///
    /// # Errors
    /// When the named user does not exist.
    pub(crate) fn app_user(&self, named: Option<&str>) -> Result<Option<Identity>, UserError> {
        if !user::running_as_root() {
            return Ok(None);
        }
        let identity = match named {
            Some(name) => Identity::by_name(name)?,
            None => Identity::owner_of(&self.app_dir)?,
        };
        Ok(Some(identity).filter(|identity| !identity.is_root()))
    }

    /// Whether instances run as root: the daemon does, and nobody else was named or owns the folder.
    pub fn app_runs_as_root(&self, named: Option<&str>) -> bool {
        user::running_as_root() && matches!(self.app_user(named), Ok(None))
    }

    /// `PORT`, `DATABASE_URL` and what the manifest adds: all that Switchback tells an app.
    ///
    /// # Errors
    /// When the credentials of its database cannot be read.
    pub(crate) fn app_env(
        &self,
        instance: &Instance,
        topology: &Topology,
    ) -> Result<BTreeMap<String, String>, String> {
        let mut env = instance.env.clone();
        env.insert("PORT".into(), instance.port.to_string());
        if let Some(database) = &instance.database {
            let proxy =
                topology.proxies.get(database).ok_or_else(|| format!("{database} has no proxy yet"))?;
            env.insert("DATABASE_URL".into(), self.database_url(database, proxy.port)?);
        }
        Ok(env)
    }

    pub(crate) fn release_tree(&self, instance: &Instance) -> PathBuf {
        crate::release::tree(&self.state.releases(), &instance.release)
    }
}

/// The process name of an instance is its id.
pub(crate) fn instance_process(id: &InstanceId) -> String {
    id.to_string()
}

/// Whether everyone may pass through every folder above `path`: what another user needs to reach it.
pub(crate) fn passable_by_others(path: &Path) -> Result<(), PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    for folder in path.ancestors().skip(1) {
        match fs::metadata(folder) {
            Ok(metadata) if metadata.permissions().mode() & 0o001 == 0 => return Err(folder.to_owned()),
            // What is not there yet is made for whoever needs it; what cannot be asked will say so when it is used.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

//! A role: another process of this same program (edge, pgproxy), steered over its control socket.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::chain;
use crate::control::{self, Request};
use crate::keeper::{Job, until_ready};
use crate::process::{Command, Priority, Spec, StopSignal};
use crate::setup::Setup;

/// A role that does not say its status within this misses a liveness check.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// The number of the first inherited descriptor: the configuration; the sockets follow.
const FIRST_FD: i32 = 3;

/// What a role process is, beyond its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Edge,
    Pgproxy,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Edge => "edge",
            Role::Pgproxy => "pgproxy",
        }
    }
}

/// The listening sockets of a role, held by the daemon too: while the process is replaced or restarted, clients that
/// connect wait in the queue of a socket that is never closed.
pub(crate) type Sockets = Arc<BTreeMap<String, OwnedFd>>;

pub(crate) struct RoleJob {
    pub(crate) setup: Arc<Setup>,
    pub(crate) role: Role,
    /// Names this incarnation: `edge.3`.
    pub(crate) process: String,
    pub(crate) sockets: Sockets,
    /// The last configuration given to it: what a restart begins with.
    pub(crate) config: Arc<Mutex<Value>>,
    pub(crate) threads: u16,
}

impl RoleJob {
    fn control(&self) -> PathBuf {
        self.setup.state.control_socket(&self.process)
    }

    async fn status(&self) -> Result<(), String> {
        let socket = self.control();
        match timeout(STATUS_TIMEOUT, control::ask(&socket, &Request::Status)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("says nothing on its control socket".to_owned()),
        }
    }
}

impl Job for RoleJob {
    fn name(&self) -> String {
        self.process.clone()
    }

    async fn spec(&self) -> Result<Spec, String> {
        let path = self.setup.state.role_config(&self.process);
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Err(error) = write_private(&path, &config) {
            tracing::warn!(%error, path = %path.display(), "the next daemon will have to tell it all anew");
        }
        // A socket file of a crashed incarnation would be in the way.
        let _ = fs::remove_file(self.control());
        let mut arguments: Vec<OsString> = vec![
            self.setup.program.clone().into(),
            "role".into(),
            self.role.name().into(),
            "--control".into(),
            self.control().into(),
            "--config-fd".into(),
            FIRST_FD.to_string().into(),
            "--threads".into(),
            self.threads.to_string().into(),
        ];
        let mut inherited_fds = vec![(in_memory(&config).map_err(|error| error.to_string())?, FIRST_FD)];
        for ((name, socket), fd) in self.sockets.iter().zip(FIRST_FD + 1..) {
            arguments.extend(["--socket".into(), OsString::from(format!("{name}={fd}"))]);
            inherited_fds.push((socket.try_clone().map_err(|error| error.to_string())?, fd));
        }
        Ok(Spec {
            name: self.process.clone(),
            command: Command::Argv(arguments),
            cwd: self.setup.state.root().to_owned(),
            env: BTreeMap::new(),
            user: None,
            size: model::Size::UNLIMITED,
            output: self.setup.output(&self.process)?,
            priority: Priority::Normal,
            inherited_fds,
            // The front door is the last to go when memory runs out.
            oom_score_adj: Some(0),
            stop_signal: StopSignal::TermLeader,
        })
    }

    async fn ready(&self) -> Result<(), String> {
        until_ready(|| async { self.status().await.is_ok() }).await;
        Ok(())
    }

    fn start_timeout(&self) -> Duration {
        START_TIMEOUT
    }

    async fn alive(&self) -> Result<(), String> {
        self.status().await
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn last_lines(&self) -> Vec<String> {
        self.setup.last_lines(&self.name())
    }

    fn note(&self, text: &str) {
        self.setup.note(&self.name(), text);
    }
}

/// What a role begins with is handed over in memory: the front door must come back on a full disk, too.
fn in_memory(value: &Value) -> std::io::Result<OwnedFd> {
    let mut file = fs::File::from(rustix::fs::memfd_create("config", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(value)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// Written beside and renamed, readable by its owner only.
pub(crate) fn write_private(path: &Path, value: &Value) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file =
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&partial)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    fs::rename(&partial, path)
}

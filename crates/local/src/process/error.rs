//! Why a process could not be started, each in words that say what to do.

use std::io;
use std::path::PathBuf;

use super::Exit;
use crate::user::Identity;

/// Whose fault: the manifest's (the command, its folder, its user), the machine's, or ours.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("`{name}` cannot name a process: lower-case letters, digits, `.` and `-` can")]
    BadName { name: String },
    #[error("{name} already runs (pid {pid})")]
    AlreadyRunning { name: String, pid: u32 },
    #[error("the command is empty")]
    EmptyCommand,
    #[error("a NUL byte in {what}")]
    Nul { what: &'static str },
    #[error("command not found: `{program}` is neither in PATH nor a file in {}", cwd.display())]
    CommandNotFound { program: String, cwd: PathBuf },
    #[error(
        "`{program}` may not be executed: permission denied (is it executable, and readable for its user?)"
    )]
    PermissionDenied { program: String },
    #[error(
        "`{program}` is not a program for this machine (a script needs a first line such as `#!/bin/sh`)"
    )]
    NotExecutable { program: String },
    #[error("`{program}` could not be executed")]
    Exec { program: String, source: io::Error },
    #[error("the folder {} is not there", cwd.display())]
    CwdMissing { cwd: PathBuf },
    #[error("the folder {} cannot be entered", cwd.display())]
    Cwd { cwd: PathBuf, source: io::Error },
    #[error("cannot run as user `{}`: only root may become someone else", user.name)]
    CannotBecome { user: Identity, source: io::Error },
    #[error("the output file {} cannot be opened", path.display())]
    Output { path: PathBuf, source: io::Error },
    #[error("the record {} cannot be written", path.display())]
    Record { path: PathBuf, source: io::Error },
    #[error("the machine has no room for another process (limit of processes, or memory)")]
    NoRoom { source: io::Error },
    #[error("the process could not be made ({step})")]
    System { step: &'static str, source: io::Error },
}

impl SpawnError {
    /// As a shell would have said it, where the command is at fault.
    pub fn as_exit(&self) -> Option<Exit> {
        match self {
            SpawnError::CommandNotFound { .. } => Some(Exit::Code(Exit::NO_SUCH_COMMAND)),
            SpawnError::PermissionDenied { .. } | SpawnError::NotExecutable { .. } => {
                Some(Exit::Code(Exit::MAY_NOT_EXECUTE))
            }
            _ => None,
        }
    }

    /// Whether the same attempt may succeed a little later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, SpawnError::NoRoom { .. })
    }
}

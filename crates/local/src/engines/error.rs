//! Why there is no engine, and what to do.

use std::io;
use std::path::PathBuf;

use super::{PgVersion, packages};

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("no PostgreSQL was found{}, and its packages could not be fetched: {packages}", listed(.refused))]
    NotFound {
        /// Those that were looked at, and what is wrong with each.
        refused: Vec<String>,
        /// Why the distribution's packages are no help.
        packages: String,
    },
    #[error(
        "switchback.lock names PostgreSQL {version} in {}, which is not there any more, and its packages could not \
         be fetched: {packages}", .path.display()
    )]
    LockedVersionGone {
        version: PgVersion,
        path: PathBuf,
        /// What is installed instead, the newest first.
        available: Vec<PgVersion>,
        /// Why the distribution's packages are no help.
        packages: String,
    },
    #[error("{} does not read: {reason}", .path.display())]
    LockUnreadable { path: PathBuf, reason: String },
    #[error("{} could not be written", .path.display())]
    LockNotWritten { path: PathBuf, source: io::Error },
}

impl EngineError {
    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            EngineError::NotFound { .. } => format!(
                "run `{}`. The service that Debian and Ubuntu then start is not needed and may be switched off \
                 with `systemctl disable --now postgresql`",
                packages::install_command(None)
            ),
            EngineError::LockedVersionGone { version, available, .. } => {
                let major = version.major();
                let install = packages::install_command(Some(major));
                let again = format!("run `{install}` to have PostgreSQL {major} again");
                match available.first() {
                    None => again,
                    Some(other) => format!(
                        "{again}; or, if there is no data of PostgreSQL {major} to keep, delete switchback.lock to use \
                         the installed {other}"
                    ),
                }
            }
            EngineError::LockUnreadable { .. } => {
                "restore it from version control, or delete it to choose PostgreSQL anew".to_owned()
            }
            EngineError::LockNotWritten { path, .. } => {
                format!("make the folder of {} writable for the user that runs switchback", path.display())
            }
        }
    }
}

fn listed(refused: &[String]) -> String {
    match refused {
        [] => String::new(),
        refused => format!(" ({})", refused.join("; ")),
    }
}

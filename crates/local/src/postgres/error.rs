//! What goes wrong with PostgreSQL, and what to do. PostgreSQL tells most of it in its log only, in words.

use std::io;
use std::path::{Path, PathBuf};

use super::CredentialsError;

/// Lines of the log that an error carries.
const LOG_LINES: usize = 12;

#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("{}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the path of the Unix socket is too long: {}", .path.display())]
    SocketPathTooLong { path: PathBuf },
    #[error("there is no space left for PostgreSQL's data")]
    NoSpace { log: String },
    #[error("PostgreSQL, running as {user}, may not use {}", .path.display())]
    Permission { path: PathBuf, user: String, blocked_by: Option<PathBuf>, log: String },
    #[error("{} is not a data directory of the user PostgreSQL runs as ({user})", .path.display())]
    WrongOwner { path: PathBuf, user: String, log: String },
    #[error("the data in {} was made by PostgreSQL {data}, and PostgreSQL {engine} cannot read it", .path.display())]
    OtherMajor { path: PathBuf, data: String, engine: String },
    #[error("the data in {} is of another cluster than the primary's", .path.display())]
    OtherCluster { path: PathBuf },
    #[error("another PostgreSQL (pid {pid}) runs in {}", .path.display())]
    AlreadyRunning { path: PathBuf, pid: u32 },
    #[error("the Unix socket {} is in use", .path.display())]
    SocketInUse { path: PathBuf, log: String },
    #[error("PostgreSQL lacks the library `{library}`")]
    LibraryMissing { library: String, log: String },
    #[error("there is not enough memory for PostgreSQL's settings")]
    NoMemory { log: String },
    #[error("the data directory {} is damaged", .path.display())]
    Damaged { path: PathBuf, log: String },
    #[error("the backup in {} is damaged", .path.display())]
    BackupDamaged { path: PathBuf, log: String },
    #[error("PostgreSQL's settings were refused")]
    Settings { log: String },
    #[error("`{program}` failed")]
    Failed { program: String, log: String },
    #[error("PostgreSQL ended while it was waited for")]
    Ended { log: String },
    #[error("PostgreSQL was not ready within {waited_ms} ms: {last}")]
    NotReady { waited_ms: u64, last: String },
    #[error("PostgreSQL refused: {message}")]
    Refused { sqlstate: String, message: String },
    #[error("the connection to PostgreSQL failed")]
    Connection(#[source] tokio_postgres::Error),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// `data_corrupted` and `index_corrupted`.
const DAMAGE_STATES: [&str; 2] = ["XX001", "XX002"];

impl PostgresError {
    /// Whether what was read is not what was written: it will not be another time either.
    pub fn is_damage(&self) -> bool {
        match self {
            PostgresError::Damaged { .. } | PostgresError::BackupDamaged { .. } => true,
            PostgresError::Refused { sqlstate, .. } => DAMAGE_STATES.contains(&sqlstate.as_str()),
            _ => false,
        }
    }

    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            PostgresError::Io { .. } => {
                "see that the disk is not full and that the folder is yours to write".to_owned()
            }
            PostgresError::SocketPathTooLong { .. } => {
                "use a shorter folder for sockets: the system allows 107 bytes".to_owned()
            }
            PostgresError::NoSpace { .. } => {
                "free some space on the disk of the state folder; PostgreSQL's data is unharmed".to_owned()
            }
            PostgresError::Permission { user, blocked_by: Some(folder), .. } => format!(
                "{user} cannot pass through {}: `chmod o+x` it, or put the app or its state folder elsewhere, such as \
                 below /srv",
                folder.display()
            ),
            PostgresError::Permission { path, user, .. } => {
                format!("let {user} read and write {}", path.display())
            }
            PostgresError::WrongOwner { path, user, .. } => format!(
                "run switchback as the user that made it, or give it over with `chown -R {user} {}`",
                path.display()
            ),
            PostgresError::OtherMajor { data, engine, .. } => format!(
                "install PostgreSQL {data} to go on with it (`apt-get install postgresql-{data}`), or move the data to \
                 {engine} with pg_dump and restore"
            ),
            PostgresError::OtherCluster { path } => {
                format!("move {} away, and the primary is copied in its place", path.display())
            }
            PostgresError::AlreadyRunning { pid, .. } => {
                format!("stop it with `kill -INT {pid}`, unless another switchback runs it")
            }
            PostgresError::SocketInUse { .. } => {
                "stop what listens there, or remove it if nothing does".to_owned()
            }
            PostgresError::LibraryMissing { library, .. } => {
                format!(
                    "install the package that has {library}, or PostgreSQL anew (`apt-get install postgresql`)"
                )
            }
            PostgresError::NoMemory { .. } => {
                "give the database a smaller `size`, or the machine more memory".to_owned()
            }
            PostgresError::Damaged { path, .. } => format!(
                "restore a backup; keep {} as it is until then, and do not run pg_resetwal on the only copy",
                path.display()
            ),
            PostgresError::BackupDamaged { .. } => {
                "restore an earlier one, `switchback backup list` shows which there are; and look at the disk it is on"
                    .to_owned()
            }
            PostgresError::Settings { .. } => {
                "the log names the setting; `postgresql.auto.conf` holds what ALTER SYSTEM has set".to_owned()
            }
            PostgresError::Failed { .. } | PostgresError::Ended { .. } => "its last words say why".to_owned(),
            PostgresError::NotReady { .. } => {
                "after a crash PostgreSQL replays its log, which may take long; it goes on by itself"
                    .to_owned()
            }
            PostgresError::Refused { sqlstate, .. } if sqlstate == "28P01" => {
                "the credentials file does not fit this data: restore the one that was made with it"
                    .to_owned()
            }
            PostgresError::Refused { .. } | PostgresError::Connection(_) => {
                "PostgreSQL's log says more".to_owned()
            }
            PostgresError::Credentials(error) => error.hint(),
        }
    }

    /// The last lines of PostgreSQL's log, when they matter.
    pub fn log(&self) -> Option<&str> {
        match self {
            PostgresError::NoSpace { log }
            | PostgresError::Permission { log, .. }
            | PostgresError::WrongOwner { log, .. }
            | PostgresError::SocketInUse { log, .. }
            | PostgresError::LibraryMissing { log, .. }
            | PostgresError::NoMemory { log }
            | PostgresError::Damaged { log, .. }
            | PostgresError::BackupDamaged { log, .. }
            | PostgresError::Settings { log }
            | PostgresError::Failed { log, .. }
            | PostgresError::Ended { log } => Some(log),
            _ => None,
        }
    }
}

/// What the end of a log says about why `program` (`initdb`, `postgres`) failed. `pgdata` and `user` are for the words
/// of the error.
pub fn diagnose(program: &str, log: &str, pgdata: &Path, user: &str) -> PostgresError {
    let tail = tail(log);
    let said = |words: &str| tail.contains(words);
    let path = pgdata.to_owned();
    let user = user.to_owned();
    if said("No space left on device") || said("Disk quota exceeded") {
        PostgresError::NoSpace { log: tail }
    } else if let Some(library) = between(&tail, "error while loading shared libraries: ", ":") {
        PostgresError::LibraryMissing { library: library.to_owned(), log: tail }
    } else if let Some((data, engine)) = incompatible(&tail) {
        PostgresError::OtherMajor { path, data, engine }
    } else if let Some(pid) = other_postmaster(&tail) {
        PostgresError::AlreadyRunning { path, pid }
    } else if said("Address already in use")
        || said("could not create any Unix-domain sockets")
        || said("lock file \"")
    {
        let socket = between(&tail, "Unix address \"", "\"").or_else(|| between(&tail, "lock file \"", "\""));
        PostgresError::SocketInUse { path: socket.map(PathBuf::from).unwrap_or(path), log: tail }
    } else if said("has wrong ownership") || said("has invalid permissions") {
        PostgresError::WrongOwner { path, user, log: tail }
    } else if said("Permission denied") {
        PostgresError::Permission { path, user, blocked_by: None, log: tail }
    } else if said("Cannot allocate memory")
        || said("could not map anonymous shared memory")
        || said("out of memory")
    {
        PostgresError::NoMemory { log: tail }
    } else if said("could not locate a valid checkpoint record")
        || said("invalid checkpoint record")
        || said("could not read file \"global/pg_control\"")
        || said("could not find the database system")
        || said("incorrect checksum in control file")
    {
        PostgresError::Damaged { path, log: tail }
    } else if said("contains errors")
        || said("unrecognized configuration parameter")
        || said("invalid value for parameter")
    {
        PostgresError::Settings { log: tail }
    } else {
        PostgresError::Failed { program: program.to_owned(), log: tail }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

fn incompatible(log: &str) -> Option<(String, String)> {
    let data = between(log, "initialized by PostgreSQL version ", ",")?;
    let engine = between(log, "not compatible with this version ", ".\n")
        .or_else(|| log.split_once("not compatible with this version ").map(|(_, rest)| rest))?;
    let engine = engine.split_whitespace().next()?.trim_end_matches('.');
    Some((data.to_owned(), engine.to_owned()))
}

fn other_postmaster(log: &str) -> Option<u32> {
    between(log, "Is another postmaster (PID ", ")")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(log: &str, claim: impl Fn(&PostgresError) -> bool) {
        let error = diagnose("postgres", log, Path::new("/pgdata"), "postgres");
        assert!(claim(&error), "{error:?}");
        assert!(!error.hint().is_empty());
    }

    #[test]
    fn what_postgres_says_in_words_becomes_a_reason_and_a_hint() {
        check("FATAL:  could not write to file \"x\": No space left on device", |error| {
            matches!(error, PostgresError::NoSpace { .. })
        });
        check(
            "FATAL:  database files are incompatible with server\n\
             DETAIL:  The data directory was initialized by PostgreSQL version 14, which is not compatible with this \
             version 15.18 (Debian 15.18-0+deb12u1).",
            |error| matches!(error, PostgresError::OtherMajor { data, engine, .. } if data == "14" && engine == "15.18"),
        );
        check(
            "FATAL:  lock file \"postmaster.pid\" already exists\n\
             HINT:  Is another postmaster (PID 4242) running in data directory \"/pgdata\"?",
            |error| matches!(error, PostgresError::AlreadyRunning { pid: 4242, .. }),
        );
        check(
            "postgres: error while loading shared libraries: libicuuc.so.72: cannot open",
            |error| matches!(error, PostgresError::LibraryMissing { library, .. } if library == "libicuuc.so.72"),
        );
        check("FATAL:  data directory \"/pgdata\" has wrong ownership", |error| {
            matches!(error, PostgresError::WrongOwner { .. })
        });
        check("FATAL:  could not map anonymous shared memory: Cannot allocate memory", |error| {
            matches!(error, PostgresError::NoMemory { .. })
        });
        check("PANIC:  could not locate a valid checkpoint record", |error| {
            matches!(error, PostgresError::Damaged { .. })
        });
        check(
            "something nobody has thought of",
            |error| matches!(error, PostgresError::Failed { log, .. } if log == "something nobody has thought of"),
        );
    }
}

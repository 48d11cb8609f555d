//! `postmaster.pid`, and who really works in a data directory.
//!
//! After a crash the file stays, and its pid may meanwhile be somebody else's: then PostgreSQL refuses to start, since
//! all it can ask is whether that pid lives. We can ask more: every process of a server, the postmaster and its
//! children, has the data directory as its working directory. When no process at all has, the file is stale. Even then
//! it is removed only if PostgreSQL would stumble over it: its own checks see further than ours, into other containers
//! that use the same data. Children may outlive a killed postmaster for a moment; they are waited for, as they can
//! still write.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{NodePaths, PostgresError};
use crate::process::stat::is_killed_in_kernel;

/// Backends notice the death of their postmaster when they next wait for something: 30-50 ms, unless they compute.
const ORPHAN_WAIT: Duration = Duration::from_secs(10);
const ORPHAN_POLL: Duration = Duration::from_millis(10);

/// A process that works in a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerProcess {
    pub pid: u32,
    /// What it says of itself, such as `postgres: checkpointer`; the command line of the postmaster.
    pub title: String,
}

/// All living processes whose working directory is `pgdata`, or was until it was deleted. Zombies do not count: they hold
/// nothing.
///
/// # Errors
/// When `/proc` or the way to `pgdata` cannot be read: then nobody knows who is there. Processes of other users are
/// left out when we are not root: they cannot be PostgreSQL in a directory that is ours alone.
pub fn processes_in(pgdata: &Path) -> io::Result<Vec<ServerProcess>> {
    let pgdata = resolved(pgdata)?;
    // As the kernel names a folder that was deleted under a process.
    let mut deleted = pgdata.clone().into_os_string();
    deleted.push(" (deleted)");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let proc = entry.path();
        if fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd == pgdata || cwd == deleted) {
            // Empty for a zombie, which has no working directory either on most kernels.
            let title = fs::read(proc.join("cmdline")).unwrap_or_default();
            let title = String::from_utf8_lossy(&title).replace('\0', " ").trim().to_owned();
            if !title.is_empty() {
                found.push(ServerProcess { pid, title });
            }
        }
    }
    Ok(found)
}

/// Without symbolic links, as far as it exists.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(resolved(parent)?.join(name))
        }
        (resolved, ..) => resolved,
    }
}

/// Those that work in `pgdata`, were killed, and wait in the kernel for the disk: see [`is_killed_in_kernel`].
pub fn killed_in_kernel(pgdata: &Path) -> usize {
    let living = processes_in(pgdata).unwrap_or_default();
    living.iter().filter(|process| is_killed_in_kernel(process.pid)).count()
}

/// Makes way for a start: removes what a crash has left of `postmaster.pid` and of the Unix socket's lock file, where
/// PostgreSQL would not.
///
/// Waits up to 10 s for children of a dead postmaster. Cancel safe.
///
/// # Errors
/// [`PostgresError::AlreadyRunning`] when somebody lives in the data directory, which is the caller's bug or another
/// Switchback; [`PostgresError::SocketInUse`] when a server of another data directory has our socket.
pub async fn clear_stale_lock(paths: &NodePaths) -> Result<(), PostgresError> {
    let pgdata = paths.pgdata();
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| PostgresError::Io { path, source }
    };
    let deadline = Instant::now() + ORPHAN_WAIT;
    loop {
        let living = processes_in(&pgdata).map_err(at(&pgdata))?;
        let Some(first) = living.first() else { break };
        let postmaster =
            living.iter().find(|process| Some(process.pid) == lock_pid(&pgdata.join("postmaster.pid")));
        if postmaster.is_some() || Instant::now() >= deadline {
            let pid = postmaster.unwrap_or(first).pid;
            return Err(PostgresError::AlreadyRunning { path: pgdata, pid });
        }
        sleep(ORPHAN_POLL).await;
    }
    let lock = pgdata.join("postmaster.pid");
    remove_obstacle(&lock).map_err(at(&lock))?;
    clear_socket(paths)
}

/// The socket's lock file names the data directory of its server in the second line.
fn clear_socket(paths: &NodePaths) -> Result<(), PostgresError> {
    let lock = paths.socket_lock();
    let at = |source| PostgresError::Io { path: lock.clone(), source };
    let other = fs::read_to_string(&lock).ok().and_then(|text| Some(PathBuf::from(text.lines().nth(1)?)));
    if let Some(other) = other
        && other != paths.pgdata()
        && !processes_in(&other).map_err(at)?.is_empty()
    {
        let log = format!("it belongs to the PostgreSQL in {}", other.display());
        return Err(PostgresError::SocketInUse { path: paths.socket(), log });
    }
    // A socket that is left over is PostgreSQL's to remove.
    remove_obstacle(&lock).map_err(at)
}

/// A stale lock file stops PostgreSQL when it is empty, as a power loss leaves it, or when somebody has its pid.
fn remove_obstacle(lock: &Path) -> io::Result<()> {
    let somebody = |pid: u32| Path::new("/proc").join(pid.to_string()).exists();
    if lock_pid(lock).is_none_or(somebody) { remove(lock) } else { Ok(()) }
}

fn lock_pid(lock: &Path) -> Option<u32> {
    fs::read_to_string(lock).ok()?.lines().next()?.trim().parse().ok()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Nobody may take over from a server of which nobody knows whether it is still there.
    #[test]
    fn where_the_way_to_a_data_directory_cannot_be_read_nobody_says_that_it_is_empty() {
        assert!(processes_in(Path::new("/proc/self/status/pgdata")).is_err());
        assert_eq!(processes_in(Path::new("/nowhere/pgdata")).unwrap(), []);
    }

    #[test]
    fn a_server_whose_data_directory_was_deleted_is_still_there() {
        let folder = tempfile::tempdir().unwrap();
        let pgdata = folder.path().join("db.1/pgdata");
        fs::create_dir_all(&pgdata).unwrap();
        let mut server = Command::new("sleep").arg("600").current_dir(&pgdata).spawn().unwrap();
        // It is a process of its own a moment before it has a title.
        while fs::read(format!("/proc/{}/cmdline", server.id())).unwrap().is_empty() {
            std::thread::yield_now();
        }
        fs::remove_dir_all(folder.path().join("db.1")).unwrap();
        let found = processes_in(&pgdata).unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(found.iter().map(|process| process.pid).collect::<Vec<_>>(), [server.id()]);
    }
}

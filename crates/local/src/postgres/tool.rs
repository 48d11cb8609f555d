//! Running a program to its end, most of them PostgreSQL's own: `initdb`, `pg_basebackup`, `pg_rewind`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::time::sleep;

use super::{Owner, PostgresError, processes_in};
use crate::engines::PostgresEngine;

/// What an interrupted program has left running is gone by then.
const LEFTOVER_WAIT: Duration = Duration::from_secs(10);
const LEFTOVER_POLL: Duration = Duration::from_millis(5);
/// What may be found at work in a data directory that is being made.
pub(super) const MAKERS: &[&str] = &["initdb", "postgres", "pg_basebackup"];
/// What may be found at work in one that is being rewound: the program, and the recovery that it has started before.
pub(super) const REWINDERS: &[&str] = &["pg_rewind", "--single"];

/// Runs `program` as the node's owner, in `cwd`. What it starts inherits that folder, and is found by it should we die:
/// see [`end_processes_in`]. Cancel safe: dropped half-way, it kills the program.
///
/// The inner result is what it said on both outputs, `Err` when it failed.
///
/// # Errors
/// When it cannot be run at all.
pub(super) async fn run(
    engine: &PostgresEngine,
    owner: &Owner,
    cwd: &Path,
    program: &str,
    arguments: &[&OsStr],
) -> Result<Result<String, String>, PostgresError> {
    run_as(engine, owner, cwd, &engine.program(program), arguments).await
}

/// As [`run`], but the program may be any, and yields to everything else: nobody waits for it.
///
/// # Errors
/// As [`run`].
pub(super) async fn run_gently(
    engine: &PostgresEngine,
    owner: &Owner,
    cwd: &Path,
    program: &Path,
    arguments: &[&OsStr],
) -> Result<Result<String, String>, PostgresError> {
    let mut gently: Vec<&OsStr> = vec!["-n".as_ref(), "10".as_ref(), program.as_os_str()];
    gently.extend(arguments);
    run_as(engine, owner, cwd, Path::new("nice"), &gently).await
}

async fn run_as(
    engine: &PostgresEngine,
    owner: &Owner,
    cwd: &Path,
    program: &Path,
    arguments: &[&OsStr],
) -> Result<Result<String, String>, PostgresError> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(&engine.env)
        // TZ saves initdb from comparing every time zone there is with the machine's. Messages are read, so they are in
        // one language.
        .envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC")])
        .current_dir(cwd)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(user) = owner.identity() {
        command.uid(user.uid).gid(user.gid);
    }
    let output = match command.output().await {
        Ok(output) => output,
        // The working directory is out of the owner's reach: as if the program had said so.
        Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied && owner.identity().is_some() => {
            return Ok(Err("Permission denied".to_owned()));
        }
        Err(source) => return Err(PostgresError::Io { path: program.to_owned(), source }),
    };
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(if output.status.success() { Ok(said) } else { Err(said) })
}

/// An `initdb` whose daemon was killed goes on, and one that was killed leaves a `postgres` behind that is still
/// writing. All of them work in the partial directory.
pub(super) async fn end_processes_in(partial: &Path, programs: &[&str]) -> io::Result<()> {
    let deadline = Instant::now() + LEFTOVER_WAIT;
    loop {
        let mut left = processes_in(partial)?;
        // Not somebody's shell that happens to stand there.
        left.retain(|process| programs.iter().any(|program| process.title.contains(program)));
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(io::Error::other(format!("pid {} still works in it", left[0].pid)));
        }
        for process in &left {
            // One that has just ended needs no ending.
            if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        sleep(LEFTOVER_POLL).await;
    }
}

/// Puts a data directory that is complete in its place. One flush of the whole file system covers the files that were
/// written without syncing each.
pub(super) fn move_into_place(partial: &Path, pgdata: &Path, parent: &Path) -> io::Result<()> {
    let folder = fs::File::open(partial)?;
    rustix::fs::syncfs(&folder)?;
    fs::rename(partial, pgdata)?;
    fs::File::open(parent)?.sync_all()
}

//! Making a data directory one that follows a primary.
//!
//! From nothing by a copy of the primary (`pg_basebackup`), made beside its place and moved there when it is complete.
//! From an old primary's by going back to where it and the new one parted (`pg_rewind`), which copies only what differs;
//! where that fails, by a new copy. What an old primary had beyond that point was never acknowledged to anybody. Data of
//! another cluster is never given up for a copy.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::config::connection_string;
use super::init::prepare_folders;
use super::membership::is_member_name;
use super::tool::{self, MAKERS, REWINDERS, end_processes_in, move_into_place};
use super::{
    Credentials, NodePaths, Owner, Position, PostgresError, Session, clear_stale_lock, diagnose, member_name,
};
use crate::engines::PostgresEngine;
use model::NodeId;

/// What was needed to let a node follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// It followed before.
    AsItWas,
    Copied,
    Rewound,
    /// Rewinding failed, in these words.
    CopiedInsteadOfRewinding(String),
}

/// What is known to be wrong with a data directory that looks as if it could follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Nothing,
    /// It is past the point where its primary went another way.
    Rewind,
    /// The log that it needs is gone, or rewinding did not help.
    Copy,
}

/// Sees to it that the data directory of `id` can follow the node whose socket `primary_port` names. That one must run,
/// and hold a slot for this node; this one must not run.
///
/// Cancel safe: dropped half-way, it kills what it has started, and the next call begins anew.
///
/// # Errors
/// When neither rewinding nor copying succeeds.
pub async fn follow(
    engine: &PostgresEngine,
    id: &NodeId,
    paths: &NodePaths,
    credentials: &Credentials,
    owner: &Owner,
    primary_port: u16,
    need: Need,
) -> Result<Followed, PostgresError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| PostgresError::Io { path, source }
    };
    prepare_folders(paths, owner)?;
    write_passfile(paths, credentials, owner).map_err(at(&paths.passfile()))?;
    // Under another name than the follower's own: a copy confirms no commits.
    let source = connection_string(paths, primary_port, &format!("{}_copy", member_name(id)));
    let signal = paths.standby_signal();
    if signal.exists() && need == Need::Nothing {
        forget_slots(paths, id).map_err(at(&paths.pgdata()))?;
        return Ok(Followed::AsItWas);
    }
    // Nothing is given up for a primary that is not there.
    let primary = NodePaths::new(paths.root(), paths.socket_dir(), primary_port)?;
    let session = Session::open(&primary, credentials).await?;
    if let Position::Follower(_) = session.position().await? {
        return Err(PostgresError::NotReady {
            waited_ms: 0,
            last: "its primary is not promoted yet".to_owned(),
        });
    }
    let of_primary = session.system_identifier().await?;
    let discarded = paths.root().join("pgdata.discarded");
    if !paths.has_cluster() {
        // Given up for a copy that was not completed, which may need its space.
        remove_in_background(discarded).await.map_err(at(paths.root()))?;
        copy(engine, id, paths, owner, &source).await?;
        return Ok(Followed::Copied);
    }
    // What cannot be read is no cluster any more, and is copied.
    if paths.system_identifier().is_ok_and(|own| own != of_primary) {
        return Err(PostgresError::OtherCluster { path: paths.pgdata() });
    }
    end_processes_in(&paths.pgdata(), REWINDERS).await.map_err(at(&paths.pgdata()))?;
    clear_stale_lock(paths).await?;
    forget_slots(paths, id).map_err(at(&paths.pgdata()))?;
    // Up to version 15 the control file alone tells pg_rewind which timeline the primary is on.
    session.checkpoint().await?;
    let mut refused = None;
    if need != Need::Copy {
        // Should it be cut short: without the file it is rewound again, and not started as it is.
        remove_file(&signal).and_then(|()| sync_folder(&paths.pgdata())).map_err(at(&signal))?;
        match rewind(engine, paths, owner, &source).await? {
            Ok(()) => {
                let (folder, owner) = (paths.pgdata(), owner.clone());
                let marked = tokio::task::spawn_blocking(move || {
                    rustix::fs::syncfs(fs::File::open(&folder)?)?;
                    mark_as_standby(&signal, &owner)?;
                    sync_folder(&folder)
                });
                let marked = marked.await.map_err(io::Error::other).and_then(|marked| marked);
                marked.map_err(at(&paths.pgdata()))?;
                return Ok(Followed::Rewound);
            }
            // What stands in the way of a rewind stands in the way of a copy, too, and goes by itself or by somebody's hand.
            Err(said) => match diagnose("pg_rewind", &said, &paths.pgdata(), &owner.name()) {
                PostgresError::Failed { .. } | PostgresError::Damaged { .. } => refused = Some(said),
                error => return Err(error),
            },
        }
    }
    // Whether it was the primary's absence that made it fail.
    session.position().await?;
    // Out of the way first: half a data directory must never stand in the place of a whole one.
    remove_in_background(discarded.clone()).await.map_err(at(&discarded))?;
    fs::rename(paths.pgdata(), &discarded).map_err(at(&discarded))?;
    let mut copied = copy(engine, id, paths, owner, &source).await;
    if let Err(PostgresError::NoSpace { .. }) = copied {
        // Its disk has no room for both.
        remove_in_background(discarded.clone()).await.map_err(at(&discarded))?;
        copied = copy(engine, id, paths, owner, &source).await;
    }
    copied?;
    remove_in_background(discarded).await.map_err(at(paths.root()))?;
    Ok(refused.map_or(Followed::Copied, Followed::CopiedInsteadOfRewinding))
}

/// A node that was the primary kept the log for the others; as a follower it would keep it for nobody, until its disk or
/// their bound is full.
fn forget_slots(paths: &NodePaths, id: &NodeId) -> io::Result<()> {
    let slots = match fs::read_dir(paths.pgdata().join("pg_replslot")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        slots => slots?,
    };
    for slot in slots {
        let slot = slot?;
        if slot.file_name().to_str().is_some_and(|name| is_member_name(id.resource(), name)) {
            fs::remove_dir_all(slot.path())?;
        }
    }
    Ok(())
}

/// What the process says that receives the log, or the one that replays it, when they cannot: the last such line of a
/// node's log.
pub fn said_of_following(lines: &[String]) -> Option<String> {
    lines.iter().rev().find_map(|line| {
        // Of a client's session, its name stands before the severity.
        let (_, text) = line.split_once("] ")?;
        let fatal = text.strip_prefix("FATAL:").or_else(|| text.strip_prefix("ERROR:"));
        let parted =
            || text.strip_prefix("LOG:").filter(|text| text.contains("forked off current database system"));
        Some(fatal.or_else(parted)?.trim().to_owned())
    })
}

async fn copy(
    engine: &PostgresEngine,
    id: &NodeId,
    paths: &NodePaths,
    owner: &Owner,
    source: &str,
) -> Result<(), PostgresError> {
    let partial = paths.partial();
    let at_partial = |source| PostgresError::Io { path: partial.clone(), source };
    if partial.exists() {
        end_processes_in(&partial, MAKERS).await.map_err(at_partial)?;
        remove_in_background(partial.clone()).await.map_err(at_partial)?;
    }
    owner.make_folder(&partial, 0o700).map_err(at_partial)?;
    let slot = member_name(id);
    let fixed = ["--wal-method=stream", "--checkpoint=fast", "--no-sync", "--no-password", "--slot"];
    let mut arguments: Vec<&OsStr> = vec!["--pgdata".as_ref(), partial.as_os_str()];
    arguments.extend(fixed.iter().map(OsStr::new));
    arguments.extend([OsStr::new(&slot), OsStr::new("--dbname"), OsStr::new(source)]);
    let said = tool::run(engine, owner, &partial, "pg_basebackup", &arguments).await?;
    said.map_err(|said| diagnose("pg_basebackup", &said, &partial, &owner.name()))?;
    let (from, to, parent, owner) = (partial.clone(), paths.pgdata(), paths.root().to_owned(), owner.clone());
    let moved = tokio::task::spawn_blocking(move || {
        mark_as_standby(&from.join("standby.signal"), &owner)?;
        move_into_place(&from, &to, &parent)
    });
    moved.await.map_err(io::Error::other).and_then(|moved| moved).map_err(at_partial)
}

/// The inner result: what it said when it failed. It finds out itself whether there is anything to do, and brings a data
/// directory that was not shut down in order to a consistent end first.
async fn rewind(
    engine: &PostgresEngine,
    paths: &NodePaths,
    owner: &Owner,
    source: &str,
) -> Result<Result<(), String>, PostgresError> {
    let pgdata = paths.pgdata();
    keep_log_in_recovery(&pgdata, owner)
        .map_err(|source| PostgresError::Io { path: pgdata.clone(), source })?;
    let arguments: [&OsStr; 5] = [
        "--target-pgdata".as_ref(),
        pgdata.as_os_str(),
        "--no-sync".as_ref(),
        "--source-server".as_ref(),
        source.as_ref(),
    ];
    Ok(tool::run(engine, owner, &pgdata, "pg_rewind", &arguments).await?.map(drop))
}

/// What was not shut down in order recovers alone first, by the settings that stand in the data directory and nobody else
/// reads, and ends that with a checkpoint. It must not take the log away from the one before on, which a rewind reads.
fn keep_log_in_recovery(pgdata: &Path, owner: &Owner) -> io::Result<()> {
    let settings = pgdata.join("postgresql.conf");
    remove_file(&settings)?;
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&settings)?;
    file.write_all(b"# Written by switchback, for a rewind.\nwal_keep_size = '1TB'\n")?;
    owner.take(&settings)
}

fn mark_as_standby(signal: &Path, owner: &Owner) -> io::Result<()> {
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(signal)?.sync_all()?;
    owner.take(signal)
}

pub(super) fn write_passfile(paths: &NodePaths, credentials: &Credentials, owner: &Owner) -> io::Result<()> {
    let path = paths.passfile();
    let partial = path.with_extension("partial");
    remove_file(&partial)?;
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&partial)?;
    // Generated passwords have no character that would need escaping.
    writeln!(file, "*:*:*:{}:{}", credentials.superuser.role, credentials.superuser.password)?;
    owner.take(&partial)?;
    fs::rename(&partial, &path)
}

/// Deletes a folder that may be large, off the runtime's threads.
async fn remove_in_background(folder: PathBuf) -> io::Result<()> {
    let removed = tokio::task::spawn_blocking(move || absent_is_fine(fs::remove_dir_all(folder))).await;
    removed.map_err(io::Error::other).and_then(|removed| removed)
}

fn remove_file(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_file(path))
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_node_does_not_follow_is_what_its_own_processes_said_last() {
        let at = "2026-11-25 23:00:00.000 UTC [7]";
        let said = |lines: &[&str]| {
            said_of_following(&lines.iter().map(|line| format!("{at} {line}")).collect::<Vec<_>>())
        };
        let refused =
            "FATAL:  could not start WAL streaming: ERROR:  replication slot \"db_2\" does not exist";
        let client = "app@shop ERROR:  relation \"visits\" does not exist";
        assert_eq!(said(&[refused, client, "LOG:  waiting for WAL"]).unwrap(), refused["FATAL:  ".len()..]);
        let parted = "LOG:  new timeline 2 forked off current database system timeline 1 before current recovery \
                      point 0/5000060";
        assert_eq!(said(&[refused, parted]).unwrap(), parted["LOG:  ".len()..]);
        assert_eq!(said(&[client, "LOG:  redo starts at 0/2000028"]), None);
    }
}

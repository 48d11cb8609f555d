//! The backups of another cluster: of one whose machine or state is lost, or of another installation of the app. What is
//! restored from them has the passwords of that one, and gets ours; from then on its log and its copies go where this
//! cluster's belong.

use std::fs;
use std::path::Path;
use std::time::Duration;

use model::ResourceId;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::blocking;
use super::scratch::Scratch;
use crate::backup::{Archive, Lineage};
use crate::jobs::node::NodeJob;
use crate::machine::nodes::failed;
use crate::machine::{Machine, StepError};
use crate::postgres::{Owner, take_in};
use crate::user::Identity;

/// The folder may be on a disk that does not answer.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// A database that is written to stores its log once a minute.
const STILL_STORED: Duration = Duration::from_secs(180);

/// What a restore begins with.
pub(super) struct Source {
    /// Of the primary that it replaces.
    pub(super) job: NodeJob,
    pub(super) archive: Archive,
    /// It is not the cluster's own.
    pub(super) is_elsewhere: bool,
}

impl Machine {
    /// The cluster's own archive, or the one in the folder `from`.
    ///
    /// # Errors
    /// When there is none, or nothing can be restored from it here. Nothing was changed.
    pub(super) async fn source_of_restore(
        &self,
        id: &ResourceId,
        from: Option<&Path>,
    ) -> Result<Source, StepError> {
        if let Some(folder) = from {
            supervisor()?;
            let job = self.primary_kept(id)?;
            let (of, cluster, owner) = (folder.to_owned(), id.clone(), job.owner.clone());
            let own = job.archive().ok().flatten();
            let looking = spawn_blocking(move || elsewhere(&of, &cluster, own.as_ref(), &owner));
            let found = timeout(LOOK_LIMIT, looking).await.map_err(|_| {
                StepError::new(format!("{} does not answer", folder.display()))
                    .hint("look at that disk, or the machine that it is on")
            })?;
            if let Some(archive) = found.map_err(|error| StepError::new(error.to_string()))?? {
                return Ok(Source { job, archive, is_elsewhere: true });
            }
        }
        let (job, archive) = self.archive_to_restore_from(id)?;
        Ok(Source { job, archive, is_elsewhere: false })
    }

    /// Gives what was restored from elsewhere our password, and its log a place. It runs, and has taken no place in the
    /// cluster yet.
    pub(super) async fn make_ours(
        &self,
        scratch: &Scratch,
        archive: &Archive,
        timeline: u32,
    ) -> Result<(), StepError> {
        let job = &scratch.job;
        let databases = take_in(&job.paths, &job.credentials).await.map_err(|error| failed(&error))?;
        let wanted = &job.credentials.database;
        if !databases.contains(wanted) {
            let reason =
                format!("there is no database `{wanted}` in that backup, but {}", databases.join(", "));
            return Err(
                StepError::new(reason).hint("a database has the name of its app: name `app` as it was there")
            );
        }
        let own = job.archive().map_err(|error| StepError::new(crate::chain(&error)))?;
        if let Some(own) = own.filter(|own| !is_same(own.root(), archive.root())) {
            let newest = blocking(move || Lineage::newest(&own)).await?;
            if newest.is_some_and(|newest| newest.timeline > timeline) {
                let root = job.archive().ok().flatten().map(|own| own.root().display().to_string());
                let reason = format!(
                    "{} has later log of the same database, which what is restored would part from",
                    root.unwrap_or_default()
                );
                return Err(StepError::new(reason).hint("restore from there, or move it elsewhere"));
            }
        }
        self.make_archive(job)
    }
}

/// `None`: it is the cluster's own one, of which more is known.
fn elsewhere(
    folder: &Path,
    id: &ResourceId,
    own: Option<&Archive>,
    owner: &Owner,
) -> Result<Option<Archive>, StepError> {
    let archive = archive_in(folder, id)?;
    if own.is_some_and(|own| is_same(own.root(), archive.root())) {
        return Ok(None);
    }
    let beside = |own: &Archive| {
        let folders = own.root().parent().zip(archive.root().parent());
        folders.is_some_and(|(own, other)| is_same(own, other))
    };
    if own.is_some_and(beside) && is_still_stored(&archive) {
        let root = archive.root().display();
        let reason = format!("a database stores its log in {root}: the last of it came within three minutes");
        return Err(StepError::new(reason).hint(
            "two must not store in one folder: name another one in `backups.to` under [db], or wait, where that database is gone",
        ));
    }
    if let Some(closed) = owner.stopped_by(&archive.wal().join("any")) {
        let user = owner.name();
        let reason = format!("PostgreSQL runs as {user}, who cannot pass through {}", closed.display());
        let hint = format!("give the backups over: `chown -R {user} {}`", archive.root().display());
        return Err(StepError::new(reason).hint(hint));
    }
    Ok(Some(archive))
}

/// The archive that `folder` is, or the only one of clusters of this name that it holds.
fn archive_in(folder: &Path, id: &ResourceId) -> Result<Archive, StepError> {
    let itself = Archive::at(folder);
    if itself.is_there() {
        return Ok(itself);
    }
    if let Err(error) = fs::read_dir(folder) {
        return Err(StepError::new(format!("{} cannot be read: {error}", folder.display()))
            .hint("name the folder that `backups.to` named; who runs the app must be able to read it"));
    }
    match Archive::all_of(id, folder).as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(StepError::new(format!("there are no backups of {id} in {}", folder.display()))
            .hint("name the folder that `backups.to` named, or one of the folders in it")),
        several => {
            let names: Vec<String> =
                several.iter().map(|archive| archive.root().display().to_string()).collect();
            Err(StepError::new(format!("backups of {id} there are of several: {}", names.join(", ")))
                .hint("name one of them; `switchback backup list --from` shows what each has"))
        }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    fs::canonicalize(one).ok().zip(fs::canonicalize(other).ok()).is_some_and(|(one, other)| one == other)
}

/// Whether a database that lives has stored something there just now, as far as can be told.
fn is_still_stored(archive: &Archive) -> bool {
    let entries = fs::read_dir(archive.wal()).into_iter().flatten().flatten();
    let stored = entries.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max();
    stored.is_some_and(|at| at.elapsed().is_ok_and(|age| age < STILL_STORED))
}

/// As whom PostgreSQL knows this program over its socket.
pub(super) fn supervisor() -> Result<String, StepError> {
    let uid = rustix::process::geteuid().as_raw();
    let identity = Identity::by_uid(uid).map_err(|error| StepError::new(crate::chain(&error)))?;
    if identity.name == uid.to_string() {
        return Err(StepError::new(format!(
            "this runs as user {uid}, who has no name by which PostgreSQL could know it"
        ))
        .hint("give it one in /etc/passwd, or run this as another user"));
    }
    Ok(identity.name)
}

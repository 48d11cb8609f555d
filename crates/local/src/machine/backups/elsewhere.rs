//! The backups of another cluster: of one whose machine or state is lost, or of another installation of the app. What is
//! restored from them has the passwords of that one, and gets ours; from then on its log and its copies go where this
//! cluster's belong.

use std::path::Path;

use model::ResourceId;

use super::blocking;
use super::scratch::Scratch;
use crate::backup::{Archive, Lineage};
use crate::jobs::node::NodeJob;
use crate::machine::nodes::failed;
use crate::machine::{Machine, StepError};
use crate::postgres::take_in;
use crate::user::Identity;

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
    pub(super) fn source_of_restore(
        &self,
        id: &ResourceId,
        from: Option<&Path>,
    ) -> Result<Source, StepError> {
        let own = || {
            let (job, archive) = self.archive_to_restore_from(id)?;
            Ok(Source { job, archive, is_elsewhere: false })
        };
        let Some(folder) = from else { return own() };
        let archive = archive_in(folder, id)?;
        let job = self.primary_kept(id)?;
        if job.archive().is_ok_and(|own| own.as_ref() == Some(&archive)) {
            return own();
        }
        supervisor()?;
        if let Some(closed) = job.owner.stopped_by(&archive.wal().join("any")) {
            let user = job.owner.name();
            let reason = format!("PostgreSQL runs as {user}, who cannot pass through {}", closed.display());
            let hint = format!("give the backups over: `chown -R {user} {}`", archive.root().display());
            return Err(StepError::new(reason).hint(hint));
        }
        Ok(Source { job, archive, is_elsewhere: true })
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
        if let Some(own) = own.filter(|own| own != archive) {
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

/// The archive that `folder` is, or the only one of clusters of this name that it holds.
fn archive_in(folder: &Path, id: &ResourceId) -> Result<Archive, StepError> {
    let itself = Archive::at(folder);
    if itself.is_there() {
        return Ok(itself);
    }
    if let Err(error) = std::fs::read_dir(folder) {
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

//! Data that is there and that the state does not know.
//!
//! A state file that was damaged and moved away leaves data directories behind that no topology names. Nothing is made in
//! their place: the next plan takes a cluster up again where it is certain which of its nodes took writes last, and there
//! is none where it is not. That node is the only one without `standby.signal`, which PostgreSQL removes when it promotes.
//! Of two without it one was a primary before, and only a person can tell which.
//!
//! Data that is not there may be on a disk that is not mounted. What tells that there was some are the folder it belongs in,
//! which is empty then, and the passwords that were made for it.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use model::{NodeId, ResourceGraph, ResourceId};
use plan::FoundData;

use super::nodes::{at, new_mark};
use super::{Machine, StepError};
use crate::paths::StateDir;

/// A node's folder.
#[derive(Clone)]
struct Folder {
    id: NodeId,
    path: PathBuf,
    holds: Holds,
}

/// What a node's folder has in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// A data directory.
    Data,
    /// One that was being made, or copied, and never served.
    Draft,
    /// Nothing yet: a disk that was mounted there for what is to come.
    NewDisk,
    /// No data, where there may have been some.
    NoData,
}

/// Whether the state has ever had a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Yes,
    No,
}

impl Machine {
    /// What is left of the clusters of `graph` that do not stand.
    ///
    /// # Errors
    /// When it is not certain which of several nodes took writes last, or when there has been data that is not there now; the
    /// folders are named.
    pub fn find_data(&self, graph: &ResourceGraph) -> Result<BTreeMap<ResourceId, FoundData>, StepError> {
        let topology = self.topology();
        let mut found = BTreeMap::new();
        for (id, _) in graph.databases().filter(|(id, _)| topology.primary_of(id).is_none()) {
            let known = if topology.next_node.contains_key(id) { Known::Yes } else { Known::No };
            if let Some(data) = left_of(id, &self.inner.setup.state, known)? {
                found.insert(id.clone(), data);
            }
        }
        Ok(found)
    }
}

/// `None` where nothing is, and there is no sign that anything ever was.
fn left_of(id: &ResourceId, state: &StateDir, known: Known) -> Result<Option<FoundData>, StepError> {
    let places = folders_of(id, &state.nodes())?;
    let holding = |holds| places.iter().filter(move |folder| folder.holds == holds);
    let standing: Vec<Folder> = holding(Holds::Data).cloned().collect();
    let aside = [folders_of(id, &state.replaced())?, folders_of(id, &state.restored())?].concat();
    let aside: Vec<Folder> = aside.into_iter().filter(|folder| folder.holds == Holds::Data).collect();
    // What such a state does not know of is nobody's.
    if known == Known::No {
        refuse_what_is_away(id, holding(Holds::NoData).collect(), &standing)?;
        let credentials = state.database_credentials(id);
        let begun = holding(Holds::Draft).next().is_some();
        if standing.is_empty() && aside.is_empty() && !begun && exists(&credentials)? {
            let (nodes, credentials) = (state.nodes(), credentials.display());
            let reason = format!(
                "the state does not know {id}, there are passwords of it in {credentials}, and {} has no data of it",
                nodes.display()
            );
            return Err(StepError::new(reason).hint(format!(
                "mount the disk that the data is on, or bring its folder back, and try again; nothing was made in its \
                 place. To begin with an empty {id}, move {credentials} away"
            )));
        }
    }
    // Of a cluster that this state has known, what is aside is known to be.
    if standing.is_empty() && (aside.is_empty() || known == Known::Yes) {
        return Ok(None);
    }
    let primary = took_writes_last(id, &standing, &aside, &state.nodes())?;
    let numbers = standing.iter().chain(&aside).map(|folder| folder.id.number());
    Ok(Some(FoundData { number: primary.number(), spent: numbers.max().unwrap_or_default() }))
}

/// Whose data is not there may have been the primary last, whatever the others say.
fn refuse_what_is_away(id: &ResourceId, away: Vec<&Folder>, standing: &[Folder]) -> Result<(), StepError> {
    if away.is_empty() {
        return Ok(());
    }
    let others = match standing {
        [] => String::new(),
        some => format!("; {} alone may not have every commit", names(some.iter())),
    };
    let reason =
        format!("the state does not know {id}, and there is no data in {}{others}", names(away.into_iter()));
    Err(StepError::new(reason).hint(
        "if a disk belongs there, mount it and try again; a folder that never held data can be deleted. Nothing was made \
         in their place",
    ))
}

fn names<'a>(folders: impl Iterator<Item = &'a Folder>) -> String {
    let paths: Vec<String> = folders.map(|folder| folder.path.display().to_string()).collect();
    paths.join(", ")
}

fn took_writes_last<'a>(
    id: &ResourceId,
    standing: &'a [Folder],
    aside: &[Folder],
    nodes: &Path,
) -> Result<&'a NodeId, StepError> {
    let mut primaries = Vec::new();
    for folder in standing {
        if !exists(&folder.path.join("pgdata/standby.signal"))? {
            primaries.push(folder);
        }
    }
    let nodes = nodes.display();
    match primaries.as_slice() {
        [primary] => Ok(&primary.id),
        [] if standing.is_empty() => {
            let reason = format!("the state does not know {id}, and {} hold data of it", names(aside.iter()));
            Err(StepError::new(reason).hint(format!("move the folder to go on with to {nodes}")))
        }
        [] => {
            let reason = format!(
                "the state does not know {id}, and of its data there are only followers: {}",
                names(standing.iter())
            );
            Err(StepError::new(reason).hint(
                "bring the folder of the primary back, or delete `pgdata/standby.signal` in the one to go on with; \
                 nothing was made in their place",
            ))
        }
        several => {
            let reason = format!(
                "the state does not know {id}, and which of these was its primary last is not certain: {}",
                names(several.iter().copied())
            );
            Err(StepError::new(reason).hint(format!(
                "move all but the one to go on with out of {nodes}; the one that was promoted last has the highest \
                 TimeLineID in `pg_controldata`"
            )))
        }
    }
}

/// Whatever is named as a node of this cluster.
fn folders_of(id: &ResourceId, parent: &Path) -> Result<Vec<Folder>, StepError> {
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| at(parent, &error))?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| at(parent, &error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Ok(node) = name.parse::<NodeId>() else { continue };
        if node.resource() == id {
            let holds = held_by(&path)?;
            folders.push(Folder { id: node, path, holds });
        }
    }
    folders.sort_by_key(|folder| folder.id.number());
    Ok(folders)
}

fn held_by(folder: &Path) -> Result<Holds, StepError> {
    if exists(&folder.join("pgdata/PG_VERSION"))? {
        return Ok(Holds::Data);
    }
    let has = |name| exists(&folder.join(name));
    // What is made has another name until it is whole; see also `Machine::mark_as_new`.
    if exists(&new_mark(folder))? || (has("pgdata.partial")? && !has("pgdata")?) {
        return Ok(Holds::Draft);
    }
    if is_new_disk(folder).map_err(|error| at(folder, &error))? {
        Ok(Holds::NewDisk)
    } else {
        Ok(Holds::NoData)
    }
}

/// Whether a disk is mounted there that has nothing on it but what a new file system has.
fn is_new_disk(folder: &Path) -> io::Result<bool> {
    // A link that leads nowhere leads to where a disk is not mounted.
    let found = match folder.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    let disk = |path: &Path| fs::metadata(path).as_ref().map(Metadata::dev).ok();
    if !found.is_dir() || found.parent().and_then(disk) == disk(&found) {
        return Ok(false);
    }
    for entry in fs::read_dir(&found)? {
        if entry?.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn exists(path: &Path) -> Result<bool, StepError> {
    path.try_exists().map_err(|error| at(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of the state folder; one that ends with `/` is a folder.
    fn check_in(files: &[&str], known: Known) -> Result<Option<u32>, StepError> {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            let folder = if file.ends_with('/') { path.as_path() } else { path.parent().unwrap() };
            fs::create_dir_all(folder).unwrap();
            if !file.ends_with('/') {
                fs::write(&path, "").unwrap();
            }
        }
        let found = left_of(&ResourceId::new("db").unwrap(), &StateDir::at(root.path()), known);
        found.map(|found| found.map(|data| data.number))
    }

    fn check(files: &[&str]) -> Result<Option<u32>, StepError> {
        check_in(files, Known::No)
    }

    const PRIMARY_1: &str = "data/postgres/db.1/pgdata/PG_VERSION";
    const PRIMARY_2: &str = "data/postgres/db.2/pgdata/PG_VERSION";
    const FOLLOWER_1: [&str; 2] = [PRIMARY_1, "data/postgres/db.1/pgdata/standby.signal"];
    const CREDENTIALS: &str = "credentials/db.json";

    #[test]
    fn the_only_data_that_does_not_follow_is_what_a_lost_cluster_is_taken_up_with() {
        assert_eq!(check(&[PRIMARY_2, CREDENTIALS]), Ok(Some(2)));
        assert_eq!(check(&[&FOLLOWER_1[..], &[PRIMARY_2, CREDENTIALS]].concat()), Ok(Some(2)));
        // What a restore has put aside, another cluster's, and copies that were never finished.
        let beside = [
            "data/replaced/db.1/pgdata/PG_VERSION",
            "data/postgres/dbs.1/pgdata/PG_VERSION",
            "data/postgres/db.3/pgdata.partial/PG_VERSION",
            "data/postgres/db.4/",
            "data/postgres/db.4.new",
        ];
        assert_eq!(check(&[&beside[..], &[PRIMARY_2, CREDENTIALS]].concat()), Ok(Some(2)));
    }

    #[test]
    fn where_that_is_not_certain_nothing_is_taken_up_and_the_folders_are_named() {
        let two = check(&[PRIMARY_1, PRIMARY_2]).unwrap_err();
        assert!(two.reason.contains("postgres/db.1, ") && two.reason.ends_with("postgres/db.2"), "{two:?}");
        assert!(two.hint.unwrap().contains("TimeLineID"));
        let none = check(&FOLLOWER_1).unwrap_err();
        assert!(none.reason.contains("only followers"), "{none:?}");
        let aside = check(&["data/replaced/db.1/pgdata/PG_VERSION", CREDENTIALS]).unwrap_err();
        assert!(aside.reason.contains("replaced/db.1"), "{aside:?}");
    }

    /// As they look while the disk that belongs there is not mounted, or when only half of them was brought back.
    #[test]
    fn a_folder_without_the_data_that_may_belong_there_is_named_and_nothing_is_made_or_taken_up() {
        for folder in [
            &["data/postgres/db.1/"][..],
            &["data/postgres/db.1/pgdata/"],
            &["data/postgres/db.1/pgdata/base/1/1259", "data/postgres/db.1/pgdata.partial/PG_VERSION"],
            &["data/postgres/db.1/conf/node.conf"],
        ] {
            for others in [&[][..], &[CREDENTIALS], &[PRIMARY_2, CREDENTIALS]] {
                let refused = check(&[folder, others].concat()).unwrap_err();
                assert!(refused.reason.contains("there is no data in "), "{refused:?}");
                assert!(refused.reason.contains("postgres/db.1"), "{refused:?}");
                assert_eq!(
                    refused.reason.contains("postgres/db.2"),
                    others.contains(&PRIMARY_2),
                    "{refused:?}"
                );
                assert!(refused.hint.unwrap().contains("mount it"), "{folder:?}");
            }
        }
    }

    #[test]
    fn a_link_to_where_no_disk_is_mounted_is_no_empty_database() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::at(root.path());
        fs::create_dir_all(state.nodes()).unwrap();
        std::os::unix::fs::symlink(root.path().join("away/db.1"), state.nodes().join("db.1")).unwrap();
        let refused = left_of(&ResourceId::new("db").unwrap(), &state, Known::No).err().unwrap();
        assert!(refused.reason.contains("postgres/db.1"), "{refused:?}");
    }

    #[test]
    fn passwords_without_any_data_are_the_sign_of_a_database_that_is_away() {
        for files in [&[CREDENTIALS][..], &[CREDENTIALS, "data/postgres/"]] {
            let refused = check(files).unwrap_err();
            assert!(refused.reason.contains("has no data of it"), "{refused:?}");
            assert!(refused.hint.unwrap().contains("credentials/db.json away"));
            // What this state has seen destroyed is not missed.
            assert_eq!(check_in(files, Known::Yes), Ok(None));
        }
        assert_eq!(check(&[]), Ok(None));
        assert_eq!(check(&["credentials/dbs.json"]), Ok(None));
        // A first plan that was killed while it made them goes on.
        assert_eq!(check(&[CREDENTIALS, "data/postgres/db.1/pgdata.partial/PG_VERSION"]), Ok(None));
        assert_eq!(check(&[CREDENTIALS, "data/postgres/db.1/", "data/postgres/db.1.new"]), Ok(None));
    }
}

//! Data that is there and that the state does not know.
//!
//! A state file that was damaged and moved away leaves data directories behind that no topology names. Nothing is made in
//! their place: the next plan takes a cluster up again where it is certain which of its nodes took writes last, and there
//! is none where it is not. That node is the only one without `standby.signal`, which PostgreSQL removes when it promotes.
//! Of two without it one was a primary before, and only a person can tell which.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use model::{NodeId, ResourceGraph, ResourceId};
use plan::FoundData;

use super::nodes::at;
use super::{Machine, StepError};

/// A node's folder that holds a data directory.
#[derive(Clone)]
struct Folder {
    id: NodeId,
    path: PathBuf,
}

impl Machine {
    /// What is left of the clusters of `graph` that do not stand.
    ///
    /// # Errors
    /// When it is not certain which of several nodes took writes last; the folders are named.
    pub fn find_data(&self, graph: &ResourceGraph) -> Result<BTreeMap<ResourceId, FoundData>, StepError> {
        let (topology, state) = (self.topology(), &self.inner.setup.state);
        let mut found = BTreeMap::new();
        for (id, _) in graph.databases().filter(|(id, _)| topology.primary_of(id).is_none()) {
            let standing = folders_of(id, &state.nodes())?;
            let aside = [folders_of(id, &state.replaced())?, folders_of(id, &state.restored())?].concat();
            // Of a cluster that this state has known, what is aside is known to be.
            if standing.is_empty() && (aside.is_empty() || topology.next_node.contains_key(id)) {
                continue;
            }
            let primary = took_writes_last(id, &standing, &aside, &state.nodes())?;
            let numbers = standing.iter().chain(&aside).map(|folder| folder.id.number());
            let spent = numbers.max().unwrap_or_default();
            found.insert(id.clone(), FoundData { number: primary.number(), spent });
        }
        Ok(found)
    }
}

fn took_writes_last<'a>(
    id: &ResourceId,
    standing: &'a [Folder],
    aside: &[Folder],
    nodes: &Path,
) -> Result<&'a NodeId, StepError> {
    let mut primaries = Vec::new();
    for folder in standing {
        let signal = folder.path.join("pgdata/standby.signal");
        if !signal.try_exists().map_err(|error| at(&signal, &error))? {
            primaries.push(folder);
        }
    }
    let names = |folders: &mut dyn Iterator<Item = &Folder>| {
        let paths: Vec<String> = folders.map(|folder| folder.path.display().to_string()).collect();
        paths.join(", ")
    };
    let nodes = nodes.display();
    match primaries.as_slice() {
        [primary] => Ok(&primary.id),
        [] if standing.is_empty() => {
            let reason =
                format!("the state does not know {id}, and {} hold data of it", names(&mut aside.iter()));
            Err(StepError::new(reason).hint(format!("move the folder to go on with to {nodes}")))
        }
        [] => {
            let reason = format!(
                "the state does not know {id}, and of its data there are only followers: {}",
                names(&mut standing.iter())
            );
            Err(StepError::new(reason).hint(
                "bring the folder of the primary back, or delete `pgdata/standby.signal` in the one to go on with; \
                 nothing was made in their place",
            ))
        }
        several => {
            let reason = format!(
                "the state does not know {id}, and which of these was its primary last is not certain: {}",
                names(&mut several.iter().copied())
            );
            Err(StepError::new(reason).hint(format!(
                "move all but the one to go on with out of {nodes}; the one that was promoted last has the highest \
                 TimeLineID in `pg_controldata`"
            )))
        }
    }
}

fn folders_of(id: &ResourceId, parent: &Path) -> Result<Vec<Folder>, StepError> {
    let entries = match std::fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| at(parent, &error))?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| at(parent, &error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Ok(node) = name.parse::<NodeId>() else { continue };
        let version = path.join("pgdata/PG_VERSION");
        if node.resource() == id && version.try_exists().map_err(|error| at(&version, &error))? {
            folders.push(Folder { id: node, path });
        }
    }
    folders.sort_by_key(|folder| folder.id.number());
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(folders: &[(&str, &[&str])], aside: &[(&str, &[&str])]) -> Result<u32, StepError> {
        let state = tempfile::tempdir().unwrap();
        for (parent, folders) in [("postgres", folders), ("replaced", aside)] {
            for (name, files) in folders {
                let pgdata = state.path().join(parent).join(name).join("pgdata");
                std::fs::create_dir_all(&pgdata).unwrap();
                files.iter().for_each(|file| std::fs::write(pgdata.join(file), "").unwrap());
            }
        }
        let (id, nodes) = (ResourceId::new("db").unwrap(), state.path().join("postgres"));
        let (standing, aside) = (folders_of(&id, &nodes)?, folders_of(&id, &state.path().join("replaced"))?);
        took_writes_last(&id, &standing, &aside, &nodes).map(NodeId::number)
    }

    const PRIMARY: &[&str] = &["PG_VERSION"];
    const FOLLOWER: &[&str] = &["PG_VERSION", "standby.signal"];

    #[test]
    fn the_only_data_that_does_not_follow_is_what_a_lost_cluster_is_taken_up_with() {
        assert_eq!(check(&[("db.2", PRIMARY)], &[]), Ok(2));
        assert_eq!(check(&[("db.1", FOLLOWER), ("db.2", PRIMARY), ("db.3", FOLLOWER)], &[]), Ok(2));
        // What a restore has put aside, another cluster's, and a folder in which no data was made yet.
        assert_eq!(
            check(&[("db.2", PRIMARY), ("dbs.1", PRIMARY), ("db.3", &[])], &[("db.1", PRIMARY)]),
            Ok(2)
        );
    }

    #[test]
    fn where_that_is_not_certain_nothing_is_taken_up_and_the_folders_are_named() {
        let two = check(&[("db.1", PRIMARY), ("db.2", PRIMARY)], &[]).unwrap_err();
        assert!(two.reason.contains("postgres/db.1, ") && two.reason.ends_with("postgres/db.2"), "{two:?}");
        assert!(two.hint.unwrap().contains("TimeLineID"));
        let none = check(&[("db.1", FOLLOWER)], &[]).unwrap_err();
        assert!(none.reason.contains("only followers"), "{none:?}");
        let aside = check(&[], &[("db.1", PRIMARY)]).unwrap_err();
        assert!(aside.reason.contains("replaced/db.1"), "{aside:?}");
    }
}

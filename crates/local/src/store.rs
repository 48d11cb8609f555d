//! What must survive a crash: the topology, the plan being carried out and how far it got, and why things were done.
//!
//! One redb file. A step's effect on the topology and the journal's cursor move in one transaction, so that after a
//! crash at any instant the daemon knows exactly which step to take again. Steps are safe to take again.
//!
//! A full disk refuses a write and nothing more: what was committed before stays, and the next use finds out by itself
//! whether there is space again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use model::Topology;
use plan::Plan;
use redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const VALUES: TableDefinition<&str, &[u8]> = TableDefinition::new("values");
const DECISIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("decisions");

/// Decisions kept for `why`; older ones are forgotten.
const DECISIONS_KEPT: u64 = 500;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the state file cannot be read or written")]
    Redb(#[from] Box<redb::Error>),
    #[error("the state file holds something this version cannot read")]
    Decode(#[from] serde_json::Error),
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> StoreError {
                StoreError::Redb(Box::new(error.into()))
            }
        })*
    };
}
from_redb!(DatabaseError, redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

/// The world as it stands, with the number of changes that led to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct World {
    /// Grows with every step that is taken; what a plan names as its parent.
    pub generation: u64,
    pub topology: Topology,
    /// Whether the app is meant to run; `down` clears it.
    pub running: bool,
}

/// A plan being carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    pub plan: Plan,
    pub direction: Direction,
    /// Forward: the step to take next. Back: steps below it are still to be undone.
    pub cursor: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "direction", rename_all = "snake_case")]
pub enum Direction {
    Forward,
    Back { because: String },
}

/// One line of `why`: what was decided, on what evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub time: jiff::Timestamp,
    /// A process, a resource or `plan`.
    pub subject: String,
    pub decision: String,
    pub evidence: String,
}

pub struct Store {
    path: PathBuf,
    /// `None` after an error: redb refuses everything then, until the file is opened anew.
    database: Mutex<Option<Database>>,
    refuses: AtomicBool,
}

impl Store {
    /// # Errors
    /// When the file is locked by another process, damaged beyond redb's own recovery, or cannot be written.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let database = Mutex::new(Some(open(path)?));
        Ok(Store { path: path.to_owned(), database, refuses: AtomicBool::new(false) })
    }

    /// Takes nothing from now on, as on a disk that is full: to prove what follows from that.
    pub fn refuse(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }

    fn begin_write(&self, database: &Database) -> Result<WriteTransaction, StoreError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(StoreError::Redb(Box::new(redb::Error::Io(io::ErrorKind::StorageFull.into()))));
        }
        Ok(database.begin_write()?)
    }

    /// Works on the open file, which is opened again where an earlier error has closed it.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut kept = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match kept.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        let done = work(&database);
        if !matches!(done, Err(StoreError::Redb(_))) {
            *kept = Some(database);
        }
        done
    }

    /// The world as of the last committed step; the default before the first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn world(&self) -> Result<World, StoreError> {
        Ok(self.with(|database| read(database, "world"))?.unwrap_or_default())
    }

    /// # Errors
    /// When the file cannot be read.
    pub fn journal(&self) -> Result<Option<Journal>, StoreError> {
        Ok(self.with(|database| read::<Option<Journal>>(database, "journal"))?.flatten())
    }

    /// Makes both durable as one: after this returns, a crash continues from here.
    ///
    /// # Errors
    /// When the disk is full or fails; the file then still holds the values before.
    pub fn commit(&self, world: &World, journal: Option<&Journal>) -> Result<(), StoreError> {
        self.with(|database| {
            let transaction = self.begin_write(database)?;
            {
                let mut table = transaction.open_table(VALUES)?;
                table.insert("world", serde_json::to_vec(world)?.as_slice())?;
                table.insert("journal", serde_json::to_vec(&journal)?.as_slice())?;
            }
            transaction.commit()?;
            Ok(())
        })
    }

    /// Makes the world durable, and leaves the journal as it is.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_world(&self, world: &World) -> Result<(), StoreError> {
        self.with(|database| {
            let transaction = self.begin_write(database)?;
            transaction.open_table(VALUES)?.insert("world", serde_json::to_vec(world)?.as_slice())?;
            transaction.commit()?;
            Ok(())
        })
    }

    /// # Errors
    /// When the disk is full or fails.
    pub fn remember(&self, decision: &Decision) -> Result<(), StoreError> {
        self.with(|database| {
            let transaction = self.begin_write(database)?;
            {
                let mut table = transaction.open_table(DECISIONS)?;
                let next = table.last()?.map_or(0, |(key, _)| key.value() + 1);
                table.insert(next, serde_json::to_vec(decision)?.as_slice())?;
                if next >= DECISIONS_KEPT {
                    table.remove(next - DECISIONS_KEPT)?;
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    /// The newest `limit` decisions, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn decisions(&self, limit: usize) -> Result<Vec<Decision>, StoreError> {
        self.with(|database| newest(database, limit))
    }
}

/// The file while no daemon has it. Whoever opens it holds daemons off meanwhile: [`crate::paths::StateDir::hold`].
pub struct Resting(ReadOnlyDatabase);

impl Resting {
    /// # Errors
    /// As [`Store::open`].
    pub fn open(path: &Path) -> Result<Resting, StoreError> {
        match ReadOnlyDatabase::open(path) {
            // Its daemon was killed: what it left is put in order first, as the next one would.
            Err(DatabaseError::RepairAborted) => {
                drop(open(path)?);
                Ok(Resting(ReadOnlyDatabase::open(path)?))
            }
            opened => Ok(Resting(opened?)),
        }
    }

    /// As [`Store::world`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn world(&self) -> Result<World, StoreError> {
        Ok(read(&self.0, "world")?.unwrap_or_default())
    }

    /// As [`Store::journal`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn journal(&self) -> Result<Option<Journal>, StoreError> {
        Ok(read::<Option<Journal>>(&self.0, "journal")?.flatten())
    }

    /// As [`Store::decisions`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn decisions(&self, limit: usize) -> Result<Vec<Decision>, StoreError> {
        newest(&self.0, limit)
    }
}

fn read<T: DeserializeOwned>(database: &impl ReadableDatabase, key: &str) -> Result<Option<T>, StoreError> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(VALUES)?;
    table.get(key)?.map(|value| serde_json::from_slice(value.value())).transpose().map_err(StoreError::from)
}

fn newest(database: &impl ReadableDatabase, limit: usize) -> Result<Vec<Decision>, StoreError> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(DECISIONS)?;
    let mut newest = Vec::new();
    for entry in table.iter()?.rev().take(limit) {
        newest.push(serde_json::from_slice(entry?.1.value())?);
    }
    newest.reverse();
    Ok(newest)
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let database = Database::create(path)?;
    // The manifest's environment stands in it. What cannot be closed is in a folder that others cannot list.
    let _ = std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600));
    let transaction = database.begin_write()?;
    transaction.open_table(VALUES)?;
    transaction.open_table(DECISIONS)?;
    transaction.commit()?;
    Ok(database)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_is_there_for_the_next_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let world = World { generation: 7, running: true, ..World::default() };
        {
            let store = Store::open(&path).unwrap();
            assert_eq!(store.world().unwrap(), World::default());
            store.commit(&world, None).unwrap();
        }
        let store = Store::open(&path).unwrap();
        assert_eq!(store.world().unwrap(), world);
        assert_eq!(store.journal().unwrap(), None);
    }

    #[test]
    fn a_file_that_no_daemon_has_is_read_whether_its_daemon_ended_or_was_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let world = World { generation: 7, running: true, ..World::default() };
        let store = Store::open(&path).unwrap();
        store.commit(&world, None).unwrap();
        // As SIGKILL leaves it: what is open is not closed.
        let killed = dir.path().join("killed.redb");
        std::fs::copy(&path, &killed).unwrap();
        drop(store);
        for file in [path, killed] {
            let resting = Resting::open(&file).unwrap();
            assert_eq!(resting.world().unwrap(), world);
            assert_eq!(resting.decisions(10).unwrap(), []);
        }
    }

    #[test]
    fn only_the_newest_decisions_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.redb")).unwrap();
        for number in 0..DECISIONS_KEPT + 3 {
            let decision = Decision {
                time: jiff::Timestamp::UNIX_EPOCH,
                subject: "web.1".into(),
                decision: number.to_string(),
                evidence: String::new(),
            };
            store.remember(&decision).unwrap();
        }
        let all = store.decisions(10_000).unwrap();
        assert_eq!(all.len() as u64, DECISIONS_KEPT);
        assert_eq!(all.first().unwrap().decision, "3");
    }
}

//! The copies that there are. Each is a folder with its own description, so that the folder of backups alone is enough
//! to restore from, on another machine too.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use model::Lsn;
use serde::{Deserialize, Serialize};

use super::{Archive, ArchiveError};

const DESCRIPTION: &str = "backup.json";

/// One copy of a whole cluster, as `backup.json` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseBackup {
    /// Given once and never again; grows, whatever the clock does.
    pub number: u32,
    pub began: Timestamp,
    pub ended: Timestamp,
    pub timeline: u32,
    /// Replay begins here.
    pub start: Lsn,
    /// Until here the log must be replayed before the copy is of use.
    pub stop: Lsn,
    /// The version that made it, and whose major version can read it.
    pub postgres: String,
    /// What it takes when it is restored.
    pub data_bytes: u64,
    /// What it takes where it is kept.
    pub stored_bytes: u64,
    /// That it was restored, and what was found then. It stays where a later attempt has refuted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Why it is of no use, where an attempt to prove it has found that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuted: Option<String>,
}

impl BaseBackup {
    /// Whether it may be relied on: it was restored once, and no attempt since has found that it is of no use, as when a file
    /// of it was damaged on the disk.
    pub fn is_proven(&self) -> bool {
        self.proof.is_some() && self.refuted.is_none()
    }
}

/// What a drill has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    pub at: Timestamp,
    pub took_ms: u64,
    /// Tables of the app's database that were read from end to end.
    pub tables: u32,
    /// Those of them that were found equal to the primary's at the same position of the log.
    pub compared: u32,
    pub rows: u64,
}

/// The copies of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    base: PathBuf,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io { path, source }
}

impl Catalog {
    pub fn of(archive: &Archive) -> Catalog {
        Catalog { base: archive.base() }
    }

    pub fn folder(&self, number: u32) -> PathBuf {
        self.base.join(number.to_string())
    }

    /// Where a copy is made before it has its name.
    pub fn partial(&self, number: u32) -> PathBuf {
        self.base.join(format!("{number}.partial"))
    }

    /// Every whole copy, the oldest first. One whose description does not read counts as none, and is left alone.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<BaseBackup>, ArchiveError> {
        let mut backups: Vec<BaseBackup> = Vec::new();
        for name in self.entries()? {
            let Ok(number) = name.parse::<u32>() else { continue };
            let Ok(text) = fs::read(self.folder(number).join(DESCRIPTION)) else { continue };
            backups.extend(serde_json::from_slice(&text).ok().filter(|b: &BaseBackup| b.number == number));
        }
        backups.sort_by_key(|backup| backup.number);
        Ok(backups)
    }

    /// The number of the next copy, beyond all that ever were here.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn next_number(&self) -> Result<u32, ArchiveError> {
        let of = |name: &String| name.split('.').next().and_then(|number| number.parse::<u32>().ok());
        Ok(self.entries()?.iter().filter_map(of).max().map_or(1, |newest| newest + 1))
    }

    /// Removes what copies that were interrupted, or removed halfway, have left; and nothing else that stands there.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn clear_partials(&self) -> Result<(), ArchiveError> {
        let ours = |name: &String| {
            name.split_once('.').is_some_and(|(number, what)| {
                number.parse::<u32>().is_ok() && matches!(what, "partial" | "deleted")
            })
        };
        for name in self.entries()?.into_iter().filter(ours) {
            let path = self.base.join(name);
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Gives a copy that is complete its description and its name.
    ///
    /// # Errors
    /// When it cannot be made durable; it has no name then.
    pub fn admit(&self, backup: &BaseBackup) -> Result<(), ArchiveError> {
        let partial = self.partial(backup.number);
        let admit = || {
            write_description(&partial, backup)?;
            rustix::fs::syncfs(File::open(&partial)?)?;
            fs::rename(&partial, self.folder(backup.number))?;
            File::open(&self.base)?.sync_all()
        };
        admit().map_err(at(&partial))
    }

    /// Writes down what was found about a copy.
    ///
    /// # Errors
    /// When the description cannot be replaced; the old one is whole then.
    pub fn update(&self, backup: &BaseBackup) -> Result<(), ArchiveError> {
        let folder = self.folder(backup.number);
        write_description(&folder, backup).map_err(at(&folder))
    }

    /// # Errors
    /// When it cannot be deleted. It lost its name first, so half of it is never taken for a copy.
    pub fn remove(&self, number: u32) -> Result<(), ArchiveError> {
        let (folder, doomed) = (self.folder(number), self.base.join(format!("{number}.deleted")));
        fs::rename(&folder, &doomed).map_err(at(&folder))?;
        fs::remove_dir_all(&doomed).map_err(at(&doomed))
    }

    fn entries(&self) -> Result<Vec<String>, ArchiveError> {
        let entries = match fs::read_dir(&self.base) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(at(&self.base))?,
        };
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        entries.map(name).collect::<io::Result<_>>().map_err(at(&self.base))
    }
}

fn write_description(folder: &Path, backup: &BaseBackup) -> io::Result<()> {
    let (path, partial) = (folder.join(DESCRIPTION), folder.join("backup.json.partial"));
    // The folder belongs to whom PostgreSQL runs as, and root must not follow a link that stands in it.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed?,
    }
    let mut file = File::create_new(&partial)?;
    file.write_all(&serde_json::to_vec_pretty(backup)?)?;
    file.sync_all()?;
    fs::rename(&partial, &path)?;
    File::open(folder)?.sync_all()
}

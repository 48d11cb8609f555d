//! The log's folder: files come in whole or not at all, and never over one another.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::ResourceId;

use super::WalName;
use crate::postgres::Owner;

/// The fastest level that is worth its name; PostgreSQL waits for each segment in turn.
const COMPRESSION_LEVEL: i32 = 3;
/// Storing a segment takes a second; whoever takes longer than this does not live any more.
const PARTIAL_LIFE: Duration = Duration::from_secs(3_600);
const SUFFIX: &str = ".zst";
/// Read, compared and written in pieces of this size.
const PIECE: usize = 256 * 1024;

/// One database cluster's backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    root: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    Stored,
    /// The same bytes were there: another node of the cluster, or this one before a crash, has stored them.
    AlreadyThere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    Got,
    /// The log ends before.
    NotThere,
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(transparent)]
    NotWal(#[from] super::wal::NotWal),
    #[error("{} holds another {name} than this one, and is not overwritten", .folder.display())]
    Different { name: String, folder: PathBuf },
    #[error("{} is damaged", .path.display())]
    Damaged { path: PathBuf, source: io::Error },
    #[error("{}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io { path, source }
}

impl Archive {
    /// Names the folder without touching it.
    pub fn at(root: &Path) -> Archive {
        Archive { root: root.to_owned() }
    }

    /// Every archive that `folder` holds of clusters of this name: of this one, and of those that stood before it.
    pub fn all_of(cluster: &ResourceId, folder: &Path) -> Vec<Archive> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let is_one = |entry: &fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let system = name.strip_prefix(cluster.as_str()).and_then(|rest| rest.strip_prefix('-'));
            system.is_some_and(|system| system.parse::<u64>().is_ok())
        };
        entries.filter(is_one).map(|entry| Archive::at(&entry.path())).collect()
    }

    /// Whether it is there.
    pub fn is_there(&self) -> bool {
        self.wal().is_dir() && self.base().is_dir()
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    pub fn base(&self) -> PathBuf {
        self.root.join("base")
    }

    /// Makes the folders, for PostgreSQL's user to write in. Not done again later: a target that has gone away is said to
    /// have, and not made anew on the disk below it.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make(&self, owner: &Owner) -> Result<(), ArchiveError> {
        Owner::Ourselves.make_folder(&self.root, 0o711).map_err(at(&self.root))?;
        for folder in [self.wal(), self.base()] {
            owner.make_folder(&folder, 0o700).map_err(at(&folder))?;
        }
        Ok(())
    }

    /// Stores a file of the log. When this returns it is durable, and PostgreSQL may forget its own.
    ///
    /// # Errors
    /// When the target refuses it, or holds other bytes under its name. What was there is untouched.
    pub fn push(&self, source: &Path) -> Result<Pushed, ArchiveError> {
        let given = source.file_name().unwrap_or_default().to_string_lossy();
        let name: WalName = given.parse()?;
        let (folder, place) = (self.wal(), self.place(&name));
        let partial = folder.join(format!(".{name}.{}.partial", std::process::id()));
        let _guard = Partial(&partial);
        let pushed = if place.exists() {
            Pushed::AlreadyThere
        } else {
            write(source, &partial)?;
            // A link, not a rename: two nodes may store the same segment at once, and neither replaces the other's.
            match fs::hard_link(&partial, &place) {
                Ok(()) => Pushed::Stored,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Pushed::AlreadyThere,
                Err(error) => return Err(at(&place)(error)),
            }
        };
        if pushed == Pushed::AlreadyThere && !same(source, &place)? {
            return Err(ArchiveError::Different { name: name.to_string(), folder });
        }
        // Also what was there: whoever wrote it may have been killed before this.
        File::open(&place).and_then(|file| file.sync_all()).map_err(at(&place))?;
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(at(&folder))?;
        Ok(pushed)
    }

    /// Puts a file of the log at `to`.
    ///
    /// # Errors
    /// When it is there and cannot be read. Recovery must not take that for the end of the log. That the disk of `to` is
    /// full is another one: it says nothing about what is stored.
    pub fn fetch(&self, name: &str, to: &Path) -> Result<Fetched, ArchiveError> {
        let place = self.place(&name.parse()?);
        let file = match File::open(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.wal().is_dir() => {
                return Ok(Fetched::NotThere);
            }
            file => file.map_err(at(&place))?,
        };
        let damaged = |source| ArchiveError::Damaged { path: place.clone(), source };
        let mut from = zstd::stream::Decoder::new(file).map_err(damaged)?;
        let mut out = File::create(to).map_err(at(to))?;
        let mut piece = vec![0; PIECE];
        loop {
            let read = fill(&mut from, &mut piece).map_err(damaged)?;
            out.write_all(&piece[..read]).map_err(at(to))?;
            if read < PIECE {
                return Ok(Fetched::Got);
            }
        }
    }

    /// What a history of timelines says; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn history(&self, timeline: u32) -> Result<Option<String>, ArchiveError> {
        let place = self.place(&WalName::History { timeline });
        let file = match File::open(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(at(&place))?,
        };
        let text = zstd::stream::decode_all(file);
        let text = text.map_err(|source| ArchiveError::Damaged { path: place, source })?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }

    /// Every file of the log that is there, in order of timeline and number. None where nothing was ever stored.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> Result<Vec<WalName>, ArchiveError> {
        let folder = self.wal();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(at(&folder))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(at(&folder))?.file_name();
            // Partial ones begin with a dot.
            names.extend(
                name.to_string_lossy().strip_suffix(SUFFIX).and_then(|name| name.parse::<WalName>().ok()),
            );
        }
        names.sort();
        Ok(names)
    }

    pub fn has(&self, name: &WalName) -> bool {
        self.place(name).exists()
    }

    /// Removes what was being stored when somebody was killed. What is young may still be written.
    ///
    /// # Errors
    /// When the folder cannot be read, or something in it not be deleted.
    pub fn clear_partials(&self) -> Result<(), ArchiveError> {
        let folder = self.wal();
        let clear = || {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let old = entry.metadata()?.modified()?.elapsed().unwrap_or_default() > PARTIAL_LIFE;
                if old && entry.file_name().to_string_lossy().starts_with('.') {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        clear().map_err(at(&folder))
    }

    /// # Errors
    /// When it cannot be deleted; that it is gone already is none.
    pub fn remove(&self, name: &WalName) -> Result<(), ArchiveError> {
        let place = self.place(name);
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&place)(error)),
            _ => Ok(()),
        }
    }

    fn place(&self, name: &WalName) -> PathBuf {
        self.wal().join(format!("{name}{SUFFIX}"))
    }
}

/// Removed again whatever happens. One left by SIGKILL has a name that nothing reads.
struct Partial<'a>(&'a Path);

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        // Absent when the file was there already.
        let _ = fs::remove_file(self.0);
    }
}

fn write(source: &Path, partial: &Path) -> Result<(), ArchiveError> {
    let mut from = File::open(source).map_err(at(source))?;
    let to = File::create(partial).map_err(at(partial))?;
    let compress = || {
        let mut encoder = zstd::stream::Encoder::new(to, COMPRESSION_LEVEL)?;
        // So that a damaged segment is told from a whole one before PostgreSQL replays it.
        encoder.include_checksum(true)?;
        io::copy(&mut from, &mut encoder)?;
        encoder.finish()?.sync_all()
    };
    compress().map_err(at(partial))
}

fn same(source: &Path, place: &Path) -> Result<bool, ArchiveError> {
    let damaged = |source| ArchiveError::Damaged { path: place.to_owned(), source };
    let mut ours = File::open(source).map_err(at(source))?;
    let theirs = File::open(place).map_err(at(place))?;
    let mut theirs = zstd::stream::Decoder::new(theirs).map_err(damaged)?;
    let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let read = fill(&mut ours, &mut left).map_err(at(source))?;
        if fill(&mut theirs, &mut right).map_err(damaged)? != read || left[..read] != right[..read] {
            return Ok(false);
        }
        if read < PIECE {
            return Ok(true);
        }
    }
}

/// Reads until `piece` is full or nothing is left.
fn fill(from: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match from.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

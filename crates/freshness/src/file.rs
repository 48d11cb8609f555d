//! The file: made whole or not at all, and refused when it is anything else than what we have made.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::LENGTH;

const MAGIC: [u8; 8] = *b"swbfresh";
const VERSION: u64 = 1;

/// Between two looks another process may make the file, and a third remove it.
const TRIES: u32 = 100;

/// Why there are no marks to be had.
#[derive(Debug, thiserror::Error)]
pub enum FreshnessError {
    #[error("cannot {verb} {}", path.display())]
    Io {
        path: PathBuf,
        verb: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{} is {found}, not a file of marks; move it away, and it is made anew", path.display())]
    Foreign { path: PathBuf, found: String },
    #[error(
        "{} is a file of marks of version {found}, and this program knows version {VERSION}; move it away, and it is \
         made anew",
        path.display()
    )]
    Version { path: PathBuf, found: u64 },
    #[error("{} {what}; others could cut it while it is in use", path.display())]
    Exposed { path: PathBuf, what: &'static str },
    #[error("no memory for marks")]
    Memory(#[source] io::Error),
}

impl FreshnessError {
    pub(crate) fn io(path: &Path, verb: &'static str, source: io::Error) -> FreshnessError {
        FreshnessError::Io { path: path.to_owned(), verb, source }
    }

    fn is_absence(&self) -> bool {
        matches!(self, FreshnessError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Opens and checks it.
pub(crate) fn open(path: &Path) -> Result<File, FreshnessError> {
    // NONBLOCK: a pipe in its place must not hold us up.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|source| FreshnessError::io(path, "open", source))?;
    let metadata = file.metadata().map_err(|source| FreshnessError::io(path, "look at", source))?;
    let foreign = |found: String| FreshnessError::Foreign { path: path.to_owned(), found };
    let exposed = |what: &'static str| FreshnessError::Exposed { path: path.to_owned(), what };
    if !metadata.is_file() {
        return Err(foreign("no plain file".into()));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(exposed("belongs to another user"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(exposed("may be opened by other users; `chmod 600` makes it ours alone"));
    }
    if metadata.len() != LENGTH as u64 {
        return Err(foreign(format!("{} bytes long", metadata.len())));
    }
    let mut head = [0; 16];
    file.read_exact_at(&mut head, 0).map_err(|source| FreshnessError::io(path, "read", source))?;
    let [magic, version] = [0, 8].map(|at| std::array::from_fn::<u8, 8, _>(|byte| head[at + byte]));
    if magic != MAGIC {
        return Err(foreign("something else".into()));
    }
    match u64::from_ne_bytes(version) {
        VERSION => Ok(file),
        found => Err(FreshnessError::Version { path: path.to_owned(), found }),
    }
}

/// Opens what is there, or makes it.
pub(crate) fn create(path: &Path) -> Result<File, FreshnessError> {
    let mut last = None;
    for _ in 0..TRIES {
        match open(path) {
            Err(error) if error.is_absence() => last = Some(error),
            opened => return opened,
        }
        make(path).map_err(|source| FreshnessError::io(path, "make", source))?;
    }
    Err(last.unwrap_or_else(|| FreshnessError::io(path, "make", io::ErrorKind::Interrupted.into())))
}

/// Gives a whole file its name, unless another has it by then.
fn make(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Made with mode 0600, and removed again if we do not get to the end.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&VERSION.to_ne_bytes());
    file.write_all(&bytes)?;
    // Its block has its place now, on a disk that may be full later, and no crash leaves half a file.
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(failed) => Err(failed.error),
    }
}

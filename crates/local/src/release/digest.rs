//! What a release's content is, in 32 bytes.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::ReleaseError;
use super::walk::{Entries, Entry};

const READ_BYTES: usize = 256 * 1024;

/// One entry with its content.
#[derive(Debug)]
pub(super) struct Hashed {
    /// Relative to the root.
    pub path: PathBuf,
    pub content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Folder,
    File { stamp: Stamp, digest: [u8; 32] },
    Link(PathBuf),
}

/// By which a changed file is recognised, without reading it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub size: u64,
    pub mode: u32,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub fn of(metadata: &fs::Metadata) -> Stamp {
        Stamp {
            size: metadata.size(),
            mode: metadata.mode(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    pub fn is_executable(self) -> bool {
        self.mode & 0o111 != 0
    }
}

/// Reads all files. `read` hears the size of each that was read.
pub(super) fn hash_all(
    root: &Path,
    entries: Entries,
    read: &mut dyn FnMut(u64),
) -> Result<Vec<Hashed>, ReleaseError> {
    let mut buffer = vec![0; READ_BYTES];
    let mut hashed = Vec::with_capacity(entries.len());
    for (path, entry) in entries {
        let content = match entry {
            Entry::Folder => Content::Folder,
            Entry::Link(target) => Content::Link(target),
            Entry::File => {
                let content = hash_file(&root.join(&path), &mut buffer)?;
                if let Content::File { stamp, .. } = &content {
                    read(stamp.size);
                }
                content
            }
        };
        hashed.push(Hashed { path, content });
    }
    Ok(hashed)
}

fn hash_file(path: &Path, buffer: &mut [u8]) -> Result<Content, ReleaseError> {
    let mut file = fs::File::open(path).map_err(ReleaseError::io(path))?;
    let stat =
        |file: &fs::File| file.metadata().map(|found| Stamp::of(&found)).map_err(ReleaseError::io(path));
    let stamp = stat(&file)?;
    let mut hash = Sha256::new();
    loop {
        match file.read(buffer).map_err(ReleaseError::io(path))? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    if stat(&file)? != stamp {
        return Err(ReleaseError::Changed { path: path.to_owned() });
    }
    Ok(Content::File { stamp, digest: hash.finalize().into() })
}

/// Hex. Every part carries its length or a fixed size, so that no two contents can spell the same bytes.
pub(super) fn of_release(entries: &[Hashed], run: &str, release_command: Option<&str>) -> String {
    let mut hash = Sha256::new();
    let text = |hash: &mut Sha256, text: &[u8]| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    hash.update(b"switchback release 1\n");
    for entry in entries {
        text(&mut hash, entry.path.as_os_str().as_bytes());
        match &entry.content {
            Content::Folder => hash.update(b"d"),
            Content::File { stamp, digest } => {
                hash.update(if stamp.is_executable() { b"x" } else { b"f" });
                hash.update(digest);
            }
            Content::Link(target) => {
                hash.update(b"l");
                text(&mut hash, target.as_os_str().as_bytes());
            }
        }
    }
    hash.update(b"\nrun\n");
    text(&mut hash, run.as_bytes());
    match release_command {
        None => hash.update(b"-"),
        Some(command) => {
            hash.update(b"+");
            text(&mut hash, command.as_bytes());
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

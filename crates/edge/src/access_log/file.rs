//! The file behind the access log: appended to, rotated by size, begun anew when it vanished.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotate_bytes: u64,
    file: File,
    length: u64,
    identity: Identity,
}

/// Device and inode: what a path must still lead to.
type Identity = (u64, u64);

impl LogFile {
    pub(super) fn open(path: &Path, rotate_bytes: u64) -> io::Result<LogFile> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let metadata = file.metadata()?;
        Ok(LogFile {
            path: path.to_owned(),
            rotate_bytes,
            file,
            length: metadata.len(),
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes whole lines; a rotation happens between two calls, never within one.
    ///
    /// # Errors
    /// When the lines were not written whole. What was written of them is cut off again, so that the file holds whole
    /// lines only, also on a full disk.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if !self.is_where_it_was() {
            *self = LogFile::open(&self.path, self.rotate_bytes)?;
        }
        if self.length > 0 && self.length + lines.len() as u64 > self.rotate_bytes {
            self.rotate()?;
        }
        let written = self.file.write_all(lines);
        match written {
            Ok(()) => self.length += lines.len() as u64,
            Err(_) => self.file.set_len(self.length)?,
        }
        written
    }

    fn is_where_it_was(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        std::fs::rename(&self.path, &old)?;
        *self = LogFile::open(&self.path, self.rotate_bytes)?;
        Ok(())
    }
}

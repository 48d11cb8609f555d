//! The floor below which nothing optional is written: the app's database needs room more than another release does.

use std::io;
use std::path::{Path, PathBuf};

use model::ByteSize;

/// How much must stay free: the larger of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFloor {
    pub percent: u8,
    pub bytes: u64,
}

impl Default for DiskFloor {
    /// 5 % or 1 GB.
    fn default() -> DiskFloor {
        DiskFloor { percent: 5, bytes: ByteSize::GB }
    }
}

/// There is not enough space.
#[derive(Debug, thiserror::Error)]
#[error(
    "the disk of {} has {} free; {} {} must stay free",
    .path.display(), megabytes(*.available), beside(*.needed), megabytes(*.floor)
)]
pub struct DiskLow {
    pub path: PathBuf,
    pub available: u64,
    /// What was about to be written, as far as known.
    pub needed: u64,
    pub floor: u64,
}

impl DiskFloor {
    /// Whether `needed` more bytes fit on the disk of `path` above the floor.
    ///
    /// # Errors
    /// The outer when the disk cannot be asked, the inner when there is not enough.
    pub fn check(&self, path: &Path, needed: u64) -> io::Result<Result<(), DiskLow>> {
        let disk = rustix::fs::statvfs(path)?;
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let available = disk.f_bavail.saturating_mul(disk.f_frsize);
        let floor = self.bytes.max(total / 100 * u64::from(self.percent));
        if available.saturating_sub(needed) >= floor {
            return Ok(Ok(()));
        }
        Ok(Err(DiskLow { path: path.to_owned(), available, needed, floor }))
    }
}

fn beside(needed: u64) -> String {
    if needed == 0 { "at least".to_owned() } else { format!("beside {} to be written,", megabytes(needed)) }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / ByteSize::MB)
}

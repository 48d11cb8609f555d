//! How fresh a read must be, agreed on by processes that share a file.
//!
//! Whoever has seen their write acknowledged must find it when they read, over whatever connection the app reads then.
//! The proxy in front of a database knows when a write was acknowledged, the edge knows which client comes back after
//! it, and neither knows the other. They meet here, in numbers that both have mapped into memory:
//!
//! - `committed`: when the newest write of this database was acknowledged to any client. Set by the proxy, before it
//!   acknowledges.
//! - `required`: a read that goes to a replica must see all that was acknowledged up to here. Set by the edge, from what
//!   the client brings, before it passes the request on. Never more than `committed`: a mark from outside cannot ask for
//!   more than has happened, however it was forged. Set by the proxy as well, to the time itself, when it has shown a
//!   client what replicas may still lack.
//! - `shown`: the position in the primary's log up to which reads on replicas may have shown what there is. Set and obeyed
//!   by the proxy alone, of which there are two while one replaces the other.
//! - a clock, from which every [`Mark`] comes.
//!
//! A replica is as fresh as a mark when that mark was taken, *then* the primary was asked how far it has written, and the
//! replica has replayed that much. A read may go there when the replica's mark is later than the required one.
//!
//! Marks are times of day, so that they still mean something after a restart, and the clock never goes back nor stands
//! still, in no process that has the file open, whatever happens to the time of day: if it did, a replica that was asked
//! before a write could pass for one that was asked behind it.
//!
//! ```text
//! offset   0   magic, 8 bytes; version, 8 bytes
//!         64   clock
//!        128   committed
//!        192   required
//!        200   shown           each a native 64-bit number, in a cache line of its own but for the last, which is read
//!                              with the one before; 256 bytes in all
//! ```
//!
//! Every change is one atomic instruction, so a process may be killed between any two and leaves the file whole.
//!
//! What is mapped is lost to a process when somebody cuts the file: the next access ends it with SIGBUS. So a file that is
//! too short is refused before it is mapped, only its owner may write it, and nothing here ever cuts it: a file that is
//! to go is unlinked, which takes it from nobody who has it. Its one block is on the disk before it has its name, so
//! that a full disk is no obstacle to a change; where a file system writes each change to a new place (btrfs), a disk
//! with nothing left at all could still be.

mod file;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use memmap2::{MmapOptions, MmapRaw};

pub use file::FreshnessError;

/// An instant, in microseconds since 1970, from the clock of a [`Freshness`]. The default is earlier than any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(u64);

impl Mark {
    /// From outside: any number is a mark, and [`Freshness::require`] takes from it what has happened.
    pub fn from_micros(micros: u64) -> Mark {
        Mark(micros)
    }

    pub fn as_micros(self) -> u64 {
        self.0
    }
}

/// The marks of one database. Everything is visible at once to all who share the file.
#[derive(Debug)]
pub struct Freshness {
    map: MmapRaw,
}

/// One number, in a cache line that it shares with no other: the two sides write at every request.
#[repr(C, align(64))]
struct Line(AtomicU64);

/// What every read on a replica is compared with.
#[repr(C, align(64))]
struct Required {
    mark: AtomicU64,
    shown: AtomicU64,
}

/// What the file holds. See the module.
#[repr(C)]
struct Lines {
    head: Line,
    clock: Line,
    committed: Line,
    required: Required,
}

const LENGTH: usize = size_of::<Lines>();

impl Freshness {
    /// Takes over the file at `path`, with its marks, or makes it: whole, readable by its owner only, and without ever
    /// replacing one that is there. Any number of processes may do so at once.
    ///
    /// # Errors
    /// When there is a file that is none of ours, or it cannot be made.
    pub fn create(path: &Path) -> Result<Freshness, FreshnessError> {
        file::create(path).and_then(|file| Freshness::map(path, &file))
    }

    /// Opens a file that is there.
    ///
    /// # Errors
    /// When there is none, or one that is none of ours.
    pub fn open(path: &Path) -> Result<Freshness, FreshnessError> {
        file::open(path).and_then(|file| Freshness::map(path, &file))
    }

    /// Shared with nobody: for whoever has no file, so that there is one way to tell the time.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn private() -> Result<Freshness, FreshnessError> {
        match MmapOptions::new().len(LENGTH).map_anon() {
            Ok(map) => Ok(Freshness { map: map.into() }),
            Err(source) => Err(FreshnessError::Memory(source)),
        }
    }

    fn map(path: &Path, file: &std::fs::File) -> Result<Freshness, FreshnessError> {
        match MmapOptions::new().len(LENGTH).map_raw(file) {
            Ok(map) => Ok(Freshness { map }),
            Err(source) => Err(FreshnessError::io(path, "map", source)),
        }
    }

    /// Later than every mark before it, in whichever process. Take it before the primary is asked how far it has
    /// written, and behind the primary's acknowledgement of a write.
    pub fn now(&self) -> Mark {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.tick(u64::try_from(wall.as_micros()).unwrap_or(u64::MAX))
    }

    fn tick(&self, wall: u64) -> Mark {
        let next = |last: u64| wall.max(last.saturating_add(1));
        let clock = &self.lines().clock.0;
        let mut last = clock.load(Ordering::Acquire);
        loop {
            match clock.compare_exchange_weak(last, next(last), Ordering::AcqRel, Ordering::Acquire) {
                Ok(last) => return Mark(next(last)),
                Err(newer) => last = newer,
            }
        }
    }

    /// When the newest write was acknowledged.
    pub fn committed(&self) -> Mark {
        Mark(self.lines().committed.0.load(Ordering::Acquire))
    }

    /// A write is about to be acknowledged. A mark older than [`Freshness::committed`] changes nothing.
    pub fn commit(&self, mark: Mark) {
        self.lines().committed.0.fetch_max(mark.0, Ordering::AcqRel);
    }

    /// Reads on replicas must see all that was acknowledged up to this mark.
    pub fn required(&self) -> Mark {
        Mark(self.lines().required.mark.load(Ordering::Acquire))
    }

    /// From here on every read must be as fresh as `mark`, or as the newest write where `mark` is later than that.
    pub fn require(&self, mark: Mark) {
        let mark = mark.min(self.committed());
        // Most clients ask for what is required already, and a line that is only read stays with all of them.
        if mark > self.required() {
            self.lines().required.mark.fetch_max(mark.0, Ordering::AcqRel);
        }
    }

    /// From here on every read must see all that there is by now, acknowledged or not.
    pub fn require_all(&self) {
        let mark = self.now();
        self.lines().required.mark.fetch_max(mark.0, Ordering::AcqRel);
    }

    /// How far into the log reads on replicas may have seen.
    pub fn shown(&self) -> u64 {
        self.lines().required.shown.load(Ordering::Acquire)
    }

    /// A read is about to be answered that saw nothing behind this position in the log.
    pub fn show(&self, position: u64) {
        if position > self.shown() {
            self.lines().required.shown.fetch_max(position, Ordering::AcqRel);
        }
    }

    /// The log of the primary ended at `end`, asked after `shown` was taken, and so is not the log in which that was a
    /// position: the database was restored to what it was before.
    pub fn forget_shown(&self, shown: u64, end: u64) {
        // Where it has grown since, the next to ask finds that.
        let _ = self.lines().required.shown.compare_exchange(shown, end, Ordering::AcqRel, Ordering::Acquire);
    }

    fn lines(&self) -> &Lines {
        // SAFETY: the map is LENGTH bytes long, begins at a page and lives as long as `self`; any bits are valid numbers,
        // and nobody, in this process or another, touches them but by atomic instructions. The file was that long when it
        // was mapped, and is not cut: see the module.
        unsafe { &*self.map.as_ptr().cast::<Lines>() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_when_the_time_of_day_goes_back_or_stands_still() {
        let freshness = Freshness::private().unwrap();
        let marks: Vec<Mark> =
            [1_000, 1_000, 400, 1_001, 5_000].iter().map(|wall| freshness.tick(*wall)).collect();
        assert_eq!(marks, [1_000, 1_001, 1_002, 1_003, 5_000].map(Mark));
    }

    #[test]
    fn a_time_of_day_that_is_set_back_does_not_set_the_clock_of_the_next_process_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let before = Freshness::create(&path).unwrap().tick(9_000);
        assert_eq!(Freshness::open(&path).unwrap().tick(10), Mark(before.0 + 1));
    }
}

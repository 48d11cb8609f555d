//! Moving lines from the children's files to the store.
//!
//! Looking is by polling: ten looks a second at some dozens of open files cost less than a thousandth of a
//! core, and see files that inotify would miss (its queue overflows under the very floods that matter).
//!
//! When a line was written is known as far as its file tells: when it was last written to. Lines of different files are
//! put in the order of that, and each gets it as its time, which is that of the last of them and at most one look too late
//! for the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use telemetry::log::LogRecord;
use tokio_util::sync::CancellationToken;

use super::lines::{CUT, Rest, pieces};
use super::offsets::{Offsets, ReadUpTo};
use super::store::{self, Budget, Writer};
use super::tailed::{Dropped, Due, Holes, Tailed, Written};
use super::{Logs, closed_by, service_of, source_of};

/// How long a line waits at most before it is read.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Read at once; bounds the memory, together with what it grows to as JSON.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
/// New files are noticed by the folder's change, whose time may be too coarse to show a second one: look
/// anyway so often.
const LIST_EVERY: Duration = Duration::from_secs(1);

/// Reads what the children write. One per app: the daemon's.
#[derive(Debug)]
pub struct Tailer {
    logs: Logs,
    budget: Budget,
    writer: Writer,
    recovered: Offsets,
    files: BTreeMap<PathBuf, Tailed>,
    /// Processes whose files nobody writes to any more.
    closed: BTreeSet<String>,
    last_time: Timestamp,
    listed_at: Option<(Instant, io::Result<i128>)>,
    checkpoint: Checkpoint,
    pub(super) holes: Holes,
}

#[derive(Debug)]
struct Checkpoint {
    saved_at: Instant,
    due: Due,
}

impl Tailer {
    /// Takes up where the last daemon stopped, wherever that was.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn open(logs: &Logs, budget: Budget, now: Instant) -> io::Result<Tailer> {
        fs::create_dir_all(logs.current())?;
        let writer = Writer::open(logs.store(), budget)?;
        let recovered = Offsets::recover(&logs.store())?;
        Ok(Tailer {
            logs: logs.clone(),
            budget,
            writer,
            last_time: recovered.last_time.unwrap_or(Timestamp::MIN),
            recovered,
            files: BTreeMap::new(),
            closed: BTreeSet::new(),
            listed_at: None,
            checkpoint: Checkpoint { saved_at: now, due: Due::Now },
            holes: Holes::Supported,
        })
    }

    /// Looks every [`LOOK_EVERY`] until cancelled, then once more. What goes wrong with the store is logged
    /// and tried again; the children's files keep what was not stored.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut is_failing = false;
        loop {
            let is_last = shutdown.is_cancelled();
            // Files may be slow: not on the runtime's threads.
            let looked = tokio::task::spawn_blocking(move || {
                let result = self.look(Instant::now(), Timestamp::now());
                (self, result)
            });
            let Ok((tailer, result)) = looked.await else {
                tracing::error!("reading the children's output panicked; it stays in logs/current");
                return;
            };
            self = tailer;
            match &result {
                Err(error) if !is_failing => {
                    tracing::warn!(%error, "the log store cannot be written; trying on")
                }
                Ok(()) if is_failing => tracing::info!("the log store can be written again"),
                _ => {}
            }
            is_failing = result.is_err();
            if is_last {
                if let Err(error) = self.save() {
                    tracing::warn!(%error, "the log store's checkpoint cannot be written; the next start reads more");
                }
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// One look at everything: blocks for as long as reading what is new takes.
    ///
    /// # Errors
    /// When the store cannot be written: then nothing was taken from the file at hand, and the next
    /// look tries again.
    pub fn look(&mut self, now: Instant, time: Timestamp) -> io::Result<()> {
        self.find_files(now)?;
        // One look at a file of which nothing is new is one system call.
        let stirring = |(path, tailed): (&PathBuf, &Tailed)| Some((tailed.stirs()?, path.clone()));
        let mut stirring: Vec<_> = self.files.iter().filter_map(stirring).collect();
        stirring.sort_by_key(|(written, _)| written.at);
        for (written, path) in stirring {
            self.read_file(&path, written, now, time, Rest::Wait)?;
        }
        for name in std::mem::take(&mut self.closed) {
            self.retire(&name, now, time)?;
        }
        let is_due = match self.checkpoint.due {
            Due::No => false,
            Due::Soon => now.duration_since(self.checkpoint.saved_at) >= CHECKPOINT_EVERY,
            Due::Now => true,
        };
        if is_due {
            self.save()?;
            self.checkpoint = Checkpoint { saved_at: now, due: Due::No };
        }
        Ok(())
    }

    fn find_files(&mut self, now: Instant) -> io::Result<()> {
        let current = self.logs.current();
        let changed = fs::metadata(&current)
            .map(|m| i128::from(m.mtime()) * 1_000_000_000 + i128::from(m.mtime_nsec()));
        if let (Some((at, Ok(before))), Ok(changed)) = (&self.listed_at, &changed)
            && before == changed
            && now.duration_since(*at) < LIST_EVERY
        {
            return Ok(());
        }
        self.listed_at = Some((now, changed));
        let mut listed = BTreeSet::new();
        for entry in fs::read_dir(&current)? {
            let entry = entry?;
            let path = entry.path();
            if let Some(name) = closed_by(&path) {
                self.closed.insert(name.to_owned());
            }
            let Some((instance, stream)) = source_of(&path) else { continue };
            let instance = instance.to_owned();
            if self.files.get(&path).is_some_and(|tailed| tailed.inode == entry.ino()) {
                listed.insert(path);
                continue;
            }
            // Gone since it was listed, or not ours to read: the others are.
            let Ok(file) = File::options().read(true).write(true).open(&path) else { continue };
            let metadata = file.metadata()?;
            let known = path.file_name().and_then(|name| self.recovered.files.get(name.to_str()?));
            // Only the file of which the offset was remembered: another one of this name is new.
            let known = known.filter(|known| known.inode.is_none_or(|inode| inode == metadata.ino()));
            let is_replaced = self.files.contains_key(&path);
            let offset = known.filter(|_| !is_replaced).map_or(0, |known| known.offset);
            let tailed = Tailed {
                instance,
                stream,
                file,
                inode: metadata.ino(),
                offset,
                freed: 0,
                // What was written while no daemon ran came in its own time, however much it is.
                allowance: self.budget.burst_bytes() + metadata.len().saturating_sub(offset),
                looked_at: now,
                is_inside_line: false,
                dropped: Dropped::default(),
            };
            self.files.insert(path.clone(), tailed);
            listed.insert(path);
            self.checkpoint.due = Due::Now;
        }
        let files = self.files.len();
        self.files.retain(|path, _| listed.contains(path));
        if self.files.len() != files {
            self.checkpoint.due = Due::Now;
        }
        Ok(())
    }

    /// Reads what was `written`, at `time` at the latest; what has come since is for the next look.
    fn read_file(
        &mut self,
        path: &Path,
        Written { at, length }: Written,
        now: Instant,
        time: Timestamp,
        rest: Rest,
    ) -> io::Result<()> {
        let Some(tailed) = self.files.get_mut(path) else { return Ok(()) };
        let time = at.min(time).max(self.last_time);
        self.last_time = time;
        if length < tailed.offset {
            // Truncated by the app: what is there now is new.
            tailed.offset = 0;
            tailed.freed = 0;
            self.checkpoint.due = Due::Now;
        }
        let elapsed = now.duration_since(tailed.looked_at).as_micros() as u64;
        tailed.looked_at = now;
        let burst = self.budget.burst_bytes();
        if tailed.allowance < burst {
            let earned = elapsed.saturating_mul(self.budget.rate_bytes) / 1_000_000;
            tailed.allowance = (tailed.allowance + earned).min(burst);
        }
        if length == tailed.offset {
            return tailed.report_flood(&mut self.writer, self.budget, time, now);
        }
        let mut chunk = vec![0; CHUNK_BYTES.min((length - tailed.offset) as usize)];
        let mut encoded = Vec::new();
        while tailed.allowance > 0 && tailed.offset < length {
            let left = chunk.len().min((length - tailed.offset) as usize);
            let read = tailed.file.read_at(&mut chunk[..left], tailed.offset)?;
            encoded.clear();
            let begin = tailed.offset;
            let mut taken = 0;
            let mut is_inside_line = tailed.is_inside_line;
            for piece in pieces(&chunk[..read], rest) {
                taken = piece.end as u64;
                let mut record = LogRecord::new(
                    time,
                    service_of(&tailed.instance),
                    &tailed.instance,
                    tailed.stream,
                    piece.text,
                );
                if is_inside_line {
                    record.line.insert_str(0, CUT);
                }
                if piece.is_cut {
                    record.line.push_str(CUT);
                }
                is_inside_line = piece.is_cut;
                store::encode(&record, begin + taken, &mut encoded);
            }
            if taken == 0 {
                break;
            }
            self.writer.append(&encoded, time)?;
            tailed.is_inside_line = is_inside_line;
            tailed.offset += taken;
            tailed.allowance = tailed.allowance.saturating_sub(taken);
            self.checkpoint.due = self.checkpoint.due.max(Due::Soon);
        }
        if tailed.allowance == 0 {
            tailed.drop_backlog(now)?;
        }
        tailed.report_flood(&mut self.writer, self.budget, time, now)?;
        tailed.free(&mut self.holes, &mut self.checkpoint.due)
    }

    /// Reads the rest of what `name` has said, then deletes its files. Its lines stay in the store. Where that fails, the
    /// next look at the folder finds it again.
    fn retire(&mut self, name: &str, now: Instant, time: Timestamp) -> io::Result<()> {
        self.listed_at = None;
        self.find_files(now)?;
        let of_name = |path: &&PathBuf| source_of(path).is_some_and(|(instance, _)| instance == name);
        for path in self.files.keys().filter(of_name).cloned().collect::<Vec<_>>() {
            if let Some(tailed) = self.files.get(&path) {
                self.read_file(&path, Written::of(&tailed.file)?, now, time, Rest::Flush)?;
            }
            self.files.remove(&path);
            fs::remove_file(&path)?;
        }
        fs::remove_file(self.logs.closed_file(name))?;
        self.closed.remove(name);
        self.save()
    }

    fn save(&mut self) -> io::Result<()> {
        let read_up_to = |(path, tailed): (&PathBuf, &Tailed)| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some((name, ReadUpTo { offset: tailed.offset, inode: Some(tailed.inode) }))
        };
        self.recovered = Offsets {
            position: self.writer.position(),
            files: self.files.iter().filter_map(read_up_to).collect(),
            last_time: Some(self.last_time),
        };
        self.recovered.save(&self.logs.store())
    }
}

//! Reading the logs, with or without a daemon.
//!
//! The store is in the order of time. After it comes what no daemon has read yet, straight from the
//! children's files: a daemon that reads on at the same moment would make lines appear twice or not at all,
//! so the look is repeated until nothing moved meanwhile.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use jiff::Timestamp;
use telemetry::log::LogRecord;

use super::lines::{Rest, pieces};
use super::offsets::{Offsets, each_line, each_line_of};
use super::store::{Mark, Position, segments};
use super::tailed::Written;
use super::{Logs, service_of, source_of};

/// How long a followed line waits at most.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
/// A daemon that keeps reading has at most [`super::tailer::LOOK_EVERY`] of lines not stored: not worth more
/// tries.
const TRIES: usize = 3;
/// When a file was written to is known by the kernel's tick, and may be so much earlier than by the clock.
const CLOCK_TICK: Duration = Duration::from_millis(10);
/// Lines of the past that following begins with when only a time was given.
const MAX_PAST: usize = 100_000;
/// Not yet stored bytes that are read of one file; the end of it.
const MAX_PENDING_BYTES: u64 = 4 << 20;

/// Which lines.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Services (`web`) and instances (`web.1`); empty: all.
    pub only: Vec<String>,
    pub since: Option<Timestamp>,
    /// Only the last so many of what matches.
    pub limit: Option<usize>,
}

/// A name that nobody in the logs has, and the names that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    pub name: String,
    pub known: BTreeSet<String>,
}

impl Query {
    fn matches(&self, record: &LogRecord) -> bool {
        let named = |name: &String| *name == record.service || *name == record.instance;
        (self.only.is_empty() || self.only.iter().any(named))
            && self.since.is_none_or(|since| record.time >= since)
    }
}

impl Logs {
    /// Every line that matches, in the order of time, also those that no daemon has read yet. `each` gets them one
    /// by one, so that the whole store never stands in memory; with a limit, the last so many do.
    ///
    /// # Errors
    /// When the store is there but cannot be read.
    pub fn read(&self, query: &Query, mut each: impl FnMut(LogRecord)) -> io::Result<()> {
        let pending = self.pending(Timestamp::now())?;
        let pending: Vec<LogRecord> = pending.into_iter().filter(|record| query.matches(record)).collect();
        match query.limit {
            None => {
                self.stored(&self.begin(query)?, query, &mut each)?;
                pending.into_iter().for_each(each);
            }
            Some(limit) => {
                let from = pending.len().saturating_sub(limit);
                let pending = &pending[from..];
                self.last_stored(query, limit - pending.len())?.into_iter().for_each(&mut each);
                pending.iter().cloned().for_each(each);
            }
        }
        Ok(())
    }

    /// The last lines of one instance since it was started: what it said before it crashed, to the last byte. Others
    /// may have had its name before.
    ///
    /// # Errors
    /// When the store is there but cannot be read.
    pub fn last_lines(&self, instance: &str, started: Timestamp, limit: usize) -> io::Result<Vec<LogRecord>> {
        let mut lines = Vec::new();
        let since = started.checked_sub(CLOCK_TICK).unwrap_or(started);
        let query = Query { only: vec![instance.to_owned()], since: Some(since), limit: Some(limit) };
        self.read(&query, |record| lines.push(record))?;
        Ok(lines)
    }

    /// Finds the first of `names` under which nothing was ever said, neither as an instance's nor as a service's.
    ///
    /// # Errors
    /// When the store is there but cannot be read.
    pub fn find_stranger(&self, names: &[String]) -> io::Result<Option<Stranger>> {
        let mut known = self.open_names()?;
        if names.iter().all(|name| known.contains(name)) {
            return Ok(None);
        }
        // Of those that have gone, only the store knows.
        each_line(&self.store(), &Position::default(), |line| {
            if let Ok(mark) = serde_json::from_slice::<Mark>(line) {
                known.insert(service_of(&mark.instance).to_owned());
                known.insert(mark.instance);
            }
        })?;
        let stranger = names.iter().find(|name| !known.contains(*name));
        Ok(stranger.map(|name| Stranger { name: name.clone(), known }))
    }

    /// Whoever has a file in `current`, by instance and by service.
    fn open_names(&self) -> io::Result<BTreeSet<String>> {
        let mut names = self.open()?;
        let services: Vec<String> = names.iter().map(|name| service_of(name).to_owned()).collect();
        names.extend(services);
        Ok(names)
    }

    /// What matches and is stored from now on, for as long as it is asked for. Begins with what
    /// [`Query::limit`] and `since` say of the past (nothing when both are unset).
    ///
    /// # Errors
    /// When the store is there but cannot be read.
    pub fn follow(&self, query: Query) -> io::Result<Follow> {
        let position = each_line(&self.store(), &self.last_segment()?, |_| {})?;
        let mut past = VecDeque::new();
        if query.since.is_some() || query.limit.is_some() {
            past.extend(self.last_stored(&query, query.limit.unwrap_or(MAX_PAST))?);
        }
        Ok(Follow { logs: self.clone(), query, position, past })
    }

    fn stored(
        &self,
        since: &Position,
        query: &Query,
        each: &mut impl FnMut(LogRecord),
    ) -> io::Result<Position> {
        each_line(&self.store(), since, |line| {
            if let Ok(record) = LogRecord::decode(line)
                && query.matches(&record)
            {
                each(record);
            }
        })
    }

    /// The last `limit` that match, searched for from the newest segment back.
    fn last_stored(&self, query: &Query, limit: usize) -> io::Result<VecDeque<LogRecord>> {
        let mut found = VecDeque::new();
        let begin = self.begin(query)?.segment;
        for segment in segments(&self.store())?.into_iter().rev() {
            if found.len() >= limit || segment < begin {
                break;
            }
            let wanted = limit - found.len();
            let mut here = VecDeque::new();
            each_line_of(&self.store(), &segment, 0, &mut |line| {
                if let Ok(record) = LogRecord::decode(line)
                    && query.matches(&record)
                {
                    here.push_back(record);
                    if here.len() > wanted {
                        here.pop_front();
                    }
                }
            })?;
            here.append(&mut found);
            found = here;
        }
        Ok(found)
    }

    /// The segment that the first match can stand in: the last one that begins before `since`.
    fn begin(&self, query: &Query) -> io::Result<Position> {
        let Some(since) = query.since else { return Ok(Position::default()) };
        let name = since.strftime("%Y-%m-%dT%H-%M-%S.%6fZ").to_string();
        let segment = segments(&self.store())?.into_iter().rev().find(|segment| *segment <= name);
        Ok(Position { segment: segment.unwrap_or_default(), length: 0 })
    }

    fn last_segment(&self) -> io::Result<Position> {
        let segment = segments(&self.store())?.pop().unwrap_or_default();
        Ok(Position { segment, length: 0 })
    }

    /// What stands in the children's files and not in the store.
    fn pending(&self, now: Timestamp) -> io::Result<Vec<LogRecord>> {
        let mut offsets = Offsets::recover(&self.store())?;
        for _ in 0..TRIES {
            let pending = self.read_current(&offsets, now)?;
            let after = Offsets::recover(&self.store())?;
            if after == offsets {
                return Ok(pending);
            }
            offsets = after;
        }
        Ok(Vec::new())
    }

    fn read_current(&self, offsets: &Offsets, now: Timestamp) -> io::Result<Vec<LogRecord>> {
        let mut records = Vec::new();
        let entries = match std::fs::read_dir(self.current()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
            other => other?,
        };
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            let Some((instance, stream)) = source_of(&path) else { continue };
            // Gone since it was listed, with everything stored.
            let Ok(file) = File::open(&path) else { continue };
            let (inode, Written { at, length }) = (file.metadata()?.ino(), Written::of(&file)?);
            let known = path.file_name().and_then(|name| offsets.files.get(name.to_str()?));
            let known = known.filter(|known| known.inode.is_none_or(|known| known == inode));
            let from = known.map_or(0, |known| known.offset).max(length.saturating_sub(MAX_PENDING_BYTES));
            let mut bytes = vec![0; length.saturating_sub(from) as usize];
            let read = file.read_at(&mut bytes, from)?;
            // As the daemon will stamp them when it reads them.
            let time = offsets.last_time.map_or(at.min(now), |last| at.min(now).max(last));
            for piece in pieces(&bytes[..read], Rest::Flush) {
                records.push(LogRecord::new(time, service_of(instance), instance, stream, piece.text));
            }
        }
        records.sort_by_key(|record| record.time);
        Ok(records)
    }
}

/// Lines as they are stored.
#[derive(Debug)]
pub struct Follow {
    logs: Logs,
    query: Query,
    position: Position,
    past: VecDeque<LogRecord>,
}

impl Follow {
    /// The next line. Waits as long as it takes. Cancel safe.
    ///
    /// # Errors
    /// When the store is there but cannot be read.
    pub async fn next(&mut self) -> io::Result<LogRecord> {
        loop {
            if let Some(record) = self.past.pop_front() {
                return Ok(record);
            }
            let mut found = VecDeque::new();
            self.position =
                self.logs.stored(&self.position, &self.query, &mut |record| found.push_back(record))?;
            self.past = found;
            if self.past.is_empty() {
                tokio::time::sleep(FOLLOW_EVERY).await;
            }
        }
    }
}

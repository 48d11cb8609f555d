//! The access log: one JSON object a line, written by a thread of its own so that no request waits for the disk.
//!
//! Each thread of the edge collects lines in its own [`Buffer`] and hands full buffers to the writer through a bounded
//! channel. What does not fit is dropped and counted: a slow or full disk costs log entries, never a request.
//!
//! The file is rotated by size to `<path>.1`, and begun anew when somebody moved or deleted it, so that other tools
//! may rotate it as well.

mod entry;
mod file;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use entry::{Entry, Outcome};

use crate::config;
use entry::Clock;
use file::LogFile;

/// How often the owner of a [`Buffer`] flushes it.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// A buffer this full is handed over at once.
const FLUSH_BYTES: usize = 32 * 1024;

/// Buffers under way to the writer; more are dropped. With [`FLUSH_BYTES`] this bounds the memory to some 2 MiB.
const BUFFERS_WAITING: usize = 64;

/// The writer; shared by all threads. The last one to let go writes what is left and closes the file.
#[derive(Debug)]
pub struct AccessLog {
    // Taken when dropped, which is what tells the writer to end.
    to_writer: Option<SyncSender<Message>>,
    dropped: Arc<AtomicU64>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    Lines(Vec<u8>, Entries),
    /// Answered when everything before is in the file.
    Sync(SyncSender<()>),
}

/// How many a buffer holds, to count them if it is lost.
#[derive(Debug, Clone, Copy, Default)]
struct Entries(u64);

impl AccessLog {
    /// Opens the file and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not started.
    pub fn open(config: &config::AccessLog) -> io::Result<Arc<AccessLog>> {
        let file = LogFile::open(&config.path, config.rotate_bytes)?;
        let (to_writer, from_threads) = sync_channel(BUFFERS_WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&dropped);
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(file, &from_threads, &count))?;
        Ok(Arc::new(AccessLog { to_writer: Some(to_writer), dropped, writer: Mutex::new(Some(writer)) }))
    }

    /// One thread's buffer.
    pub fn buffer(self: &Arc<Self>) -> Buffer {
        Buffer {
            log: Arc::clone(self),
            lines: Vec::new(),
            entries: Entries::default(),
            clock: Clock::default(),
        }
    }

    /// Entries lost because the disk was full or the writer behind.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything flushed so far is in the file. Blocks: for shutdown and tests.
    pub fn sync(&self) {
        let (answer, answered) = sync_channel(1);
        if let Some(to_writer) = &self.to_writer
            && to_writer.send(Message::Sync(answer)).is_ok()
        {
            // An error is a writer that has ended: nothing more will be in the file.
            let _ = answered.recv();
        }
    }

    /// Never blocks.
    fn hand_over(&self, lines: Vec<u8>, entries: Entries) {
        let Some(to_writer) = &self.to_writer else { return };
        if to_writer.try_send(Message::Lines(lines, entries)).is_err() {
            self.dropped.fetch_add(entries.0, Ordering::Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.to_writer = None;
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the access log writer panicked");
        }
    }
}

fn write(mut file: LogFile, from_threads: &Receiver<Message>, dropped: &AtomicU64) {
    let mut failing = false;
    while let Ok(message) = from_threads.recv() {
        match message {
            Message::Sync(answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(());
            }
            Message::Lines(lines, entries) => match file.append(&lines) {
                Ok(()) => failing = false,
                Err(error) => {
                    dropped.fetch_add(entries.0, Ordering::Relaxed);
                    // Said once for each time it begins, not for every buffer.
                    if !failing {
                        failing = true;
                        tracing::warn!(%error, path = %file.path().display(), "access log entries are dropped");
                    }
                }
            },
        }
    }
}

/// Collects the lines of one thread. Its owner calls [`Buffer::flush`] every [`FLUSH_INTERVAL`]; dropping it flushes.
#[derive(Debug)]
pub struct Buffer {
    log: Arc<AccessLog>,
    lines: Vec<u8>,
    entries: Entries,
    clock: Clock,
}

impl Buffer {
    /// Never blocks.
    pub fn push(&mut self, entry: &Entry<'_>) {
        if self.lines.capacity() == 0 {
            self.lines.reserve(FLUSH_BYTES + 4 * 1024);
        }
        entry.write(&mut self.lines, &mut self.clock);
        self.entries.0 += 1;
        if self.lines.len() >= FLUSH_BYTES {
            self.flush();
        }
    }

    /// Hands what is buffered to the writer; never blocks. Nothing to do is cheap.
    pub fn flush(&mut self) {
        if !self.lines.is_empty() {
            self.log.hand_over(std::mem::take(&mut self.lines), std::mem::take(&mut self.entries));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;

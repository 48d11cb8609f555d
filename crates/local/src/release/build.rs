//! Watching a build: its output, its end, and the disk it fills. Starting it, at low priority, is the caller's business.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{DiskFloor, DiskLow};
use crate::process::Exit;

/// How often output is passed on.
const OUTPUT_TICK: Duration = Duration::from_millis(50);
/// How often the disk is looked at, in such ticks.
const DISK_TICKS: u32 = 20;
/// Read at once from the output; a build that writes faster is passed on in pieces.
const OUTPUT_BYTES: usize = 64 * 1024;
/// A longer line is passed on in pieces.
const LINE_BYTES: usize = 8 * 1024;
/// The last lines kept for the error.
const LAST_LINES: usize = 20;

/// What is watched.
#[derive(Debug, Clone, Copy)]
pub struct Build<'a> {
    /// On its disk the floor is kept.
    pub app_dir: &'a Path,
    /// For messages.
    pub command: &'a str,
    /// Where the build's output goes, both streams. It is begun anew; what an earlier build said is kept beside it, as
    /// `NAME.1`, until the next one.
    pub log: &'a Path,
    pub floor: DiskFloor,
    /// After this the build is dropped.
    pub time_limit: Duration,
}

/// A build that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Built {
    pub took: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    DiskLow(#[from] DiskLow),
    #[error("`{command}` could not be started")]
    NotStarted { command: String, source: io::Error },
    #[error("`{command}` failed: {exit}")]
    Failed { command: String, exit: Exit, last_lines: Vec<String> },
    #[error("`{command}` did not end within {} s", .limit.as_secs())]
    TimedOut { command: String, limit: Duration, last_lines: Vec<String> },
    #[error("{}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl BuildError {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            BuildError::DiskLow(_) => "free some space; the build was not let to fill the disk",
            BuildError::NotStarted { .. } => "see that `build` in the manifest is a command that exists",
            BuildError::Failed { .. } => "its last lines say why; nothing was deployed",
            BuildError::TimedOut { .. } => "see whether it waits for input; nothing was deployed",
            BuildError::Io { .. } => "see that the disk is not full and that the folder is yours to write",
        }
    }

    /// What the build said last.
    pub fn last_lines(&self) -> &[String] {
        match self {
            BuildError::Failed { last_lines, .. } | BuildError::TimedOut { last_lines, .. } => last_lines,
            _ => &[],
        }
    }
}

/// Polls `running`, which starts the build and ends with it, and passes its output on line by line. It is not polled
/// when the disk is below the floor, and dropped when it falls below meanwhile or the time is up: dropping it must end
/// the build.
///
/// # Errors
/// When the build fails, or is not let go on.
pub async fn build(
    build: &Build<'_>,
    running: impl Future<Output = io::Result<Exit>>,
    on_line: &mut (dyn FnMut(&str) + Send),
) -> Result<Built, BuildError> {
    check_disk(build)?;
    let command = || build.command.to_owned();
    let began = Instant::now();
    let mut output =
        Output::open(build.log).map_err(|source| BuildError::Io { path: build.log.to_owned(), source })?;
    let mut tick = interval(OUTPUT_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks = 0;
    let mut running = Box::pin(running);
    let exit = loop {
        tokio::select! {
            exit = &mut running => break exit,
            _ = tick.tick() => {}
        }
        output.pass_on(on_line);
        ticks += 1;
        if ticks % DISK_TICKS == 0 {
            check_disk(build)?;
        }
        if began.elapsed() >= build.time_limit {
            drop(running);
            let last_lines = output.finish(on_line);
            return Err(BuildError::TimedOut { command: command(), limit: build.time_limit, last_lines });
        }
    };
    let last_lines = output.finish(on_line);
    match exit {
        Ok(exit) if exit.success() => Ok(Built { took: began.elapsed() }),
        Ok(exit) => Err(BuildError::Failed { command: command(), exit, last_lines }),
        Err(source) => Err(BuildError::NotStarted { command: command(), source }),
    }
}

fn check_disk(build: &Build<'_>) -> Result<(), BuildError> {
    let checked = build.floor.check(build.app_dir, 0);
    Ok(checked.map_err(|source| BuildError::Io { path: build.app_dir.to_owned(), source })??)
}

/// A file that somebody else appends to.
struct Output {
    file: File,
    line: Vec<u8>,
    last_lines: std::collections::VecDeque<String>,
}

impl Output {
    fn open(path: &Path) -> io::Result<Output> {
        match std::fs::rename(path, path.with_added_extension("1")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = std::fs::OpenOptions::new().create(true).append(true).read(true).open(path)?;
        Ok(Output { file, line: Vec::new(), last_lines: Default::default() })
    }

    /// Passes on what is there now. An output that does not read is an output that is not seen; the build goes on.
    fn pass_on(&mut self, on_line: &mut dyn FnMut(&str)) -> usize {
        let mut buffer = vec![0; OUTPUT_BYTES];
        let read = self.file.read(&mut buffer).unwrap_or(0);
        for &byte in &buffer[..read] {
            if byte != b'\n' {
                self.line.push(byte);
            }
            if byte == b'\n' || self.line.len() >= LINE_BYTES {
                self.end_line(on_line);
            }
        }
        read
    }

    fn end_line(&mut self, on_line: &mut dyn FnMut(&str)) {
        let line = String::from_utf8_lossy(&self.line).trim_end_matches('\r').to_owned();
        self.line.clear();
        on_line(&line);
        self.last_lines.push_back(line);
        if self.last_lines.len() > LAST_LINES {
            self.last_lines.pop_front();
        }
    }

    fn finish(mut self, on_line: &mut dyn FnMut(&str)) -> Vec<String> {
        while self.pass_on(on_line) > 0 {}
        if !self.line.is_empty() {
            self.end_line(on_line);
        }
        self.last_lines.into()
    }
}

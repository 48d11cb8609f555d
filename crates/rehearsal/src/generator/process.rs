//! The side of a generator's process that started it.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Command as Order, End, Said, line};
use crate::load::Load;
use crate::record::Second;

/// Of a second: a hundred classes with all their buckets have less.
const LINE_BYTES: usize = 16 << 20;

/// A generator at work. Killed when dropped, and it ends by itself when we do.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Of a line that has not come whole.
    partial: Vec<u8>,
}

/// Why there is no generator, or no word of it.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("the load generator cannot be started")]
    Start(#[source] io::Error),
    #[error("the load generator refuses the load: {0}")]
    Refused(String),
    #[error("what the load generator says cannot be read")]
    Output(#[source] io::Error),
    #[error("the load generator ended too early ({0})")]
    Ended(ExitStatus),
}

/// What came next.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    Second(Second),
    End(End),
}

impl Process {
    /// Starts `executable` with `arguments`, which make it a generator ([`super::run`] on its standard input and output), and
    /// gives it the load.
    ///
    /// # Errors
    /// When it cannot be started, or ends before it has read the load.
    pub async fn start(executable: &Path, arguments: &[&str], load: &Load) -> Result<Process, ProcessError> {
        let mut command = Command::new(executable);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(ProcessError::Start)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let missing = || ProcessError::Start(io::ErrorKind::BrokenPipe.into());
        let output = BufReader::new(output.ok_or_else(missing)?);
        let mut process = Process { child, input, output, partial: Vec::new() };
        let load = serde_json::to_vec(load).map_err(|error| ProcessError::Start(error.into()))?;
        process.say(load).await.map_err(ProcessError::Start)?;
        Ok(process)
    }

    /// Of the operating system. `None`: it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The next second, or the end, after which nothing comes.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// When it refuses the load, ends too early, or says what is not understood.
    pub async fn next(&mut self) -> Result<Heard, ProcessError> {
        let line = line::read_on(&mut self.output, &mut self.partial, LINE_BYTES).await;
        let Some(line) = line.map_err(ProcessError::Output)? else {
            let status = self.child.wait().await.map_err(ProcessError::Output)?;
            return Err(ProcessError::Ended(status));
        };
        match serde_json::from_str(&line).map_err(|error| ProcessError::Output(error.into()))? {
            Said::Second(second) => Ok(Heard::Second(second)),
            Said::End(end) => Ok(Heard::End(end)),
            Said::Refused(why) => Err(ProcessError::Refused(why)),
        }
    }

    /// Cuts the run short. What it has seen so far still comes ([`Process::next`]). Does nothing the second time.
    pub async fn stop(&mut self) {
        if let Ok(order) = serde_json::to_vec(&Order { stop: true }) {
            // If it cannot be told, it has ended, or it hears the end of its input.
            let _ = self.say(order).await;
        }
        self.input = None;
    }

    async fn say(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        match &mut self.input {
            Some(input) => input.write_all(&line).await,
            None => Ok(()),
        }
    }
}

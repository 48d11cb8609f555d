//! The load generator: carries out a [`Load`], and says once a second what it saw.
//!
//! An open loop: visits begin when the load says so, however slowly the app answers, and each latency counts from the moment
//! that a request was meant to be sent. It runs in a process of its own ([`run`] is all of that process, [`Process`] starts
//! it), so that its processor time can be told from that of its caller, and so that a caller who dies takes it along.
//!
//! A few threads share the arrivals, each with sockets, timers, a stream of chance and counts of its own ([`thread`]); they
//! meet only where their seconds are added up ([`collector`]).
//!
//! On the wire are lines of JSON. In: the load, then `{"stop":true}` or the end of input, either of which cuts the run short.
//! Out: [`Said`].

mod clock;
mod collector;
mod line;
mod pace;
mod process;
mod readers;
mod recorder;
mod script;
mod thread;
mod validity;
mod visit;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::client::connect::{TlsClient, TlsError};
use crate::load::Load;
use crate::record::{FailedRequests, Second, Validity};
use clock::Clock;
use collector::Collector;
pub use process::{Heard, Process, ProcessError};
use recorder::Totals;
pub use script::Refusal;
use script::Script;
use thread::Task;
use validity::Start;

/// Of a load. One of a thousand steps has less.
const LOAD_BYTES: usize = 16 << 20;
const COMMAND_BYTES: usize = 4096;
/// Seconds of each thread that wait to be written. When nobody has read for so long, the run ends.
const SECONDS_WAITING: usize = 60;

/// Standard streams; an event queue for each of a few threads; a socket that is about to be refused one.
const OWN_DESCRIPTORS: u32 = 100;
/// Somebody who does not read for so long will not read any more.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a generator says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It will not begin.
    Refused(String),
    /// In order and without gaps. Told when it is over and all that was meant for it has an outcome, at the latest when the
    /// patience of its last visitor has passed.
    Second(Second),
    /// The last.
    End(End),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub validity: Validity,
    /// As [`Record::failed`](crate::record::Record::failed).
    pub failed: Vec<FailedRequests>,
    /// Why it ended before its time. `None`: it did not.
    pub cut_short: Option<String>,
}

/// What a generator is told after the load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    pub stop: bool,
}

/// Why a generator does not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("what came in is no load")]
    Load(#[source] io::Error),
    #[error("the load is refused")]
    Refused(#[from] Refusal),
    #[error("TLS is not to be had")]
    Tls(#[from] TlsError),
    #[error("a thread cannot be started or has no event queue")]
    Thread(#[source] io::Error),
    #[error("nobody takes what was measured")]
    Output(#[source] io::Error),
}

const TOLD_TO_STOP: &str = "it was told to stop";

/// Reads a load, carries it out, and says what it saw. Ends early when it is told to stop, when `input` ends, when `stop` is
/// cancelled, or when nobody reads `output`.
///
/// # Errors
/// When there is no load or it is refused, which is also said as [`Said::Refused`]; when there are no threads; and when
/// `output` is closed.
pub async fn run(
    mut input: impl AsyncBufRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let (script, tls) = match read_load(&mut input).await {
        Ok(ready) => ready,
        Err(error) => {
            let said = Said::Refused(in_full(&error));
            write(&mut output, &said).await?;
            return Err(error);
        }
    };
    let clock = Clock::beginning(Instant::now());
    let start = Start::now(clock);
    // Of the threads; `stop` is the caller's.
    let stop_threads = stop.child_token();
    let _stop_on_error = stop_threads.clone().drop_guard();
    let threads = script.load.limits.threads;
    let connections = script.load.limits.connections.min(descriptors());
    let (sender, mut tallies) = mpsc::channel(SECONDS_WAITING * threads as usize);
    let mut running = Vec::new();
    for number in 0..u64::from(threads) {
        let (script, tls, stop) = (Arc::clone(&script), tls.clone(), stop_threads.clone());
        let task = Task { number, script, clock, tls, connections, seconds: sender.clone(), stop };
        let named = std::thread::Builder::new().name(format!("visitors-{number}"));
        running.push(named.spawn(move || thread::run(task)).map_err(RunError::Thread)?);
    }
    drop(sender);
    let mut collector = Collector::new(&script);
    let mut cut_short = None;
    let mut told = pin!(told_to_stop(&mut input, &stop));
    loop {
        tokio::select! {
            tally = tallies.recv() => match tally {
                Some(tally) => {
                    if let Some(second) = collector.add(tally) {
                        write(&mut output, &Said::Second(second)).await?;
                    }
                }
                None => break,
            },
            why = &mut told, if cut_short.is_none() => {
                cut_short = Some(why);
                stop_threads.cancel();
            }
        }
    }
    while let Some(second) = collector.rest() {
        write(&mut output, &Said::Second(second)).await?;
    }
    let mut totals = Totals::default();
    for thread in running {
        match thread.join() {
            Ok(ended) => {
                let ended = ended.map_err(RunError::Thread)?;
                totals.add(&ended.totals);
                cut_short = cut_short.or(ended.cut_short);
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    // The threads hear it as well, and may have ended before this was looked at.
    let cut_short = cut_short.or(stop.is_cancelled().then_some(TOLD_TO_STOP)).map(str::to_owned);
    let validity = start.judge(&totals, script.load.judged_by_us.map(Duration::from_micros));
    write(&mut output, &Said::End(End { validity, failed: totals.failed, cut_short })).await
}

/// As many connections as this process may have, besides what its threads need themselves.
fn descriptors() -> u32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    u32::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(u32::MAX).saturating_sub(OWN_DESCRIPTORS)
}

async fn read_load(
    input: &mut (impl AsyncBufRead + Unpin),
) -> Result<(Arc<Script>, Option<TlsClient>), RunError> {
    let line = line::read(input, LOAD_BYTES).await.map_err(RunError::Load)?;
    let line = line.ok_or_else(|| RunError::Load(io::ErrorKind::UnexpectedEof.into()))?;
    let load: Load = serde_json::from_str(&line).map_err(|error| RunError::Load(error.into()))?;
    let origin = &load.origin;
    let tls = origin.tls.as_ref().map(|tls| TlsClient::new(tls, origin.protocol)).transpose()?;
    Ok((Arc::new(Script::new(load)?), tls))
}

async fn told_to_stop(input: &mut (impl AsyncBufRead + Unpin), stop: &CancellationToken) -> &'static str {
    let command = async {
        loop {
            match line::read(input, COMMAND_BYTES).await {
                Ok(Some(line)) => {
                    if serde_json::from_str(&line).is_ok_and(|command: Command| command.stop) {
                        return TOLD_TO_STOP;
                    }
                }
                Ok(None) | Err(_) => return "whoever started it is gone",
            }
        }
    };
    tokio::select! {
        why = command => why,
        () = stop.cancelled() => TOLD_TO_STOP,
    }
}

async fn write(output: &mut (impl AsyncWrite + Unpin), said: &Said) -> Result<(), RunError> {
    let mut line = serde_json::to_vec(said).map_err(|error| RunError::Output(error.into()))?;
    line.push(b'\n');
    let written = async {
        output.write_all(&line).await?;
        output.flush().await
    };
    let written = timeout(WRITE_TIMEOUT, written).await;
    written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(RunError::Output)
}

/// An error with its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

//! This program as a load generator, with a process of its own so that what it costs can be told.
//!
//! It speaks to whoever started it over its standard input and output, and ends when that one does.

use std::io;
use std::os::fd::AsFd;

use local::chain;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit, setsid};
use tokio::io::BufReader;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// More than any load has connections, and as many as the kernel allows a process unless it is told otherwise.
const DESCRIPTORS: u64 = 1 << 20;
/// Niceness, where it may be had: before whatever it drives, or on a full machine it would wait for its turn as requests do,
/// and send late.
const PRECEDENCE: i32 = -10;

/// Runs until the load is carried out, or SIGTERM, which cuts it short.
///
/// # Errors
/// When there is no load, it is refused, or nobody hears what it measured.
pub fn run() -> Result<(), String> {
    allow_descriptors().map_err(|error| format!("descriptors for connections: {error}"))?;
    take_precedence();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(generate())
}

async fn generate() -> Result<(), String> {
    let mut term = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    // Whoever presses Ctrl-C in the terminal means the command in front, which then ends our input.
    let _ignored = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let stop = CancellationToken::new();
    let (input, output) =
        pipes().map_err(|error| format!("standard input and output are no pipes: {error}"))?;
    let generating = rehearsal::generator::run(BufReader::new(input), output, stop.clone());
    tokio::pin!(generating);
    tokio::select! {
        ended = &mut generating => return ended.map_err(|error| chain(&error)),
        _ = term.recv() => stop.cancel(),
    }
    generating.await.map_err(|error| chain(&error))
}

/// Our standard input and output, which are pipes of whoever started us, so that neither holds up the other.
fn pipes() -> io::Result<(Receiver, Sender)> {
    let (input, output) =
        (io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?);
    Ok((Receiver::from_owned_fd(input)?, Sender::from_owned_fd(output)?))
}

/// Each by best effort: only root may go before others, and what comes of it is measured (the schedule error). Before there are
/// threads, which inherit it.
fn take_precedence() {
    // Where the scheduler groups by session (sched(7), autogroup), niceness counts only within one: in a session of its own it
    // stands beside the app rather than beside whoever started it.
    let is_own = setsid().is_ok();
    if setpriority_process(None, PRECEDENCE).is_ok() && is_own {
        // A kernel without such groups has no such file.
        let _ = std::fs::write("/proc/self/autogroup", PRECEDENCE.to_string());
    }
}

/// Each connection is a descriptor, and a shell gives a thousand. More than may be had are not offered, and that is told.
fn allow_descriptors() -> io::Result<()> {
    let many = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    let limit = getrlimit(Resource::Nofile);
    let is_enough = limit.maximum.is_none_or(|maximum| maximum >= DESCRIPTORS);
    // Beyond what we were given only root may go.
    if !is_enough && setrlimit(Resource::Nofile, many).is_ok() {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(())
}

//! pgproxy alone: beside an app that Switchback does not run, in front of any PostgreSQL.
//!
//! The configuration is a file, read again at SIGHUP; what does not hold is said, and the one in force stays. SIGTERM
//! and Ctrl-C drain.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use local::chain;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

/// After SIGTERM: sessions get this long to end by themselves.
const DRAIN: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct StandaloneArgs {
    /// JSON: `listeners`, an address for each name, and the databases that listen there.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct File {
    listeners: BTreeMap<String, SocketAddr>,
    databases: BTreeMap<String, pgproxy::Database>,
}

/// Serves until it is told to end.
///
/// # Errors
/// When the file does not hold, or an address cannot be listened on.
pub fn run(args: &StandaloneArgs) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(serve(&args.config))
}

async fn serve(path: &Path) -> Result<(), String> {
    let file = read(path)?;
    let mut sockets = BTreeMap::new();
    for (name, address) in &file.listeners {
        let socket = TcpListener::bind(address)
            .map_err(|error| format!("{name}: cannot listen on {address}: {error}"))?;
        sockets.insert(name.clone(), socket);
    }
    let mut generation = 1;
    let config = pgproxy::Config { generation, databases: file.databases };
    let handle = pgproxy::start(config, sockets).map_err(|error| chain(&error))?;
    let listen = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut term, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hangup = listen(SignalKind::hangup())?;
    tracing::info!(config = %path.display(), "pgproxy serves");
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {}
        }
        generation += 1;
        let configured = read(path).and_then(|file| {
            let config = pgproxy::Config { generation, databases: file.databases };
            handle.configure(config).map_err(|error| chain(&error))
        });
        match configured {
            Ok(()) => tracing::info!(config = %path.display(), "the configuration was read again"),
            Err(cause) => tracing::error!(cause, "the configuration was not taken; the one before stays"),
        }
    }
    let drained = handle.drain(DRAIN).await;
    if drained.cut > 0 {
        tracing::warn!(sessions = drained.cut, "sessions were cut");
    }
    Ok(())
}

fn read(path: &Path) -> Result<File, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read(path).map_err(|error| at(&error))?;
    let file: File = serde_json::from_slice(&text).map_err(|error| at(&error))?;
    let said: Value = serde_json::from_slice(&text).map_err(|error| at(&error))?;
    let known = serde_json::to_value(&file).map_err(|error| at(&error))?;
    match unknown_key(&said, &known) {
        Some(key) => Err(at(&format!("there is no key `{key}`"))),
        None => Ok(file),
    }
}

/// The path of a key that was read over. What somebody writes by hand is what they mean.
fn unknown_key(said: &Value, known: &Value) -> Option<String> {
    let (Value::Object(said), Value::Object(known)) = (said, known) else { return None };
    said.iter().find_map(|(key, said)| match known.get(key) {
        None if said.as_object().is_some_and(serde_json::Map::is_empty) => None,
        None => Some(key.clone()),
        Some(known) => unknown_key(said, known).map(|below| format!("{key}.{below}")),
    })
}

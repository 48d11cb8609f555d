//! pgproxy alone: beside an app that Switchback does not run, in front of any PostgreSQL.
//!
//! The configuration is a file, read again at SIGHUP; what does not hold is said, and the one in force stays. So it is with
//! another address to listen on: that takes a new process. SIGTERM and Ctrl-C drain, and a second one cuts what is left.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use local::chain;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::scrape::scrape;

/// After SIGTERM: sessions get this long to end by themselves.
const DRAIN: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct StandaloneArgs {
    /// JSON: `listeners`, an address for each name, the `databases` that listen there, and where `metrics` are.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct File {
    listeners: BTreeMap<String, SocketAddr>,
    databases: BTreeMap<String, pgproxy::Database>,
    /// Unset: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metrics: Option<Metrics>,
}

/// Where whoever comes is given the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Metrics {
    /// Of this machine alone.
    Port(u16),
    Address(SocketAddr),
}

impl Metrics {
    fn address(self) -> SocketAddr {
        match self {
            Metrics::Port(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            Metrics::Address(address) => address,
        }
    }
}

impl File {
    /// Every address, by what it is for.
    fn addresses(&self) -> impl Iterator<Item = (String, SocketAddr)> {
        let listeners = self.listeners.iter().map(|(name, address)| (format!("listener `{name}`"), *address));
        listeners.chain(self.metrics.map(|metrics| ("`metrics`".to_owned(), metrics.address())))
    }

    /// Whether a process that listens where `before` says can do as this one says.
    fn can_follow(&self, before: &File) -> Result<(), String> {
        let bound: BTreeMap<_, _> = before.addresses().collect();
        for (name, address) in self.addresses() {
            match bound.get(&name) {
                Some(there) if *there == address => {}
                Some(there) => {
                    return Err(format!(
                        "{name} is at {there}, and moves to {address} with a new process only"
                    ));
                }
                None => return Err(format!("{name} is new, and comes with a new process only")),
            }
        }
        if before.metrics.is_some() && self.metrics.is_none() {
            return Err("`metrics` end with the process only".to_owned());
        }
        let is_missing =
            |(_, database): &(&String, &pgproxy::Database)| !self.listeners.contains_key(&database.listener);
        match self.databases.iter().find(is_missing) {
            Some((name, database)) => Err(format!(
                "database `{name}` names the listener `{}`, which is not there",
                database.listener
            )),
            None => Ok(()),
        }
    }
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
    let bind = |name: &str, address: SocketAddr| {
        TcpListener::bind(address).map_err(|error| format!("{name}: cannot listen on {address}: {error}"))
    };
    let mut sockets = BTreeMap::new();
    for (name, address) in &file.listeners {
        sockets.insert(name.clone(), bind(name, *address)?);
    }
    let metrics = file.metrics.map(|metrics| bind("metrics", metrics.address())).transpose()?;
    let config = pgproxy::Config { generation: 1, databases: file.databases.clone() };
    let handle = pgproxy::start(config, sockets).map_err(|error| chain(&error))?;
    let listen = |kind| signal(kind).map_err(|error| error.to_string());
    let (term, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (mut end, mut hangup) = (End { term, interrupt }, listen(SignalKind::hangup())?);
    tracing::info!(config = %path.display(), "pgproxy serves");
    let text = || {
        let mut text = String::new();
        handle.metrics(&mut text);
        text
    };
    let until_drained = async {
        end.told().await;
        tracing::info!("pgproxy drains; told again to end, it cuts what is left");
        let drained = tokio::select! {
            drained = handle.drain(DRAIN) => drained,
            () = end.told() => handle.drain(Duration::ZERO).await,
        };
        if drained.cut > 0 {
            tracing::warn!(sessions = drained.cut, "sessions were cut");
        }
    };
    tokio::select! {
        scraped = scrape(metrics, text) => scraped.map_err(|error| error.to_string()),
        // Also while it drains: what it still serves follows every change.
        () = follow(path, &file, &handle, &mut hangup) => Ok(()),
        () = until_drained => Ok(()),
    }
}

/// Reads the configuration again whenever it is told to.
async fn follow(path: &Path, first: &File, handle: &pgproxy::Handle, hangup: &mut Signal) {
    let mut generation = 1;
    while hangup.recv().await.is_some() {
        generation += 1;
        let configured = read(path).and_then(|file| {
            file.can_follow(first)?;
            let config = pgproxy::Config { generation, databases: file.databases };
            handle.configure(config).map_err(|error| chain(&error))
        });
        match configured {
            Ok(()) => tracing::info!(config = %path.display(), "the configuration was read again"),
            Err(cause) => tracing::error!(cause, "the configuration was not taken; the one before stays"),
        }
    }
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

/// By what this process is told to end.
struct End {
    term: Signal,
    interrupt: Signal,
}

impl End {
    async fn told(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

//! Starting the threads, and what each of them does until it ends.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::accept::{accept, adopt as adopt_connection};
use super::compile::{ConfigError, adopt, compile};
use super::handle::Handle;
use super::shared::{Control, Link, Shared};
use super::thread::{Command, Thread};
use crate::access_log;
use crate::config::Config;
use crate::health;
use crate::metrics::Metrics;

/// How often each thread looks for idle upstream connections that should be closed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How an edge is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that serve; one more does the health checks.
    pub threads: NonZeroUsize,
    /// Of the program, for metrics.
    pub version: String,
}

/// Why an edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Starts serving `config` on `sockets`, which stand under the names of the listeners; sockets without a listener are
/// closed. Returns when every thread is about to accept; connections wait in the sockets' backlogs meanwhile.
///
/// The edge stops when the last clone of the handle is dropped; call [`Handle::drain`] first to end in order.
///
/// # Errors
/// When the configuration is refused, or a thread or its runtime cannot be made.
pub fn start(
    config: Config,
    sockets: BTreeMap<String, TcpListener>,
    options: Options,
) -> Result<Handle, StartError> {
    let names = sockets.keys().cloned().collect();
    let snapshot = compile(&config, None, &names)?;
    adopt(&config, &snapshot);
    let sockets: BTreeMap<_, _> =
        sockets.into_iter().filter(|(name, _)| config.listeners.contains_key(name)).collect();
    for socket in sockets.values() {
        socket.set_nonblocking(true).map_err(ConfigError::Socket)?;
    }

    let mut links = Vec::new();
    let mut inboxes = Vec::new();
    for _ in 0..options.threads.get() {
        let (commands, inbox) = mpsc::unbounded_channel();
        links.push(Link { commands, connections: Arc::default(), in_flight: Arc::default() });
        inboxes.push(inbox);
    }
    let clusters = snapshot.upstreams.iter().map(|upstream| Arc::clone(&upstream.cluster)).collect();
    let shared = Arc::new(Shared {
        snapshot: ArcSwap::from_pointee(snapshot),
        metrics: Metrics::new(),
        threads: links,
        connections: AtomicU32::new(0),
        draining: AtomicBool::new(false),
        drain: CancellationToken::new(),
        stop: CancellationToken::new(),
        running: watch::Sender::new(0),
        control: Mutex::new(Control { sockets, retired: Vec::new() }),
        clusters: watch::Sender::new(clusters),
        version: options.version,
    });

    let mut joins = Vec::new();
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let shared = Arc::clone(&shared);
        joins.push(spawn(format!("edge-{index}"), Arc::clone(&shared), move || async move {
            run(shared, index, inbox).await;
        })?);
    }
    let checking = Arc::clone(&shared);
    joins.push(spawn("edge-health".to_owned(), Arc::clone(&shared), move || async move {
        health::run(checking.clusters.subscribe(), checking.stop.clone()).await;
    })?);
    Ok(Handle::new(shared, joins))
}

/// Runs `main` on a thread and a runtime of its own.
fn spawn<F, M>(name: String, shared: Arc<Shared>, main: M) -> Result<std::thread::JoinHandle<()>, StartError>
where
    F: Future<Output = ()>,
    M: FnOnce() -> F + Send + 'static,
{
    let is_worker = name != "edge-health";
    if is_worker {
        shared.running.send_modify(|running| *running += 1);
    }
    let running = is_worker.then(|| Running(Arc::clone(&shared)));
    let (started, start) = std::sync::mpsc::sync_channel(1);
    let body = move || {
        let _running = running;
        // One that belongs to its thread: with tasks of a `LocalSet` each turn would write to an eventfd to wake the thread
        // that it runs on.
        match tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
        {
            Ok(runtime) => {
                let _ = started.send(Ok(()));
                runtime.block_on(main());
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    };
    let thread = std::thread::Builder::new().name(name).spawn(body).map_err(StartError::Thread)?;
    start.recv().unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(StartError::Thread)?;
    Ok(thread)
}

/// Counts a thread as running until it ends, by panic too.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

/// The main task of a serving thread.
async fn run(shared: Arc<Shared>, index: usize, mut inbox: mpsc::UnboundedReceiver<Command>) {
    let stop = shared.stop.clone();
    let drain = shared.drain.clone();
    let thread = Rc::new(Thread::new(shared, index));
    let mut accepting = Accepting::default();
    accepting.follow(&thread);
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    let mut flush = tokio::time::interval(access_log::FLUSH_INTERVAL);
    let mut served_out = std::pin::pin!(thread.tasks.wait());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = drain.cancelled(), if !accepting.ended => {
                accepting.end();
                // From here on the tracker can become empty for good.
                thread.tasks.close();
            }
            () = &mut served_out, if accepting.ended => {
                // Other threads may accept for a moment longer. From here on they keep what they accept; what they
                // have handed over already is served first.
                inbox.close();
                let mut late = 0;
                while let Ok(command) = inbox.try_recv() {
                    if let Command::Adopt(accepted) = command {
                        adopt_connection(&thread, accepted);
                        late += 1;
                    }
                }
                if late == 0 {
                    break;
                }
                served_out.set(thread.tasks.wait());
            }
            Some(command) = inbox.recv() => match command {
                Command::Adopt(accepted) => adopt_connection(&thread, accepted),
                Command::Cut(id) => thread.pool.cut(&id),
                Command::Reconfigured => {
                    if !accepting.ended {
                        accepting.follow(&thread);
                    }
                    thread.pool.sweep(thread.snapshot().timeouts.upstream_idle);
                }
            },
            _ = sweep.tick() => thread.pool.sweep(thread.snapshot().timeouts.upstream_idle),
            _ = flush.tick() => thread.flush_log(),
        }
    }
    thread.flush_log();
}

/// The accepting tasks of a thread, by listener.
#[derive(Default)]
struct Accepting {
    listeners: BTreeMap<String, CancellationToken>,
    ended: bool,
}

impl Accepting {
    /// Accepts from exactly the listeners of the configuration in force.
    fn follow(&mut self, thread: &Rc<Thread>) {
        let view = thread.snapshot();
        self.listeners.retain(|name, end| {
            let kept = view.listeners.contains_key(name);
            if !kept {
                end.cancel();
            }
            kept
        });
        let control = thread.shared.control.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (name, socket) in &control.sockets {
            if self.listeners.contains_key(name) || !view.listeners.contains_key(name) {
                continue;
            }
            let registered = socket.try_clone().and_then(tokio::net::TcpListener::from_std);
            match registered {
                Ok(socket) => {
                    let end = CancellationToken::new();
                    let task = accept(Rc::clone(thread), name.as_str().into(), socket, end.clone());
                    thread.tasks.spawn_local(task);
                    self.listeners.insert(name.clone(), end);
                }
                Err(error) => tracing::error!(listener = %name, %error, "cannot accept on this thread"),
            }
        }
    }

    fn end(&mut self) {
        for end in self.listeners.values() {
            end.cancel();
        }
        self.ended = true;
    }
}

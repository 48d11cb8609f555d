//! Taking connections from the listening sockets.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::error::SendError;
use tokio_util::sync::CancellationToken;

use super::connection;
use super::shared::Shared;
use super::thread::{Command, Thread};
use crate::metrics::ConnectionReject;

/// How long accepting pauses when the process has no file descriptors left.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(50);

/// A connection on its way to the thread that will serve it.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(super) stream: std::net::TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    pub(super) place: Place,
}

/// One of `max_connections`, given back on drop.
#[derive(Debug)]
pub(super) struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection counted on the thread that serves it.
#[derive(Debug)]
pub(super) struct OnThread(Arc<AtomicU32>);

impl OnThread {
    pub(super) fn new(counter: &Arc<AtomicU32>) -> OnThread {
        counter.fetch_add(1, Ordering::Relaxed);
        OnThread(Arc::clone(counter))
    }
}

impl Drop for OnThread {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts from one socket until `end`.
pub(super) async fn accept(thread: Rc<Thread>, name: Arc<str>, socket: TcpListener, end: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = end.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&thread, &name, stream, peer),
            Err(error) if is_of_connection(&error) => {}
            Err(_) => {
                tokio::select! {
                    () = end.cancelled() => return,
                    () = tokio::time::sleep(OUT_OF_FILES_PAUSE) => {}
                }
            }
        }
    }
}

/// Errors of a connection that ended before it was accepted say nothing about the socket.
fn is_of_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

fn admit(thread: &Rc<Thread>, name: &str, stream: TcpStream, peer: SocketAddr) {
    let view = thread.snapshot();
    let shared = &thread.shared;
    let before = shared.connections.fetch_add(1, Ordering::Relaxed);
    let place = Place(Arc::clone(shared));
    if before >= view.limits.max_connections {
        thread.recorder.connection_rejected(ConnectionReject::Limit);
        return;
    }
    let Some(listener) = view.listeners.get(name) else {
        return;
    };
    // Without it the kernel may hold small answers back; failing to set it only costs time.
    let _ = stream.set_nodelay(true);
    let tls = listener.tls.as_ref().map(|tls| Arc::clone(&tls.server));
    let Some(other) = shared.less_busy_than(thread.index) else {
        connection::spawn(thread, stream, peer, tls, place);
        return;
    };
    if let Ok(stream) = stream.into_std() {
        let accepted = Command::Adopt(Accepted { stream, peer, tls, place });
        // A thread that has drained takes nothing more; a connection that was accepted must be served all the same.
        if let Err(SendError(Command::Adopt(accepted))) = other.commands.send(accepted) {
            adopt(thread, accepted);
        }
    }
}

/// Serves a connection that another thread accepted.
pub(super) fn adopt(thread: &Rc<Thread>, accepted: Accepted) {
    let Ok(stream) = TcpStream::from_std(accepted.stream) else {
        return;
    };
    connection::spawn(thread, stream, accepted.peer, accepted.tls, accepted.place);
}

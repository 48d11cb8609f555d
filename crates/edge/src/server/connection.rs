//! The life of one client connection: TLS if its listener has it, then whichever HTTP it speaks.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::accept::{OnThread, Place};
use super::thread::{Peer, Thread};
use crate::h1::{self, Served, Stream};
use crate::h2;
use crate::metrics::Recorder;

/// Starts serving it on this thread.
pub(super) fn spawn(
    thread: &Rc<Thread>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    place: Place,
) {
    let guard = Open {
        _on_thread: OnThread::new(&thread.connections),
        _place: place,
        recorder: Arc::clone(&thread.recorder),
    };
    thread.recorder.connection_accepted();
    let connection = serve(Rc::clone(thread), stream, peer, tls, guard);
    thread.tasks.spawn_local(connection);
}

/// Keeps the connection counted.
struct Open {
    _on_thread: OnThread,
    _place: Place,
    recorder: Arc<Recorder>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.recorder.connection_closed();
    }
}

async fn serve(
    thread: Rc<Thread>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    _open: Open,
) {
    let address = peer.ip().to_canonical();
    let peer = Rc::new(Peer {
        address,
        text: address.to_string().into_bytes(),
        scheme: if tls.is_some() { "https" } else { "http" },
    });
    let Some(tls) = tls else {
        return serve_either(&thread, stream, &peer).await;
    };
    let limit = thread.snapshot().timeouts.tls_handshake;
    match tokio::time::timeout(limit, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => {
            thread.recorder.tls_handshake();
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                h2::serve(&thread, stream, Vec::new(), &peer).await;
            } else {
                serve_either(&thread, stream, &peer).await;
            }
        }
        Ok(Err(_)) | Err(_) => thread.recorder.tls_failed(),
    }
}

/// HTTP/1.1, unless the client begins with the preface of HTTP/2.
async fn serve_either<S: Stream + 'static>(thread: &Rc<Thread>, stream: S, peer: &Rc<Peer>) {
    match h1::serve(thread, stream, peer).await {
        Served::Closed => {}
        Served::BecomesH2(stream, read) => h2::serve(thread, stream, read, peer).await,
    }
}

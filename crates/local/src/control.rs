//! How the daemon talks to the roles it runs (edge, pgproxy): one JSON line each way over a Unix socket.
//!
//! The socket stands in the run folder, which only its owner may enter. A connection carries one request. `listeners`
//! answers with the listening sockets themselves (SCM_RIGHTS, unix(7)), so that a new daemon or a successor process
//! can hold them and no connection is refused while a role is replaced or restarted.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// Longest line accepted either way; a configuration of thousands of endpoints stays below it.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;
/// Listening sockets in one answer.
const MAX_SOCKETS: usize = 16;
/// An answer that takes longer does not come: the role is hung. Only `EndpointIdle` may wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at once; the daemon makes a handful.
const MAX_CONNECTIONS: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A role that does not take the connection within this is hung or gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Replaces the configuration as a whole; in force when answered.
    Configure {
        config: Value,
    },
    Status,
    /// Of a proxy: what its databases' nodes had to do while somebody watched. Who asks watches for a while.
    Load,
    /// Prometheus text.
    Metrics,
    /// The listening sockets, by name.
    Listeners,
    /// Answered when no request is in flight on the endpoint.
    EndpointIdle {
        id: String,
    },
    /// Cuts what is still in flight on the endpoint.
    CloseEndpoint {
        id: String,
    },
    /// Accepts nothing new, finishes what is open until the deadline, then exits. Answered at once.
    Drain {
        deadline_ms: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    Done {
        value: Value,
    },
    /// In the order of the sockets that come with it.
    Sockets {
        names: Vec<String>,
    },
    Refused {
        message: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("{socket} cannot be reached")]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the connection to {socket} broke")]
    Broken {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{socket} answered something else than expected")]
    Unexpected { socket: PathBuf },
    #[error("{message}")]
    Refused { message: String },
}

/// Asks a role. [`Request::EndpointIdle`] is waited for as long as it takes, everything else for ten seconds. Cancel
/// safe.
///
/// # Errors
/// When the role is gone, or refuses.
pub async fn ask(socket: &Path, request: &Request) -> Result<Value, ControlError> {
    match in_time(socket, request).await? {
        (Answer::Done { value }, _) => Ok(value),
        (Answer::Refused { message }, _) => Err(ControlError::Refused { message }),
        (Answer::Sockets { .. }, _) => Err(ControlError::Unexpected { socket: socket.to_owned() }),
    }
}

/// The listening sockets of a role, by name.
///
/// # Errors
/// When the role is gone, or refuses.
pub async fn listeners(socket: &Path) -> Result<BTreeMap<String, OwnedFd>, ControlError> {
    match in_time(socket, &Request::Listeners).await? {
        (Answer::Sockets { names }, sockets) if names.len() == sockets.len() => {
            Ok(names.into_iter().zip(sockets).collect())
        }
        (Answer::Refused { message }, _) => Err(ControlError::Refused { message }),
        _ => Err(ControlError::Unexpected { socket: socket.to_owned() }),
    }
}

async fn in_time(socket: &Path, request: &Request) -> Result<(Answer, Vec<OwnedFd>), ControlError> {
    if matches!(request, Request::EndpointIdle { .. }) {
        return exchange(socket, request).await;
    }
    let answered = timeout(ANSWER_TIMEOUT, exchange(socket, request)).await;
    answered.unwrap_or_else(|_| {
        Err(ControlError::Broken { socket: socket.to_owned(), source: io::ErrorKind::TimedOut.into() })
    })
}

async fn exchange(socket: &Path, request: &Request) -> Result<(Answer, Vec<OwnedFd>), ControlError> {
    let unreachable = |source| ControlError::Unreachable { socket: socket.to_owned(), source };
    let broken = |source| ControlError::Broken { socket: socket.to_owned(), source };
    let connected = timeout(CONNECT_TIMEOUT, UnixStream::connect(socket)).await;
    let mut stream =
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?;
    let mut line = serde_json::to_vec(request).map_err(io::Error::from).map_err(broken)?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(broken)?;
    let mut sockets = Vec::new();
    let line = read_line(&mut stream, &mut sockets).await.map_err(broken)?;
    let answer = serde_json::from_slice(&line).map_err(io::Error::from).map_err(broken)?;
    Ok((answer, sockets))
}

/// What a role does with a request. `Sockets` carries what [`Request::Listeners`] asked for.
pub enum Reply {
    Value(Value),
    Sockets(BTreeMap<String, OwnedFd>),
}

/// Answers requests until cancelled; each on a task of its own, since `EndpointIdle` may wait for long.
///
/// Never ends by itself: a failed accept is tried again.
pub async fn serve<H, F>(listener: UnixListener, handler: H) -> std::convert::Infallible
where
    H: Fn(Request) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Reply, String>> + Send + 'static,
{
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(answer(stream, handler.clone()));
                    }
                    // Out of descriptors, most likely: a flash crowd must not end the role.
                    Err(error) => {
                        tracing::warn!(%error, "a control connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer<H, F>(mut stream: UnixStream, handler: H)
where
    H: Fn(Request) -> F + Send,
    F: Future<Output = Result<Reply, String>> + Send,
{
    let Ok(line) = read_line(&mut stream, &mut Vec::new()).await else { return };
    let reply = match serde_json::from_slice(&line) {
        Ok(request) => {
            // A caller that hangs up no longer waits: nothing is left running for it.
            tokio::select! {
                reply = handler(request) => reply,
                _ = stream.read_u8() => return,
            }
        }
        Err(error) => Err(format!("not a request: {error}")),
    };
    let (answer, sockets) = match reply {
        Ok(Reply::Value(value)) => (Answer::Done { value }, BTreeMap::new()),
        Ok(Reply::Sockets(sockets)) => {
            (Answer::Sockets { names: sockets.keys().cloned().collect() }, sockets)
        }
        Err(message) => (Answer::Refused { message }, BTreeMap::new()),
    };
    let Ok(mut line) = serde_json::to_vec(&answer) else { return };
    line.push(b'\n');
    // The caller may be gone; there is nobody left to tell.
    let _ = send(&mut stream, &line, &sockets.into_values().collect::<Vec<_>>()).await;
}

async fn send(stream: &mut UnixStream, line: &[u8], sockets: &[OwnedFd]) -> io::Result<()> {
    let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
                return Err(io::Error::other("too many listening sockets for one answer"));
            }
            rustix::net::sendmsg(&*stream, &[IoSlice::new(line)], &mut ancillary, SendFlags::NOSIGNAL)
                .map_err(io::Error::from)
        })
        .await?;
    stream.write_all(&line[sent..]).await
}

/// Reads to the first line end or the end of the stream, gathering sockets that come along.
async fn read_line(stream: &mut UnixStream, sockets: &mut Vec<OwnedFd>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    // Sockets come with the first byte of the answer; what follows is plain data.
    let mut first = [0; 4096];
    let read = stream
        .async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received =
                rustix::net::recvmsg(&*stream, &mut [IoSliceMut::new(&mut first)], &mut ancillary, flags)?;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    sockets.extend(rights);
                }
            }
            Ok(received.bytes)
        })
        .await?;
    line.extend_from_slice(&first[..read]);
    while line.last() != Some(&b'\n') {
        if line.len() > MAX_LINE_BYTES {
            return Err(io::Error::other("a line longer than the limit"));
        }
        if stream.read_buf(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_listening_socket_handed_over_keeps_the_connections_waiting_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("role.sock");
        let front = std::sync::Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = front.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let server = tokio::spawn(serve(UnixListener::bind(&path).unwrap(), move |_| {
            let copy = front.try_clone().map(OwnedFd::from).map_err(|error| error.to_string());
            async move { Ok(Reply::Sockets(BTreeMap::from([("front".to_owned(), copy?)]))) }
        }));

        let mut sockets = listeners(&path).await.unwrap();
        // The role is gone; its socket lives on with us.
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        let front = TcpListener::from(sockets.remove("front").unwrap());
        let (_, peer) = front.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_role_says_why_it_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("role.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server =
            tokio::spawn(serve(listener, |_| async { Err("generation 3 is older than 4".to_owned()) }));
        let refused = ask(&path, &Request::Configure { config: Value::Null }).await.unwrap_err();
        assert_eq!(refused.to_string(), "generation 3 is older than 4");
        server.abort();
    }

    #[tokio::test]
    async fn a_role_that_is_gone_is_said_to_be_unreachable() {
        let dir = tempfile::tempdir().unwrap();
        let gone = ask(&dir.path().join("none.sock"), &Request::Status).await.unwrap_err();
        assert!(matches!(gone, ControlError::Unreachable { .. }));
    }
}

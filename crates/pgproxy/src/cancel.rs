//! Cancel requests: passed on to the connection that serves their client at this moment, or to whoever has the client.
//!
//! A cancel request comes by a connection of its own, and is accepted by whoever listens then: after a replacement the
//! new process, while the session may be with an old one. Processes that serve the same database therefore meet in a folder
//! ([`crate::config::Database::cancels`]): each listens there on a Unix socket of its own, and is handed every request whose
//! key another does not know, byte for byte. What was handed on once is not handed on again.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::connection::connect;
use crate::opening::CANCEL_REQUEST;
use crate::server::CancelKey;
use crate::shared::{Cancelled, Shared};

/// A cancel request that is not worked on by then is waited for no longer.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// Of a request for a client of a proxy: the code, and the key of [`crate::shared::Slot::key`].
const PACKET_BYTES: usize = 12;
/// Requests of others that are worked on at once. The next wait.
const MAX_HANDED: usize = 16;
/// Others that a request is handed to. There is one for each replacement of the last hour.
const MAX_OTHERS: usize = 16;
/// After a failed accept, which mostly means that the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// `packet`: of the CancelRequest, what follows the length. Whoever asks learns nothing, whatever happens.
pub(crate) async fn cancel(packet: &[u8], shared: &Shared) {
    shared.counters.cancel_requests.fetch_add(1, Relaxed);
    if cancel_here(packet, shared).await == Known::No
        && let Some(meeting) = &shared.cancels
        && packet.len() == PACKET_BYTES
    {
        meeting.hand_on(packet).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Yes,
    No,
}

async fn cancel_here(packet: &[u8], shared: &Shared) -> Known {
    let Some((code, key)) = packet.split_first_chunk::<4>() else { return Known::Yes };
    let serving = match shared.clients.cancel(key) {
        Cancelled::Unknown => return Known::No,
        Cancelled::Itself => return Known::Yes,
        Cancelled::Served { by } => by,
    };
    let is_over = deliver_in_time(code, &serving, shared).await;
    // It may have come to something later than what was meant.
    serving.was_asked.store(true, Release);
    if is_over {
        serving.under_way.fetch_sub(1, AcqRel);
    }
    Known::Yes
}

/// Cancels what a connection was asked by a client that is gone. The connection must be closed: nobody else may have it by then.
pub(crate) async fn cancel_abandoned(key: &CancelKey, shared: &Shared) {
    deliver_in_time(&CANCEL_REQUEST.to_be_bytes(), key, shared).await;
}

/// Whether it has come or never will. Otherwise a postmaster that hangs may have it still, and work on it whenever it goes on:
/// the connection is kept to its client until then, and never given to another.
async fn deliver_in_time(code: &[u8; 4], key: &CancelKey, shared: &Shared) -> bool {
    let delivering = async {
        let connection = match connect(&key.target.upstream).await {
            Ok(connection) => connection,
            Err(cause) => {
                tracing::debug!(database = shared.name, %cause, "a cancel request was not sent");
                return true;
            }
        };
        let sent = send(connection, &[&code[..], &key.pid_and_secret].concat()).await;
        if let Err(cause) = &sent {
            tracing::debug!(database = shared.name, %cause, "a cancel request may come late");
        }
        sent.is_ok()
    };
    timeout(CANCEL_TIMEOUT, delivering).await.unwrap_or_else(|_| {
        tracing::debug!(database = shared.name, "a cancel request may come late");
        false
    })
}

/// Sends a CancelRequest and waits until it was worked on: whoever gets one closes then.
async fn send(mut connection: impl AsyncRead + AsyncWrite + Unpin, packet: &[u8]) -> io::Result<()> {
    let length = (4 + packet.len() as u32).to_be_bytes();
    connection.write_all(&[&length, packet].concat()).await?;
    let _closed = connection.read(&mut [0]).await?;
    Ok(())
}

/// Where the processes that serve a database meet. The own socket is removed when this is dropped.
pub(crate) struct Meeting {
    folder: PathBuf,
    own: PathBuf,
}

impl Meeting {
    /// Joins, and clears away what is left of those that were killed.
    ///
    /// # Errors
    /// When the folder or the socket cannot be made, or the system gives no random numbers.
    pub fn join(folder: &Path) -> io::Result<(Meeting, UnixListener)> {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let mut name = [0; 4];
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        let own = folder.join(format!("{:08x}", u32::from_be_bytes(name)));
        // A socket that is bound and does not listen yet would be taken for one that was left.
        let hidden = own.with_extension("new");
        let listener = UnixListener::bind(&hidden)?;
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))?;
        fs::rename(&hidden, &own)?;
        let meeting = Meeting { folder: folder.to_owned(), own };
        for other in meeting.others() {
            clear_away_if_left(&other, std::os::unix::net::UnixStream::connect(&other).map(drop));
        }
        Ok((meeting, listener))
    }

    fn others(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let is_other = |path: &PathBuf| *path != self.own && path.extension().is_none();
        entries.map(|entry| entry.path()).filter(is_other).take(MAX_OTHERS).collect()
    }

    async fn hand_on(&self, packet: &[u8]) {
        let mut handing = JoinSet::new();
        for other in self.others() {
            let packet = packet.to_vec();
            handing.spawn(async move {
                let handed = async { send(UnixStream::connect(&other).await?, &packet).await };
                if let Ok(handed) = timeout(CANCEL_TIMEOUT, handed).await {
                    clear_away_if_left(&other, handed);
                }
            });
        }
        handing.join_all().await;
    }
}

/// Nobody listens there, and never will again.
fn clear_away_if_left(socket: &Path, reached: io::Result<()>) {
    if reached.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        // Another one may have been quicker.
        let _ = fs::remove_file(socket);
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.own);
    }
}

/// Works on what others hand on, until dropped.
pub(crate) async fn hear_others(listener: UnixListener, shared: Arc<Shared>) {
    let mut heard = JoinSet::new();
    loop {
        while heard.try_join_next().is_some() {}
        if heard.len() >= MAX_HANDED {
            heard.join_next().await;
        }
        match listener.accept().await {
            Ok((other, _)) => {
                let shared = shared.clone();
                heard.spawn(async move {
                    let _ = timeout(CANCEL_TIMEOUT, hear(other, &shared)).await;
                });
            }
            Err(cause) => {
                tracing::warn!(database = shared.name, %cause, "a handed on cancel request could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn hear(mut other: UnixStream, shared: &Shared) -> io::Result<()> {
    let mut said = [0; 4 + PACKET_BYTES];
    other.read_exact(&mut said).await?;
    let (length, packet) = said.split_at(4);
    if length == (said.len() as u32).to_be_bytes() {
        cancel_here(packet, shared).await;
    }
    Ok(())
}

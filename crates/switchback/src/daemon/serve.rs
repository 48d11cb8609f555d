//! Connections of the API: one request each, answered line by line.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use local::machine::{Event, Report};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Daemon, log_event};
use crate::api::{Failure, MAX_REQUEST_BYTES, Message, Request};

/// Connections at once; people and scripts, not traffic.
const MAX_CONNECTIONS: usize = 64;
/// After a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Events that wait for a client to read them. Beyond it they are left out: a chatty build must not fill memory.
const EVENTS_WAITING: usize = 4_096;

/// What whoever can reach a socket may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Full,
    Looking,
}

/// Accepts until cancelled.
pub(super) async fn serve(
    listener: UnixListener,
    access: Access,
    daemon: Daemon,
) -> std::convert::Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(converse(stream, access, daemon.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: UnixStream, access: Access, daemon: Daemon) {
    let (reading, mut writing) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reading).take(MAX_REQUEST_BYTES as u64);
    if reader.read_until(b'\n', &mut line).await.is_err() {
        return;
    }
    let (events, mut heard) = mpsc::channel(EVENTS_WAITING);
    let report: Report = {
        let events = events.clone();
        Arc::new(move |event: Event| {
            log_event(event.clone());
            // A client that hung up, or does not read, is not told; the work goes on.
            let _ = events.try_send(Message::Event { event });
        })
    };
    drop(events);
    let request = serde_json::from_slice::<Request>(&line);
    let is_down = matches!(request, Ok(Request::Down { .. }));
    let (leaving, downs, end) = (daemon.leaving.clone(), Arc::clone(&daemon.downs), daemon.end.clone());
    downs.fetch_add(usize::from(is_down), SeqCst);
    let work = tokio::spawn(async move {
        let message = match request {
            Ok(request) if access == Access::Looking && !request.only_looks() => Message::Failed(
                Failure::refused("whoever owns the app's folder may look, and change nothing"),
            ),
            Ok(request) => match daemon.answer(request, &report).await {
                Ok(value) => Message::Done { value },
                Err(failure) => Message::Failed(failure),
            },
            Err(error) => Message::Failed(
                Failure::failed(format!("not a request this daemon knows: {error}"))
                    .hint("the daemon may be of another version: `switchback down`, then `switchback up`"),
            ),
        };
        drop(report);
        message
    });
    while let Some(message) = heard.recv().await {
        if write(&mut writing, &message).await.is_err() {
            break;
        }
    }
    drop(heard);
    let message = work.await.unwrap_or_else(|error| Message::Failed(Failure::failed(error.to_string())));
    // Nobody may be listening any more.
    let _ = write(&mut writing, &message).await;
    downs.fetch_sub(usize::from(is_down), SeqCst);
    // A second `down` is in haste, and the one before may be answered first.
    if leaving.is_cancelled() && downs.load(SeqCst) == 0 {
        end.cancel();
    }
}

async fn write(writing: &mut tokio::net::unix::OwnedWriteHalf, message: &Message) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writing.write_all(&line).await
}

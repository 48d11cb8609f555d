//! An instance that remembers every byte that reached it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::support::client::{Kind, Message};
use crate::support::{Client, Front, Instance, soon};

/// An edge in front of a witness.
pub struct Scene {
    pub front: Front,
    witness: Instance,
    connections: Connections,
}

type Connections = Arc<Mutex<Vec<Arc<Mutex<Record>>>>>;

#[derive(Default)]
struct Record {
    bytes: Vec<u8>,
    over: bool,
}

/// Sent by ourselves, after everything else.
const LAST: &[u8] = b"LAST";

impl Scene {
    /// The witness answers what it reads as a request with 200 and the request's line.
    pub async fn new() -> Scene {
        Scene::answering(|request| {
            let line = request.head.lines().next().unwrap_or_default();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len())
        })
        .await
    }

    pub async fn answering(answer: impl Fn(&Message) -> String + Send + Sync + 'static) -> Scene {
        let connections = Connections::default();
        let (kept, answer) = (Arc::clone(&connections), Arc::new(answer));
        let witness = Instance::serving(move |connection| {
            // Before the first await, so in the order of the accepts.
            let record = Arc::new(Mutex::new(Record::default()));
            kept.lock().unwrap().push(Arc::clone(&record));
            let answer = Arc::clone(&answer);
            async move {
                let tap = Tap { stream: connection.stream, record };
                let mut connection = Client::over(tap);
                while let Some(request) = connection.message(Kind::Request).await {
                    connection.send(answer(&request)).await;
                }
                connection.rest().await;
            }
        })
        .await;
        Scene { front: Front::of(&witness), witness, connections }
    }

    /// Stops the edge and returns all that ever reached the witness.
    pub async fn end(self) -> String {
        // Closes the connections to the witness. One that nobody accepted yet is accepted before our own.
        drop(self.front);
        let mut last = Client::connect(self.witness.address).await;
        last.send(LAST).await;
        drop(last);
        let all_over = async {
            loop {
                let connections = self.connections.lock().unwrap().clone();
                let is_over = |record: &Arc<Mutex<Record>>| record.lock().unwrap().over;
                let is_last = |record: &Arc<Mutex<Record>>| record.lock().unwrap().bytes == LAST;
                if connections.iter().all(is_over) && connections.iter().any(is_last) {
                    return connections;
                }
                tokio::task::yield_now().await;
            }
        };
        let connections = soon("the end of all connections", all_over).await;
        let mut all = Vec::new();
        for record in connections {
            let record = record.lock().unwrap();
            if record.bytes != LAST {
                all.extend_from_slice(&record.bytes);
            }
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// A stream whose reads are kept.
struct Tap {
    stream: TcpStream,
    record: Arc<Mutex<Record>>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.record.lock().unwrap().over = true;
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        self.record.lock().unwrap().bytes.extend_from_slice(&buffer.filled()[before..]);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! Small real servers that stand behind the edge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::client::{Client, Kind, Message};

/// A server on a port of its own; it ends when dropped.
#[derive(Debug)]
pub struct Instance {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Instance {
    /// Serves every connection by `serve`.
    pub async fn serving<F, R>(serve: F) -> Instance
    where
        F: Fn(Client) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            // Owned here, so that the connections end with the instance.
            let mut open = JoinSet::new();
            loop {
                let (stream, _): (TcpStream, _) = listener.accept().await.expect("accept");
                stream.set_nodelay(true).expect("nodelay");
                counted.fetch_add(1, Ordering::SeqCst);
                open.spawn(serve(Client::over(stream)));
            }
        });
        Instance { address, connections, task }
    }

    /// Answers each request by `answer`, on connections that stay.
    pub async fn answering<F>(answer: F) -> Instance
    where
        F: Fn(&Message) -> String + Send + Sync + 'static,
    {
        let answer = Arc::new(answer);
        Instance::serving(move |mut connection| {
            let answer = Arc::clone(&answer);
            async move {
                while let Some(request) = connection.message(Kind::Request).await {
                    connection.send(answer(&request)).await;
                }
            }
        })
        .await
    }

    /// Answers each request with the request itself: its head, an empty line and its body.
    pub async fn mirror() -> Instance {
        Instance::answering(|request| {
            let body = format!("{}\n\n{}", request.head, request.text());
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        })
        .await
    }

    /// Answers each request with this text.
    pub async fn saying(text: &str) -> Instance {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        Instance::answering(move |_| answer.clone()).await
    }

    /// Answers every request on every connection with exactly these bytes, then closes.
    pub async fn raw(bytes: &'static [u8]) -> Instance {
        Instance::serving(move |mut connection| async move {
            if connection.message(Kind::Request).await.is_some() {
                connection.send(bytes).await;
            }
        })
        .await
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

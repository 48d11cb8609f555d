//! Where Prometheus gets the metrics of a process. Not a web server: one answer a connection.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A scraper that sends no request, or takes no answer, is not waited for.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers every request on the socket with what `metrics` are then. Without a socket it waits for ever.
///
/// # Errors
/// When the socket cannot be used.
pub(crate) async fn scrape(socket: Option<TcpListener>, metrics: impl Fn() -> String) -> io::Result<()> {
    let Some(socket) = socket else { return std::future::pending().await };
    socket.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(socket)?;
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: that passes, and must not end the process.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let text = metrics();
        let answered = async {
            let mut head = [0; 4096];
            // A scraper's request fits; whatever it asks, it gets the metrics.
            let _ = stream.read(&mut head).await?;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n",
                text.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(text.as_bytes()).await?;
            stream.shutdown().await
        };
        // One scraper at a time: a slow one is cut, and costs the others no more than this.
        let _ = tokio::time::timeout(SCRAPE_TIMEOUT, answered).await;
    }
}

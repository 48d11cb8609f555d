//! Against small real servers; the times are short, and nothing is asserted about how long it took.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::{self, UpstreamProtocol};
use crate::status::Health;

fn upstream(address: SocketAddr, path: Option<&str>) -> config::Upstream {
    serde_json::from_value(serde_json::json!({
        "protocol": "http1",
        "endpoints": [{ "id": "web-1", "address": address }],
        "health": { "path": path, "interval_ms": 20, "timeout_ms": 2_000, "unhealthy_threshold": 2,
                    "healthy_threshold": 1 },
    }))
    .unwrap()
}

/// Answers everything with what is given, and counts.
async fn serve(answer: &'static [u8], asked: Arc<AtomicUsize>, listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 512];
        let _ = stream.read(&mut request).await;
        asked.fetch_add(1, Ordering::SeqCst);
        let _ = stream.write_all(answer).await;
    }
}

async fn check(answer: &'static [u8], path: Option<&str>) -> Result<(), CheckFailure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = upstream(listener.local_addr().unwrap(), path);
    let address = config.endpoints[0].address;
    tokio::select! {
        () = serve(answer, Arc::default(), listener) => unreachable!("serves for ever"),
        result = probe::probe(&config, address) => result,
    }
}

#[tokio::test]
async fn answers_of_200_and_300_pass() {
    assert_eq!(check(b"HTTP/1.1 204 No Content\r\n\r\n", Some("/up")).await, Ok(()));
    assert_eq!(check(b"HTTP/1.1 302 Found\r\n\r\n", Some("/up")).await, Ok(()));
    assert_eq!(check(b"HTTP/1.0 200 OK\r\n\r\n", Some("/up")).await, Ok(()));
}

#[tokio::test]
async fn other_answers_and_garbage_fail() {
    for answer in [
        &b"HTTP/1.1 404 Not Found\r\n\r\n"[..],
        b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
        &[b'x'; 4096],
    ] {
        assert_eq!(check(answer, Some("/up")).await, Err(CheckFailure::Failing));
    }
}

#[tokio::test]
async fn without_a_path_a_connect_is_enough() {
    assert_eq!(check(b"", None).await, Ok(()));
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let result = probe::probe(&upstream(address, Some("/up")), address).await;
    assert_eq!(result, Err(CheckFailure::Unreachable));
}

#[tokio::test]
async fn an_h2c_endpoint_is_asked_in_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = upstream(address, Some("/up"));
    config.protocol = UpstreamProtocol::H2c;
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(request) = connection.accept().await {
            let (request, mut respond) = request.unwrap();
            assert_eq!(request.uri().path(), "/up");
            respond.send_response(http::Response::new(()), true).unwrap();
        }
    };
    let (result, ()) = tokio::join!(probe::probe(&config, address), async {
        // Ends when the client has closed the connection, which need not be well.
        let _ = tokio::time::timeout(Duration::from_secs(10), server).await;
    });
    assert_eq!(result, Ok(()));
}

/// A running checker, ended and waited for at the end.
struct Running {
    clusters: watch::Sender<Vec<Arc<Cluster>>>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn with(clusters: Vec<Arc<Cluster>>) -> Running {
        let (clusters, receiver) = watch::channel(clusters);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(receiver, shutdown.clone()));
        Running { clusters, shutdown, task }
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

async fn until(condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), waited).await.unwrap();
}

#[tokio::test]
async fn an_instance_that_dies_is_taken_out_and_comes_back_with_its_successor() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cluster = Cluster::new("web", &upstream(address, Some("/up")), None, std::time::Instant::now());
    let endpoint = cluster.endpoints().remove(0);
    let health = || endpoint.status(std::time::Instant::now()).health;
    let running = Running::with(vec![Arc::clone(&cluster)]);

    drop(listener);
    until(|| health() == Health::Unhealthy).await;

    let listener = TcpListener::bind(address).await.unwrap();
    let server = tokio::spawn(serve(b"HTTP/1.1 200 OK\r\n\r\n", Arc::default(), listener));
    until(|| health() == Health::Healthy).await;

    running.end().await;
    server.abort();
}

#[tokio::test]
async fn endpoints_that_left_the_configuration_are_no_longer_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = upstream(listener.local_addr().unwrap(), Some("/up"));
    let asked = Arc::new(AtomicUsize::new(0));
    let server = tokio::spawn(serve(b"HTTP/1.1 200 OK\r\n\r\n", Arc::clone(&asked), listener));
    let cluster = Cluster::new("web", &config, None, std::time::Instant::now());
    let endpoint = cluster.endpoints().remove(0);
    let running = Running::with(vec![Arc::clone(&cluster)]);
    until(|| asked.load(Ordering::SeqCst) >= 2).await;

    config.endpoints.clear();
    cluster.reconfigure(&config, None, std::time::Instant::now());
    running.clusters.send(vec![cluster]).unwrap();
    // The task held the last other reference: gone means ended.
    until(|| Arc::strong_count(&endpoint) == 1).await;

    running.end().await;
    server.abort();
}

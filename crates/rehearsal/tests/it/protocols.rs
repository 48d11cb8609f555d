//! The same visits over HTTP/2 and over TLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rehearsal::load::{Load, Protocol, Step, Tls};
use rehearsal::record::Outcome;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::run::{load, post, run, step, visit};

/// What a server counts. It ends when this is dropped.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicU32>,
    asked: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves every connection by `protocol`, behind TLS if there is a configuration for it.
async fn start(protocol: Protocol, tls: Option<ServerConfig>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, asked) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
    let counts = (Arc::clone(&connections), Arc::clone(&asked));
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    let task = tokio::spawn(async move {
        let mut serving = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counts.0.fetch_add(1, Ordering::SeqCst);
            let (acceptor, asked) = (acceptor.clone(), Arc::clone(&counts.1));
            serving.spawn(async move {
                match acceptor {
                    None => serve(protocol, stream, &asked).await,
                    Some(acceptor) => {
                        // A client that does not trust us goes away.
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        serve(protocol, stream, &asked).await;
                    }
                }
            });
        }
    });
    Server { address, connections, asked, task: task.abort_handle() }
}

async fn serve(
    protocol: Protocol,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    asked: &Mutex<Vec<String>>,
) {
    match protocol {
        Protocol::Http1 => http1(stream, asked).await,
        Protocol::Http2 => http2(stream, asked).await,
    }
}

async fn http1(mut stream: impl AsyncRead + AsyncWrite + Unpin, asked: &Mutex<Vec<String>>) {
    let mut head = vec![0; 4096];
    // A request of these tests comes in one piece.
    while let Ok(read @ 1..) = stream.read(&mut head).await {
        // What follows the preface of another protocol may come by itself, and is none.
        let text = String::from_utf8_lossy(&head[..read]);
        let Some(path) = text.split(' ').nth(1) else { return };
        asked.lock().unwrap().push(path.to_owned());
        // Who asks in another protocol leaves as soon as it sees this.
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.is_err() {
            return;
        }
    }
}

async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, asked: &Mutex<Vec<String>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut never_answered = Vec::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let path = request.uri().path_and_query().unwrap().to_string();
        let cookie = request.headers().get("cookie").map(|value| value.to_str().unwrap().to_owned());
        asked.lock().unwrap().push(path.clone());
        if path == "/silence" {
            never_answered.push(respond);
            continue;
        }
        let response = http::Response::builder();
        let response = match path.as_str() {
            "/redirect" => response.status(303).header("location", "/").header("set-cookie", "a=1"),
            "/needs-cookie" if cookie.as_deref() != Some("a=1") => response.status(403),
            "/large" => response.status(200).header("content-type", "text/plain"),
            _ => response.status(200),
        };
        let body = if path == "/large" { Bytes::from(vec![b'x'; 60_000]) } else { Bytes::from_static(b"hi") };
        let Ok(mut sending) = respond.send_response(response.body(()).unwrap(), false) else { continue };
        let _ = sending.send_data(body, true);
    }
}

fn h2c(server: &Server, steps: Vec<Step>) -> Load {
    let mut load = load(server.address, vec![visit(steps)]);
    load.origin.protocol = Protocol::Http2;
    load
}

#[tokio::test]
async fn a_visit_over_http2_has_one_connection_for_everything() {
    let server = start(Protocol::Http2, None).await;
    let assets = (0..20).map(|at| format!("/asset/{at}")).collect();
    let page = Step { assets, ..step("/large") };
    let next = Step { think_median_ms: 5, ..step("/needs-cookie") };
    let seen = run(&h2c(&server, vec![page, post("/redirect", &[("a", "b")]), next])).await;
    for class in ["page", "asset", "write"] {
        seen.assert_all(class, Outcome::Ok);
    }
    assert_eq!(seen.sent("asset"), seen.visits() * 20);
    assert_eq!(server.connections.load(Ordering::SeqCst), seen.visits());
    let asked = server.asked.lock().unwrap().len() as u32;
    assert_eq!(asked, seen.sent("page") + seen.sent("asset") + seen.sent("write"));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_too_much_over_http2_as_well() {
    let server = start(Protocol::Http2, None).await;
    let mut load = h2c(&server, vec![step("/large")]);
    load.limits.body_bytes = 50_000;
    run(&load).await.assert_all("page", Outcome::TooMuch);
}

#[tokio::test]
async fn what_is_not_answered_over_http2_is_given_up_on_and_what_goes_beside_it_is_not() {
    let server = start(Protocol::Http2, None).await;
    let assets = ["/asset/0", "/silence", "/asset/1"].map(str::to_owned).into();
    let seen = run(&h2c(&server, vec![Step { assets, ..step("/") }])).await;
    seen.assert_all("page", Outcome::Ok);
    assert_eq!(seen.outcomes("asset", Outcome::Ok), seen.visits() * 2);
    assert_eq!(seen.outcomes("asset", Outcome::GaveUp), seen.visits());
    run(&h2c(&server, vec![step("/silence")])).await.assert_all("page", Outcome::GaveUp);
}

#[tokio::test]
async fn who_does_not_speak_http2_is_refused_or_broken() {
    let server = start(Protocol::Http1, None).await;
    let seen = run(&h2c(&server, vec![step("/")])).await;
    assert_eq!(seen.outcomes("page", Outcome::Ok), 0);
    assert_eq!(
        seen.outcomes("page", Outcome::Refused) + seen.outcomes("page", Outcome::Broken),
        seen.sent("page")
    );
}

/// A certificate for `shop.example`, and a file with whom to trust for it.
struct Certificate {
    certified: rcgen::CertifiedKey<rcgen::KeyPair>,
    folder: tempfile::TempDir,
}

impl Certificate {
    fn new() -> Certificate {
        let certified = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certified.cert.pem()).unwrap();
        Certificate { certified, folder }
    }

    fn authorities(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn server(&self, protocol: &[u8]) -> ServerConfig {
        let key = PrivateKeyDer::try_from(self.certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certified.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        config
    }

    fn load(&self, server: &Server, protocol: Protocol, name: &str) -> Load {
        let assets = vec!["/a.css".to_owned(), "/b.js".to_owned()];
        let mut load = load(server.address, vec![visit(vec![Step { assets, ..step("/") }])]);
        load.origin.protocol = protocol;
        load.origin.authority = "shop.example".to_owned();
        load.origin.tls = Some(Tls { server_name: name.to_owned(), authorities: self.authorities() });
        load
    }
}

#[tokio::test]
async fn both_protocols_are_spoken_over_tls() {
    let certificate = Certificate::new();
    for (protocol, name) in [(Protocol::Http1, &b"http/1.1"[..]), (Protocol::Http2, b"h2")] {
        let server = start(protocol, Some(certificate.server(name))).await;
        let seen = run(&certificate.load(&server, protocol, "shop.example")).await;
        seen.assert_all("page", Outcome::Ok);
        seen.assert_all("asset", Outcome::Ok);
    }
}

#[tokio::test]
async fn a_certificate_for_somebody_else_is_refused() {
    let certificate = Certificate::new();
    let server = start(Protocol::Http1, Some(certificate.server(b"http/1.1"))).await;
    let seen = run(&certificate.load(&server, Protocol::Http1, "bank.example")).await;
    seen.assert_all("page", Outcome::Refused);
    let stranger = Certificate::new();
    let seen = run(&stranger.load(&server, Protocol::Http1, "shop.example")).await;
    seen.assert_all("page", Outcome::Refused);
    assert!(server.asked.lock().unwrap().is_empty(), "nothing was asked of it");
}

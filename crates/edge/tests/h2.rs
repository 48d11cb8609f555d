//! HTTP/2 on either side and on both.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edge::config::UpstreamProtocol;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::net::TcpStream;

use crate::support::{Client, Front, Instance, client::Kind, endpoint, soon, upstream};

/// A connection with prior knowledge. Its task ends with it.
pub async fn prior_knowledge(front: &Front) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(front.address).await.expect("connect");
    let (sender, connection) = h2::client::handshake(stream).await.expect("handshake");
    tokio::spawn(connection);
    sender
}

pub fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://test{path}")).body(()).expect("a request")
}

pub struct Answer {
    pub head: Response<()>,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

/// Sends a request with a body (an empty one ends at the head) and trailers.
pub async fn exchange(
    sender: &SendRequest<Bytes>,
    request: Request<()>,
    body: &[u8],
    trailers: Option<HeaderMap>,
) -> Result<Answer, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let ends = body.is_empty() && trailers.is_none();
    let (answer, mut stream) = sender.send_request(request, ends)?;
    if !ends {
        let mut left = Bytes::copy_from_slice(body);
        while !left.is_empty() {
            stream.reserve_capacity(left.len());
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.expect("open")?;
            stream.send_data(left.split_to(room.min(left.len())), left.is_empty() && trailers.is_none())?;
        }
        if let Some(trailers) = trailers {
            stream.send_trailers(trailers)?;
        }
    }
    let (head, mut incoming) = answer.await?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data?;
        incoming.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = incoming.trailers().await?;
    Ok(Answer { head: Response::from_parts(head, ()), body, trailers })
}

/// An instance that speaks HTTP/2 and answers with the request's body, its method and path as fields, and trailers.
async fn h2_mirror() -> Instance {
    Instance::serving(|connection: Client| async move {
        let Ok(mut connection) = h2::server::handshake(connection.stream).await else {
            return;
        };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let path = request.uri().path().to_owned();
                let te = request.headers().get("te").cloned();
                let mut incoming = request.into_body();
                let mut body = Vec::new();
                while let Some(Ok(data)) = incoming.data().await {
                    let _ = incoming.flow_control().release_capacity(data.len());
                    body.extend_from_slice(&data);
                }
                let said = incoming.trailers().await.ok().flatten();
                let mut answer = Response::builder().status(200).header("x-path", path);
                if let Some(te) = te {
                    answer = answer.header("x-te", te);
                }
                let mut stream =
                    respond.send_response(answer.body(()).expect("an answer"), false).expect("send");
                let mut left = Bytes::from(body);
                while !left.is_empty() {
                    stream.reserve_capacity(left.len());
                    let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                        return;
                    };
                    let _ = stream.send_data(left.split_to(room.min(left.len())), false);
                }
                let mut trailers = said.unwrap_or_default();
                trailers.insert("grpc-status", "0".parse().expect("a value"));
                let _ = stream.send_trailers(trailers);
            });
        }
    })
    .await
}

/// In front of one instance that speaks HTTP/2.
pub fn h2c(instance: &Instance) -> Front {
    let mut web = upstream(vec![endpoint("one", instance)]);
    web.protocol = UpstreamProtocol::H2c;
    Front::with(web, |_| {})
}

#[tokio::test]
async fn a_client_with_prior_knowledge_reaches_an_http1_instance() {
    let instance = Instance::mirror().await;
    let front = Front::of(&instance);
    let sender = prior_knowledge(&front).await;
    let body = vec![b'x'; 200_000];
    for _ in 0..3 {
        let answer = soon("an answer", exchange(&sender, request("POST", "/up"), &body, None))
            .await
            .expect("an answer");
        assert_eq!(answer.head.status(), StatusCode::OK);
        assert!(answer.body.starts_with(b"POST /up HTTP/1.1") && answer.body.ends_with(&body));
        assert!(answer.head.headers().contains_key("x-request-id"));
    }
    let answer =
        soon("an answer", exchange(&sender, request("GET", "/"), b"", None)).await.expect("an answer");
    assert!(answer.body.starts_with(b"GET / HTTP/1.1"));
}

#[tokio::test]
async fn many_streams_share_one_connection_to_an_h2_instance() {
    let instance = h2_mirror().await;
    let front = h2c(&instance);
    let sender = prior_knowledge(&front).await;
    let mut exchanges = tokio::task::JoinSet::new();
    for number in 0..100 {
        let sender = sender.clone();
        exchanges.spawn(async move {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-number", number.into());
            let mut request = request("POST", &format!("/{number}"));
            request.headers_mut().insert("te", "trailers".parse().expect("a value"));
            let answer = exchange(&sender, request, b"message", Some(trailers)).await.expect("an answer");
            assert_eq!(answer.head.headers()["x-path"], format!("/{number}"));
            assert_eq!(answer.head.headers()["x-te"], "trailers");
            assert_eq!(answer.body, b"message");
            let trailers = answer.trailers.expect("trailers");
            assert_eq!(
                (&trailers["grpc-status"], &trailers["x-number"]),
                (&"0".parse().expect("0"), &number.into())
            );
        });
    }
    soon("every answer", exchanges.join_all()).await;
    assert_eq!(instance.connections(), 1);
}

#[tokio::test]
async fn an_http1_client_reaches_an_h2_instance_and_gets_its_trailers() {
    let instance = h2_mirror().await;
    let front = h2c(&instance);
    let mut client = front.client().await;
    for _ in 0..3 {
        client
            .send("POST /path HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-End: yes\r\n\r\n")
            .await;
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.text(), answer.field("x-path")), (200, "hello", Some("/path")));
        assert!(answer.trailers.contains("x-end: yes") && answer.trailers.contains("grpc-status: 0"));
    }
    assert_eq!(client.get("/").await.status(), 200);
}

#[tokio::test]
async fn an_h2_instance_that_went_away_is_connected_anew() {
    let instance = Instance::serving(|connection: Client| async move {
        let Ok(mut connection) = h2::server::handshake(connection.stream).await else {
            return;
        };
        // One request for each connection, then GOAWAY.
        if let Some(Ok((_, mut respond))) = connection.accept().await {
            let _ = respond.send_response(Response::new(()), true);
            connection.graceful_shutdown();
            while connection.accept().await.is_some() {}
        }
    })
    .await;
    let front = h2c(&instance);
    let mut client = front.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status(), 200);
    }
}

#[tokio::test]
async fn limits_hold_for_streams_too() {
    let instance = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.limits.request_body_bytes = 1_000;
        config.limits.request_target_bytes = 100;
        config.limits.request_header_count = 10;
    });
    let sender = prior_knowledge(&front).await;
    let status = async |request: Request<()>, body: &[u8]| {
        soon("an answer", exchange(&sender, request, body, None))
            .await
            .expect("an answer")
            .head
            .status()
            .as_u16()
    };
    assert_eq!(status(request("GET", &format!("/{}", "x".repeat(200))), b"").await, 414);
    let mut many = request("GET", "/");
    for number in 0..11 {
        many.headers_mut().append("x-many", number.into());
    }
    assert_eq!(status(many, b"").await, 431);
    // A browser sends each cookie by itself, and over HTTP/1.1 all in one field.
    let mut cookies = request("GET", "/");
    for number in 0..50 {
        cookies.headers_mut().append("cookie", format!("c{number}=1").parse().expect("a cookie"));
    }
    assert_eq!(status(cookies, b"").await, 200);
    assert_eq!(status(request("CONNECT", ""), b"").await, 405);
    assert_eq!(status(request("GET", "/fine"), b"").await, 200);
}

#[tokio::test]
async fn a_stream_that_the_client_resets_frees_its_endpoint() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.message(Kind::Request).await;
        connection.rest().await;
    })
    .await;
    let front = Front::of(&instance);
    let mut sender = prior_knowledge(&front).await.ready().await.expect("ready");
    let (answer, mut stream) = sender.send_request(request("GET", "/"), true).expect("send");
    soon("the request", async {
        while front.in_flight("one") == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    soon("idleness", front.handle.endpoint_idle("one")).await;
}

#[tokio::test]
async fn a_client_that_resets_again_and_again_is_sent_away() {
    let instance = Instance::serving(|mut connection: Client| async move {
        connection.message(Kind::Request).await;
        connection.rest().await;
    })
    .await;
    let front =
        Front::with(upstream(vec![endpoint("one", &instance)]), |config| config.limits.h2_max_resets = 20);
    let mut sender = prior_knowledge(&front).await;
    let mut sent = 0;
    soon("the end of the edge's patience", async {
        loop {
            sender = match sender.ready().await {
                Ok(sender) => sender,
                Err(_) => return,
            };
            let Ok((_answer, mut stream)) = sender.send_request(request("GET", "/"), true) else {
                return;
            };
            tokio::time::sleep(Duration::from_millis(5)).await;
            stream.send_reset(h2::Reason::CANCEL);
            sent += 1;
        }
    })
    .await;
    assert!((20..200).contains(&sent), "{sent} resets were borne");
}

#[tokio::test]
async fn a_drain_lets_open_streams_end_and_then_closes() {
    let instance = Instance::serving(|mut connection: Client| async move {
        while connection.message(Kind::Request).await.is_some() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await;
        }
    })
    .await;
    let front = Front::of(&instance);
    let sender = prior_knowledge(&front).await;
    let answer = tokio::spawn({
        let sender = sender.clone();
        async move { exchange(&sender, request("GET", "/"), b"", None).await }
    });
    soon("the request", async {
        while front.in_flight("one") == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    soon("the drain", front.handle.drain(Duration::from_secs(60))).await;
    assert_eq!(answer.await.expect("no panic").expect("an answer").body, b"late");
    assert!(soon("GOAWAY", sender.ready()).await.is_err());
}

#[tokio::test]
async fn a_drain_does_not_wait_for_idle_connections_to_instances() {
    let instance = h2_mirror().await;
    let front = h2c(&instance);
    let mut client = front.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 200);
    drop(client);
    soon("the drain", front.handle.drain(Duration::from_secs(60))).await;
}

#[tokio::test]
async fn tls_offers_both_protocols() {
    let directory = tempfile::tempdir().expect("a directory");
    let issued = edge::local_ca::ensure(directory.path(), &["localhost".to_owned()]).expect("certificates");
    let instance = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.listeners.get_mut("front").expect("front").tls = Some(edge::config::Tls {
            certificate_chain: issued.certificate_chain.clone(),
            private_key: issued.private_key.clone(),
            revision: 0,
        });
    });
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    roots
        .add(CertificateDer::from_pem_file(&issued.authority).expect("the authority"))
        .expect("the authority");
    let connect = async |protocol: &[u8]| {
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(front.address).await.expect("connect");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").expect("a name");
        soon("a handshake", connector.connect(name, stream)).await.expect("a handshake")
    };

    let mut old = Client::over(connect(b"http/1.1").await);
    for _ in 0..2 {
        old.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(old.response().await.text().contains("X-Forwarded-Proto: https"));
    }
    let (sender, connection) = h2::client::handshake(connect(b"h2").await).await.expect("handshake");
    tokio::spawn(connection);
    let answer =
        soon("an answer", exchange(&sender, request("GET", "/"), b"", None)).await.expect("an answer");
    assert!(answer.body.starts_with(b"GET / HTTP/1.1"));
}

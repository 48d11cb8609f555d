//! From HTTP/2 to HTTP/1.1: what is a plain value there can be a line or the end of a message here. The frames are
//! written by hand, because no decent client would send them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::SMUGGLED;
use super::witness::Scene;
use crate::support::soon;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

type Fields<'a> = Vec<(&'a str, &'a str)>;

/// A good POST; tests add to it or change it.
fn request() -> Fields<'static> {
    vec![(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/")]
}

fn with(more: &[(&'static str, &'static str)]) -> Fields<'static> {
    [request().as_slice(), more].concat()
}

/// The good request with another value for one of its fields.
fn but(name: &'static str, value: &'static str) -> Fields<'static> {
    let change = |(of, old)| if of == name { (of, value) } else { (of, old) };
    request().into_iter().map(change).collect()
}

fn without(name: &str) -> Fields<'static> {
    request().into_iter().filter(|(of, _)| *of != name).collect()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field block in which nothing is compressed (RFC 7541, 6.2.2), so that every byte arrives as it is here.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "a length of one byte");
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Ok,
    /// Another status, a reset stream or a closed connection.
    Refused,
}

/// Sends frames on the first stream and waits for what becomes of it.
async fn send(scene: &Scene, frames: &[Vec<u8>]) -> Answer {
    let mut stream = TcpStream::connect(scene.front.address).await.expect("connect");
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frames.concat()].concat();
    stream.write_all(&bytes).await.expect("send");
    soon("an answer", async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return Answer::Refused;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                return Answer::Refused;
            }
            match head[3] {
                RST_STREAM | GOAWAY => return Answer::Refused,
                // 0x88 is `:status: 200` in the static table.
                HEADERS if payload.first() == Some(&0x88) => return Answer::Ok,
                HEADERS => return Answer::Refused,
                _ => {}
            }
        }
    })
    .await
}

/// A whole request of this field block, refused without a byte to the instance.
async fn is_refused(fields: Fields<'_>) {
    let scene = Scene::new().await;
    let frames = [frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields))];
    assert_eq!(send(&scene, &frames).await, Answer::Refused);
    assert_eq!(scene.end().await, "", "something reached the instance");
}

/// A request with this body, of which no part may become a request.
async fn is_cut(fields: Fields<'_>, body: &str) {
    let scene = Scene::new().await;
    let frames =
        [frame(HEADERS, END_HEADERS, 1, &block(&fields)), frame(DATA, END_STREAM, 1, body.as_bytes())];
    assert_eq!(send(&scene, &frames).await, Answer::Refused);
    let reached = scene.end().await;
    assert!(!reached.contains("smuggled"), "{reached}");
    assert!(!reached.contains("\r\n0\r\n\r\n"), "{reached}");
}

/// A request with this trailer, which may be refused or dropped, but not passed on.
async fn is_no_trailer(name: &str, value: &str) {
    let scene = Scene::new().await;
    let trailers = block(&[(name, value), ("x-after", "1")]);
    let frames = [
        frame(HEADERS, END_HEADERS, 1, &block(&request())),
        frame(DATA, 0, 1, b"abc"),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
    ];
    let _ = send(&scene, &frames).await;
    let reached = scene.end().await;
    let (_, body) = reached.split_once("\r\n\r\n").unwrap_or_default();
    assert!(!body.to_ascii_lowercase().contains(name), "{reached}");
    assert!(!reached.contains("smuggled"), "{reached}");
}

macro_rules! refused {
    ($($(#[$doc:meta])* $name:ident = $fields:expr;)*) => {
        $(
            $(#[$doc])*
            #[tokio::test]
            async fn $name() {
                is_refused($fields).await;
            }
        )*
    };
}

refused! {
    a_transfer_coding = with(&[("transfer-encoding", "chunked")]);
    a_connection_field = with(&[("connection", "transfer-encoding")]);
    a_keep_alive_field = with(&[("keep-alive", "timeout=5")]);
    a_proxy_connection_field = with(&[("proxy-connection", "keep-alive")]);
    an_upgrade_field = with(&[("upgrade", "websocket")]);
    a_te_other_than_trailers = with(&[("te", "gzip")]);

    a_line_end_in_a_value = with(&[("x", "y\r\nTransfer-Encoding: chunked")]);
    a_line_feed_in_a_value = with(&[("x", "y\nTransfer-Encoding: chunked")]);
    a_carriage_return_in_a_value = with(&[("x", "y\rz")]);
    a_nul_in_a_value = with(&[("x", "y\0z")]);
    a_request_in_a_value = with(&[("x", "y\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n")]);
    a_line_end_in_a_name = with(&[("x: y\r\ntransfer-encoding", "chunked")]);
    a_colon_in_a_name = with(&[("transfer-encoding: chunked\r\nx", "y")]);
    a_space_in_a_name = with(&[("x y", "z")]);
    a_space_after_a_name = with(&[("content-length ", "5")]);
    an_upper_case_name = with(&[("Transfer-Encoding", "chunked")]);
    an_empty_name = with(&[("", "y")]);

    a_line_end_in_the_path = but(":path", "/ HTTP/1.1\r\nHost: test\r\n\r\nGET /smuggled HTTP/1.1\r\nX: y");
    a_space_in_the_path = but(":path", "/a b");
    a_version_in_the_path = but(":path", "/smuggled HTTP/1.1");
    an_empty_path = but(":path", "");
    a_path_without_a_slash = but(":path", "smuggled");
    an_absolute_path = but(":path", "http://other/smuggled");
    no_path = without(":path");
    two_paths = with(&[(":path", "/smuggled")]);
    a_line_end_in_the_method = but(":method", "GET /smuggled HTTP/1.1\r\nX: y\r\n\r\nPOST");
    a_space_in_the_method = but(":method", "GET /smuggled");
    an_empty_method = but(":method", "");
    no_method = without(":method");
    two_methods = with(&[(":method", "GET")]);
    connect = vec![(":method", "CONNECT"), (":authority", "other:443")];
    a_line_end_in_the_authority = but(":authority", "test\r\nTransfer-Encoding: chunked");
    a_space_in_the_authority = but(":authority", "test other");
    a_path_in_the_authority = but(":authority", "test/smuggled");
    user_information_in_the_authority = but(":authority", "admin@test");
    two_authorities = with(&[(":authority", "other")]);
    a_line_end_in_the_scheme = but(":scheme", "http\r\nX: y");
    a_path_in_the_scheme = but(":scheme", "http://other/?");
    no_scheme = without(":scheme");
    a_pseudo_field_of_a_response = with(&[(":status", "200")]);
    an_unknown_pseudo_field = with(&[(":smuggled", "1")]);
    a_pseudo_field_after_a_field = vec![
        (":method", "GET"), (":scheme", "http"), ("x", "y"), (":authority", "test"), (":path", "/"),
    ];

    /// The stream ends with the head, so the instance would wait for five bytes of somebody else's.
    a_length_without_a_body = with(&[("content-length", "5")]);
    two_lengths = with(&[("content-length", "0"), ("content-length", "5")]);
    two_equal_lengths = with(&[("content-length", "0"), ("content-length", "0")]);
    a_length_with_a_plus = with(&[("content-length", "+0")]);
    a_list_of_lengths = with(&[("content-length", "0, 0")]);
    an_empty_length = with(&[("content-length", "")]);
}

#[tokio::test]
async fn a_body_longer_than_its_length() {
    is_cut(with(&[("content-length", "3")]), &format!("abc{SMUGGLED}")).await;
}

#[tokio::test]
async fn a_body_for_a_length_of_nothing() {
    is_cut(with(&[("content-length", "0")]), SMUGGLED).await;
}

#[tokio::test]
async fn a_body_shorter_than_its_length() {
    is_cut(with(&[("content-length", "100")]), "abc").await;
}

#[tokio::test]
async fn a_length_as_a_trailer() {
    is_no_trailer("content-length", "5").await;
}

#[tokio::test]
async fn a_transfer_coding_as_a_trailer() {
    is_no_trailer("transfer-encoding", "chunked").await;
}

#[tokio::test]
async fn a_host_as_a_trailer() {
    is_no_trailer("host", "other").await;
}

/// Which a server in the manner of CGI takes for the field itself.
#[tokio::test]
async fn a_look_alike_of_a_field_of_the_edge_as_a_trailer() {
    is_no_trailer("x_forwarded_for", "1.2.3.4").await;
}

#[tokio::test]
async fn a_pseudo_field_as_a_trailer() {
    is_no_trailer(":path", "/smuggled").await;
}

#[tokio::test]
async fn a_line_end_in_a_trailer() {
    is_no_trailer("x", "y\r\n\r\nGET /smuggled HTTP/1.1").await;
}

/// A client should not send a fragment; what is routed and what is passed on must at least be the same.
#[tokio::test]
async fn a_fragment_in_the_path_is_not_passed_on() {
    let scene = Scene::new().await;
    let frames = [frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&but(":path", "/a#smuggled")))];
    let _ = send(&scene, &frames).await;
    let reached = scene.end().await;
    assert!(!reached.contains("smuggled"), "{reached}");
}

/// A body without a length becomes chunks, and what looks like chunks in it stays body.
#[tokio::test]
async fn a_body_that_looks_like_the_end_of_chunks_is_a_body() {
    let scene = Scene::new().await;
    let body = format!("0\r\n\r\n{SMUGGLED}");
    let frames =
        [frame(HEADERS, END_HEADERS, 1, &block(&request())), frame(DATA, END_STREAM, 1, body.as_bytes())];
    assert_eq!(send(&scene, &frames).await, Answer::Ok);
    let reached = scene.end().await;
    let size = body.len();
    assert!(reached.ends_with(&format!("\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n")), "{reached}");
}

/// RFC 9113, 8.3.1: the authority rules, and the instance must not see another host.
#[tokio::test]
async fn the_authority_overrules_the_host() {
    let scene = Scene::new().await;
    let frames = [frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&with(&[("host", "other.example")])))];
    // Refusing is as good.
    let _ = send(&scene, &frames).await;
    let reached = scene.end().await;
    assert!(!reached.contains("other.example"), "{reached}");
}

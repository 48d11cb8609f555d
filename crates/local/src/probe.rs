//! Asking an instance whether it is ready, or still alive.
//!
//! An app says so at a path of its own choosing. When the manifest names none, the usual ones are tried in
//! turn; an app that knows none of them is ready when it accepts connections. Which one worked is remembered
//! ([`Chosen`]): an app that answered at `/up` and later answers 404 there is broken, not merely different. An app that
//! speaks HTTP/2 only is asked in HTTP/2, where the manifest names a path: gRPC servers know none of the usual ones.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use edge::prior_knowledge;
use model::ServiceProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Tried in this order when the manifest names no path.
pub const USUAL_PATHS: [&str; 3] = ["/healthz", "/up", "/health"];

/// Only the first line of an answer is of interest, and no honest one is longer.
const MAX_STATUS_LINE_BYTES: usize = 1024;

const USER_AGENT: &str = "switchback-probe";

/// How to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// The paths are tried in turn: 404 and 405 mean that the app does not know one. When it knows none, its
    /// accepting of the connection counts.
    Http { paths: Vec<String> },
    /// In HTTP/2, with prior knowledge.
    Http2 { path: String },
    /// A connect is enough.
    Tcp,
}

/// What worked, to be asked from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    Path(String),
    Http2Path(String),
    Tcp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeResult {
    Ready(Chosen),
    NotReady(NotReady),
}

/// Why not, in words for `why` and the log of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    #[error("nothing listens on port {port}")]
    Refused { port: u16 },
    #[error("no answer within {} ms", timeout.as_millis())]
    Timeout { timeout: Duration },
    #[error("{path} answered {status}")]
    Status { path: String, status: u16 },
    #[error("{path} answered something that is not {expected}")]
    NotHttp { path: String, expected: &'static str },
    #[error("the connection broke: {message}")]
    Broken { message: String },
}

impl Probe {
    /// Of the manifest's `health` and `protocol`.
    pub fn of(path: Option<&str>, protocol: ServiceProtocol) -> Probe {
        match (protocol, path) {
            (ServiceProtocol::H2c, Some(path)) => Probe::Http2 { path: path.to_owned() },
            (ServiceProtocol::H2c, None) => Probe::Tcp,
            (ServiceProtocol::Http1, Some(path)) => Probe::Http { paths: vec![path.to_owned()] },
            (ServiceProtocol::Http1, None) => Probe::Http { paths: USUAL_PATHS.map(str::to_owned).to_vec() },
        }
    }

    /// Whether the path is the app's own word, so that not knowing it is a failure.
    fn is_exact(&self) -> bool {
        matches!(self, Probe::Http { paths } if paths.len() == 1)
    }
}

impl From<Chosen> for Probe {
    /// Asking again what worked before.
    fn from(chosen: Chosen) -> Probe {
        match chosen {
            Chosen::Path(path) => Probe::Http { paths: vec![path] },
            Chosen::Http2Path(path) => Probe::Http2 { path },
            Chosen::Tcp => Probe::Tcp,
        }
    }
}

/// Asks once. `timeout` is for everything together. 2xx and 3xx are ready; 404 and 405 lead to the next path,
/// unless there was only one; anything else is not ready.
///
/// Cancel safe.
pub async fn probe(address: SocketAddr, probe: &Probe, timeout: Duration) -> ProbeResult {
    let asked = tokio::time::timeout(timeout, ask(address, probe)).await;
    asked.unwrap_or(ProbeResult::NotReady(NotReady::Timeout { timeout }))
}

async fn ask(address: SocketAddr, probe: &Probe) -> ProbeResult {
    match probe {
        Probe::Http { paths } => ask_in_turn(address, paths, probe.is_exact()).await,
        Probe::Http2 { path } => match prior_knowledge::status_of(address, path, USER_AGENT).await {
            Ok(Some(200..=399)) => ProbeResult::Ready(Chosen::Http2Path(path.clone())),
            answer => ProbeResult::NotReady(not_ready(address, path, "HTTP/2", answer)),
        },
        Probe::Tcp => match TcpStream::connect(address).await {
            Ok(_) => ProbeResult::Ready(Chosen::Tcp),
            Err(error) => ProbeResult::NotReady(broken(address, &error)),
        },
    }
}

async fn ask_in_turn(address: SocketAddr, paths: &[String], is_exact: bool) -> ProbeResult {
    for path in paths {
        return match get(address, path).await {
            Ok(Some(200..=399)) => ProbeResult::Ready(Chosen::Path(path.clone())),
            Ok(Some(404 | 405)) if !is_exact => continue,
            answer => ProbeResult::NotReady(not_ready(address, path, "HTTP", answer)),
        };
    }
    // It answered each time, only not at these paths: so it accepts connections.
    ProbeResult::Ready(Chosen::Tcp)
}

/// The status of the answer; `None` when it is not HTTP.
async fn get(address: SocketAddr, path: &str) -> io::Result<Option<u16>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(256);
    while !head.contains(&b'\n') && head.len() < MAX_STATUS_LINE_BYTES {
        if stream.read_buf(&mut head).await? == 0 {
            if head.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"));
            }
            break;
        }
    }
    Ok(status(&head))
}

/// Of `HTTP/1.1 200 OK`.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let code = std::str::from_utf8(rest.get(2..5)?).ok()?;
    let ends = rest.get(5).is_none_or(|byte| byte.is_ascii_whitespace());
    code.parse().ok().filter(|code| ends && rest[1] == b' ' && (100..600).contains(code))
}

fn not_ready(
    address: SocketAddr,
    path: &str,
    expected: &'static str,
    answer: io::Result<Option<u16>>,
) -> NotReady {
    match answer {
        Ok(Some(status)) => NotReady::Status { path: path.to_owned(), status },
        Ok(None) => NotReady::NotHttp { path: path.to_owned(), expected },
        Err(error) => broken(address, &error),
    }
}

fn broken(address: SocketAddr, error: &io::Error) -> NotReady {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => NotReady::Refused { port: address.port() },
        _ => NotReady::Broken { message: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::net::TcpListener;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(20);

    /// Answers each path as told (nothing for an unknown one: it hangs), and remembers the requests.
    async fn app(answers: &'static [(&'static str, &'static str)]) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        tokio::spawn(async move {
            let mut hanging = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap() > 0 {}
                let request = String::from_utf8(request).unwrap();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                seen.lock().unwrap().push(request);
                match answers.iter().find(|(known, _)| *known == path) {
                    Some((_, answer)) => stream.write_all(answer.as_bytes()).await.unwrap(),
                    None => hanging.push(stream),
                }
            }
        });
        (address, requests)
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    const MOVED: &str = "HTTP/1.0 302 Found\r\n\r\n";
    const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\n\r\n";
    const NOT_ALLOWED: &str = "HTTP/1.1 405\r\n\r\n";
    const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\n\r\n";

    fn usual() -> Probe {
        Probe::of(None, ServiceProtocol::Http1)
    }

    #[tokio::test]
    async fn the_first_path_that_the_app_knows_is_chosen() {
        let (address, requests) =
            app(&[("/healthz", NOT_FOUND), ("/up", NOT_ALLOWED), ("/health", MOVED)]).await;
        assert_eq!(
            probe(address, &usual(), LONG).await,
            ProbeResult::Ready(Chosen::Path("/health".to_owned()))
        );
        let requests = requests.lock().unwrap();
        assert_eq!(requests.len(), 3);
        assert!(requests[0].starts_with("GET /healthz HTTP/1.1\r\nHost: localhost\r\n"), "{}", requests[0]);
        assert!(requests[0].contains("User-Agent: switchback-probe\r\n"));
    }

    #[tokio::test]
    async fn an_app_that_knows_no_path_is_ready_when_it_accepts() {
        let (address, _) = app(&[("/healthz", NOT_FOUND), ("/up", NOT_FOUND), ("/health", NOT_FOUND)]).await;
        assert_eq!(probe(address, &usual(), LONG).await, ProbeResult::Ready(Chosen::Tcp));
    }

    #[tokio::test]
    async fn an_app_that_is_not_ready_says_so_and_no_other_path_overrules_it() {
        let (address, requests) = app(&[("/healthz", UNAVAILABLE), ("/up", OK)]).await;
        let status = NotReady::Status { path: "/healthz".to_owned(), status: 503 };
        assert_eq!(probe(address, &usual(), LONG).await, ProbeResult::NotReady(status));
        assert_eq!(requests.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_path_that_was_named_or_chosen_must_be_known() {
        let (address, _) = app(&[("/ready", NOT_FOUND)]).await;
        let expected = ProbeResult::NotReady(NotReady::Status { path: "/ready".to_owned(), status: 404 });
        for named in
            [Probe::of(Some("/ready"), ServiceProtocol::Http1), Chosen::Path("/ready".to_owned()).into()]
        {
            assert_eq!(probe(address, &named, LONG).await, expected);
        }
    }

    #[tokio::test]
    async fn an_app_that_accepts_and_never_answers_is_not_ready() {
        let (address, _) = app(&[]).await;
        let expected = ProbeResult::NotReady(NotReady::Timeout { timeout: SHORT });
        assert_eq!(probe(address, &usual(), SHORT).await, expected);
        let h2c = Probe::of(Some("/ready"), ServiceProtocol::H2c);
        assert_eq!(probe(address, &h2c, SHORT).await, expected);
        // Unless a connect is all that was asked for.
        let grpc = Probe::of(None, ServiceProtocol::H2c);
        assert_eq!(probe(address, &grpc, LONG).await, ProbeResult::Ready(Chosen::Tcp));
    }

    #[tokio::test]
    async fn a_port_on_which_nobody_listens_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        for how in [usual(), Probe::Tcp] {
            let ProbeResult::NotReady(why) = probe(address, &how, LONG).await else { panic!("ready") };
            assert_eq!(why.to_string(), format!("nothing listens on port {}", address.port()));
        }
    }

    #[tokio::test]
    async fn what_is_not_http_is_not_ready() {
        let (address, _) = app(&[("/healthz", "SSH-2.0-OpenSSH_9.2\r\n")]).await;
        let not = |path: &str, expected| {
            ProbeResult::NotReady(NotReady::NotHttp { path: path.to_owned(), expected })
        };
        assert_eq!(probe(address, &usual(), LONG).await, not("/healthz", "HTTP"));
        // An app of HTTP/1.1 whose manifest says h2c: it takes the preface for a request.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream
                .write_all(b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Length: 0\r\n\r\n")
                .await
                .unwrap();
            // Until the other side has read it and closes.
            while stream.read_buf(&mut Vec::new()).await.is_ok_and(|read| read > 0) {}
        });
        let h2c = Probe::of(Some("/ready"), ServiceProtocol::H2c);
        assert_eq!(probe(address, &h2c, LONG).await, not("/ready", "HTTP/2"));
    }

    #[test]
    fn a_status_line_is_read_strictly() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503\n"), Some(503));
        for wrong in
            ["", "HTTP/2 200", "HTTP/1.1 20", "HTTP/1.1 2000 OK", "HTTP/1.1200 ok", "HTTP/1.1 999 x", "200"]
        {
            assert_eq!(status(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}

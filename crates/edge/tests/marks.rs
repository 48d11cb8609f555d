//! Who has seen their write acknowledged brings a mark with the next request, and every read behind it is as fresh.
//!
//! The instance commits as a proxy would: into the file that it shares with the edge.

use std::path::PathBuf;
use std::sync::Arc;

use edge::config::{Tls, UpstreamProtocol};
use freshness::{Freshness, Mark};
use http::Request;
use tokio::net::TcpStream;

use crate::certificates;
use crate::support::{Client, Front, Instance, Message, client::Kind, endpoint, soon, upstream};

/// A database's file, as the proxy has it.
struct Database {
    folder: tempfile::TempDir,
    marks: Arc<Freshness>,
}

impl Database {
    fn new() -> Database {
        let folder = tempfile::tempdir().expect("a folder");
        let marks = Arc::new(Freshness::create(&folder.path().join("db")).expect("a file of marks"));
        Database { folder, marks }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    /// An instance that writes where its path begins with `/write`, and answers with what it was asked and with the
    /// fields that the query names.
    async fn app(&self) -> Instance {
        let marks = Arc::clone(&self.marks);
        Instance::answering(move |request| answer(&marks, request)).await
    }

    fn front(&self, instance: &Instance) -> Front {
        Front::with(upstream(vec![endpoint("one", instance)]), |config| {
            config.freshness.insert("db".to_owned(), self.path());
        })
    }
}

fn answer(marks: &Freshness, request: &Message) -> String {
    let target = request.head.split(' ').nth(1).expect("a target");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path.starts_with("/write") {
        marks.commit(marks.now());
    }
    let status = path.rsplit('/').next().filter(|last| last.parse::<u16>().is_ok()).unwrap_or("200");
    let fields = query.replace("%20", " ").replace('&', "\r\n").replace('=', ": ");
    let fields = if fields.is_empty() { fields } else { fields + "\r\n" };
    let body = if matches!(status, "204" | "304") { "" } else { request.head.as_str() };
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("HTTP/1.1 {status} X\r\n{fields}{length}\r\n{body}")
}

async fn asked(client: &mut Client, method: &str, target: &str, fields: &str) -> Message {
    let length = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{length}{fields}\r\n")).await;
    client.response().await
}

/// The cookie as a browser would send it back.
fn cookie(answer: &Message) -> Option<String> {
    let ours = answer.fields("set-cookie").into_iter().find(|cookie| cookie.starts_with("switchback-fresh="));
    ours.map(|cookie| cookie.split(';').next().expect("a pair").to_owned())
}

#[tokio::test]
async fn a_client_that_has_written_brings_a_mark_and_reads_are_required_to_be_as_fresh() {
    let database = Database::new();
    let instance = database.app().await;
    let front = database.front(&instance);
    let mut client = front.client().await;

    let written = asked(&mut client, "POST", "/write", "").await;
    let cookie = cookie(&written).expect("a cookie");
    assert_eq!(
        written.field("set-cookie"),
        Some(format!("{cookie}; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax").as_str())
    );
    assert_eq!(cookie, format!("switchback-fresh={}", written.field("switchback-fresh").expect("a field")));
    assert_eq!(database.marks.required(), Mark::default(), "nobody has come back yet");

    let mut later = front.client().await;
    let seen = asked(&mut later, "GET", "/", &format!("Cookie: a=1; {cookie}; b=2\r\n")).await;
    assert_eq!(database.marks.required(), database.marks.committed());
    let request = Message { head: seen.text().to_owned(), body: Vec::new(), trailers: String::new() };
    assert_eq!(request.field("cookie"), Some("a=1; b=2"), "the app sees its own cookies");
    assert!(!seen.text().contains("switchback-fresh"));
    assert_eq!(seen.field("set-cookie"), None, "nothing was written meanwhile");
}

/// The mark is in force before the app has the request: the app's first read may come at once.
#[tokio::test]
async fn what_a_client_brings_is_required_before_the_app_has_the_request() {
    let database = Database::new();
    let marks = Arc::clone(&database.marks);
    let instance = Instance::answering(move |_| {
        let required = marks.required().as_micros().to_string();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{required}", required.len())
    })
    .await;
    let front = database.front(&instance);
    database.marks.commit(database.marks.now());
    let committed = database.marks.committed().as_micros();
    let mut client = front.client().await;
    let answer = asked(&mut client, "GET", "/", &format!("Switchback-Fresh: 1.{committed:x}\r\n")).await;
    assert_eq!(answer.text(), committed.to_string());
}

#[tokio::test]
async fn a_client_without_cookies_brings_the_field() {
    let database = Database::new();
    let instance = database.app().await;
    let front = database.front(&instance);
    let mut client = front.client().await;
    let written = asked(&mut client, "PUT", "/write", "").await;
    let mark = written.field("switchback-fresh").expect("a field").to_owned();
    let seen = asked(&mut client, "GET", "/", &format!("Switchback-Fresh: {mark}\r\n")).await;
    assert_eq!(database.marks.required(), database.marks.committed());
    assert!(!seen.text().to_lowercase().contains("switchback-fresh"), "{}", seen.text());
}

/// What a cache may store must not get a cookie that it does not need.
#[tokio::test]
async fn only_an_answer_whose_client_may_have_written_carries_a_mark() {
    let database = Database::new();
    let instance = database.app().await;
    let front = database.front(&instance);
    let mut client = front.client().await;
    for (method, target, marked) in [
        ("POST", "/write", true),
        ("PATCH", "/write/204", true),
        ("DELETE", "/write/500", true),
        ("POST", "/write/303?Location=/", true),
        ("POST", "/nothing", false),
        // Somebody else's write, or a counter of visits: no reader needs to know.
        ("GET", "/write", false),
        ("OPTIONS", "/write", false),
        ("GET", "/write/304", false),
        ("GET", "/write?Cache-Control=public", false),
        // Logged in by a link; sent on by what was done.
        ("GET", "/write?Set-Cookie=session%20x", true),
        ("GET", "/write/302?Location=/", true),
        ("GET", "/write/307?Location=/&Cache-Control=no-cache", true),
        ("GET", "/write/302?Location=/&Cache-Control=public", false),
        ("GET", "/write/301?Location=/", false),
        ("GET", "/302?Location=/", false),
        ("GET", "/?Set-Cookie=session%20x", false),
    ] {
        let answer = asked(&mut client, method, target, "").await;
        assert_eq!(cookie(&answer).is_some(), marked, "{method} {target}: {}", answer.head);
        assert_eq!(answer.field("switchback-fresh").is_some(), marked, "{method} {target}: {}", answer.head);
    }
}

#[tokio::test]
async fn the_cookies_of_the_app_reach_the_client_beside_ours() {
    let database = Database::new();
    let instance = database.app().await;
    let front = database.front(&instance);
    let answer = asked(&mut front.client().await, "POST", "/write?Set-Cookie=session%20x", "").await;
    assert_eq!(answer.fields("set-cookie").len(), 2);
    assert!(answer.fields("set-cookie").contains(&"session x"));
}

#[tokio::test]
async fn odd_marks_are_ignored_and_the_highest_asks_for_no_more_than_now() {
    let database = Database::new();
    let instance = database.app().await;
    let front = database.front(&instance);
    database.marks.commit(database.marks.now());
    let mut client = front.client().await;
    let long = "f".repeat(4_000);
    for odd in ["", "1", "1.", "2.ffff", "1.FFFF", "1.-1", "0x5", long.as_str(), "1.fffffffffffffffff"] {
        let fields = format!("Cookie: switchback-fresh={odd}\r\nSwitchback-Fresh: {odd}\r\n");
        let answer = asked(&mut client, "GET", "/", &fields).await;
        assert_eq!(answer.status(), 200);
        assert!(!answer.text().to_lowercase().contains("switchback-fresh"), "{}", answer.text());
        assert_eq!(database.marks.required(), Mark::default(), "{odd}");
    }
    asked(&mut client, "GET", "/", "Cookie: switchback-fresh=1.ffffffffffffffff\r\n").await;
    assert_eq!(database.marks.required(), database.marks.committed());
    assert!(database.marks.now() > database.marks.required(), "a replica can be as fresh as that");
}

#[tokio::test]
async fn the_newest_of_several_marks_counts() {
    let database = Database::new();
    let instance = database.app().await;
    let front = database.front(&instance);
    let mark = |mark: Mark| format!("1.{:x}", mark.as_micros());
    let (first, second, third) = (database.marks.now(), database.marks.now(), database.marks.now());
    database.marks.commit(third);
    let fields = format!(
        "Cookie: switchback-fresh={}; switchback-fresh={}\r\nSwitchback-Fresh: {}\r\n",
        mark(first),
        mark(second),
        mark(first),
    );
    asked(&mut front.client().await, "GET", "/", &fields).await;
    assert_eq!(database.marks.required(), second);
}

/// One mark stands for all databases of the app.
#[tokio::test]
async fn a_write_to_any_database_is_required_of_that_database() {
    let (shop, stock) = (Database::new(), Database::new());
    let instance = stock.app().await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.freshness.insert("shop".to_owned(), shop.path());
        config.freshness.insert("stock".to_owned(), stock.path());
    });
    shop.marks.commit(shop.marks.now());
    let mut client = front.client().await;
    let cookie = cookie(&asked(&mut client, "POST", "/write", "").await).expect("a cookie");
    asked(&mut client, "GET", "/", &format!("Cookie: {cookie}\r\n")).await;
    assert_eq!(stock.marks.required(), stock.marks.committed());
    assert!(shop.marks.required() <= shop.marks.committed());
}

#[tokio::test]
async fn over_http2_it_is_the_same() {
    let database = Database::new();
    let instance = database.app().await;
    let front = database.front(&instance);
    let stream = TcpStream::connect(front.address).await.expect("connect");
    let (sender, connection) = h2::client::handshake(stream).await.expect("handshake");
    tokio::spawn(connection);
    let send = async |request: Request<()>| {
        let mut sender = sender.clone().ready().await.expect("ready");
        let (answer, _) = sender.send_request(request, true).expect("sent");
        let (head, mut body) = soon("an answer", answer).await.expect("an answer").into_parts();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            text.extend_from_slice(&data.expect("data"));
        }
        (head, String::from_utf8(text).expect("text"))
    };
    let (written, _) = send(Request::post("http://test/write").body(()).expect("a request")).await;
    let cookie = written.headers["set-cookie"].to_str().expect("text").to_owned();
    let pair = cookie.split(';').next().expect("a pair");
    assert_eq!(
        pair,
        format!("switchback-fresh={}", written.headers["switchback-fresh"].to_str().expect("text"))
    );

    // Browsers send each cookie in a field of its own.
    let read = Request::get("http://test/").header("cookie", "a=1").header("cookie", pair);
    let (_, seen) = send(read.header("cookie", "b=2").body(()).expect("a request")).await;
    assert_eq!(database.marks.required(), database.marks.committed());
    assert!(seen.contains("a=1; b=2") && !seen.contains("switchback-fresh"), "{seen}");
}

#[tokio::test]
async fn over_tls_the_cookie_is_secure() {
    let database = Database::new();
    let instance = database.app().await;
    let files = certificates::Files::new();
    let authority = files.renew();
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.listeners.get_mut("front").expect("front").tls = Some(Tls { ..files.tls(1) });
        config.freshness.insert("db".to_owned(), database.path());
    });
    let mut client = certificates::connect(&front, &authority).await.expect("a connection");
    client.send("POST /write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").await;
    let answer = client.response().await;
    assert!(
        answer.field("set-cookie").expect("a cookie").ends_with("; SameSite=Lax; Secure"),
        "{}",
        answer.head
    );
}

#[tokio::test]
async fn an_upgrade_requires_what_is_brought_and_is_given_nothing() {
    let database = Database::new();
    let marks = Arc::clone(&database.marks);
    let instance = Instance::serving(move |mut connection: Client| {
        let marks = Arc::clone(&marks);
        async move {
            connection.message(Kind::Request).await.expect("a request");
            marks.commit(marks.now());
            connection
                .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSet-Cookie: a=b\r\n\r\n")
                .await;
        }
    })
    .await;
    let front = database.front(&instance);
    database.marks.commit(database.marks.now());
    let committed = database.marks.committed();
    let mut client = front.client().await;
    let fields = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nCookie: switchback-fresh=1.{:x}\r\n",
        committed.as_micros()
    );
    let answer = asked(&mut client, "GET", "/chat", &fields).await;
    assert_eq!((answer.status(), answer.field("set-cookie")), (101, Some("a=b")));
    assert_eq!(answer.field("switchback-fresh"), None);
    assert_eq!(database.marks.required(), committed);
}

#[tokio::test]
async fn an_instance_that_speaks_http2_is_no_difference() {
    let database = Database::new();
    let marks = Arc::clone(&database.marks);
    let instance = Instance::serving(move |connection: Client| {
        let marks = Arc::clone(&marks);
        async move {
            let Ok(mut connection) = h2::server::handshake(connection.stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert!(request.headers().get("cookie").is_none(), "{request:?}");
                marks.commit(marks.now());
                let _ = respond.send_response(http::Response::new(()), true);
            }
        }
    })
    .await;
    let mut upstream = upstream(vec![endpoint("one", &instance)]);
    upstream.protocol = UpstreamProtocol::H2c;
    let front = Front::with(upstream, |config| {
        config.freshness.insert("db".to_owned(), database.path());
    });
    let mut client = front.client().await;
    let cookie = cookie(&asked(&mut client, "POST", "/", "").await).expect("a cookie");
    let before = database.marks.committed();
    asked(&mut client, "GET", "/", &format!("Cookie: {cookie}\r\n")).await;
    assert_eq!(database.marks.required(), before);
}

/// An app without a database, and one whose database has no replicas, see none of this.
#[tokio::test]
async fn without_marks_nothing_is_taken_and_nothing_given() {
    let database = Database::new();
    let instance = database.app().await;
    let front = Front::of(&instance);
    let mut client = front.client().await;
    let fields = "Cookie: switchback-fresh=1.5\r\nSwitchback-Fresh: 1.5\r\n";
    let answer = asked(&mut client, "POST", "/write", fields).await;
    assert!(
        answer.text().contains("switchback-fresh=1.5") && answer.text().contains("Switchback-Fresh: 1.5")
    );
    assert_eq!((answer.field("set-cookie"), answer.field("switchback-fresh")), (None, None));
}

/// What is lost is that reads are as new as the client's writes, which is less than the app.
#[tokio::test]
async fn a_configuration_whose_marks_cannot_be_opened_is_served_without_them() {
    let database = Database::new();
    let instance = database.app().await;
    let front = database.front(&instance);
    let absent = database.folder.path().join("absent");
    let mut config = front.config.clone();
    config.generation += 1;
    config.freshness.insert("other".to_owned(), absent.clone());
    front.handle.configure(config.clone()).unwrap();
    let answer = asked(&mut front.client().await, "POST", "/write", "").await;
    assert!(cookie(&answer).is_some(), "the other database has its marks");
    config.generation += 1;
    config.freshness.values_mut().for_each(|path| path.clone_from(&absent));
    front.handle.configure(config).unwrap();
    let answer = asked(&mut front.client().await, "POST", "/write", "").await;
    assert_eq!((answer.status(), cookie(&answer)), (200, None));
}

//! The program that stands for every app: what it must do right, so that what fails in a drill is ours.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::{App, Load, Mix, get, request};

struct Running {
    child: Child,
    port: u16,
    // Its folder goes with it.
    _app: App,
}

impl Running {
    fn start(app: App) -> Running {
        let mut command = Command::new("python3");
        command.arg("app.py").current_dir(app.dir()).env("PORT", "0").stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said =
            lines.find_map(|line| Some(line.unwrap().split_once(" listens on ")?.1.to_owned())).unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        Running { child, port: said.parse().unwrap(), _app: app }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn terminate(&self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_says_who_it_is_and_answers_what_it_is_asked() {
    let app = Running::start(App::python("shop").version("blue"));
    let home = get(&app.url("/")).unwrap();
    assert_eq!(home.body, format!("blue {}\n", app.child.id()));
    assert_eq!(home.header("x-app-version"), Some("blue"));
    assert_eq!(get(&app.url("/healthz")).unwrap().status, 200);
    assert_eq!(get(&app.url("/bytes/100000")).unwrap().body.len(), 100_000);
    assert_eq!(get(&app.url("/status/418")).unwrap().status, 418);
    assert_eq!(get(&app.url("/nowhere")).unwrap().status, 404);
    assert_eq!(request("POST", &app.url("/echo"), &[], b"hello").unwrap().body, "hello");
    assert_eq!(get(&app.url("/stream/3/1")).unwrap().body, "piece 0\npiece 1\npiece 2\n");
    assert_eq!(get(&app.url("/events/1/1")).unwrap().header("content-type"), Some("text/event-stream"));
    assert_eq!(request("HEAD", &app.url("/bytes/7"), &[], b"").unwrap().header("content-length"), Some("7"));
}

#[test]
fn it_misbehaves_as_told() {
    let app = Running::start(App::python("shop").knob("never_ready", true).knob("error_percent", 25));
    assert_eq!(get(&app.url("/healthz")).unwrap().status, 503);
    let errors = (0..100).filter(|_| get(&app.url("/")).unwrap().status == 500).count();
    assert_eq!(errors, 25);
}

#[test]
fn it_bears_load_of_both_kinds_without_a_failure() {
    let app = Running::start(App::python("shop"));
    let mix = Mix { keep_alive_connections: 4, new_connection_workers: 4, rate: None };
    let load = Load::start(&app.url("/"), mix);
    load.wait_for_more(2_000, Duration::from_secs(60));
    load.stop().assert_nothing_failed(2_000);
}

/// A drain must be able to rely on this: the instance ends by itself, and what it has begun is answered.
#[test]
fn on_sigterm_it_finishes_what_it_has_begun_and_ends_well() {
    let mut app = Running::start(App::python("shop"));
    let mut stream = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
    stream.write_all(b"GET /stream/2/200 HTTP/1.1\r\nHost: app\r\n\r\n").unwrap();
    let mut answer = vec![0];
    stream.read_exact(&mut answer).unwrap();
    app.terminate();
    stream.read_to_end(&mut answer).unwrap();
    assert!(String::from_utf8(answer).unwrap().ends_with("piece 1\n\r\n0\r\n\r\n"));
    assert_eq!(app.child.wait().unwrap().code(), Some(0));
}

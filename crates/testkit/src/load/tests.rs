//! The clients must fail whatever is not a whole, good answer: a load that forgives would prove nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

const KEPT: Mix = Mix { keep_alive_connections: 1, new_connection_workers: 0, rate: None };
const NEW: Mix = Mix { keep_alive_connections: 0, new_connection_workers: 1, rate: None };
const LIMIT: Duration = Duration::from_secs(20);

/// Puts `load` on a server that gives each connection to `serve`, until ten requests are made.
fn report(mix: Mix, serve: impl Fn(TcpStream) + Send + 'static) -> LoadReport {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        for stream in listener.incoming() {
            if ended.try_recv().is_ok() {
                return;
            }
            serve(stream.unwrap());
        }
    });
    let load = Load::start(&url, mix);
    load.wait_for_more(10, LIMIT);
    let report = load.stop();
    end.send(()).unwrap();
    // Wakes the server.
    drop(TcpStream::connect(url.trim_start_matches("http://").trim_end_matches('/')));
    server.join().unwrap();
    report
}

/// Answers requests in order, the last of them with the connection's end. `None` ends it before an answer.
fn answers(stream: &mut TcpStream, answers: &[Option<&str>]) {
    for answer in answers {
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => request.extend_from_slice(&buffer[..read]),
            }
        }
        match answer {
            Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
            None => return,
        }
    }
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const LAST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

#[test]
fn whole_answers_on_kept_and_on_new_connections_are_no_failure() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let early = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n";
    let kept = report(KEPT, move |mut stream| {
        answers(&mut stream, &[Some(GOOD), Some(chunked), Some(early), Some(LAST)]);
    });
    kept.assert_nothing_failed(10);
    assert_eq!(kept.by_status.keys().collect::<Vec<_>>(), [&200, &304]);
    report(NEW, |mut stream| answers(&mut stream, &[Some(GOOD)])).assert_nothing_failed(10);
}

/// The promise is zero: a client that found its idle connection closed would have to guess whether to try again.
#[test]
fn a_kept_connection_that_closes_without_announcing_it_is_a_failure() {
    let report = report(KEPT, |mut stream| answers(&mut stream, &[Some(GOOD), None]));
    assert!(report.failed * 3 > report.requests, "{report:#?}");
    assert!(report.failures[0].contains("kept connection"), "{report:#?}");
}

#[test]
fn an_answer_cut_short_is_a_failure() {
    for cut in ["HTTP/1.1 200 OK\r\nContent-Len", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"] {
        let report = report(NEW, move |mut stream| answers(&mut stream, &[Some(cut)]));
        assert_eq!(report.failed, report.requests, "{report:#?}");
    }
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok";
    let report = report(KEPT, move |mut stream| answers(&mut stream, &[Some(chunk)]));
    assert_eq!(report.failed, report.requests, "{report:#?}");
}

#[test]
fn an_error_status_is_a_failure() {
    let unavailable = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let report = report(NEW, move |mut stream| answers(&mut stream, &[Some(unavailable)]));
    assert_eq!((report.failed, report.by_status[&503]), (report.requests, report.requests));
}

#[test]
fn a_refused_connection_is_a_failure() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let load = Load::start(&format!("http://127.0.0.1:{port}/"), NEW);
    load.wait_for_more(3, LIMIT);
    let report = load.stop();
    assert_eq!(report.failed, report.requests);
    assert!(report.failures[0].starts_with("connect: "), "{report:#?}");
}

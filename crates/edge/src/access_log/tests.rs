use std::net::Ipv4Addr;
use std::path::Path;
use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;

fn entry<'a>(path: &'a [u8]) -> Entry<'a> {
    Entry {
        time: UNIX_EPOCH + Duration::from_micros(1_770_091_506_000_007),
        request_id: b"r-1",
        trace_id: b"t-1",
        client: Ipv4Addr::LOCALHOST.into(),
        method: b"GET",
        scheme: "https",
        host: b"example.org",
        path,
        protocol: "HTTP/2",
        status: 200,
        bytes_in: 0,
        bytes_out: 512,
        duration: Duration::from_micros(1_234),
        upstream: Some("web"),
        endpoint: Some("web-1"),
        release: Some("r7"),
        upstream_time: Some(Duration::from_micros(1_000)),
        attempts: 1,
        outcome: Outcome::Ok,
        user_agent: Some(b"curl/8"),
        referer: None,
    }
}

fn line(entry: &Entry<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    entry.write(&mut out, &mut Clock::default());
    out
}

fn open(path: &Path, rotate_bytes: u64) -> Arc<AccessLog> {
    let path = path.to_owned();
    AccessLog::open(&config::AccessLog { path, rotate_bytes }).unwrap()
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_entry_is_one_line_of_json() {
    let expected = concat!(
        r#"{"time":"2026-02-03T04:05:06.000007Z","request_id":"r-1","trace_id":"t-1","client":"127.0.0.1","#,
        r#""method":"GET","scheme":"https","host":"example.org","path":"/a?b=c","protocol":"HTTP/2","status":200,"#,
        r#""bytes_in":0,"bytes_out":512,"duration_us":1234,"upstream":"web","endpoint":"web-1","release":"r7","#,
        r#""upstream_us":1000,"attempts":1,"outcome":"ok","user_agent":"curl/8"}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(line(&entry(b"/a?b=c"))).unwrap(), expected);
}

#[test]
fn a_rejected_request_says_why() {
    let mut rejected = entry(b"/");
    rejected.outcome = Outcome::Rejected("bad_request");
    let value: serde_json::Value = serde_json::from_slice(&line(&rejected)).unwrap();
    assert_eq!(value["outcome"], "rejected:bad_request");
}

#[test]
fn what_a_client_sent_can_neither_end_the_line_nor_reach_a_terminal() {
    let written = line(&entry(b"/\"},\n{\x1b[31m\x7f\xc2\x9b\xe2\x80\xa8\xff"));
    assert_eq!(written.iter().filter(|byte| byte.is_ascii_control()).count(), 1);
    let value: serde_json::Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(value["path"], "/\"},\n{\u{1b}[31m\u{7f}\u{9b}\u{2028}\u{fffd}");
}

proptest! {
    #[test]
    fn any_bytes_come_back_from_the_json(
        path in prop::collection::vec(any::<u8>(), 0..200),
        agent in prop::option::of(prop::collection::vec(any::<u8>(), 0..50)),
    ) {
        let mut of_bytes = entry(&path);
        of_bytes.user_agent = agent.as_deref();
        let value: serde_json::Value = serde_json::from_slice(&line(&of_bytes)).unwrap();
        // A head that was refused before it had a path has none in its line.
        let known = (!path.is_empty()).then(|| String::from_utf8_lossy(&path));
        prop_assert_eq!(value["path"].as_str(), known.as_deref());
        let lossy = agent.as_deref().map(String::from_utf8_lossy);
        prop_assert_eq!(value["user_agent"].as_str(), lossy.as_deref());
    }
}

#[test]
fn entries_are_in_the_file_after_a_flush() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let log = open(&path, 1 << 20);
    let mut buffer = log.buffer();
    buffer.push(&entry(b"/one"));
    log.sync();
    assert!(lines(&path).is_empty());
    buffer.flush();
    log.sync();
    assert_eq!(lines(&path)[0]["path"], "/one");
}

#[test]
fn the_last_owner_writes_what_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let mut buffer = open(&path, 1 << 20).buffer();
    buffer.push(&entry(b"/one"));
    drop(buffer);
    assert_eq!(lines(&path).len(), 1);
}

#[test]
fn the_file_is_rotated_by_size_and_holds_whole_lines() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let size = line(&entry(b"/n")).len() as u64;
    let log = open(&path, size * 2);
    let mut buffer = log.buffer();
    for _ in 0..3 {
        buffer.push(&entry(b"/n"));
        buffer.flush();
    }
    log.sync();
    assert_eq!(lines(&path).len(), 1);
    assert_eq!(lines(&directory.path().join("access.log.1")).len(), 2);
}

#[test]
fn a_file_that_vanished_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let log = open(&path, 1 << 20);
    let mut buffer = log.buffer();
    buffer.push(&entry(b"/one"));
    buffer.flush();
    log.sync();
    std::fs::rename(&path, directory.path().join("moved.log")).unwrap();
    buffer.push(&entry(b"/two"));
    buffer.flush();
    log.sync();
    assert_eq!(lines(&path)[0]["path"], "/two");
}

#[test]
fn on_a_full_disk_entries_are_dropped_and_counted() {
    let log = open(Path::new("/dev/full"), 1 << 20);
    let mut buffer = log.buffer();
    buffer.push(&entry(b"/one"));
    buffer.push(&entry(b"/two"));
    buffer.flush();
    log.sync();
    assert_eq!(log.dropped(), 2);
}

#[test]
fn a_writer_that_is_behind_costs_entries_and_no_time() {
    let directory = tempfile::tempdir().unwrap();
    // A pipe nobody reads takes 64 KiB and then blocks the writer for as long as the test likes.
    let path = directory.path().join("pipe");
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a valid, terminated string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let held = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let log = open(&path, u64::MAX);
    let mut buffer = log.buffer();
    let long = vec![b'x'; FLUSH_BYTES];
    for _ in 0..BUFFERS_WAITING + 10 {
        buffer.push(&entry(&long));
    }
    assert!(log.dropped() >= 6, "{}", log.dropped());
    drop(buffer);
    // Read the pipe empty, so that the writer can end.
    let reader = std::thread::spawn(move || {
        let mut pipe = held;
        let mut scrap = vec![0; 1 << 16];
        let mut left = BUFFERS_WAITING * FLUSH_BYTES;
        while left > 0 {
            left = left.saturating_sub(std::io::Read::read(&mut pipe, &mut scrap).unwrap());
        }
    });
    drop(log);
    reader.join().unwrap();
}

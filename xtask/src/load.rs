//! Clients of a front door that retry nothing, for what has to go on while something is changed.
//!
//! Each request is a connection of its own. A refused or reset connection, an answer cut short, no answer in time, and any
//! status but 200 is a failure.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(10);
/// An answer that takes longer is a failure.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Failures that are told in words; all are counted.
const TOLD_FAILURES: usize = 5;

/// What clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub requests: u64,
    pub failed: u64,
    /// The first few.
    pub failures: Vec<String>,
    pub longest: Duration,
}

/// Load that runs until stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Seen>>,
}

impl Load {
    /// Asks for `/` at `authority`, such as `127.0.0.1:8080`.
    pub fn start(authority: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let (stop, authority) = (Arc::clone(&stop), authority.to_owned());
            std::thread::spawn(move || ask_again_and_again(&authority, &stop))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Load { stop, clients }
    }

    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for client in self.clients {
            match client.join() {
                Ok(seen) => {
                    all.requests += seen.requests;
                    all.failed += seen.failed;
                    all.failures.extend(seen.failures);
                    all.longest = all.longest.max(seen.longest);
                }
                Err(_) => all.failed += 1,
            }
        }
        all.failures.truncate(TOLD_FAILURES);
        all
    }
}

fn ask_again_and_again(authority: &str, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let asked = ask(authority).map_err(|error| error.to_string());
        seen.requests += 1;
        seen.longest = seen.longest.max(began.elapsed());
        if let Err(reason) = asked.and_then(|answer| judge(&answer)) {
            seen.failed += 1;
            if seen.failures.len() < TOLD_FAILURES {
                seen.failures.push(reason);
            }
        }
        std::thread::sleep(PAUSE);
    }
    seen
}

fn ask(authority: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(authority)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    // By the older version, so that an answer says how long it is, and never comes in chunks.
    write!(stream, "GET / HTTP/1.0\r\nHost: {authority}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Whether this is a whole answer, and a good one.
fn judge(answer: &[u8]) -> Result<(), String> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("closed within the head")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("answered {status:?}"));
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    let got = answer.len() - end - 4;
    match length {
        Some(length) if got == length => Ok(()),
        Some(length) => Err(format!("closed after {got} of {length} bytes")),
        None => Err("does not say how long it is".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_no_whole_200_is_a_failure() {
        judge(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        for bad in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\n\r\nhi",
            "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nhi",
        ] {
            judge(bad.as_bytes()).unwrap_err();
        }
    }
}

//! One GET, for waiting until something answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};

/// One attempt takes no longer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// `127.0.0.1:8080` of `http://127.0.0.1:8080/`.
pub fn authority(url: &str) -> Option<&str> {
    url.strip_prefix("http://")?.split('/').next()
}

/// The status of `GET /`.
///
/// # Errors
/// When nobody answers in HTTP.
pub fn status(authority: &str) -> Result<u16> {
    let answer = exchange(authority).map_err(Failure::while_doing(authority))?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.ok_or_else(|| Failure::new(format!("{authority} does not speak HTTP")))
}

fn exchange(authority: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(authority)?;
    stream.set_read_timeout(Some(ATTEMPT_TIMEOUT))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Waits for the first 200 and says how long that took.
///
/// # Errors
/// When none comes until `limit`.
pub fn wait_for_200(authority: &str, limit: Duration) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let last = status(authority);
        if matches!(last, Ok(200)) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > limit {
            let last = last.map_or_else(|failure| failure.to_string(), |code| format!("it answers {code}"));
            return Err(Failure::new(format!("no 200 from {authority} within {limit:?}: {last}")));
        }
        std::thread::sleep(PAUSE);
    }
}

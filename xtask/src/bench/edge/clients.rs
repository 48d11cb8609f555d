//! The clients: wrk for HTTP/1.1, h2load for HTTP/2, our own for WebSocket.

use std::process::Command;
use std::time::Duration;

use super::case::Case;
use super::websocket;
use crate::failure::{Failure, Result};
use crate::house;
use crate::shell;

/// What clients saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    pub requests: u64,
    pub failed: u64,
    pub rate: f64,
    /// Not every client tells.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// # Errors
/// When a client cannot be run, or says something else than expected.
pub fn run(case: Case, http1: u16, http2: u16, duration: Duration) -> Result<Seen> {
    let seconds = duration.as_secs().max(1).to_string();
    let url = |path: &str| format!("http://127.0.0.1:{http1}/{path}");
    match case {
        Case::KeepAlive => wrk(&seconds, &[], &url("1k")),
        Case::NewConnection => wrk(&seconds, &["-H", "Connection: close"], &url("1k")),
        Case::Large => wrk(&seconds, &[], &url("100k")),
        Case::Http2 => {
            let url = format!("http://127.0.0.1:{http2}/1k");
            let mut command = Command::new("h2load");
            // It tells percentiles of connections, not of requests; those are counted from its log.
            let log = house::target().join(format!("h2load-{}.log", std::process::id()));
            command
                .args(["-t", "1", "-c", "16", "-m", "8", "-D", &seconds])
                .arg("--log-file")
                .arg(&log)
                .arg(&url);
            let said = shell::read(&mut command)?;
            let seen = parse_h2load(&said).ok_or_else(|| Failure::new(format!("h2load said:\n{said}")))?;
            let times = h2load_times(&std::fs::read_to_string(&log).unwrap_or_default());
            // The next run writes it anew; one that stays behind bothers nobody.
            let _ = std::fs::remove_file(&log);
            Ok(Seen { p50_ms: percentile(&times, 50), p99_ms: percentile(&times, 99), ..seen })
        }
        Case::WebSocket => websocket::run(http1, duration),
    }
}

fn wrk(seconds: &str, more: &[&str], url: &str) -> Result<Seen> {
    let mut command = Command::new("wrk");
    command.args(["-t", "1", "-c", "64", "-d", &format!("{seconds}s"), "--latency"]).args(more).arg(url);
    let said = shell::read(&mut command)?;
    parse_wrk(&said).ok_or_else(|| Failure::new(format!("wrk said:\n{said}")))
}

fn parse_wrk(text: &str) -> Option<Seen> {
    let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "))?.0.parse().ok()?;
    let statuses = after("Non-2xx or 3xx responses:").map_or(Some(0), |count| count.parse::<u64>().ok())?;
    let sockets = after("Socket errors:").unwrap_or_default();
    let errors: u64 = sockets.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum();
    Some(Seen {
        requests,
        failed: statuses + errors,
        rate: after("Requests/sec:")?.parse().ok()?,
        p50_ms: after("50%").and_then(millis),
        p99_ms: after("99%").and_then(millis),
    })
}

fn parse_h2load(text: &str) -> Option<Seen> {
    // requests: 100 total, 100 started, 100 done, 100 succeeded, 0 failed, 0 errored, 0 timeout
    let line = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let count = |label: &str| {
        let part = line.split(", ").find_map(|part| part.strip_suffix(label))?;
        part.trim().parse::<u64>().ok()
    };
    let finished = text.lines().find_map(|line| line.strip_prefix("finished in "))?;
    let rate = finished.split(", ").find_map(|part| part.strip_suffix(" req/s"))?.parse().ok()?;
    let failed = count("failed")? + count("errored")? + count("timeout")?;
    Some(Seen { requests: count("succeeded")? + failed, failed, rate, p50_ms: None, p99_ms: None })
}

/// Sorted microseconds of each request: the third column of its log.
fn h2load_times(text: &str) -> Vec<u32> {
    let times = text.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok());
    let mut times: Vec<u32> = times.collect();
    times.sort_unstable();
    times
}

/// In milliseconds, of sorted microseconds.
pub fn percentile(micros: &[u32], share: usize) -> Option<f64> {
    micros.get(micros.len() * share / 100).map(|micros| f64::from(*micros) / 1e3)
}

/// `1.25ms`, `870.00us`, `1.02s`.
fn millis(text: &str) -> Option<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_understood_when_all_is_well_and_when_not() {
        let good = "\
Running 1s test @ http://127.0.0.1:9/1k
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.10ms    0.30ms   9.00ms   90.00%
    Req/Sec    46.48k     1.00k   48.00k    70.00%
  Latency Distribution
     50%    1.10ms
     75%    1.20ms
     90%    1.50ms
     99%    870.00us
  46484 requests in 1.00s, 56.00MB read
Requests/sec:  46484.12
Transfer/sec:     56.00MB
";
        let seen = parse_wrk(good).unwrap();
        assert_eq!((seen.requests, seen.failed, seen.rate), (46_484, 0, 46_484.12));
        assert_eq!((seen.p50_ms, seen.p99_ms), (Some(1.1), Some(0.87)));
        let bad = format!(
            "{good}  Socket errors: connect 1, read 2, write 0, timeout 3\n  Non-2xx or 3xx responses: 4\n"
        );
        assert_eq!(parse_wrk(&bad).unwrap().failed, 10);
    }

    #[test]
    fn h2load_is_understood() {
        let text = "\
finished in 1.00s, 20000.50 req/s, 22.00MB/s
requests: 20001 total, 20001 started, 20001 done, 20000 succeeded, 1 failed, 0 errored, 0 timeout
";
        let seen = parse_h2load(text).unwrap();
        assert_eq!((seen.requests, seen.failed, seen.rate), (20_001, 1, 20_000.5));
        let times = h2load_times("1790000000000000\t200\t900\n1790000000000100\t200\t100\n");
        assert_eq!((percentile(&times, 0), percentile(&times, 50)), (Some(0.1), Some(0.9)));
    }
}

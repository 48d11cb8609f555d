//! The clients: pgbench, looked at through a window in the middle of its run.
//!
//! Logins cost some of them more than a thousand queries, and are no query. So processor time and answers are counted
//! from when all clients are at work, between two instants; which answers lie between them stands in pgbench's log. When that
//! is, nobody knows before: pgbench runs until it is ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::load::Load;
use super::peer::roomy;
use super::postgres::{self, PASSWORD};
use crate::bench::processes::{Program, Usage};
use crate::failure::{Failure, Result};

/// For every client to come in, and the first answers.
const BEGIN_LIMIT: Duration = Duration::from_secs(60);
/// From the first answer to the window: pools and caches fill, prepared statements are prepared.
const SETTLE: Duration = Duration::from_secs(1);
/// For the log to say all of the window: it is written in blocks.
const LOG_LIMIT: Duration = Duration::from_secs(10);
/// Long enough to be none.
const NO_END: &str = "36000";
const POLL: Duration = Duration::from_millis(10);
/// From the login of the last idle client to the look at what they cost.
const IDLE_SETTLE: Duration = Duration::from_secs(3);

/// Where clients go to, and how many.
pub struct Call<'a> {
    pub port: u16,
    pub database: &'a str,
    pub load: Load,
    pub clients: u32,
    pub duration: Duration,
    /// For pgbench's log.
    pub dir: &'a Path,
}

/// What was seen in the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    pub transactions: usize,
    pub rate: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Ended when dropped.
struct Pgbench {
    child: Child,
    out: PathBuf,
}

/// Runs the load, and gives what was seen in the window and what `proxy` had used before and after.
///
/// # Errors
/// When a client cannot come in, or any transaction fails: figures of failures say nothing.
pub fn run(call: &Call<'_>, proxy: Option<&Program>) -> Result<(Seen, Usage, Usage)> {
    let prefix = call.dir.join("pgbench");
    let mut arguments: Vec<String> = ["-n", "-j", "1", "-l", "--log-prefix"].map(str::to_owned).into();
    arguments.push(prefix.display().to_string());
    arguments.extend(["-c".to_owned(), call.clients.to_string(), "-T".to_owned(), NO_END.to_owned()]);
    arguments.extend(call.load.arguments().map(str::to_owned));
    let mut pgbench = Pgbench::start(call.dir, call.port, call.database, &arguments)?;
    // It names its log by its number, which is the shell's that it replaced.
    let log = PathBuf::from(format!("{}.{}", prefix.display(), pgbench.child.id()));
    let at_work = || fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    pgbench.wait_until("every client is at work", BEGIN_LIMIT, at_work)?;
    std::thread::sleep(SETTLE);
    let usage = || proxy.map(Program::usage).unwrap_or_default();
    let (begin, before) = (now(), usage());
    std::thread::sleep(call.duration);
    let (end, after) = (now(), usage());
    let read = || fs::read_to_string(&log).unwrap_or_default();
    let has_passed = || last_ended(&read()).is_some_and(|ended| ended >= end);
    pgbench.wait_until("the log has passed the window", LOG_LIMIT, has_passed)?;
    let text = read();
    drop(pgbench);
    fs::remove_file(&log).map_err(Failure::while_doing(log.display()))?;
    let micros = window(&text, begin, end);
    let seen = seen(&micros, end - begin).ok_or_else(|| Failure::new("nothing was answered"))?;
    Ok((seen, before, after))
}

/// Lets `clients` come in and ask once, and gives what `proxy` uses while they do nothing.
///
/// # Errors
/// When a client cannot come in.
pub fn idle(dir: &Path, port: u16, clients: u32, proxy: &Program) -> Result<Usage> {
    let script = dir.join("idle.sql");
    fs::write(&script, "SELECT 1;\n\\sleep 3600 s\n").map_err(Failure::while_doing(script.display()))?;
    let clients_text = clients.to_string();
    let arguments = ["-n", "-j", "1", "-T", NO_END, "-c", &clients_text, "-f", &script.display().to_string()]
        .map(str::to_owned);
    let mut pgbench = Pgbench::start(dir, port, "app", &arguments)?;
    pgbench.wait_until("every client has come in", BEGIN_LIMIT, || connections(port) >= clients as usize)?;
    std::thread::sleep(IDLE_SETTLE);
    pgbench.wait_until("all of them are there", Duration::ZERO, || connections(port) >= clients as usize)?;
    Ok(proxy.usage())
}

impl Pgbench {
    fn start(dir: &Path, port: u16, database: &str, arguments: &[String]) -> Result<Pgbench> {
        let out = dir.join("pgbench.out");
        let file = fs::File::create(&out).map_err(Failure::while_doing(out.display()))?;
        let copy = file.try_clone().map_err(Failure::while_doing(out.display()))?;
        let mut command = roomy(&postgres::program("pgbench")?);
        command.args(arguments).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "app", database]);
        command.env("PGPASSWORD", PASSWORD).stdin(Stdio::null()).stdout(file).stderr(copy);
        let child = command.spawn().map_err(Failure::while_doing("pgbench"))?;
        Ok(Pgbench { child, out })
    }

    /// # Errors
    /// When it is not so in time, or a client has failed by then.
    fn wait_until(&mut self, what: &str, limit: Duration, is_so: impl Fn() -> bool) -> Result {
        let deadline = Instant::now() + limit;
        loop {
            let is_so = is_so();
            // It complains of what fails, and goes on with the other clients.
            let said = fs::read_to_string(&self.out).unwrap_or_default();
            let has_failed = said.contains("aborted") || said.contains("error:");
            let has_ended = !matches!(self.child.try_wait(), Ok(None));
            if has_failed || has_ended || (!is_so && Instant::now() >= deadline) {
                return Err(Failure::new(format!("waited in vain until {what}; pgbench said:\n{said}")));
            }
            if is_so {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Pgbench {
    fn drop(&mut self) {
        // One that has ended by itself is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Sorted microseconds of the transactions that ended in the window. A line of the log: client, transaction, microseconds,
/// script, and when it ended, in seconds and microseconds.
fn window(log: &str, begin: Duration, end: Duration) -> Vec<u32> {
    let transactions = log.lines().filter_map(transaction);
    let inside = transactions.filter(|(ended, _)| (begin..end).contains(ended));
    let mut times: Vec<u32> = inside.map(|(_, micros)| micros).collect();
    times.sort_unstable();
    times
}

/// When it ended, and its microseconds.
fn transaction(line: &str) -> Option<(Duration, u32)> {
    let mut fields = line.split(' ');
    let micros = fields.nth(2)?.parse().ok()?;
    let seconds = Duration::from_secs(fields.nth(1)?.parse().ok()?);
    Some((seconds + Duration::from_micros(fields.next()?.parse().ok()?), micros))
}

/// When the last transaction ended whose line is whole.
fn last_ended(log: &str) -> Option<Duration> {
    let (whole, _) = log.rsplit_once('\n')?;
    transaction(whole.lines().next_back()?).map(|(ended, _)| ended)
}

fn seen(micros: &[u32], duration: Duration) -> Option<Seen> {
    let percentile =
        |share: usize| micros.get(micros.len() * share / 100).map(|micros| f64::from(*micros) / 1e3);
    Some(Seen {
        transactions: micros.len(),
        rate: micros.len() as f64 / duration.as_secs_f64(),
        p50_ms: percentile(50)?,
        p99_ms: percentile(99)?,
    })
}

/// Connections that are established at a local port (proc(5), /proc/net/tcp).
fn connections(port: u16) -> usize {
    established(&fs::read_to_string("/proc/net/tcp").unwrap_or_default(), port)
}

fn established(text: &str, port: u16) -> usize {
    let local = format!(":{port:04X}");
    let is_ours = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|address| address.ends_with(&local)) && fields.nth(1) == Some("01")
    };
    text.lines().filter(is_ours).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ended_in_the_window_counts() {
        let log = "0 1 900 0 1790000000 500000\n1 1 100 0 1790000001 0\n0 2 300 0 1790000001 999999\n\
                   1 2 50 0 1790000002 0\n";
        let micros = window(log, Duration::from_secs(1_790_000_001), Duration::from_secs(1_790_000_002));
        assert_eq!(micros, [100, 300]);
        let seen = seen(&micros, Duration::from_secs(1)).unwrap();
        assert_eq!((seen.transactions, seen.rate, seen.p50_ms, seen.p99_ms), (2, 2.0, 0.3, 0.3));
    }

    #[test]
    fn half_a_line_at_the_end_of_the_log_is_not_looked_at() {
        assert_eq!(
            last_ended("0 1 900 0 1790000000 500000\n0 2 30"),
            Some(Duration::from_micros(1_790_000_000_500_000))
        );
        assert_eq!(last_ended("0 1 900 0 179"), None);
    }

    #[test]
    fn connections_are_counted_at_their_port_when_they_stand() {
        let table = "  sl  local_address rem_address   st\n   0: 0100007F:1538 00000000:0000 0A\n   \
                     1: 0100007F:1538 0100007F:C001 01\n   2: 0100007F:C001 0100007F:1538 01\n";
        assert_eq!(established(table, 0x1538), 1);
    }
}

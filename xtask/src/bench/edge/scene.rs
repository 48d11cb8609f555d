//! Everything that runs while a case is measured: the backend, the echo server and the peers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::case::{Case, Logging};
use super::clients::{self, Seen};
use super::peer::{self, Peer, Place};
use super::websocket;
use crate::bench::ports;
use crate::bench::processes::{Program, usage_of_all};
use crate::failure::{Failure, Result};
use crate::house;
use crate::http;

const START_LIMIT: Duration = Duration::from_secs(20);
/// Until every peer has seen its backends healthy.
const SETTLE: Duration = Duration::from_millis(500);

/// Until what is buffered for an access log is written.
const LOG_SETTLE: Duration = Duration::from_secs(2);

pub struct Scene {
    peers: Vec<(Peer, Vec<Program>, Ports)>,
    /// Requests made so far that leave a line in an access log each.
    made: Vec<(Peer, u64)>,
    _backend: Program,
    _echo: websocket::Echo,
    dir: PathBuf,
}

#[derive(Clone, Copy)]
struct Ports {
    http1: u16,
    http2: u16,
}

/// One measurement of one peer.
pub struct Run {
    pub seen: Seen,
    pub cpu_micros: f64,
    pub scheduled_micros: f64,
    pub memory_mb: f64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} us/request, {:.0} requests/s", self.cpu_micros, self.seen.rate)
    }
}

impl Scene {
    /// # Errors
    /// When somebody does not start or does not answer.
    pub fn set(switchback: &Path, threads: usize, logging: Logging) -> Result<Scene> {
        let dir = house::target().join(format!("bench-edge-{}", std::process::id()));
        let files = dir.join("files");
        std::fs::create_dir_all(&files).map_err(Failure::while_doing(files.display()))?;
        for (name, size) in [("index.html", 1_024), ("1k", 1_024), ("100k", 100 * 1_024)] {
            std::fs::write(files.join(name), "x".repeat(size)).map_err(Failure::while_doing(name))?;
        }
        let free = ports::free(peer::ALL.len() * 3 + 2)?;
        let backends = [free[free.len() - 2], free[free.len() - 1]];
        let echo = websocket::Echo::start()?;
        let place = |at: usize| Place {
            dir: &dir,
            port: free[at],
            port_h2: free[at + 1],
            metrics: free[at + 2],
            backends,
            echo: echo.port(),
            threads,
            logging,
            switchback,
        };
        let backend = peer::start_backend(&place(0))?;
        http::wait_for_200(&format!("127.0.0.1:{}", backends[0]), START_LIMIT)?;
        let mut peers = Vec::new();
        for (at, peer) in peer::ALL.into_iter().enumerate() {
            let place = place(at * 3);
            let http2 = if peer.tells_http2_by_itself() { place.port } else { place.port_h2 };
            peers.push((peer, peer.start(&place)?, Ports { http1: place.port, http2 }));
            http::wait_for_200(&format!("127.0.0.1:{}", place.port), START_LIMIT).map_err(|failure| {
                Failure::new(format!("{}: {failure}; see {}", peer.name(), dir.display()))
            })?;
        }
        std::thread::sleep(SETTLE);
        let made = peer::ALL.map(|peer| (peer, 0)).to_vec();
        Ok(Scene { peers, made, _backend: backend, _echo: echo, dir })
    }

    /// # Errors
    /// When a request fails: figures of failures say nothing.
    pub fn measure(&mut self, peer: Peer, case: Case, duration: Duration) -> Result<Run> {
        let found = self.peers.iter_mut().find(|(other, ..)| *other == peer);
        let (_, programs, ports) = found.ok_or_else(|| Failure::new("no such peer"))?;
        if programs.iter_mut().any(Program::has_ended) {
            return Err(Failure::new(format!("{} has ended; see {}", peer.name(), self.dir.display())));
        }
        let before = usage_of_all(programs);
        let seen = clients::run(case, ports.http1, ports.http2, duration)?;
        let after = usage_of_all(programs);
        if seen.failed > 0 || seen.requests == 0 {
            return Err(Failure::new(format!(
                "{} failed {} of {} requests of `{}`; see {}",
                peer.name(),
                seen.failed,
                seen.requests,
                case.name(),
                self.dir.display()
            )));
        }
        // A WebSocket is one request, however much it says.
        if case != Case::WebSocket {
            self.made.iter_mut().filter(|(of, _)| *of == peer).for_each(|(_, made)| *made += seen.requests);
        }
        let per_request = |seconds: f64| seconds * 1e6 / seen.requests as f64;
        Ok(Run {
            cpu_micros: per_request(after.cpu_seconds - before.cpu_seconds),
            scheduled_micros: per_request(after.scheduled_seconds - before.scheduled_seconds),
            memory_mb: after.memory_bytes as f64 / 1024.0 / 1024.0,
            seen,
        })
    }
}

impl Scene {
    /// The share of requests of which a line stands in the access log, in percent. One that writes less has less to
    /// do, and that must be seen.
    pub fn logged(&self) -> Vec<(Peer, f64)> {
        std::thread::sleep(LOG_SETTLE);
        let lines = |peer: Peer| {
            let bytes = std::fs::read(peer.access_log(&self.dir)).unwrap_or_default();
            bytes.iter().filter(|byte| **byte == b'\n').count()
        };
        let made = self.made.iter().filter(|(_, made)| *made > 0);
        made.map(|(peer, made)| (*peer, lines(*peer) as f64 / *made as f64 * 100.0)).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.peers.clear();
        // What is left of it is in the target folder, where it bothers nobody.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

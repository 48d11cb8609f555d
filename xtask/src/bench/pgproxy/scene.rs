//! Everything that runs while a load is measured: PostgreSQL, its replica, and the proxies.

use std::fmt;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::clients::{self, Call, Seen};
use super::load::{Load, Split};
use super::peer::{Peer, Place};
use super::postgres::{self, PASSWORD, Postgres};
use crate::bench::ports;
use crate::bench::processes::Program;
use crate::failure::{Failure, Result};

const START_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

// Stopped in this order.
pub struct Scene {
    peers: Vec<Standing>,
    replica: Option<Postgres>,
    primary: Postgres,
    dir: Folder,
}

struct Standing {
    peer: Peer,
    program: Option<Program>,
    port: u16,
}

/// Removed when dropped.
struct Folder(PathBuf);

/// One measurement of one peer.
pub struct Run {
    pub seen: Seen,
    /// None where there is no proxy.
    pub cpu_micros: Option<f64>,
    pub scheduled_micros: Option<f64>,
    pub memory_mb: Option<f64>,
    /// Of all transactions, in percent.
    pub on_replica: Option<f64>,
}

/// What a proxy needs for clients that do nothing.
pub struct Idle {
    pub peer: Peer,
    pub clients: u32,
    pub at_rest_mb: f64,
    pub per_thousand_mb: f64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = &self.seen;
        write!(f, "{:.0} transactions/s, p50 {:.3} ms", seen.rate, seen.p50_ms)?;
        self.cpu_micros.map_or(Ok(()), |cpu| write!(f, ", {cpu:.1} us/query"))
    }
}

impl Scene {
    /// # Errors
    /// When somebody does not start or does not answer.
    pub fn set(switchback: &Path, split: Split, peers: &[Peer]) -> Result<Scene> {
        // Sockets live in it, so its name must be short; and PostgreSQL's user must get there.
        let dir =
            Folder::create(std::env::temp_dir().join(format!("switchback-bench-{}", std::process::id())))?;
        let free = ports::free(2 + 2 * peers.len())?;
        eprintln!("    making PostgreSQL, {}", split.title());
        let primary = Postgres::create(&dir.0, free[0])?;
        let replica = match split {
            Split::Off => None,
            Split::On => Some(primary.replica(&dir.0, free[1])?),
        };
        let mut standing = Vec::new();
        for (at, &peer) in peers.iter().enumerate() {
            let (port, pcp_port) = (free[2 + 2 * at], free[3 + 2 * at]);
            let place = Place {
                dir: &dir.0,
                port,
                pcp_port,
                primary: &primary,
                replica: replica.as_ref(),
                switchback,
            };
            let program = peer.start(&place)?;
            let port = if peer == Peer::Direct { primary.port() } else { port };
            let mut standing_one = Standing { peer, program, port };
            standing_one.wait_until_it_answers(&dir.0)?;
            standing.push(standing_one);
        }
        Ok(Scene { peers: standing, replica, primary, dir })
    }

    /// What proxies that have just started need, and what each idle client adds.
    ///
    /// # Errors
    /// When clients cannot come in.
    pub fn idle(&self, peer: Peer) -> Result<Option<Idle>> {
        let standing = self.standing(peer)?;
        let Some(program) = &standing.program else { return Ok(None) };
        let mb = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        let clients = peer.idle_clients();
        let at_rest_mb = mb(program.usage().memory_bytes);
        let held_mb = mb(clients::idle(&self.dir.0, standing.port, clients, program)?.memory_bytes);
        let per_thousand_mb = (held_mb - at_rest_mb) / f64::from(clients) * 1e3;
        Ok(Some(Idle { peer, clients, at_rest_mb, per_thousand_mb }))
    }

    /// # Errors
    /// When a transaction fails: figures of failures say nothing.
    pub fn measure(&mut self, peer: Peer, load: Load, clients: u32, duration: Duration) -> Result<Run> {
        if load == Load::TpcB {
            self.primary.tidy()?;
        }
        let before = self.transactions()?;
        let standing = self.standing(peer)?;
        let call = Call {
            port: standing.port,
            database: peer.database(load),
            load,
            clients,
            duration,
            dir: &self.dir.0,
        };
        let measured = clients::run(&call, standing.program.as_ref());
        let (seen, used_before, used) = measured.map_err(|failure| {
            Failure::new(format!("{} with {clients} clients of `{}`: {failure}", peer.name(), load.name()))
        })?;
        let after = self.transactions()?;
        let queries = seen.transactions as f64 * f64::from(load.queries());
        let is_proxy = standing.program.is_some();
        let figure = |figure: f64| is_proxy.then_some(figure);
        Ok(Run {
            cpu_micros: figure((used.cpu_seconds - used_before.cpu_seconds) * 1e6 / queries),
            scheduled_micros: figure(
                (used.scheduled_seconds - used_before.scheduled_seconds) * 1e6 / queries,
            ),
            memory_mb: figure(used.memory_bytes as f64 / 1024.0 / 1024.0),
            on_replica: share(before, after).filter(|_| is_proxy),
            seen,
        })
    }

    /// Of primary and replica, where there is one.
    fn transactions(&self) -> Result<Option<(f64, f64)>> {
        let Some(replica) = &self.replica else { return Ok(None) };
        Ok(Some((self.primary.transactions()?, replica.transactions()?)))
    }

    fn standing(&self, peer: Peer) -> Result<&Standing> {
        let found = self.peers.iter().find(|standing| standing.peer == peer);
        found.ok_or_else(|| Failure::new(format!("{} was not started", peer.name())))
    }
}

fn share(before: Option<(f64, f64)>, after: Option<(f64, f64)>) -> Option<f64> {
    let ((primary_before, replica_before), (primary, replica)) = before.zip(after)?;
    let (primary, replica) = (primary - primary_before, replica - replica_before);
    Some(replica / (primary + replica) * 100.0)
}

impl Standing {
    fn wait_until_it_answers(&mut self, dir: &Path) -> Result {
        let url = format!("postgres://app:{PASSWORD}@127.0.0.1:{}/app", self.port);
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let mut psql = Command::new(postgres::program("psql")?);
            let asked = psql.args(["-XAtqc", "select 1", &url]).stdin(Stdio::null()).output();
            let asked = asked.map_err(Failure::while_doing("psql"))?;
            if asked.status.success() {
                return Ok(());
            }
            if self.program.as_mut().is_some_and(Program::has_ended) || Instant::now() > deadline {
                let log = dir.join(format!("{}.out", self.peer.name()));
                return Err(Failure::new(format!(
                    "{} does not answer: {}\n{}",
                    self.peer.name(),
                    String::from_utf8_lossy(&asked.stderr),
                    std::fs::read_to_string(log).unwrap_or_default()
                )));
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Folder {
    fn create(path: PathBuf) -> Result<Folder> {
        std::fs::create_dir(&path).map_err(Failure::while_doing(path.display()))?;
        let folder = Folder(path);
        if let Some((uid, gid)) = postgres::unprivileged()? {
            chown(&folder.0, Some(uid), Some(gid)).map_err(Failure::while_doing(folder.0.display()))?;
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is in the folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

//! Those who are measured: how each is configured and started. And nobody, which is what they are compared with.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::load::{Load, Split};
use super::postgres::{self, PASSWORD, Postgres};
use crate::bench::machine;
use crate::bench::processes::Program;
use crate::failure::{Failure, Result};
use crate::house;
use crate::shell;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// No proxy at all.
    Direct,
    Switchback,
    PgBouncer,
    Pgpool,
}

pub const ALL: [Peer; 4] = [Peer::Direct, Peer::Switchback, Peer::PgBouncer, Peer::Pgpool];
pub const PROXIES: [Peer; 3] = [Peer::Switchback, Peer::PgBouncer, Peer::Pgpool];

/// Connections to one PostgreSQL, for those who share them.
pub const POOL: u32 = 20;
/// Clients at once, for those who need a process or a connection to PostgreSQL for each.
pub const SESSIONS: u32 = 220;
/// Clients at once, for the others.
const MAX_CLIENTS: u32 = 2_000;
/// More files than clients; what the shell gives is often less.
const ROOM: &str = "ulimit -n 4096 2> /dev/null; exec \"$0\" \"$@\"";

/// Ports and files of one peer.
pub struct Place<'a> {
    pub dir: &'a Path,
    pub port: u16,
    pub pcp_port: u16,
    pub primary: &'a Postgres,
    pub replica: Option<&'a Postgres>,
    /// The `switchback` whose proxy is measured.
    pub switchback: &'a Path,
}

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Peer::Direct => "direct",
            Peer::Switchback => "switchback",
            Peer::PgBouncer => "PgBouncer",
            Peer::Pgpool => "pgpool-II",
        }
    }

    /// What it says of itself.
    pub fn version(self, switchback: &Path) -> String {
        match self {
            Peer::Direct => match postgres::program("postgres") {
                Ok(program) => machine::said(Command::new(program).arg("--version")),
                Err(_) => "no PostgreSQL".to_owned(),
            },
            Peer::Switchback => machine::said(Command::new(switchback).arg("--version")),
            Peer::PgBouncer => machine::said(Command::new(program("pgbouncer")).arg("--version")),
            Peer::Pgpool => machine::said(Command::new(program("pgpool")).arg("--version")),
        }
    }

    /// Whether it is measured with such a cluster: PgBouncer cannot tell reads from writes. Nobody is there for comparison.
    pub fn can(self, split: Split) -> bool {
        split == Split::Off || self != Peer::PgBouncer
    }

    /// The database to ask for. PgBouncer knows prepared statements only where a client keeps its connection.
    pub fn database(self, load: Load) -> &'static str {
        match (self, load) {
            (Peer::PgBouncer, Load::Prepared) => "app_session",
            _ => "app",
        }
    }

    /// How many clients it is given to hold that do nothing. pgpool-II has a process and a connection for each.
    pub fn idle_clients(self) -> u32 {
        match self {
            Peer::Pgpool => 200,
            _ => 1_000,
        }
    }

    /// `None` for nobody.
    ///
    /// # Errors
    /// When it cannot be configured or started.
    pub fn start(self, place: &Place<'_>) -> Result<Option<Program>> {
        let log = place.dir.join(format!("{}.out", self.name()));
        let mut command = match self {
            Peer::Direct => return Ok(None),
            Peer::Switchback => {
                let config = configure("switchback.json", place)?;
                let login = format!(r#"{{"app":{{"role":"app","password":"{PASSWORD}"}},"database":"app"}}"#);
                write(&place.dir.join("credentials.json"), &login)?;
                let mut command = roomy(place.switchback);
                command.arg("pgproxy").arg("--config").arg(config);
                command
            }
            Peer::PgBouncer => {
                let config = configure("pgbouncer.ini", place)?;
                // With the secret as PostgreSQL has it neither side needs to derive anything from a password.
                let sql = "select rolpassword from pg_authid where rolname = 'app'";
                let secret = place.primary.sql("postgres", sql)?;
                write(&place.dir.join("userlist.txt"), &format!("\"app\" \"{secret}\"\n"))?;
                let mut command = unprivileged(&program("pgbouncer"))?;
                command.arg(config);
                command
            }
            Peer::Pgpool => {
                let (config, hba) = (configure("pgpool.conf", place)?, configure("pool_hba.conf", place)?);
                write(&place.dir.join("pool_passwd"), &format!("app:TEXT{PASSWORD}\n"))?;
                write(&place.dir.join("pcp.conf"), "")?;
                let mut command = unprivileged(&program("pgpool"))?;
                command.arg("-n").arg("-D").arg("-f").arg(config).arg("-a").arg(hba);
                command.arg("-F").arg(place.dir.join("pcp.conf"));
                command
            }
        };
        Program::start(command.stdin(Stdio::null()), &log).map(Some)
    }
}

/// Runs `program` with room for many connections.
pub fn roomy(program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", ROOM]).arg(program);
    command
}

fn unprivileged(program: &Path) -> Result<Command> {
    let mut command = roomy(program);
    if let Some((uid, gid)) = postgres::unprivileged()? {
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

/// Fills in a file of `bench/pgproxy/` and gives the path of the result.
fn configure(name: &str, place: &Place<'_>) -> Result<PathBuf> {
    let source = house::root().join("bench/pgproxy").join(format!("{name}.in"));
    let mut text = std::fs::read_to_string(&source).map_err(Failure::while_doing(source.display()))?;
    let replica_node = place.replica.map(|replica| {
        let (folder, port) = (replica.folder().display(), replica.port());
        match name {
            "switchback.json" => format!(
                ",\n        \"db.2\": {{ \"role\": \"read_replica\", \"upstream\": {{ \"unix\": \
                 \"{folder}/.s.PGSQL.{port}\" }} }}"
            ),
            _ => format!(
                "backend_hostname1 = '{folder}'\nbackend_port1 = {port}\nbackend_weight1 = 1\n\
                 backend_flag1 = 'DISALLOW_TO_FAILOVER'"
            ),
        }
    });
    let has_replica = place.replica.is_some();
    let values = [
        ("DIR", place.dir.display().to_string()),
        ("PORT", place.port.to_string()),
        ("PCP_PORT", place.pcp_port.to_string()),
        ("PRIMARY", place.primary.folder().display().to_string()),
        ("PG_PORT", place.primary.port().to_string()),
        ("POOL", POOL.to_string()),
        ("SESSIONS", SESSIONS.to_string()),
        ("MAX_CLIENTS", MAX_CLIENTS.to_string()),
        ("REPLICA_NODE", replica_node.unwrap_or_default()),
        ("BALANCE", if has_replica { "on" } else { "off" }.to_owned()),
        // Where there is a replica, reads are its work.
        ("PRIMARY_WEIGHT", if has_replica { "0" } else { "1" }.to_owned()),
    ];
    for (key, value) in &values {
        text = text.replace(&format!("@{key}@"), value);
    }
    let path = place.dir.join(name);
    write(&path, &text)?;
    Ok(path)
}

fn write(path: &Path, text: &str) -> Result {
    std::fs::write(path, text).map_err(Failure::while_doing(path.display()))
}

fn program(name: &str) -> PathBuf {
    shell::find(name).unwrap_or_else(|| name.into())
}

//! The PostgreSQL behind all of them, and its replica.
//!
//! Both write without fsync: what a disk takes is not what is measured, and would hide it.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bench::processes::Program;
use crate::failure::{Failure, Result};
use crate::setup;
use crate::shell;

pub const PASSWORD: &str = "correct-horse";
/// The superuser comes without a password over its socket, the app does not.
const HBA: &str = "local all postgres trust\nlocal replication postgres trust\nlocal all all scram-sha-256\n\
                   host all all 127.0.0.1/32 scram-sha-256\n";
/// pgbench's accounts, by 100,000.
const SCALE: &str = "10";
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Stopped when dropped.
pub struct Postgres {
    _program: Program,
    folder: PathBuf,
    port: u16,
}

impl Postgres {
    /// A new cluster with the role and database `app`, and pgbench's tables in it.
    ///
    /// # Errors
    /// When it cannot be made or started.
    pub fn create(dir: &Path, port: u16) -> Result<Postgres> {
        let folder = own_folder(dir, "primary")?;
        let options =
            ["-D", "data", "-U", "postgres", "--auth=trust", "--no-sync", "--locale=C", "-E", "UTF8"];
        shell::read(command("initdb", &folder)?.args(options))?;
        std::fs::write(folder.join("data/pg_hba.conf"), HBA).map_err(Failure::while_doing("pg_hba.conf"))?;
        let postgres = Postgres::start(folder, port)?;
        postgres.sql("postgres", &format!("create role app login password '{PASSWORD}'"))?;
        postgres.sql("postgres", "create database app owner app")?;
        let mut init = postgres.client("pgbench", "app")?;
        shell::read(init.args(["-i", "-q", "-s", SCALE]).env("PGPASSWORD", PASSWORD))?;
        postgres.sql("app", "vacuum analyze")?;
        Ok(postgres)
    }

    /// A streaming replica of this one.
    ///
    /// # Errors
    /// When it cannot be made or started.
    pub fn replica(&self, dir: &Path, port: u16) -> Result<Postgres> {
        let folder = own_folder(dir, "replica")?;
        let mut copy = command("pg_basebackup", &folder)?;
        copy.args(["-D", "data", "-R", "-X", "stream", "-c", "fast", "--no-sync", "-U", "postgres"]);
        shell::read(copy.arg("-h").arg(&self.folder).args(["-p", &self.port.to_string()]))?;
        Postgres::start(folder, port)
    }

    fn start(folder: PathBuf, port: u16) -> Result<Postgres> {
        let mut server = command("postgres", &folder)?;
        server.args(["-D", "data", "-p", &port.to_string(), "-k"]).arg(&folder);
        for setting in [
            "listen_addresses=127.0.0.1",
            "max_connections=600",
            "shared_buffers=512MB",
            "fsync=off",
            "max_wal_size=8GB",
            "checkpoint_timeout=1h",
            "autovacuum=off",
        ] {
            server.args(["-c", setting]);
        }
        let program = Program::start(server.stdin(Stdio::null()), &folder.join("log"))?;
        let mut postgres = Postgres { _program: program, folder, port };
        let deadline = Instant::now() + START_LIMIT;
        while let Err(failure) = postgres.sql("postgres", "select 1") {
            if postgres._program.has_ended() || Instant::now() > deadline {
                let log = std::fs::read_to_string(postgres.folder.join("log")).unwrap_or_default();
                return Err(Failure::new(format!("PostgreSQL does not start: {failure}\n{log}")));
            }
            std::thread::sleep(POLL);
        }
        Ok(postgres)
    }

    /// As the superuser.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = self.client("psql", "postgres")?;
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, "-d", database]);
        Ok(shell::read(&mut psql)?.trim_end().to_owned())
    }

    /// What pgbench does before it begins, so that a round finds what the one before has found.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub fn tidy(&self) -> Result {
        for sql in ["vacuum pgbench_branches", "vacuum pgbench_tellers", "truncate pgbench_history"] {
            self.sql("app", sql)?;
        }
        Ok(())
    }

    /// Transactions in the app's database so far. Backends tell it some time later.
    ///
    /// # Errors
    /// Those of PostgreSQL.
    pub fn transactions(&self) -> Result<f64> {
        let told = self.sql("postgres", "select xact_commit from pg_stat_database where datname = 'app'")?;
        told.parse().map_err(Failure::while_doing("pg_stat_database"))
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A program that comes over the socket.
    fn client(&self, name: &str, role: &str) -> Result<Command> {
        let mut client = Command::new(program(name)?);
        client.arg("-h").arg(&self.folder).args(["-p", &self.port.to_string(), "-U", role]);
        if name == "pgbench" {
            client.env("PGDATABASE", role);
        }
        Ok(client)
    }
}

/// One of PostgreSQL's programs, of the newest version there is.
///
/// # Errors
/// When there is none.
pub fn program(name: &str) -> Result<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let majors = installed.filter_map(|major| {
        let program = major.path().join("bin").join(name);
        Some((major.file_name().to_str()?.parse::<u32>().ok()?, program)).filter(|(_, path)| path.is_file())
    });
    let newest = majors.max().map(|(_, path)| path).or_else(|| shell::find(name));
    newest
        .ok_or_else(|| Failure::new(format!("there is no `{name}`: install PostgreSQL's server and clients")))
}

/// PostgreSQL and PgBouncer refuse to run as root; then they run as this user.
///
/// # Errors
/// When there is no such user.
pub fn unprivileged() -> Result<Option<(u32, u32)>> {
    if !setup::is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(Failure::while_doing("/etc/passwd"))?;
    let ids = |line: &str| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = passwd.lines().find_map(ids);
    found.map(Some).ok_or_else(|| Failure::new("there is no user `postgres` for PostgreSQL to run as"))
}

/// Runs in `folder`, and as the user that may.
fn command(name: &str, folder: &Path) -> Result<Command> {
    let mut command = Command::new(program(name)?);
    if let Some((uid, gid)) = unprivileged()? {
        command.uid(uid).gid(gid);
    }
    command.current_dir(folder);
    Ok(command)
}

fn own_folder(dir: &Path, name: &str) -> Result<PathBuf> {
    let folder = dir.join(name);
    std::fs::create_dir(&folder).map_err(Failure::while_doing(folder.display()))?;
    if let Some((uid, gid)) = unprivileged()? {
        chown(&folder, Some(uid), Some(gid)).map_err(Failure::while_doing(folder.display()))?;
    }
    Ok(folder)
}

//! A PostgreSQL of its own for one test, on a Unix socket in a temporary folder, so that no port can be taken.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A running cluster; it is stopped and deleted when dropped.
pub struct Cluster {
    folder: PathBuf,
    programs: PathBuf,
    owner: Option<(u32, u32)>,
}

impl Cluster {
    /// Creates and starts one.
    pub fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("frontpage-{}-{number}", std::process::id());
        let cluster = Self { folder: std::env::temp_dir().join(name), programs: programs(), owner: owner() };
        std::fs::create_dir(&cluster.folder).unwrap();
        if let Some((user, group)) = cluster.owner {
            chown(&cluster.folder, Some(user), Some(group)).unwrap();
        }
        let folder = cluster.folder.join("data");
        let mut initdb = cluster.command("initdb");
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "--pgdata"]);
        run(initdb.arg(folder));
        cluster.resume();
        cluster
    }

    /// Starts it again after [`Cluster::stop`], and waits until it accepts connections.
    pub fn resume(&self) {
        let options = format!("-c listen_addresses='' -c fsync=off -k {}", self.folder.display());
        let mut start = self.command("pg_ctl");
        start.args(["start", "--wait", "--silent", "--options", &options, "--pgdata"]);
        run(start.arg(self.folder.join("data")).arg("--log").arg(self.folder.join("log")));
    }

    /// Stops it; every connection breaks.
    pub fn stop(&mut self) {
        let mut stop = self.command("pg_ctl");
        run(stop
            .args(["stop", "--wait", "--silent", "--mode=fast", "--pgdata"])
            .arg(self.folder.join("data")));
    }

    /// The value for `DATABASE_URL`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@/postgres?host={}", self.folder.display())
    }

    /// Runs the release command.
    pub fn migrate(&self) {
        run(&mut self.migration());
    }

    /// The release command, to be run.
    pub fn migration(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_frontpage"));
        command.arg("migrate").env("DATABASE_URL", self.url()).stdout(Stdio::null());
        command
    }

    /// What PostgreSQL's own client prints, rows on lines, columns separated by `|`.
    pub fn psql(&self, sql: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--username=postgres", "--host"]);
        let psql =
            psql.arg(&self.folder).args(["--command", sql]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir("/").stdout(Stdio::null());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = self.command("pg_ctl");
        stop.args(["stop", "--wait", "--silent", "--mode=immediate", "--pgdata"]);
        // It may be stopped already, and a failing test should report its own reason.
        let _ = stop.arg(self.folder.join("data")).stderr(Stdio::null()).status();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// The folder with PostgreSQL's programs: the newest version of a Debian-like system, or wherever `PATH` has them.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| {
            let number = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin")))
        })
        .collect();
    found.sort();
    let newest = found.pop().map(|(_, folder)| folder);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = newest.into_iter().chain(std::env::split_paths(&path));
    folders
        .find(|folder| folder.join("initdb").exists())
        .expect("these tests need PostgreSQL: install it, or put initdb and pg_ctl on PATH")
}

/// PostgreSQL refuses to run as root: then it runs as the user `postgres`.
fn owner() -> Option<(u32, u32)> {
    let me = std::fs::metadata(Path::new("/proc/self")).unwrap();
    if std::os::unix::fs::MetadataExt::uid(&me) != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<&str> = line.expect("as root, these tests need a user `postgres`").split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

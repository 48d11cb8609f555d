//! A real PostgreSQL on a Unix socket in a temporary folder, with an app's role and database.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// After a crash it recovers first.
const START_LIMIT: Duration = Duration::from_secs(60);
pub const PASSWORD: &str = "correct horse";
const INITDB: [&str; 9] =
    ["-D", "data", "-U", "postgres", "--auth=trust", "--no-sync", "--locale=C", "-E", "UTF8"];
/// The superuser comes without a password, the app does not.
const HBA: &str = "local all postgres trust\nlocal replication postgres trust\nlocal all all scram-sha-256\n";

pub struct Cluster {
    folder: TempDir,
    postmaster: Option<Child>,
}

/// The newest installed PostgreSQL.
pub fn bin() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = installed
        .filter_map(|major| {
            Some((major.file_name().to_str()?.parse::<u32>().ok()?, major.path().join("bin")))
        })
        .max();
    newest.expect("these tests need PostgreSQL: apt-get install postgresql").1
}

/// PostgreSQL refuses to run as root; then it runs as the owner of the folder.
fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(bin().join(program));
    let owner = folder.metadata().unwrap();
    if owner.uid() != std::fs::metadata("/proc/self").unwrap().uid() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn unprivileged_owner() -> Option<(u32, u32)> {
    let me = std::fs::metadata("/proc/self").unwrap().uid();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    (me == 0).then(|| ids("postgres").or_else(|| ids("nobody")).expect("an unprivileged user"))
}

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    if let Some((uid, gid)) = unprivileged_owner() {
        chown(folder.path(), Some(uid), Some(gid)).unwrap();
    }
    folder
}

/// What gives the app its role and its database.
fn app() -> [String; 2] {
    [format!("create role app login password '{PASSWORD}'"), "create database app owner app".to_owned()]
}

/// The data of a cluster that was made once, and stopped: to make it takes longer than most tests do.
fn template() -> PathBuf {
    let version = Command::new(bin().join("postgres")).arg("--version").output().unwrap().stdout;
    let owner = unprivileged_owner();
    let mut hasher = DefaultHasher::new();
    (version, owner, INITDB, HBA, app()).hash(&mut hasher);
    let tests = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let template = tests.join(format!("cluster-{:016x}", hasher.finish()));
    if !template.exists() {
        let beside = TempDir::new_in(tests).unwrap();
        let made = beside.path().join("data");
        copy(&Cluster::make().folder.path().join("data"), &made);
        // Of several that make it at the same time one is the first.
        if let Err(error) = std::fs::rename(made, &template) {
            assert!(template.exists(), "{}: {error}", template.display());
        }
    }
    template
}

/// With owners and modes, without which PostgreSQL refuses it.
fn copy(data: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--reflink=auto"]).args([data, to]).status().unwrap();
    assert!(status.success(), "{} cannot be copied to {}", data.display(), to.display());
}

impl Cluster {
    /// A running cluster with the role and database `app`.
    pub fn create() -> Cluster {
        let folder = folder();
        copy(&template(), &folder.path().join("data"));
        let mut cluster = Cluster { folder, postmaster: None };
        std::fs::write(cluster.credentials(), credentials()).unwrap();
        cluster.start();
        cluster
    }

    /// One that has just been made, and does not run.
    fn make() -> Cluster {
        let folder = folder();
        let status = command("initdb", folder.path()).args(INITDB).status().unwrap();
        assert!(status.success(), "initdb failed");
        std::fs::write(folder.path().join("data/pg_hba.conf"), HBA).unwrap();
        let mut cluster = Cluster { folder, postmaster: None };
        cluster.start();
        app().iter().for_each(|statement| drop(cluster.sql(statement)));
        cluster.stop();
        cluster
    }

    /// A running standby of this cluster.
    pub fn standby(&self) -> Cluster {
        let folder = folder();
        let status = command("pg_basebackup", folder.path())
            .args([
                "-D",
                "data",
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "--no-sync",
                "-U",
                "postgres",
                "-p",
                "5432",
            ])
            .arg("-h")
            .arg(self.folder.path())
            .status()
            .unwrap();
        assert!(status.success(), "pg_basebackup failed");
        let mut cluster = Cluster { folder, postmaster: None };
        std::fs::write(cluster.credentials(), credentials()).unwrap();
        cluster.start();
        cluster
    }

    /// Returns when it answers.
    pub fn start(&mut self) {
        let socket_dir = self.folder.path().display().to_string();
        let mut postgres = command("postgres", self.folder.path());
        postgres.args(["-D", "data", "-c", "listen_addresses=", "-c", "port=5432", "-c", "fsync=off"]);
        postgres.args(["-c", "wal_retrieve_retry_interval=100ms", "-c", "max_connections=50", "-k"]);
        postgres.arg(socket_dir);
        self.postmaster = Some(postgres.spawn().unwrap());
        let deadline = Instant::now() + START_LIMIT;
        while !self.psql("select 1").status.success() {
            assert!(Instant::now() < deadline, "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A fast shutdown, as an operator's restart does it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.postmaster.take() {
            signal("-INT", child.id());
            child.wait().unwrap();
        }
    }

    pub fn postmaster(&self) -> u32 {
        self.postmaster.as_ref().expect("it runs").id()
    }

    /// To all processes.
    pub fn signal(&self, name: &str) {
        let Some(postmaster) = &self.postmaster else { return };
        let children = format!("/proc/{0}/task/{0}/children", postmaster.id());
        let children = std::fs::read_to_string(children).unwrap();
        signal(name, postmaster.id());
        for pid in children.split_whitespace() {
            signal(name, pid.parse().unwrap());
        }
    }

    /// All processes at once, as a machine dies.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.postmaster.take() {
            let children = format!("/proc/{0}/task/{0}/children", child.id());
            let backends = std::fs::read_to_string(children).unwrap();
            child.kill().unwrap();
            for pid in backends.split_whitespace() {
                signal("-KILL", pid.parse().unwrap());
            }
            child.wait().unwrap();
        }
    }

    /// Dies and comes back.
    pub async fn crash(mut self) -> Cluster {
        let crash = tokio::task::spawn_blocking(move || {
            self.kill();
            self.start();
            self
        });
        crash.await.unwrap()
    }

    pub fn promote(&self) {
        self.sql("select pg_promote(true)");
    }

    /// By which a standby follows this one.
    pub fn conninfo(&self) -> String {
        format!("host={} port=5432 user=postgres", self.folder.path().display())
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    pub fn credentials(&self) -> PathBuf {
        self.folder.path().join("credentials.json")
    }

    /// As the superuser in the app's database or, while that is not there, in its own.
    pub fn sql(&self, sql: &str) -> String {
        let output = self.psql(sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn psql(&self, sql: &str) -> std::process::Output {
        let database = if self.credentials().exists() { "app" } else { "postgres" };
        let mut psql = Command::new(bin().join("psql"));
        psql.args(["-U", "postgres", "-p", "5432", "-XAtqc", sql, "-d", database, "-h"]);
        psql.arg(self.folder.path()).output().unwrap()
    }
}

fn credentials() -> String {
    format!(
        r#"{{"superuser":{{"role":"postgres","password":"unused"}},
            "app":{{"role":"app","password":"{PASSWORD}"}},"database":"app"}}"#
    )
}

pub fn signal(signal: &str, pid: u32) {
    // One that is gone already is as good.
    Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status().unwrap();
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

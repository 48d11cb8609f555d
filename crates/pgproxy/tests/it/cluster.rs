//! A real PostgreSQL on a Unix socket in a temporary folder.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

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
    command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
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

impl Cluster {
    /// A cluster that is not started yet.
    pub fn create() -> Cluster {
        let folder = TempDir::new().unwrap();
        if let Some((uid, gid)) = unprivileged_owner() {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let status = command("initdb", folder.path())
            .args(["-D", "data", "-U", "postgres", "--auth=trust", "--no-sync", "--locale=C"])
            .status()
            .unwrap();
        assert!(status.success(), "initdb failed");
        Cluster { folder, postmaster: None }
    }

    pub fn start(&mut self) {
        let socket_dir = self.folder.path().display().to_string();
        let child = command("postgres", self.folder.path())
            .args(["-D", "data", "-c", "listen_addresses=", "-c", "port=5432", "-c", "fsync=off", "-k"])
            .arg(socket_dir)
            .spawn()
            .unwrap();
        self.postmaster = Some(child);
    }

    /// A fast shutdown, as an operator's restart does it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.postmaster.take() {
            let pid = child.id().to_string();
            Command::new("kill").args(["-INT", &pid]).status().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

//! A real PostgreSQL, from nothing to the app's database, and through the accidents of its life.

mod changing_primary;
mod making;
mod running;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use model::{ByteSize, Size};
use tokio::time::Instant;

use super::*;
use crate::engines::{Packages, PostgresEngine, Search};

struct Node {
    folder: tempfile::TempDir,
    engine: PostgresEngine,
    paths: NodePaths,
    credentials: Credentials,
    owner: Owner,
    postmaster: Option<Child>,
}

fn installed() -> PostgresEngine {
    let search = Search {
        folder: "/nowhere".into(),
        cache: "/nowhere".into(),
        bin_dirs: fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .map(|major| major.unwrap().path().join("bin"))
            .collect(),
        path: std::env::var_os("PATH"),
        packages: Packages::Never,
    };
    search.find(&|_| {}).expect("these tests need PostgreSQL: apt-get install postgresql")
}

fn small() -> Settings {
    let size = Size { cpu: None, memory: Some(ByteSize::from_bytes(256 * ByteSize::MB)) };
    memory_settings(&size, ByteSize::from_bytes(ByteSize::GB), 2)
}

fn alone() -> Membership {
    Membership::alone(&"db.1".parse().unwrap())
}

impl Node {
    fn new() -> Node {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let root = folder.path().join("data/postgres/db.1");
        Node {
            engine: installed(),
            paths: NodePaths::new(&root, &folder.path().join("sockets"), 5432).unwrap(),
            credentials: Credentials::generate("shop").unwrap(),
            owner: choose_owner().unwrap().0,
            folder,
            postmaster: None,
        }
    }

    async fn init(&self) -> Result<InitReport, PostgresError> {
        init(&self.engine, &self.paths, &self.credentials, &self.owner, &|_| {}).await
    }

    async fn made() -> Node {
        let node = Node::new();
        node.init().await.unwrap();
        write_config(&node.paths, &node.engine.version, &small(), &alone(), &Archiving::Off).unwrap();
        node
    }

    async fn running() -> Node {
        let mut node = Node::made().await;
        node.start();
        node.ready().await;
        node
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap()
    }

    fn start(&mut self) {
        let launch = command_line(&self.engine, &self.paths, &self.owner);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(&launch.argv[0]);
        command.args(&launch.argv[1..]).env_clear().envs(&launch.env).current_dir(&launch.cwd);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        if let Some(user) = &launch.user {
            command.uid(user.uid).gid(user.gid);
        }
        self.postmaster = Some(command.spawn().unwrap());
    }

    /// How long that took.
    async fn ready(&self) -> Duration {
        let began = Instant::now();
        let deadline = began + Duration::from_secs(60);
        match wait_ready(&self.paths, &self.credentials, deadline, &|_| {}).await {
            Ok(version) => assert_eq!(Readiness::Ready(version), self.serves()),
            Err(error) => panic!("{error}\n{}", self.log_text()),
        }
        began.elapsed()
    }

    fn serves(&self) -> Readiness {
        Readiness::Ready(Some(self.engine.version.clone()))
    }

    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "not within a minute: {what}\n{}", self.log_text());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.postmaster.as_ref().unwrap())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    fn reap(&mut self) {
        self.postmaster.take().unwrap().wait().unwrap();
    }

    fn end(&mut self, signal: rustix::process::Signal) {
        self.signal(signal);
        self.reap();
    }

    /// As a power loss would end it: nothing of it is left afterwards, and the next start has its way made, as its keeper does.
    async fn crash(&mut self) {
        self.end(rustix::process::Signal::KILL);
        self.until("nothing is left of it", || processes_in(&self.paths.pgdata()).unwrap().is_empty()).await;
        clear_stale_lock(&self.paths).await.unwrap();
    }

    async fn app(&self) -> tokio_postgres::Client {
        ready::connect(&self.paths, &self.credentials.app, &self.credentials.database).await.unwrap()
    }

    async fn ask(&self, query: &str) -> String {
        let client = ready::connect(&self.paths, &self.credentials.superuser, "postgres").await.unwrap();
        client.query_one(query, &[]).await.unwrap().get(0)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.postmaster {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(child),
                Stop::Immediate.signal(),
            );
            let _ = child.wait();
        }
    }
}

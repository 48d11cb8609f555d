//! A real PostgreSQL, from nothing to the app's database, and through the accidents of its life.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use model::{ByteSize, Lsn, Promotion, Size};
use tokio::time::Instant;

use super::*;
use crate::backup::SEGMENT_BYTES;
use crate::engines::{Packages, PostgresEngine, Search};
use crate::user::{Identity, give_tree_to, running_as_root};

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

/// What a machine without PostgreSQL gets: the distribution's packages, downloaded and unpacked by nobody in particular.
#[tokio::test]
async fn one_that_was_unpacked_from_the_distributions_packages_serves() {
    let cache = tempfile::tempdir().unwrap();
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tried = Command::new("apt-get").args(["download", "libpq5"]).current_dir(cache.path()).output();
    match tried {
        Ok(tried) if tried.status.success() => {}
        Ok(tried) => {
            eprintln!("skipped: `apt-get download` fails: {}", String::from_utf8_lossy(&tried.stderr).trim());
            return;
        }
        Err(error) => {
            eprintln!("skipped: there is no apt-get: {error}");
            return;
        }
    }
    let search = Search {
        folder: "/nowhere".into(),
        cache: cache.path().into(),
        bin_dirs: Vec::new(),
        path: Some("/usr/bin:/bin".into()),
        packages: Packages::Fetch,
    };
    let mut node = Node::new();
    node.engine = search.find(&|_| {}).unwrap();
    assert!(node.engine.bin_dir.starts_with(cache.path()), "{:?}", node.engine);
    node.init().await.unwrap();
    write_config(&node.paths, &node.engine.version, &small(), &alone(), &Archiving::Off).unwrap();
    node.start();
    node.ready().await;
    let said = node.ask("SELECT version()").await;
    assert!(said.contains(&format!("PostgreSQL {}", node.engine.version)), "{said}");
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

#[tokio::test]
async fn a_node_goes_from_nothing_to_the_apps_database() {
    let mut node = Node::new();
    let InitReport::Made { took } = node.init().await.unwrap() else { panic!("there was nothing") };
    write_config(&node.paths, &node.engine.version, &small(), &alone(), &Archiving::Off).unwrap();
    node.start();
    let started = node.ready().await;
    let began = Instant::now();
    assert_eq!(provision(&node.paths, &node.credentials).await.unwrap(), Provisioned::Created);
    println!("initdb {took:?}, start {started:?}, provision {:?}", began.elapsed());

    let app = node.app().await;
    app.batch_execute("CREATE TABLE links (id int); CREATE EXTENSION citext").await.unwrap();
    assert_eq!(node.ask("SHOW data_checksums").await, "on");
    assert_eq!(node.ask("SHOW fsync").await, "on");
    assert_eq!(node.ask("SHOW listen_addresses").await, "");
    assert_eq!(node.ask("SHOW shared_buffers").await, "64MB");
    assert_eq!(node.ask("SHOW server_encoding").await, "UTF8");
    let refused = "SELECT count(*)::text FROM pg_file_settings WHERE error IS NOT NULL";
    assert_eq!(node.ask(refused).await, "0", "a setting is refused");
}

#[tokio::test]
async fn making_a_database_leaves_no_failure_in_its_log() {
    let node = Node::running().await;
    provision(&node.paths, &node.credentials).await.unwrap();
    let log = node.log_text();
    assert!(log.contains("ready to accept connections"), "{log}");
    for failure in ["FATAL", "ERROR"] {
        assert!(!log.contains(failure), "{log}");
    }
}

#[tokio::test]
async fn provisioning_twice_is_harmless_and_mends_what_is_half_done() {
    let mut node = Node::running().await;
    provision(&node.paths, &node.credentials).await.unwrap();
    node.app().await.batch_execute("CREATE TABLE kept (id int)").await.unwrap();
    assert_eq!(provision(&node.paths, &node.credentials).await.unwrap(), Provisioned::Already);

    // As after a crash between the role and its password: the file knows another one.
    node.credentials.app.password = Credentials::generate("shop").unwrap().app.password;
    assert_eq!(provision(&node.paths, &node.credentials).await.unwrap(), Provisioned::Created);
    node.app().await.query("SELECT * FROM kept", &[]).await.unwrap();
}

#[tokio::test]
async fn passwords_stand_nowhere_but_in_the_credentials() {
    let node = Node::running().await;
    provision(&node.paths, &node.credentials).await.unwrap();
    let proc = PathBuf::from(format!("/proc/{}", node.pid().as_raw_nonzero()));
    let mut seen = node.log_text();
    for file in ["cmdline", "environ"] {
        seen.push_str(&String::from_utf8_lossy(&fs::read(proc.join(file)).unwrap()));
    }
    for entry in fs::read_dir(node.paths.conf()).unwrap().chain(fs::read_dir(node.paths.root()).unwrap()) {
        seen.push_str(&fs::read_to_string(entry.unwrap().path()).unwrap_or_default());
    }
    assert!(!seen.contains(&node.credentials.app.password));
    assert!(!seen.contains(&node.credentials.superuser.password));
}

#[tokio::test]
async fn somebody_without_the_password_is_refused() {
    let node = Node::running().await;
    let mut stranger = node.credentials.clone();
    stranger.superuser.password = "guess".to_owned();
    let refused = probe(&node.paths, &stranger).await.unwrap_err();
    assert!(
        matches!(&refused, PostgresError::Refused { sqlstate, .. } if sqlstate == "28P01"),
        "{refused:?}"
    );
}

/// The promise that matters most.
#[tokio::test]
async fn an_existing_cluster_is_never_touched() {
    let node = Node::made().await;
    let control = node.paths.pgdata().join("global/pg_control");
    let before = fs::read(&control).unwrap();
    assert_eq!(node.init().await.unwrap(), InitReport::Existed);
    assert_eq!(fs::read(&control).unwrap(), before);

    fs::write(node.paths.pgdata().join("PG_VERSION"), "9.6\n").unwrap();
    let error = node.init().await.unwrap_err();
    assert!(matches!(&error, PostgresError::OtherMajor { data, .. } if data == "9.6"), "{error:?}");
    assert!(
        error.to_string().contains("9.6") && error.to_string().contains(&node.engine.version.to_string())
    );
    assert_eq!(fs::read(&control).unwrap(), before);
}

#[tokio::test]
async fn a_cluster_half_made_by_a_crash_is_made_anew() {
    let node = Node::new();
    let partial = node.paths.root().join("pgdata.partial");
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("PG_VERSION"), "15\n").unwrap();
    fs::write(node.paths.root().join("initdb.password"), "old").unwrap();
    let said = std::sync::Mutex::new(Vec::new());
    let progress = |step| said.lock().unwrap().push(step);
    init(&node.engine, &node.paths, &node.credentials, &node.owner, &progress).await.unwrap();
    assert_eq!(said.into_inner().unwrap()[0], InitProgress::RemovingPartial);
    assert!(node.paths.has_cluster());
    assert!(!partial.exists());
    assert!(!node.paths.root().join("initdb.password").exists());
}

#[tokio::test]
async fn an_interrupted_initdb_leaves_no_cluster_and_no_obstacle() {
    let node = Node::new();
    let begun = async {
        // The first of the folders that the bootstrap fills.
        while !node.paths.partial().join("PG_VERSION").exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = node.init() => panic!("it was not interrupted"),
        () = begun => {}
    }
    assert!(!node.paths.has_cluster());
    node.init().await.unwrap();
    assert!(node.paths.has_cluster());
}

#[tokio::test]
async fn a_lock_file_of_a_crash_is_no_obstacle_even_when_its_pid_lives_again() {
    let mut node = Node::running().await;
    node.end(rustix::process::Signal::KILL);
    clear_stale_lock(&node.paths).await.unwrap();
    node.start();
    node.ready().await;
    node.end(Stop::Immediate.signal());

    // Somebody of the same user now has the pid: PostgreSQL alone would refuse to start for ever.
    let mut command = Command::new("sleep");
    if let Some(user) = node.owner.identity() {
        command.uid(user.uid).gid(user.gid);
    }
    let mut somebody = command.arg("600").spawn().unwrap();
    let lock = node.paths.pgdata().join("postmaster.pid");
    fs::write(&lock, format!("{}\n{}\n1\n5432\n", somebody.id(), node.paths.pgdata().display())).unwrap();
    clear_stale_lock(&node.paths).await.unwrap();
    node.start();
    node.ready().await;
    somebody.kill().unwrap();
    somebody.wait().unwrap();
    node.end(Stop::Immediate.signal());

    // As a power loss leaves it.
    for lock in [lock, node.paths.socket_lock()] {
        fs::write(lock, "").unwrap();
    }
    clear_stale_lock(&node.paths).await.unwrap();
    node.start();
    node.ready().await;
}

#[tokio::test]
async fn a_living_server_keeps_its_lock_file() {
    let node = Node::running().await;
    let refused = clear_stale_lock(&node.paths).await.unwrap_err();
    let pid = node.postmaster.as_ref().unwrap().id();
    assert!(
        matches!(refused, PostgresError::AlreadyRunning { pid: found, .. } if found == pid),
        "{refused:?}"
    );
    assert!(node.paths.pgdata().join("postmaster.pid").exists());
    assert_eq!(probe(&node.paths, &node.credentials).await.unwrap(), node.serves());
}

#[tokio::test]
async fn a_reload_applies_what_needs_no_restart() {
    let node = Node::running().await;
    let mut settings = small();
    settings.work_mem = ByteSize::from_bytes(9 * ByteSize::MB);
    assert_eq!(small().change_to(&settings), Change::Reload);
    write_config(&node.paths, &node.engine.version, &settings, &alone(), &Archiving::Off).unwrap();
    reload(node.pid()).unwrap();
    while node.ask("SHOW work_mem").await != "9MB" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_failed_start_says_why_and_what_to_do() {
    let mut node = Node::made().await;
    let diagnosed = |node: &mut Node| {
        node.start();
        node.reap();
        let error = diagnose("postgres", &node.log_text(), &node.paths.pgdata(), "postgres");
        fs::remove_file(node.log()).unwrap();
        error
    };

    fs::write(node.paths.pgdata().join("PG_VERSION"), "14\n").unwrap();
    let error = diagnosed(&mut node);
    assert!(matches!(error, PostgresError::OtherMajor { .. }), "{error:?}");
    fs::write(node.paths.pgdata().join("PG_VERSION"), format!("{}\n", node.engine.version.major())).unwrap();

    fs::write(node.paths.conf().join("managed.conf"), "no_such_setting = 1\n").unwrap();
    let error = diagnosed(&mut node);
    assert!(matches!(error, PostgresError::Settings { .. }), "{error:?}");
    write_config(&node.paths, &node.engine.version, &small(), &alone(), &Archiving::Off).unwrap();

    fs::set_permissions(node.paths.pgdata(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = diagnosed(&mut node);
    assert!(matches!(error, PostgresError::WrongOwner { .. }), "{error:?}");
    fs::set_permissions(node.paths.pgdata(), fs::Permissions::from_mode(0o700)).unwrap();

    let control = node.paths.pgdata().join("global/pg_control");
    fs::rename(&control, control.with_extension("away")).unwrap();
    let error = diagnosed(&mut node);
    assert!(matches!(error, PostgresError::Damaged { .. }), "{error:?}");
}

/// All of its sessions say that commits wait, and they do not.
#[tokio::test]
async fn commits_are_proved_to_wait_only_once_the_checkpointer_has_read_that_they_do() {
    use rustix::process::{Pid, Signal, kill_process};

    let node = Node::running().await;
    let session = Session::open(&node.paths, &node.credentials).await.unwrap();
    let (names, nobody) = ([member_name(&"db.2".parse().unwrap())], []);
    let in_force = async |names: &[String]| prove_in_force(&session, &node.paths, names).await;
    in_force(&nobody).await.unwrap();
    assert!(in_force(&names).await.is_err(), "nobody was told so");

    let living = processes_in(&node.paths.pgdata()).unwrap();
    let checkpointer = living.iter().find(|process| process.title.contains("checkpointer")).unwrap();
    let checkpointer = Pid::from_raw(i32::try_from(checkpointer.pid).unwrap()).unwrap();
    kill_process(checkpointer, Signal::STOP).unwrap();
    let place = Place::Primary { confirmed_by: names.to_vec() };
    let membership = Membership { place, ..alone() };
    write_config(&node.paths, &node.engine.version, &small(), &membership, &Archiving::Off).unwrap();
    reload(node.pid()).unwrap();
    let refused = loop {
        let refused = in_force(&names).await.unwrap_err();
        if !refused.contains("is still") {
            break refused;
        }
    };
    assert!(refused.contains("stopped"), "{refused}");
    assert_eq!(node.ask("SHOW synchronous_standby_names").await, standby_names(&names));
    let client = ready::connect(&node.paths, &node.credentials.superuser, "postgres").await.unwrap();
    client.batch_execute("CREATE TABLE acknowledged ()").await.unwrap();

    kill_process(checkpointer, Signal::CONT).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(reason) = in_force(&names).await {
        assert!(Instant::now() < deadline, "{reason}");
    }
    let waits = async {
        let query = "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        while node.ask(query).await != "1" {}
    };
    tokio::select! {
        _ = client.batch_execute("CREATE TABLE not_acknowledged ()") => panic!("nobody has confirmed it"),
        () = waits => {}
    }
}

/// A second node on the same socket: told apart before it is started.
#[tokio::test]
async fn a_socket_in_use_by_another_data_directory_is_left_alone() {
    let node = Node::running().await;
    let other = NodePaths::new(&node.folder.path().join("other"), node.paths.socket_dir(), 5432).unwrap();
    fs::create_dir_all(other.pgdata()).unwrap();
    let refused = clear_stale_lock(&other).await.unwrap_err();
    assert!(matches!(refused, PostgresError::SocketInUse { .. }), "{refused:?}");
    assert_eq!(probe(&node.paths, &node.credentials).await.unwrap(), node.serves());
}

#[tokio::test]
async fn a_folder_that_postgres_cannot_reach_is_named() {
    if !running_as_root() {
        eprintln!("skipped: PostgreSQL runs as ourselves");
        return;
    }
    let node = Node::new();
    fs::set_permissions(node.folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let error = node.init().await.unwrap_err();
    let PostgresError::Permission { blocked_by, .. } = &error else { panic!("{error:?}") };
    assert_eq!(blocked_by.as_deref(), Some(node.folder.path()));
    assert!(error.hint().contains("chmod o+x"));
}

#[tokio::test]
async fn a_cluster_of_another_user_is_refused_before_it_is_started() {
    if !running_as_root() {
        eprintln!("skipped: only root may give files away");
        return;
    }
    let node = Node::made().await;
    give_tree_to(&node.paths.pgdata(), &Identity::by_uid(3_999_999).unwrap()).unwrap();
    let error = node.init().await.unwrap_err();
    assert!(matches!(error, PostgresError::WrongOwner { .. }), "{error:?}");
    assert_eq!(node.paths.pgdata().metadata().unwrap().uid(), 3_999_999);
}

/// What tells a transaction that the lost primary has left from one that the new primary has begun. Others may be quick.
#[tokio::test]
async fn a_promotion_tells_the_first_id_of_the_new_primary_whoever_is_given_it() {
    let mut node = Node::running().await;
    for _ in 0..10 {
        node.ask("SELECT pg_current_xact_id()::text").await;
    }
    node.end(Stop::Fast.signal());
    fs::write(node.paths.pgdata().join("standby.signal"), "").unwrap();
    node.start();
    node.ready().await;
    let known: u64 = node.ask("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").await.parse().unwrap();
    let given = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_xact_id()::text END";
    let mut others = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let other = ready::connect(&node.paths, &node.credentials.superuser, "postgres").await.unwrap();
        others.spawn(async move {
            loop {
                let xid: Option<String> = other.query_one(given, &[]).await.unwrap().get(0);
                if let Some(xid) = xid {
                    return xid.parse::<u64>().unwrap();
                }
            }
        });
    }
    let session = Session::open(&node.paths, &node.credentials).await.unwrap();
    let promotion = session.promote().await.unwrap().unwrap();
    let lowest = others.join_all().await.into_iter().min().unwrap();
    assert_eq!(promotion, Promotion { timeline: 2, first_xid: known });
    assert!(known <= lowest, "{known} {lowest}");
    assert_eq!(session.promote().await.unwrap(), None, "it has begun already");
}

/// What decides over a failover where a primary of an older minor does not come up again.
#[tokio::test]
async fn a_control_file_tells_whether_a_server_that_was_started_came_to_serve() {
    let mut node = Node::running().await;
    let control = |node: &Node| ControlFile::read(&node.paths).unwrap();
    let whole = fs::read_to_string(node.paths.conf().join("managed.conf")).unwrap();
    let recoveries = |node: &Node| node.log_text().matches("redo done").count();
    let mut rows = 300_000;
    let crashed = loop {
        // For a recovery that lasts.
        let client = ready::connect(&node.paths, &node.credentials.superuser, "postgres").await.unwrap();
        let made = format!("CREATE TABLE links_{rows} AS SELECT id FROM generate_series(1, {rows}) id");
        client.batch_execute(&made).await.unwrap();
        node.crash().await;
        let crashed = control(&node);

        // It ends before it has read any data.
        fs::write(node.paths.conf().join("managed.conf"), "no_such_setting = 1\n").unwrap();
        node.start();
        node.reap();
        assert!(control(&node).never_served_since(&crashed));

        // It ends while it recovers. One that had recovered before it could be ended gets more to recover.
        fs::write(node.paths.conf().join("managed.conf"), &whole).unwrap();
        let before = recoveries(&node);
        node.start();
        node.until("it recovers", || control(&node) != crashed).await;
        node.crash().await;
        if recoveries(&node) == before {
            break crashed;
        }
        assert!(rows < 10_000_000, "it is too fast for this test");
        rows *= 3;
        node.start();
        node.ready().await;
    };
    assert!(control(&node).never_served_since(&crashed));

    // It serves, and is lost at once.
    node.start();
    node.ready().await;
    node.crash().await;
    assert!(!control(&node).never_served_since(&crashed));

    // The same after a shutdown in order, which leaves nothing to recover.
    node.start();
    node.ready().await;
    node.end(Stop::Fast.signal());
    let shut_down = control(&node);
    node.start();
    node.ready().await;
    node.crash().await;
    assert!(!control(&node).never_served_since(&shut_down));
}

/// Where the log is stored, a shutdown writes what is free of a segment.
#[tokio::test]
async fn a_segment_is_filled_up_to_where_it_was_asked_for_and_nobody_gets_an_id() {
    let mut node = Node::running().await;
    let next_id = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
    let before = node.ask(next_id).await;
    let session = Session::open(&node.paths, &node.credentials).await.unwrap();
    let until = SEGMENT_BYTES / 16 * 14;
    let mut filled = Lsn(0);
    while let Some(end) = session.fill_segment(until).await.unwrap() {
        assert!(end > filled, "{end:?} {filled:?}");
        filled = end;
    }
    let used = filled.0 % SEGMENT_BYTES;
    assert!(used >= until && used < SEGMENT_BYTES, "{used}");
    assert_eq!(node.ask(next_id).await, before);

    node.end(Stop::Fast.signal());
    let end = shut_down_at(&node.engine, &node.paths, &node.owner).await.unwrap().unwrap();
    let segment = |lsn: Lsn| lsn.0 / SEGMENT_BYTES;
    assert_eq!(
        segment(end),
        segment(filled) + 1,
        "its last checkpoint is the first thing in the next segment"
    );
}

#[tokio::test]
async fn a_session_leaves_what_it_has_read_of_the_apps_catalogues_for_the_next() {
    let mut node = Node::running().await;
    provision(&node.paths, &node.credentials).await.unwrap();
    let oid = node.ask("SELECT oid::text FROM pg_database WHERE datname = 'shop'").await;
    let file = node.paths.pgdata().join("base").join(oid).join("pg_internal.init");
    node.end(Stop::Fast.signal());
    node.start();
    node.ready().await;
    assert!(!file.exists(), "a start begins anew");
    warm_up(&node.paths, &node.credentials).await.unwrap();
    assert!(file.exists());
}

/// Where a copy ends for lack of space for as long as what it replaces is there, as on a disk that is more than half full.
fn with_no_room_for_two(engine: &PostgresEngine, folder: &Path) -> PostgresEngine {
    let bin_dir = folder.join("bin");
    fs::create_dir(&bin_dir).unwrap();
    let script = format!(
        "#!/bin/sh\n\
         if [ -e ../pgdata.discarded ]; then echo 'No space left on device' >&2; exit 1; fi\n\
         exec '{}' \"$@\"\n",
        engine.program("pg_basebackup").display()
    );
    fs::write(bin_dir.join("pg_basebackup"), script).unwrap();
    fs::set_permissions(bin_dir.join("pg_basebackup"), fs::Permissions::from_mode(0o755)).unwrap();
    PostgresEngine { bin_dir, ..engine.clone() }
}

#[tokio::test]
async fn a_follower_whose_disk_has_no_room_for_two_copies_is_copied_anew() {
    let node = Node::running().await;
    let engine = with_no_room_for_two(&node.engine, node.folder.path());
    let id = "db.2".parse().unwrap();
    let session = Session::open(&node.paths, &node.credentials).await.unwrap();
    session.keep_slots(&"db".parse().unwrap(), &[member_name(&id)]).await.unwrap();
    let root = node.folder.path().join("data/postgres/db.2");
    let paths = NodePaths::new(&root, node.paths.socket_dir(), 5433).unwrap();
    let copied = async |need| {
        let port = node.paths.port();
        // The session of a copy that has failed may still have the slot.
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match follow(&engine, &id, &paths, &node.credentials, &node.owner, port, need).await {
                Ok(followed) => return followed,
                Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
            }
        }
    };
    assert_eq!(copied(Need::Nothing).await, Followed::Copied);
    assert_eq!(copied(Need::Copy).await, Followed::Copied);
    assert!(!root.join("pgdata.discarded").exists());

    // Whoever copied it before was killed, or found no room either.
    fs::rename(paths.pgdata(), root.join("pgdata.discarded")).unwrap();
    assert_eq!(copied(Need::Nothing).await, Followed::Copied);
    assert!(paths.standby_signal().exists() && !root.join("pgdata.discarded").exists());
}

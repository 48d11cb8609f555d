//! From nothing to the app's database, and what is there already.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::user::{Identity, give_tree_to, running_as_root};

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

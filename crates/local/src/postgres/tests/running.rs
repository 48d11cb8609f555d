//! Starts, and what stands in their way.

use super::*;

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

#[tokio::test]
async fn a_postmaster_that_does_nothing_about_a_new_connection_is_silent_and_one_that_is_slow_is_not() {
    use rustix::process::Signal;

    const LIMIT: Duration = Duration::from_millis(300);
    let node = Node::running().await;
    let pid = u32::try_from(node.pid().as_raw_nonzero().get()).unwrap();
    let is_silent = async || is_silent(&node.paths, pid, LIMIT).await;
    assert!(!is_silent().await);

    // Nobody gets in while somebody has locked whom to let in, and that is no fault of the server's.
    let client = ready::connect(&node.paths, &node.credentials.superuser, "postgres").await.unwrap();
    client.batch_execute("BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let asked = ready::connect(&node.paths, &node.credentials.superuser, "postgres");
    assert!(tokio::time::timeout(LIMIT, asked).await.is_err(), "somebody was let in");
    assert!(!is_silent().await);
    client.batch_execute("ROLLBACK").await.unwrap();

    // Whoever is in is served all the time.
    node.signal(Signal::STOP);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_silent().await {
        // It hears of the signal when it is given a processor.
        assert!(Instant::now() < deadline, "it is stopped, and not silent");
        tokio::time::sleep(LIMIT / 10).await;
    }
    client.simple_query("SELECT 1").await.unwrap();
    // No other client finds a place to wait any more.
    let mut waiting = Vec::new();
    while let Ok(socket) = tokio::net::UnixStream::connect(node.paths.socket()).await {
        waiting.push(socket);
    }
    assert!(is_silent().await, "with {} clients that wait", waiting.len());
    drop(waiting);
    node.signal(Signal::CONT);
    while is_silent().await {}
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

//! What a change of primary stands on, and a follower.

use std::path::Path;

use model::{Lsn, Promotion};

use super::*;
use crate::backup::SEGMENT_BYTES;

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

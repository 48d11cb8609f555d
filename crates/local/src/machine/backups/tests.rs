use std::path::Path;

use jiff::Timestamp;
use model::{AppName, ByteSize, DatabaseNode, Lsn, NodeId, RecoveryTarget, Size, Zone};
use plan::{Action, Interruption, Plan, Step};
use tempfile::TempDir;

use super::*;
use crate::backup::{Archive, BaseBackup, Catalog, SEGMENT_BYTES};
use crate::cgroup::Cgroups;
use crate::machine::{ApplyError, Event, Report};
use crate::output::Logs;
use crate::paths::StateDir;
use crate::postgres::Owner;
use crate::process::{BaseEnv, Processes};
use crate::setup::Setup;
use crate::store::{Direction, Journal, Store, World};

/// Where nothing runs.
fn machine(root: &Path, journal: Option<&Journal>) -> Machine {
    let state = StateDir::open(&root.join("state")).unwrap();
    let world = World { running: true, ..World::default() };
    Store::open(&state.database()).unwrap().commit(&world, journal).unwrap();
    let cgroups = Cgroups::none("test", "switched off by the test");
    let setup = Setup {
        app: AppName::new("shop").unwrap(),
        app_dir: root.to_owned(),
        cache_dir: root.join("cache"),
        program: root.join("switchback"),
        processes: Processes::new(state.run(), cgroups, BaseEnv::default()),
        logs: Logs::at(state.logs()),
        state,
        build_env: BTreeMap::new(),
        cores: 1,
        memory: ByteSize::from_bytes(1 << 30),
    };
    Machine::open(setup, None).unwrap()
}

/// With one copy that ends in segment 1, and these segments.
fn archive(folder: &TempDir, data_bytes: u64, segments: &[u32]) -> Archive {
    let archive = Archive::at(&folder.path().join("db-1"));
    archive.make(&Owner::Ourselves).unwrap();
    let catalog = Catalog::of(&archive);
    std::fs::create_dir(catalog.partial(1)).unwrap();
    let at = Timestamp::from_second(1_000).unwrap();
    let backup = BaseBackup {
        number: 1,
        began: at,
        ended: at,
        timeline: 1,
        start: Lsn(SEGMENT_BYTES),
        stop: Lsn(SEGMENT_BYTES + 400),
        postgres: "15.4".to_owned(),
        data_bytes,
        stored_bytes: 1,
        proof: None,
        refuted: None,
    };
    catalog.admit(&backup).unwrap();
    for number in segments {
        std::fs::write(archive.wal().join(format!("0000000100000000{number:08X}.zst")), "").unwrap();
    }
    archive
}

#[tokio::test]
async fn a_restore_of_everything_is_refused_where_the_log_has_a_gap_and_one_to_a_time_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path(), None);
    let holed = archive(&folder, 1, &[1, 2, 4]);
    let refused = machine.begin_of_restore(&holed, Some(1), RecoveryTarget::Latest).await.unwrap_err();
    assert!(refused.reason.contains("000000010000000000000003"), "{refused:?}");
    assert!(refused.hint.unwrap().contains("a moment before it"));
    let before = RecoveryTarget::Time { unix_us: 2_000_000_000 };
    assert_eq!(machine.begin_of_restore(&holed, Some(1), before).await, Ok((1, 1)));
}

#[tokio::test]
async fn a_restore_without_room_for_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path(), None);
    let archive = archive(&folder, u64::MAX, &[1]);
    let refused = machine.begin_of_restore(&archive, Some(1), RecoveryTarget::Latest).await.unwrap_err();
    assert!(refused.reason.contains("no room"), "{refused:?}");
    assert!(refused.hint.unwrap().contains("free some space"));
}

fn interrupted_restore() -> Journal {
    let node = DatabaseNode {
        id: NodeId::new(ResourceId::new("db").unwrap(), 2),
        zone: Zone::new("a").unwrap(),
        port: 5_433,
        size: Size::UNLIMITED,
        database: "shop".to_owned(),
    };
    let action =
        Action::PrepareRestore { node, backup: 1, timeline: 1, to: RecoveryTarget::Latest, from: None };
    let plan = Plan {
        id: "0123456789abcdef".to_owned(),
        app: AppName::new("shop").unwrap(),
        parent: 0,
        changes: Vec::new(),
        steps: vec![Step { action, interruption: Interruption::None }],
    };
    Journal { plan, direction: Direction::Forward, cursor: 0 }
}

/// Retention could delete the copy that it reads.
#[tokio::test(start_paused = true)]
async fn a_restore_that_is_taken_up_again_waits_for_its_turn_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path(), Some(&interrupted_restore()));
    let steps: Arc<Mutex<Vec<bool>>> = Arc::default();
    let report: Report = {
        let (machine, steps) = (machine.clone(), Arc::clone(&steps));
        Arc::new(move |event| {
            if let Event::Started { .. } = event {
                steps.lock().unwrap().push(machine.backup_turn().is_err());
            }
        })
    };
    let held = machine.hold_backups().await.unwrap();
    let resumed = machine.resume(&report);
    tokio::pin!(resumed);
    timeout(Duration::from_secs(60), &mut resumed).await.expect_err("it does not wait");
    assert!(steps.lock().unwrap().is_empty());
    drop(held);
    // There is no database of that name.
    let ended = resumed.await.unwrap();
    assert!(matches!(ended, Err(ApplyError::RolledBack { .. })), "{ended:?}");
    assert_eq!(*steps.lock().unwrap(), [true], "its turn while it is carried out");
    assert!(machine.backup_turn().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_finds_no_turn_stays_to_be_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path(), Some(&interrupted_restore()));
    let report: Report = Arc::new(|_| {});
    let held = machine.hold_backups().await.unwrap();
    let ended = machine.resume(&report).await.unwrap();
    assert!(matches!(ended, Err(ApplyError::BackupUnderWay(_))), "{ended:?}");
    drop(held);
    assert!(machine.resume(&report).await.is_some());
}

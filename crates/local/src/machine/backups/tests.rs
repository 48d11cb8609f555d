use std::path::Path;

use jiff::Timestamp;
use model::{AppName, ByteSize, Lsn, RecoveryTarget};
use tempfile::TempDir;

use super::*;
use crate::backup::{Archive, BaseBackup, Catalog, SEGMENT_BYTES};
use crate::cgroup::Cgroups;
use crate::output::Logs;
use crate::paths::StateDir;
use crate::postgres::Owner;
use crate::process::{BaseEnv, Processes};
use crate::setup::Setup;
use crate::store::{Journal, Store, World};

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

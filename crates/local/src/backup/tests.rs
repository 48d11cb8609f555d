use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use model::Lsn;
use tempfile::TempDir;

use super::*;

const SEGMENT: &str = "0000000100000002000000A7";

fn archive() -> (TempDir, Archive) {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::at(&folder.path().join("db-1"));
    fs::create_dir_all(archive.wal()).unwrap();
    fs::create_dir_all(archive.base()).unwrap();
    (folder, archive)
}

/// A file of the log as PostgreSQL has it, in a folder of its own.
fn wal_file(folder: &TempDir, node: &str, name: &str, content: &[u8]) -> PathBuf {
    let pg_wal = folder.path().join(node);
    fs::create_dir_all(&pg_wal).unwrap();
    fs::write(pg_wal.join(name), content).unwrap();
    pg_wal.join(name)
}

fn backup(number: u32, timeline: u32, start: u64) -> BaseBackup {
    let at = Timestamp::from_second(i64::from(number) * 1_000).unwrap();
    BaseBackup {
        number,
        began: at,
        ended: at,
        timeline,
        start: Lsn(start * SEGMENT_BYTES + 40),
        stop: Lsn(start * SEGMENT_BYTES + 400),
        postgres: "15.4".to_owned(),
        data_bytes: 1,
        stored_bytes: 1,
        proof: None,
        refuted: None,
    }
}

fn proven(backup: BaseBackup) -> BaseBackup {
    let proof = Proof { at: backup.ended, took_ms: 1, tables: 1, compared: 1, rows: 1 };
    BaseBackup { proof: Some(proof), ..backup }
}

fn refuted(backup: BaseBackup) -> BaseBackup {
    BaseBackup { refuted: Some("it is damaged".to_owned()), ..backup }
}

fn segment(timeline: u32, number: u64) -> WalName {
    WalName::Segment { timeline, number }
}

#[test]
fn every_name_of_the_log_is_read_and_written_the_same() {
    for name in [
        SEGMENT,
        "0000000100000002000000A7.partial",
        "0000000100000002000000A7.00000028.backup",
        "0000000A.history",
    ] {
        assert_eq!(name.parse::<WalName>().unwrap().to_string(), name);
    }
    for name in ["", "x", "0000000100000002000001A7", "0000000a.history", "../0000000A.history", "1.history"]
    {
        assert!(name.parse::<WalName>().is_err(), "{name}");
    }
}

#[test]
fn what_is_pushed_is_fetched_byte_for_byte() {
    let (folder, archive) = archive();
    let content: Vec<u8> = (0..SEGMENT_BYTES).map(|n| (n * n % 251) as u8).collect();
    let source = wal_file(&folder, "db.1", SEGMENT, &content);
    assert_eq!(archive.push(&source).unwrap(), Pushed::Stored);
    let to = folder.path().join("fetched");
    assert_eq!(archive.fetch(SEGMENT, &to).unwrap(), Fetched::Got);
    assert!(fs::read(to).unwrap() == content);
    assert_eq!(
        archive.fetch("0000000100000002000000A8", &folder.path().join("x")).unwrap(),
        Fetched::NotThere
    );
    let left: Vec<_> = fs::read_dir(archive.wal()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [format!("{SEGMENT}.zst").as_str()], "nothing partial is left");
}

/// Primary and standby store the same log; after a failover the new primary's is the one that counts.
#[test]
fn the_same_segment_may_be_pushed_twice_and_another_of_its_name_never_replaces_it() {
    let (folder, archive) = archive();
    archive.push(&wal_file(&folder, "db.1", SEGMENT, b"the log")).unwrap();
    let again = wal_file(&folder, "db.2", SEGMENT, b"the log");
    assert_eq!(archive.push(&again).unwrap(), Pushed::AlreadyThere);
    for other in [&b"the LOG"[..], b"the log, and more", b"the"] {
        let refused = archive.push(&wal_file(&folder, "db.3", SEGMENT, other)).unwrap_err();
        assert!(matches!(refused, ArchiveError::Different { .. }), "{refused}");
    }
    let to = folder.path().join("fetched");
    archive.fetch(SEGMENT, &to).unwrap();
    assert_eq!(fs::read(to).unwrap(), b"the log");
}

/// Recovery takes a missing segment for the end of the log. A damaged one is not that.
#[test]
fn a_damaged_segment_is_told_from_a_missing_one() {
    let (folder, archive) = archive();
    archive.push(&wal_file(&folder, "db.1", SEGMENT, &[7; 100_000])).unwrap();
    let stored = archive.wal().join(format!("{SEGMENT}.zst"));
    let mut bytes = fs::read(&stored).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&stored, &bytes).unwrap();
    let to = folder.path().join("fetched");
    assert!(matches!(archive.fetch(SEGMENT, &to), Err(ArchiveError::Damaged { .. })));
    fs::remove_dir_all(archive.wal()).unwrap();
    assert!(matches!(archive.fetch(SEGMENT, &to), Err(ArchiveError::Io { .. })), "the target is away");
}

/// What is taken for damage refutes a copy, and no later look at it takes that back.
#[test]
fn a_full_disk_where_a_segment_is_put_is_no_damage_of_what_is_stored() {
    let (folder, archive) = archive();
    archive.push(&wal_file(&folder, "db.1", SEGMENT, &[7; 100_000])).unwrap();
    let full = archive.fetch(SEGMENT, Path::new("/dev/full"));
    assert!(matches!(full, Err(ArchiveError::Io { .. })), "{full:?}");
}

#[test]
fn a_copy_leads_to_the_timelines_that_left_its_own_after_it() {
    let history = "1\t0/A000110\tno recovery target specified\n\n2\t0/C0000A0\tbefore 2026-01-01\n";
    let lineage = Lineage::read(3, history);
    assert_eq!(position("0/A000110"), Some(Lsn(0xA00_0110)));
    assert!(lineage.continues(&backup(1, 1, 9)));
    assert!(!lineage.continues(&backup(2, 1, 11)), "made after timeline 1 was left");
    assert!(lineage.continues(&backup(3, 2, 11)));
    assert!(lineage.continues(&backup(4, 3, 20)));
    assert!(!lineage.continues(&backup(5, 4, 1)));

    let backups = [backup(1, 1, 9), backup(2, 1, 11), backup(3, 2, 11), backup(4, 3, 20)];
    let chosen = |until_ms| base_for(&backups, &lineage, until_ms).map(|backup| backup.number);
    assert_eq!(chosen(i64::MAX), Some(4));
    assert_eq!(chosen(2_500_000), Some(1), "the second does not lead there");
    assert_eq!(chosen(999_999), None);
}

#[test]
fn a_restore_begins_with_a_copy_that_is_known_to_be_damaged_only_where_there_is_no_other() {
    let lineage = Lineage::read(1, "");
    let chosen = |backups: &[BaseBackup]| base_for(backups, &lineage, i64::MAX).map(|backup| backup.number);
    let (first, second) = (backup(1, 1, 1), backup(2, 1, 2));
    assert_eq!(chosen(&[first.clone(), second.clone()]), Some(2));
    assert_eq!(chosen(&[first.clone(), refuted(second.clone())]), Some(1));
    assert_eq!(chosen(&[refuted(first), refuted(second)]), Some(2));
}

#[test]
fn a_missing_segment_in_the_middle_is_a_gap_and_the_end_of_the_log_is_none() {
    let lineage = Lineage::read(2, "1\t0/A000110\tx\n");
    let whole = [segment(1, 8), segment(1, 9), segment(2, 10), segment(2, 11)];
    assert_eq!(lineage.gap(&backup(1, 1, 8), &whole), None);
    let holed = [segment(1, 8), segment(2, 10), segment(2, 11)];
    assert_eq!(lineage.gap(&backup(1, 1, 8), &holed), Some(segment(1, 9)));
    assert_eq!(lineage.gap(&backup(1, 2, 10), &holed), None);
    let before_the_failover = [segment(1, 7), segment(1, 9)];
    assert_eq!(lineage.gap(&backup(1, 1, 7), &before_the_failover), Some(segment(1, 8)));
}

/// PostgreSQL takes a gap for the end of the log: it would come back without what was committed after it.
#[test]
fn everything_that_is_stored_is_brought_back_from_a_copy_with_whole_log_or_not_at_all() {
    let lineage = Lineage::read(1, "");
    let holed = [segment(1, 1), segment(1, 2), segment(1, 4), segment(1, 5)];
    let chosen = |backups: &[BaseBackup]| {
        base_for_latest(backups, &lineage, &holed).map(|backup| backup.map(|backup| backup.number))
    };
    assert_eq!(chosen(&[]), Ok(None));
    assert_eq!(chosen(&[backup(1, 1, 1)]), Err(segment(1, 3)));
    assert_eq!(chosen(&[backup(1, 1, 1), backup(2, 1, 4)]), Ok(Some(2)));
    let spoiled = [backup(1, 1, 1), refuted(backup(2, 1, 4))];
    assert_eq!(chosen(&spoiled), Ok(Some(2)), "the first does not lead there");
}

/// A copy has the log of the time it was made in.
#[test]
fn log_that_a_copy_has_itself_is_no_gap() {
    let lineage = Lineage::read(1, "");
    let long = BaseBackup { stop: Lsn(3 * SEGMENT_BYTES + 40), ..backup(1, 1, 1) };
    assert_eq!(lineage.gap(&long, &[segment(1, 3), segment(1, 4)]), None);
    assert_eq!(lineage.gap(&long, &[segment(1, 4)]), Some(segment(1, 3)));
}

#[test]
fn retention_keeps_the_newest_copies_the_newest_proven_one_and_the_log_of_all_of_them() {
    let names: Vec<WalName> = (1..=9).map(|number| segment(1, number)).collect();
    let backups = [backup(1, 1, 2), proven(backup(2, 1, 4)), backup(3, 1, 6), backup(4, 1, 8)];
    let excess = excess(&backups, 1, &names);
    assert_eq!(excess.copies, [1, 3]);
    assert_eq!(excess.log, names[..3], "the second still needs segment 4");
}

/// Its file was damaged on the disk since.
#[test]
fn a_copy_that_was_proven_and_is_of_no_use_any_more_is_not_what_retention_relies_on() {
    let damaged = refuted(proven(backup(2, 1, 4)));
    assert!(proven(backup(2, 1, 4)).is_proven() && !damaged.is_proven() && !backup(2, 1, 4).is_proven());
    let deleted = |backups: &[BaseBackup]| excess(backups, 1, &[]).copies;
    assert_eq!(deleted(&[proven(backup(1, 1, 2)), damaged.clone(), backup(3, 1, 6)]), [2]);
    assert_eq!(deleted(&[backup(1, 1, 2), damaged, refuted(backup(3, 1, 6))]), [2], "the first may be whole");
}

/// After a restore to an earlier moment the newest copy begins before the older ones.
#[test]
fn retention_never_deletes_what_the_kept_backups_need() {
    let backups = [backup(1, 1, 8), backup(2, 2, 5)];
    let names =
        [segment(1, 4), segment(1, 5), segment(1, 8), segment(2, 5), WalName::History { timeline: 2 }];
    let excess_of_two = excess(&backups, 2, &names);
    assert_eq!(excess_of_two, Excess { copies: vec![], log: vec![segment(1, 4)] });
    assert_eq!(excess(&[], 2, &names), Excess::default(), "without a copy nothing is deleted");
}

#[test]
fn a_copy_exists_when_its_description_does_and_its_number_is_never_given_again() {
    let (_folder, archive) = archive();
    let catalog = Catalog::of(&archive);
    assert_eq!(catalog.next_number().unwrap(), 1);
    fs::create_dir(catalog.partial(1)).unwrap();
    assert_eq!(catalog.list().unwrap(), []);
    catalog.admit(&backup(1, 1, 1)).unwrap();
    fs::create_dir(catalog.partial(2)).unwrap();
    assert_eq!(catalog.next_number().unwrap(), 3);
    catalog.clear_partials().unwrap();
    let found = proven(backup(1, 1, 1));
    catalog.update(&found).unwrap();
    assert_eq!(catalog.list().unwrap(), [found]);
    catalog.remove(1).unwrap();
    assert_eq!(catalog.list().unwrap(), []);
}

#[test]
fn a_copy_is_due_when_there_is_none_or_it_is_old_or_useless() {
    let day = Duration::from_secs(86_400);
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let copies = [backup(1, 1, 1)];
    let newest = copies.first();
    let hole = segment(1, 2);
    assert_eq!(due(&[], None, None, day, at(0)), Some(Due::First));
    assert_eq!(due(&copies, None, None, day, at(0)), Some(Due::LeadsNowhere));
    assert_eq!(due(&copies, newest, None, day, at(2_000)), None);
    assert_eq!(due(&copies, newest, Some(hole), day, at(2_000)), Some(Due::Gap(hole)));
    assert_eq!(due(&copies, newest, None, day, at(1_000 + 86_400)), Some(Due::Old));
    assert_eq!(due(&copies, newest, None, day, at(990)), None, "a clock that is corrected by seconds");
    assert_eq!(due(&copies, newest, None, day, at(0)), Some(Due::ClockWentBack));
}

#[test]
fn a_copy_of_no_use_is_replaced_after_an_hour_and_once() {
    let (day, hour) = (Duration::from_secs(86_400), 3_600);
    let due = |all: &[BaseBackup], second: i64| {
        due(all, all.last(), None, day, Timestamp::from_second(second).unwrap())
    };
    let spoiled = [backup(1, 1, 1), refuted(backup(2, 1, 2))];
    assert_eq!(due(&spoiled, 2_000 + hour - 1), None);
    assert_eq!(due(&spoiled, 2_000 + hour), Some(Due::Refuted));
    let again = [backup(1, 1, 1), refuted(backup(2, 1, 2)), refuted(backup(3, 1, 3))];
    assert_eq!(due(&again, 3_000 + hour), None, "more of them would push the first out");
    assert_eq!(due(&again, 3_000 + 86_400), Some(Due::Old));
}

#[test]
fn a_link_in_place_of_a_description_is_not_followed() {
    let (folder, archive) = archive();
    let catalog = Catalog::of(&archive);
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    fs::create_dir(catalog.partial(1)).unwrap();
    std::os::unix::fs::symlink(&elsewhere, catalog.partial(1).join("backup.json.partial")).unwrap();
    catalog.admit(&backup(1, 1, 1)).unwrap();
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
    assert_eq!(catalog.list().unwrap(), [backup(1, 1, 1)]);
}

#[test]
fn only_what_copies_have_left_is_removed() {
    let (_folder, archive) = archive();
    let catalog = Catalog::of(&archive);
    for name in ["2.partial", "1.deleted", ".snapshot", "lost.partial", "3.partial.kept"] {
        fs::create_dir(archive.base().join(name)).unwrap();
    }
    fs::write(archive.base().join(".nfs0001"), "").unwrap();
    catalog.clear_partials().unwrap();
    let entries = fs::read_dir(archive.base()).unwrap();
    let mut left: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, [".nfs0001", ".snapshot", "3.partial.kept", "lost.partial"]);
}

#[test]
fn a_timeline_that_has_only_just_begun_is_taken_for_the_newest_known() {
    let (folder, archive) = archive();
    assert_eq!(Lineage::written(&archive, 2).unwrap(), None);
    archive.push(&wal_file(&folder, "node", SEGMENT, b"log")).unwrap();
    assert_eq!(Lineage::written(&archive, 2).unwrap().map(|lineage| lineage.timeline), Some(1));
    archive.push(&wal_file(&folder, "node", "00000003.history", b"1\t0/3000000\tbefore\n")).unwrap();
    let of_the_primary = Lineage::written(&archive, 1).unwrap().unwrap();
    assert_eq!(of_the_primary.timeline, 1, "not the newest that is stored");
}

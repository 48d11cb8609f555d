//! The disk of the state folder is full: the app serves on, changes are refused, and nothing has to be repaired after.

use std::time::Duration;

use local::store::{Store, World};
use testkit::{App, Disk, Load, Mix, Status, Switchback, get, or_skip, request};

use crate::up;

/// Releases are stored only where a gigabyte stays free.
const DISK_MB: u64 = 1_200;

/// `None`, and said, where nothing can be mounted.
fn up_on_a_small_disk(app: App) -> Option<Switchback> {
    or_skip(app.on_a_disk_of(DISK_MB)).map(up)
}

/// Clock ticks of CPU time that a process has used.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    // proc(5): utime and stime are the fields 14 and 15 of all, 11 and 12 after the name.
    after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn on_a_full_disk_the_app_serves_and_changes_are_refused_until_there_is_space() {
    let app = App::guestbook("shop").set("db", "size", "{ memory = \"256MB\" }");
    let Some(mut switchback) = up_on_a_small_disk(app) else { return };
    let sql = |switchback: &Switchback, statement: &str| {
        request("POST", &switchback.url("/sql"), &[], statement.as_bytes()).unwrap()
    };
    assert_eq!(sql(&switchback, "CREATE TABLE visits (name text)").status, 200);
    assert_eq!(sql(&switchback, "INSERT INTO visits VALUES ('ada')").status, 200);
    let load = Load::start(&switchback.url("/"), Mix::both().at_most(200));
    let before = switchback.status();

    switchback.app().disk().unwrap().fill();
    let ticks = cpu_ticks(before.daemon_pid);
    load.wait_for_more(500, Duration::from_secs(30));
    let spun = cpu_ticks(before.daemon_pid) - ticks;
    assert!(spun < 100, "the daemon used {spun} ticks while it could do nothing");
    let full = switchback.status();
    assert!(full.all_ready(), "{:#}", full.raw);
    assert!(switchback.must(&["status"]).stdout.contains("no change is possible: the disk of"));

    let manifest = switchback.app().manifest();
    let stage = switchback.cli(&["stage", "2", "--yes"]);
    assert_eq!(stage.code, Some(3), "{stage:#?}");
    assert!(stage.stderr.contains("free some space"), "{stage:#?}");
    assert_eq!(switchback.app().manifest(), manifest);
    switchback.app_mut().put("version", "2");
    let deploy = switchback.cli(&["deploy"]);
    assert_eq!(deploy.code, Some(1), "{deploy:#?}");
    assert!(deploy.stderr.contains("free some space"), "{deploy:#?}");
    // With nothing to change there is nothing to write.
    switchback.app_mut().put("version", "1");
    switchback.must(&["up", "--detach"]);

    // What crashes meanwhile comes back, the front door and the daemon too.
    for name in ["web.1", "edge"] {
        let old = switchback.status().process(name).clone();
        old.crash();
        switchback.wait_for(&format!("{name} is back"), Duration::from_secs(20), |status| {
            status.all_ready() && status.process(name).pid != old.pid
        });
    }
    switchback.kill_daemon();
    switchback.start_daemon_again();
    load.wait_for_more(200, Duration::from_secs(20));

    switchback.app().disk().unwrap().free();
    switchback.must(&["stage", "2", "--yes"]);
    switchback.app_mut().put("version", "2");
    switchback.must(&["deploy"]);
    let after = switchback.status();
    assert_eq!((after.stage, after.web().len()), (2, 2));
    assert_eq!(sql(&switchback, "SELECT name FROM visits").body.trim(), "ada");
    assert_eq!(sql(&switchback, "INSERT INTO visits VALUES ('bob')").status, 200);
    // The edge was killed under load: what it had in flight is lost with it, and nothing else is.
    let report = load.stop();
    assert!(report.failed <= 12, "{report:?}");
    switchback.down();
}

/// Each node has a disk of its own here, as on machines of their own.
#[test]
fn a_primary_whose_disk_is_full_hands_over_to_a_standby_whose_disk_is_not() {
    let app = App::guestbook("shop").stage(2).set("db", "backups", "\"off\"");
    let Some(app) = or_skip(app.with_a_disk_at("data/postgres/db.1", 400)) else { return };
    let switchback = up(app);
    switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
    let drill = switchback.must(&["drill", "primary-disk-full", "--seconds", "6", "--json"]).json();
    println!("{drill:#}");
    assert_eq!(drill["notes"][0], "db.2 took over");
    let database = &drill["database"];
    assert_eq!((&database["lost"], &database["doubled"]), (&0.into(), &0.into()), "{drill:#}");
    for failure in database["failures"].as_array().unwrap() {
        assert!(failure.as_str().unwrap().contains("No space left on device"), "{drill:#}");
    }
    let status = switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
    assert_eq!(status.primary().name, "db.2");
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    assert!(why.contains("end it: its disk is full"), "{why}");
    switchback.down();
}

#[test]
fn a_disk_that_fills_in_the_middle_of_a_plan_takes_it_back() {
    // Fills the disk once; the next release finds the mark and leaves it alone.
    let release = "test -e ../../../filled || { touch ../../../filled; dd if=/dev/zero of=../../../ballast bs=1M; true; }";
    let Some(mut switchback) = up_on_a_small_disk(App::python("shop")) else { return };
    let load = Load::start(&switchback.url("/"), Mix::both().at_most(200));
    switchback.app_mut().change("web", "release", format!("{release:?}"));
    switchback.app_mut().put("version", "2");
    let deploy = switchback.cli(&["deploy"]);
    assert_eq!(deploy.code, Some(1), "{deploy:#?}");
    assert!(deploy.stderr.contains("Everything was taken back"), "{deploy:#?}");
    assert!(deploy.stderr.contains("free some space"), "{deploy:#?}");
    load.wait_for_more(200, Duration::from_secs(20));
    let full = switchback.status();
    assert!(full.all_ready() && full.web().len() == 1, "{:#}", full.raw);
    assert_eq!(full.raw["plan_in_progress"], false);

    std::fs::remove_file(switchback.app().state_dir().join("ballast")).unwrap();
    switchback.must(&["deploy"]);
    assert_eq!(get(&switchback.url("/")).unwrap().header("x-app-version"), Some("2"));
    load.stop().assert_nothing_failed(400);
    switchback.down();
}

#[test]
fn the_state_file_refuses_what_a_full_disk_cannot_hold_and_takes_it_later() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = or_skip(Disk::mount(folder.path(), 16 << 20)) else { return };
    let store = Store::open(&folder.path().join("state.redb")).unwrap();
    let small = World { generation: 1, ..World::default() };
    store.commit(&small, None).unwrap();
    disk.fill();
    // Larger than all that the file has kept free.
    let zone = model::Zone::new("a").unwrap();
    let mut large = World { generation: 2, ..World::default() };
    large.topology.zones = vec![zone; 1 << 20];
    store.commit(&large, None).unwrap_err();
    assert_eq!(store.world().unwrap(), small);
    disk.free();
    store.commit(&large, None).unwrap();
    assert_eq!(store.world().unwrap().generation, 2);
}

//! A PostgreSQL that is there and does nothing, or that only lets nobody in any more.

use std::time::{Duration, Instant};

use testkit::{App, Status};

use crate::cluster::{first_write, second_stage, whole};
use crate::data::sql;
use crate::up;

/// To be known as hung, killed, and started again: ten seconds of silence, two to end in order, and a recovery.
const RESTART_LIMIT: Duration = Duration::from_secs(40);

/// Nobody else could take over, so it is given more time than where there is a standby.
#[test]
fn a_lone_primary_that_hangs_is_started_again() {
    let switchback = up(App::guestbook("shop"));
    sql(&switchback, "CREATE TABLE visits (id int PRIMARY KEY)");
    sql(&switchback, "INSERT INTO visits VALUES (0)");
    let before = switchback.status();
    before.primary().hang_with_children();
    let hung = Instant::now();
    switchback.wait_for("it is shown not to answer", RESTART_LIMIT, |status| {
        let shown = status.primary();
        shown.state == "unresponsive"
            && shown.reason.as_deref().is_some_and(|why| why.contains("lets nobody in"))
    });
    let after = switchback.wait_for("it was started again", RESTART_LIMIT, |status| {
        status.all_ready() && status.primary().pid != before.primary().pid
    });
    println!("ready again {:?} after SIGSTOP of the only node", hung.elapsed());
    assert_eq!(after.primary().name, before.primary().name);
    first_write(&switchback, Instant::now(), 1);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "2");
    switchback.down();
}

/// Whoever is in is served, the supervisor's own session too: only a new connection shows it.
#[test]
fn a_primary_that_only_lets_nobody_in_is_replaced() {
    let switchback = second_stage();
    let before = switchback.status();
    let old = before.primary();
    old.hang();
    let hung = Instant::now();
    // The other node, or the same one where the machine is so slow that the other did not answer in time.
    switchback.wait_for("another primary serves", RESTART_LIMIT, |status| {
        let primary = status.primary();
        primary.state == "ready" && primary.pid.is_some() && primary.pid != old.pid
    });
    println!("another primary serves {:?} after SIGSTOP of the postmaster", hung.elapsed());
    first_write(&switchback, Instant::now(), 1);
    // It was not its keeper, which is more patient.
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    assert!(why.contains("kill it: it lets nobody in"), "{why}");
    whole(&switchback);
    switchback.down();
}

/// All processors are taken, clients come faster than they can be let in, and for seconds nobody is: it is busy, not hung.
#[test]
fn a_primary_that_is_busy_letting_clients_in_is_not_taken_for_hung() {
    let switchback = up(App::guestbook("shop").stage(2).set("db", "size", "{ cpu = 0.1 }"));
    let before = switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
    let (folder, port) = before.primary().address.rsplit_once("/.s.PGSQL.").unwrap();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                while began.elapsed() < Duration::from_secs(12) {
                    let mut psql = std::process::Command::new("psql");
                    // Refused for want of a password, after a process was started for it.
                    psql.args(["-Xw", "-h", folder, "-p", port, "-U", "postgres", "-c", "SELECT 1"]);
                    assert!(!psql.output().unwrap().status.success());
                }
            });
        }
    });
    let after = switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
    assert_eq!(before.primary().pid, after.primary().pid, "{}", switchback.daemon_log());
    switchback.down();
}

//! A database with a standby: what is lost comes back, and nothing that was acknowledged is lost with it.

use std::time::{Duration, Instant};

use testkit::{App, Status, Switchback, request};

use crate::data::sql;
use crate::up;

/// For everything to be whole again: a rewind, a start and the next looks.
const RETURN_LIMIT: Duration = Duration::from_secs(60);

fn second_stage() -> Switchback {
    let switchback = up(App::guestbook("shop").stage(2));
    whole(&switchback);
    sql(&switchback, "CREATE TABLE visits (id int PRIMARY KEY)");
    switchback
}

fn whole(switchback: &Switchback) -> Status {
    switchback.wait_for("every standby follows and confirms commits", RETURN_LIMIT, Status::is_whole)
}

/// Writes until one succeeds. How long that took, from `since`.
fn first_write(switchback: &Switchback, since: Instant, id: u32) -> Duration {
    let statement = format!("INSERT INTO visits VALUES ({id}) ON CONFLICT DO NOTHING");
    while since.elapsed() < RETURN_LIMIT {
        let answer = request("POST", &switchback.url("/sql"), &[], statement.as_bytes());
        if answer.is_ok_and(|answer| answer.status == 200) {
            return since.elapsed();
        }
    }
    panic!("no write within {RETURN_LIMIT:?}\n{}", switchback.daemon_log());
}

#[test]
fn a_standby_takes_over_from_a_primary_that_was_killed_and_the_old_one_follows_it() {
    let switchback = second_stage();
    for number in 0..50 {
        sql(&switchback, &format!("INSERT INTO visits VALUES ({number})"));
    }
    let status = switchback.status();
    let old = status.primary();
    old.crash();
    let took = first_write(&switchback, Instant::now(), 50);
    println!("first write {took:?} after SIGKILL of the primary");
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "51");

    let status = whole(&switchback);
    assert_ne!(status.primary().name, old.name);
    let why = switchback.must(&["why", "-n", "100"]).stdout;
    assert!(why.contains(&format!("fail over from {}", old.name)), "{why}");

    // And back again: the old primary has everything.
    status.primary().crash();
    first_write(&switchback, Instant::now(), 51);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), "52");
    assert_eq!(whole(&switchback).primary().name, old.name);
}

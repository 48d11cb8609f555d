//! Every change of an app costs no request.

use std::time::Duration;

use testkit::{App, Load, Mix, Status};

use crate::cluster::is_promotion_known;
use crate::data::sql;
use crate::up;

/// Enough that a gap of a few milliseconds between two states would be hit many times.
const REQUESTS: u64 = 100_000;

#[test]
fn scaling_stages_releases_and_crashes_cost_no_request() {
    let mut switchback = up(App::python("shop"));
    let load = Load::start(&switchback.url("/"), Mix::both().as_fast_as_possible());
    let mut version = 1;
    while load.requests() < REQUESTS {
        // Instances: 2 to 6 to 2.
        for instances in [2, 6, 2] {
            switchback.app_mut().change("web", "instances", instances);
            switchback.must(&["apply", "--yes"]);
            assert_eq!(switchback.status().web().len(), instances);
        }
        // Stage: 1 to 2 to 1. From 2 on the zones follow.
        switchback.must(&["stage", "2", "--yes"]);
        assert_eq!(zones(&switchback.status()), ["a", "b"]);

        version += 1;
        switchback.app_mut().put("version", &version.to_string());
        switchback.must(&["deploy"]);
        switchback.must(&["rollback"]);

        switchback.kill_daemon();
        switchback.start_daemon_again();
        switchback.must(&["drill", "edge-replace", "--seconds", "3"]);
        let victim = switchback.status().web()[0].clone();
        victim.crash();
        switchback.wait_for("the crashed instance is back", Duration::from_secs(20), |status| {
            status.all_ready() && status.process(&victim.name).pid != victim.pid
        });
        switchback.must(&["stage", "1", "--yes"]);
        assert_eq!(zones(&switchback.status()), ["a"]);
    }
    let report = load.stop();
    println!("{report:?}");
    report.assert_nothing_failed(REQUESTS);
    switchback.down();
}

/// Each request writes a row and reads it again, by connections that the app keeps.
#[test]
fn the_stages_of_an_app_with_a_database_cost_no_request_and_no_write() {
    let switchback = up(App::guestbook("shop"));
    sql(&switchback, "CREATE TABLE visits (id bigserial PRIMARY KEY)");
    let load = Load::start(&switchback.url("/visit"), Mix::both().at_most(120));
    for (stage, nodes) in [(2, 2), (3, 4), (2, 2), (3, 4), (1, 1)] {
        switchback.must(&["stage", &stage.to_string(), "--yes"]);
        let status = switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
        assert_eq!((status.stage, status.of_kind("postgres").len()), (stage, nodes));
        load.wait_for_more(100, Duration::from_secs(30));
    }
    let report = load.stop();
    println!("{report:?}");
    report.assert_nothing_failed(500);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), report.requests.to_string());
    switchback.down();
}

fn zones(status: &testkit::Status) -> Vec<String> {
    let mut zones: Vec<String> = status.web().iter().map(|instance| instance.zone.clone()).collect();
    zones.sort();
    zones.dedup();
    zones
}

/// The app's connections stay with the old process, and the drill's clients come to the new one: of the writes of both, the
/// fate of those that are lost is found out while the other is given ids, too.
#[test]
fn while_two_proxies_serve_the_loss_of_primaries_costs_no_request_and_no_write() {
    let switchback = up(App::guestbook("shop").stage(2));
    sql(&switchback, "CREATE TABLE visits (id bigserial PRIMARY KEY)");
    let whole = || switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
    whole();
    let load = Load::start(&switchback.url("/visit"), Mix::both().at_most(300));
    load.wait_for_more(50, Duration::from_secs(30));
    for drill in ["proxy-replace", "primary-crash", "switchover", "primary-crash", "primary-crash"] {
        let report = switchback.must(&["drill", drill, "--seconds", "4", "--json"]).json();
        let clients = &report["database"];
        for figure in ["failed", "lost", "doubled", "stale"] {
            assert_eq!(clients[figure], 0, "{drill}: {clients}");
        }
        assert_eq!(whole().raw["departing"], serde_json::json!(["pgproxy-db.1"]), "{drill}");
        assert_eq!(drill != "proxy-replace", is_promotion_known(&switchback), "{drill}");
    }
    let report = load.stop();
    println!("{report:?}");
    report.assert_nothing_failed(500);
    assert_eq!(sql(&switchback, "SELECT count(*) FROM visits"), report.requests.to_string());
    switchback.down();
}

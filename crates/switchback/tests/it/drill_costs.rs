//! What a drill may cost clients, and that it says so by how it ends.

use std::time::Duration;

use testkit::{App, Status};

use crate::up;

#[test]
fn a_drill_in_which_requests_fail_fails() {
    let switchback = up(App::python("shop"));
    let drill =
        |path: &str| switchback.cli(&["drill", "edge-replace", "--seconds", "3", "--json", "--path", path]);
    let good = drill("/");
    assert_eq!(good.code, Some(0), "{good:#?}");
    let bad = drill("/status/500");
    assert_eq!(bad.code, Some(1), "{bad:#?}");
    let report: serde_json::Value = serde_json::from_str(&bad.stdout).unwrap();
    assert_eq!(report["seen"]["failed"], report["seen"]["requests"]);
    assert!(bad.stderr.contains("failed requests: ") && bad.stderr.contains("hint: "), "{bad:#?}");
    switchback.down();
}

/// The primary stands in the first zone here, and later in the other one.
#[test]
fn the_loss_of_a_zone_is_that_of_the_primary_and_costs_nobody_anything() {
    let switchback = up(App::guestbook("shop").stage(2));
    for _ in 0..2 {
        let before = switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
        let primary = before.primary();
        let report = switchback.must(&["drill", "zone-loss", "--seconds", "3", "--json"]).json();
        let broke = report["broke"].as_str().unwrap();
        assert!(
            broke.contains(&format!("zone {}", primary.zone)) && broke.contains(&primary.name),
            "{broke}"
        );
        let after = switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
        assert_ne!(after.primary().name, primary.name);
    }
    let named = switchback.must(&["drill", "zone-loss", "--zone", "b", "--seconds", "3", "--json"]).json();
    assert!(named["broke"].as_str().unwrap().contains("zone b"), "{named:#}");
    let unknown = switchback.cli(&["drill", "zone-loss", "--zone", "c"]);
    assert_eq!(unknown.code, Some(3), "{unknown:#?}");
    assert!(unknown.stderr.contains("hint: there are a, b"), "{unknown:#?}");
    assert_eq!(switchback.cli(&["drill", "edge-replace", "--zone", "b"]).code, Some(2));
    switchback.down();
}

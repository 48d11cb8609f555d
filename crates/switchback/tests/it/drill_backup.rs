//! A restore is interrupted anywhere, and one whole database serves.

use std::time::Duration;

use testkit::{App, Status};

use crate::backup::{shop, visit, visits};

/// Of a restore at stage 2: preparing, removing the standby, replacing the primary. And one more, which must succeed.
const STEPS: usize = 3;
const MOMENTS: [&str; 3] = ["before", "after", "committed"];

#[test]
fn a_daemon_killed_at_any_step_of_a_restore_leaves_one_whole_cluster() {
    let switchback = shop(App::guestbook("shop").stage(2));
    switchback.must(&["backup"]);
    let mut written = 0;
    for step in 0..=STEPS {
        for moment in MOMENTS {
            written += 1;
            visit(&switchback, written);
            let point = format!("{step}:{moment}");
            switchback.kill_daemon();
            switchback.must(&["up", "--detach", "--crash-at", &point]);
            let before = switchback.status();
            let restored = switchback.cli(&["restore", "--to", "latest", "--yes"]);
            if step < STEPS {
                assert_ne!(restored.code, Some(0), "{point}: {restored:#?}");
                switchback.wait_for_daemon_to_end(&before);
            }
            switchback.start_daemon_again();
            let status = switchback.wait_for(&point, Duration::from_secs(120), |status| {
                status.is_whole() && status.raw["operation"].is_null()
            });
            assert_eq!(status.of_kind("postgres").len(), 2, "{point}");
            assert_eq!(status.raw["plan_in_progress"], false, "{point}");
            let all: Vec<String> = (1..=written).map(|id| id.to_string()).collect();
            assert_eq!(visits(&switchback), all.join(" "), "{point}");
        }
    }
    switchback.wait_for("it is whole", Duration::from_secs(60), Status::is_whole);
    switchback.down();
}

//! The page's script, run by Node.js over a stand-in for a browser.

use std::process::Command;

use serde_json::Value;

use crate::page::{data, page_of};
use crate::sample;

/// What the scripts of a page have made.
fn run(page: &str) -> Value {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("{}-page.html", std::process::id()));
    std::fs::write(&path, page).unwrap();
    let browser = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/browser.js");
    let output = Command::new("node").arg(browser).arg(&path).output();
    let output = output.expect("Node.js is installed by `cargo xtask setup`");
    std::fs::remove_file(&path).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"))
}

fn number_of_cells(data: &Value) -> u64 {
    let columns = data["heat"]["cells"].as_array().unwrap();
    columns.iter().map(|cells| cells.as_array().unwrap().len() as u64 / 2).sum()
}

#[test]
fn every_chart_and_every_cell_of_the_heat_map_is_drawn() {
    let page = page_of(sample::front_page(120, 1));
    let data = &data(&page)[0];
    let made = run(&page);
    let titles: Vec<&str> =
        made["titles"].as_array().unwrap().iter().map(|title| title.as_str().unwrap()).collect();
    let tiers = data["tiers"].as_array().unwrap();
    let of_tiers: Vec<&str> = tiers.iter().map(|chart| chart["title"].as_str().unwrap()).collect();
    let common = ["Visits", "Visitors", "Requests", "Latency", "Latency, all answers", "Failures"];
    assert_eq!(titles, [&common[..], &of_tiers].concat());
    assert_eq!(made["canvases"], titles.len());
    // Bands of every other phase are rectangles too, one for each in each chart.
    let bands = data["phases"].as_array().unwrap().len() / 2 * titles.len();
    assert_eq!(made["cells"].as_u64(), Some(number_of_cells(data) + bands as u64));
    assert_eq!(made["drawn"], true);
}

#[test]
fn a_keyboard_moves_the_cursor_looks_closer_and_hides_a_line() {
    let made = run(&page_of(sample::front_page(120, 1)));
    assert_eq!(made["spoken"], "0:00: wished 2.00/s, begun 2.00/s");
    assert_eq!((&made["zoomed"], &made["pressed"]), (&Value::Bool(true), &Value::from("false")));
}

/// A second, no answers, no tiers: the smallest there is.
#[test]
fn a_run_of_one_second_that_nothing_answered_is_drawn() {
    let mut record = sample::front_page(1, 1);
    record.tiers.clear();
    record.events.clear();
    for class in record.seconds[0].classes.values_mut() {
        class.latency.clear();
        class.service.clear();
    }
    let made = run(&page_of(record));
    let titles = made["titles"].as_array().unwrap();
    assert!(titles.iter().all(|title| title != "Latency, all answers") && titles.len() >= 4, "{made}");
}

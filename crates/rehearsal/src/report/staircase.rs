//! A search as a table: what each rate gave, from the lowest to the highest.

use super::Table;
use super::words::{duration_or_dash, percent, rate};
use crate::capacity::{Capacity, Step};

/// A row for each step. `None`: no step was over.
pub fn table(capacity: &Capacity) -> Option<Table> {
    let head = ["requests/s", "visits/s", "as they should be", "p50", "p99", "failed", "shed", "objective"];
    (!capacity.steps.is_empty()).then(|| Table {
        title: "Staircase".to_owned(),
        head: head.map(str::to_owned).to_vec(),
        rows: capacity.steps.iter().map(row).collect(),
        note: Some("Latencies are of requests that were answered as they should be.".to_owned()),
    })
}

fn row(step: &Step) -> Vec<String> {
    vec![
        rate(step.offered),
        rate(step.visits),
        rate(step.achieved),
        duration_or_dash(step.p50_us),
        duration_or_dash(step.p99_us),
        percent(step.failed),
        percent(step.shed),
        if step.kept { "kept".to_owned() } else { step.broken.join("; ") },
    ]
}

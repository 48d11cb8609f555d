//! The import table of ARCHITECTURE.md against what the crates really import.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::House;
use super::finding::Finding;

const PAGE: &str = "ARCHITECTURE.md";
const LAST_COLUMN: &str = "may import";

/// What a row allows.
#[derive(Debug, PartialEq, Eq)]
enum Allowed {
    /// The crate that joins the rooms.
    All,
    These(BTreeSet<String>),
}

pub fn check(house: &House) -> Vec<Finding> {
    let Some(page) = house.file(PAGE) else {
        return vec![Finding::in_file(PAGE, "is missing; its import table is what crates are held to")];
    };
    let real = imports(&house.metadata);
    let mut findings = Vec::new();
    let table = table(&page.text);
    if table.is_empty() {
        return vec![Finding::in_file(PAGE, format!("has no table whose last column is `{LAST_COLUMN}`"))];
    }
    for (name, (line, allowed)) in &table {
        let Some(imported) = real.get(name) else {
            findings.push(Finding::at(PAGE, *line, format!("there is no crate `{name}`")));
            continue;
        };
        let Allowed::These(allowed) = allowed else { continue };
        for extra in imported.difference(allowed) {
            findings.push(Finding::at(
                PAGE,
                *line,
                format!("`{name}` imports `{extra}`, which its row does not allow"),
            ));
        }
        for stale in allowed.difference(imported) {
            findings.push(Finding::at(
                PAGE,
                *line,
                format!("`{name}` does not import `{stale}`, which its row names"),
            ));
        }
    }
    for name in real.keys().filter(|name| !table.contains_key(*name)) {
        findings.push(Finding::in_file(PAGE, format!("`{name}` has no row in the import table")));
    }
    findings
}

pub fn descriptions(house: &House) -> Vec<Finding> {
    let without =
        members(&house.metadata).filter(|package| package["description"].as_str().is_none_or(str::is_empty));
    without
        .map(|package| {
            let name = package["name"].as_str().unwrap_or_default();
            Finding::in_file(&format!("{name}/Cargo.toml"), "has no `description`")
        })
        .collect()
}

fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    // A package without a source is one of the workspace; everything else comes from a registry.
    metadata["packages"].as_array().into_iter().flatten().filter(|package| package["source"].is_null())
}

/// Of each crate of the workspace the crates of the workspace it is built on. What only its tests use does not count.
fn imports(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let name_of = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = members(metadata).map(name_of).collect();
    let imports_of = |package: &Value| -> BTreeSet<String> {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let normal = dependencies.filter(|dependency| dependency["kind"].as_str() != Some("dev"));
        normal.map(name_of).filter(|name| names.contains(name)).collect()
    };
    members(metadata).map(|package| (name_of(package), imports_of(package))).collect()
}

/// By crate: the line of its row, and what it allows.
fn table(text: &str) -> BTreeMap<String, (usize, Allowed)> {
    let mut rows = BTreeMap::new();
    let mut inside = false;
    for (at, line) in text.lines().enumerate() {
        let Some(cells) = cells(line) else {
            inside = false;
            continue;
        };
        let (Some(first), Some(last)) = (cells.first(), cells.last()) else { continue };
        if last.eq_ignore_ascii_case(LAST_COLUMN) {
            inside = true;
        } else if inside {
            // The line under the header has no name in backticks, so it gives no row.
            for name in first.split('`').skip(1).step_by(2) {
                rows.insert(name.to_owned(), (at + 1, allowed(last)));
            }
        }
    }
    rows
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

fn allowed(cell: &str) -> Allowed {
    let words = cell.split([' ', ',', '`']).filter(|word| !word.is_empty());
    let names: BTreeSet<String> =
        words.filter(|word| !matches!(*word, "-" | "–" | "—" | "and")).map(str::to_owned).collect();
    if names.contains("all") { Allowed::All } else { Allowed::These(names) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_from_the_table_that_ends_in_imports() {
        let text = "\
| not | this |\n|---|---|\n| `x` | y |\n\n\
| crate | what it is | may import |\n|---|---|---|\n\
| `edge` | front door | telemetry |\n\
| `xtask`, `testkit` | tools | - |\n\
| `switchback` | joins the rooms | all |\n";
        let table = table(text);
        assert_eq!(table.keys().collect::<Vec<_>>(), ["edge", "switchback", "testkit", "xtask"]);
        assert_eq!(table["edge"], (7, Allowed::These(BTreeSet::from(["telemetry".to_owned()]))));
        assert_eq!(table["testkit"].1, Allowed::These(BTreeSet::new()));
        assert_eq!(table["switchback"].1, Allowed::All);
    }
}

//! Files that are made from the code and committed, so that people and other tools can read them.

use std::path::{Path, PathBuf};

/// A file of the repository.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(relative)
}

/// `command` is what makes the file anew. `UPDATE_COMMITTED=1` makes it in place.
pub fn assert_fresh(relative: &str, made: &str, command: &str) {
    let path = path(relative);
    if std::env::var_os("UPDATE_COMMITTED").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == made, "{relative} is stale: run `{command}`\n--- made now ---\n{made}");
}

#[test]
fn the_reference_page_is_what_the_cards_say() {
    assert_fresh("docs/manifest.md", &manifest::reference_markdown(), "cargo xtask docs");
}

#[test]
fn the_schema_is_what_the_cards_say() {
    let made = manifest::json_schema();
    let text = serde_json::to_string_pretty(&made).unwrap() + "\n";
    // The order of keys depends on features that other crates of a build ask of serde_json; only the value counts.
    let committed = std::fs::read_to_string(path("docs/manifest.schema.json")).unwrap_or_default();
    if serde_json::from_str::<serde_json::Value>(&committed).ok() != Some(made) {
        assert_fresh("docs/manifest.schema.json", &text, "cargo xtask docs");
    }
}

//! The reference page: one card per key, in the order of the definitions.

use std::fmt::Write;

use crate::keys::{Card, TOP, Table};

/// The text of `docs/manifest.md`. `cargo xtask docs` writes it; a test fails when the committed page is stale.
pub fn reference_markdown() -> String {
    let mut page = String::from(
        "# The manifest\n\n\
         `switchback.toml` stands beside the app's code and says what there should be. Two keys are enough: `app`, and \
         what to `run`. Everything else has a default, or one that the stage gives; a key that is written down wins. \
         `switchback check` reports every problem at once, and `switchback explain` shows what a manifest expands to.\n\n\
         This page is generated from the definitions that read the manifest, by `cargo xtask docs`. The same \
         definitions give `manifest.schema.json` for editors.\n",
    );
    for table in TOP.all() {
        let heading = if table.name.is_empty() { "Top".to_owned() } else { format!("`[{}]`", table.name) };
        let _ = writeln!(page, "\n## {heading}\n\n{}", table.about);
        for card in table.cards {
            write_card(&mut page, table, card);
        }
    }
    page
}

fn write_card(page: &mut String, table: &Table, card: &Card) {
    let _ = writeln!(page, "\n### `{}`\n\n{}\n", table.path(card.key), card.does);
    let _ = writeln!(page, "- **Value:** {}", card.kind.expects());
    if let Some(unit) = card.kind.unit() {
        let _ = writeln!(page, "- **Unit:** {unit}");
    }
    let _ = writeln!(page, "- **Default:** {}", card.default_text());
    let _ = writeln!(page, "- **How to choose:** {}", card.choose);
    let _ = writeln!(page, "- **Without it:** {}", card.without);
    let links: Vec<String> =
        card.see_also.iter().map(|path| format!("[`{path}`](#{})", anchor(path))).collect();
    if !links.is_empty() {
        let _ = writeln!(page, "- **See also:** {}", links.join(", "));
    }
    let _ = writeln!(page, "\n```toml\n{}{}\n```", header(table, card), card.example);
}

/// As GitHub makes anchors of headings.
fn anchor(path: &str) -> String {
    path.replace('.', "").to_lowercase()
}

/// The header under which the example can be pasted; an example that brings its own needs none.
fn header(table: &Table, card: &Card) -> String {
    if table.name.is_empty() || card.example.starts_with('[') {
        String::new()
    } else {
        format!("[{}]\n", table.name)
    }
}

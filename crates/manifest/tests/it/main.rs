//! The manifest, tested at its border: text in, graph or problems out.

mod cards;
mod committed;
mod explain;
mod init;
mod problems;
mod properties;
mod stage_change;
mod stages;
mod values;

use manifest::{Manifest, Problems, Surroundings};

/// Reads a manifest in a folder without a Procfile.
fn read(text: &str) -> Result<Manifest, Problems> {
    manifest::read("switchback.toml", text, &Surroundings::default())
}

/// A manifest that must have problems.
fn refused(text: &str) -> Problems {
    match read(text) {
        Ok(_) => panic!("there are no problems in\n{text}"),
        Err(problems) => problems,
    }
}

/// As `check` prints them.
fn rendered(problems: &Problems) -> String {
    let theme = miette::GraphicalTheme::unicode_nocolor();
    let mut text = String::new();
    miette::GraphicalReportHandler::new_themed(theme)
        .with_width(100)
        .with_links(false)
        .render_report(&mut text, problems)
        .unwrap();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

//! `switchback.toml` to a [`model::ResourceGraph`] and its problems.
//!
//! The text is parsed into a spanned tree and walked by hand along the cards in [`keys`]: every problem is found in one
//! pass, each knows its exact place, and a broken line hides nothing but itself. Values come in layers, each read by
//! the same rules: the manifest, a Procfile, the preset of the stage, the defaults of the cards. The first that says
//! something wins, and `explain` can tell which it was.
//!
//! Pure: nothing here reads a file, the clock, the environment or a socket.

mod check;
mod document;
mod expand;
mod explain;
pub mod init;
pub mod keys;
mod presets;
mod problems;
mod procfile;
mod reference;
mod rules;
mod schema;
mod settings;
mod sizes;
mod stage;
mod units;
mod walk;

pub use document::MAX_TEXT_BYTES;
pub use explain::explain_text;
pub use presets::{PRESETS, Preset};
pub use problems::{Label, MAX_PROBLEMS, Position, Problem, Problems};
pub use reference::reference_markdown;
pub use schema::json_schema;
pub use settings::Source;
pub use stage::{known_stage, set_stage};

use model::ResourceGraph;

use document::Document;
use procfile::Procfile;
use settings::Settings;

/// The file's usual name, beside the app's code.
pub const FILE_NAME: &str = "switchback.toml";

/// What else the app's folder says.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The text of `Procfile`, where there is one.
    pub procfile: Option<String>,
}

/// A manifest without problems.
#[derive(Debug)]
pub struct Manifest {
    pub source_name: String,
    pub text: String,
    /// Things that are no problem but may surprise, each a sentence.
    pub notes: Vec<String>,
    graph: ResourceGraph,
    settings: Settings,
}

impl Manifest {
    /// What the manifest expands to.
    pub fn graph(&self) -> &ResourceGraph {
        &self.graph
    }

    /// Where the value of a key, such as `web.run`, stands in the text. `None`: it is from elsewhere.
    pub fn position(&self, path: &str) -> Option<Position> {
        let span = self.settings.get(path)?.span.clone()?;
        Some(Position::of(span.start, &self.text))
    }
}

/// Reads a manifest. `source_name` is what problems call the text, usually its path.
///
/// # Errors
/// Every problem of the text at once; never an empty list.
pub fn read(source_name: &str, text: &str, surroundings: &Surroundings) -> Result<Manifest, Problems> {
    let mut problems = Problems::none_yet(source_name, text);
    let Some(document) = Document::parse(text, &mut problems) else {
        return Err(problems);
    };
    let mut settings = walk::walk(&document, Source::Manifest, &mut problems);
    let procfile = Procfile::parse(surroundings.procfile.as_deref().unwrap_or_default());
    settings.fill_from(procfile.settings());
    walk::require(&document, &settings, &mut problems);
    settings.fill_from(walk::defaults_of_stage(&settings));
    rules::check(&settings, &mut problems);
    if !problems.is_empty() {
        return Err(problems.sorted());
    }
    debug_assert!(settings.are_whole(), "a value was refused without a word");
    match expand::expand(&settings) {
        Ok(graph) => Ok(Manifest {
            source_name: source_name.to_owned(),
            text: text.to_owned(),
            notes: procfile.notes,
            graph,
            settings,
        }),
        Err(expand::Absent(path)) => {
            problems.nothing_gives(path);
            Err(problems)
        }
    }
}

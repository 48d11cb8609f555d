//! `switchback init`: what a folder looks like, to a manifest of a few lines.
//!
//! Each ecosystem has its file here and says how its apps are built and run. Guesses are kept to what the files say;
//! what they do not say becomes a line to fill in, never a command that might do something else.

mod go;
mod node;
mod python;
mod rust;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use model::AppName;

use crate::check::reserved_database_name;
use crate::procfile::Procfile;
use crate::rules::database_name;

/// The files whose contents [`detect`] wants to see, by their names in the folder.
pub const FILES_TO_READ: &[&str] =
    &["Procfile", "Cargo.toml", "package.json", "pyproject.toml", "requirements.txt", "go.mod", "manage.py"];

/// Of each of [`FILES_TO_READ`]; a longer one may be left out.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Stands for a command that nothing in the folder tells. A manifest that still has it is refused.
pub(crate) const UNKNOWN_RUN: &str = "./your-server";

/// Files and folders that an app with migrations has. Which command applies them is another matter.
const MIGRATIONS: &[&str] =
    &["migrations", "alembic.ini", "prisma", "drizzle", "knexfile.js", "knexfile.ts", "diesel.toml"];

/// What there is in an app's folder.
#[derive(Debug, Clone, Default)]
pub struct FolderListing {
    /// The last part of its path.
    pub folder_name: String,
    /// The names of the files and folders directly in it.
    pub entries: BTreeSet<String>,
    /// Those of [`FILES_TO_READ`] that exist, by name.
    pub contents: BTreeMap<String, String>,
    /// Those of `entries` that git ignores.
    pub git_ignored: BTreeSet<String>,
}

/// A suggested manifest and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// At most ten lines; passes [`crate::read`] beside the folder's Procfile, once a command that is to be filled in is.
    pub manifest: String,
    /// What was recognised, each a sentence.
    pub recognised: Vec<String>,
    /// What a person must look at before `up`, each a sentence.
    pub to_fill_in: Vec<String>,
}

/// What one ecosystem's files say.
#[derive(Debug, Default)]
struct Guess {
    build: Option<String>,
    run: Option<String>,
    release: Option<String>,
    include: Vec<String>,
    /// The dependency that speaks to PostgreSQL.
    postgres_driver: Option<String>,
    recognised: Vec<String>,
    to_fill_in: Vec<String>,
}

impl FolderListing {
    fn has(&self, name: &str) -> bool {
        self.entries.contains(name) || self.contents.contains_key(name)
    }

    fn content(&self, name: &str) -> Option<&str> {
        self.contents.get(name).map(String::as_str)
    }
}

/// Suggests a manifest for a folder. Never fails: an empty folder gives a manifest to fill in.
pub fn detect(folder: &FolderListing) -> Detection {
    let procfile = Procfile::parse(folder.content("Procfile").unwrap_or_default());
    // A web app often has a package.json for its assets alone, so Node comes last.
    let ecosystems = [rust::guess, go::guess, python::guess, node::guess];
    let mut guess = ecosystems.iter().find_map(|guess| guess(folder)).unwrap_or_default();
    let mut from_procfile = Vec::new();
    for (kind, line, guessed) in
        [("web", &procfile.web, &mut guess.run), ("release", &procfile.release, &mut guess.release)]
    {
        if line.is_some() {
            guess.recognised.push(format!("the Procfile's `{kind}` line is used"));
            from_procfile.push(kind);
            *guessed = None;
        }
    }
    guess.recognised.extend(procfile.notes);
    let migrations = MIGRATIONS.iter().find(|name| folder.has(name));
    match (&guess.release, migrations) {
        (Some(command), _) => {
            guess.recognised.push(format!("`release` runs `{command}` before a new release serves"));
        }
        (None, Some(found)) if procfile.release.is_none() => guess.to_fill_in.push(format!(
            "`{found}` looks like migrations of a database: write into `release` the command that applies them, unless the \
             app does that when it starts"
        )),
        (None, _) => {}
    }
    if guess.run.is_none() && procfile.web.is_none() {
        guess
            .to_fill_in
            .push("write into `run` the command that serves HTTP on the port in `PORT`".to_owned());
        guess.run = Some(UNKNOWN_RUN.to_owned());
    }
    let app = app_name(&folder.folder_name, guess.postgres_driver.is_some());
    if let Some(driver) = &guess.postgres_driver {
        guess.recognised.push(format!("`{driver}` speaks to PostgreSQL, so there is a `[db]`"));
    }
    Detection {
        manifest: text::manifest(&app, &guess, &from_procfile),
        recognised: guess.recognised,
        to_fill_in: guess.to_fill_in,
    }
}

/// The nearest name an app can have, such as `my-app` for `My App`. `None` when there is no letter in it.
pub fn app_name_from(text: &str) -> Option<AppName> {
    let mut name = String::new();
    for c in text.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || (c.is_ascii_digit() && !name.is_empty()) => name.push(c),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
        if name.len() == 40 {
            break;
        }
    }
    AppName::new(name.trim_end_matches('-')).ok()
}

fn app_name(folder_name: &str, has_database: bool) -> String {
    let name = app_name_from(folder_name).map_or_else(|| "app".to_owned(), String::from);
    let taken = has_database && reserved_database_name(&database_name(&name));
    if !taken {
        return name;
    }
    app_name_from(&format!("app-{name}")).map_or_else(|| "app".to_owned(), String::from)
}

/// Whether a name from a file can stand in a command line as it is, and in a path below the app's folder.
fn is_plain_word(word: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/');
    let begins_well = word.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    begins_well && word.len() <= 100 && word.bytes().all(plain) && word.split('/').all(|part| part != "..")
}

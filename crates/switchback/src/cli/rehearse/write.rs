//! What is kept of rehearsals: the reports, and what the app was found to serve.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use local::user::give_to_owner_of;
use rehearsal::capacity::Capacity;
use rehearsal::report::{self, Document};
use serde::{Deserialize, Serialize};

use crate::cli::connect::App;
use crate::cli::say::Problem;

const CAPACITY_FILE: &str = "capacity.json";

/// Where a report stands.
pub struct Written {
    pub page: PathBuf,
    pub json: PathBuf,
}

/// What `--find` found, for profiles that are relative to it.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    /// Of another shape it says nothing.
    shape: String,
    visits_per_second: f64,
}

/// Writes the page, and the same as JSON beside it.
///
/// # Errors
/// When they cannot be written.
pub fn document(app: &App, out: Option<&Path>, document: &Document) -> Result<Written, Problem> {
    let base = match out {
        Some(named) => named.to_owned(),
        None => {
            let first = document.parts.first();
            let began = first.map_or_else(jiff::Timestamp::now, |part| part.record.began);
            let profile = first.map_or("rehearsal", |part| part.record.profile.as_str());
            folder(app)?.join(format!("{}-{profile}", began.strftime("%Y-%m-%dT%H-%M-%SZ")))
        }
    };
    let written = beside(&base)?;
    put(app, &written.page, |file| file.write_all(report::html(document).as_bytes()))?;
    put(app, &written.json, |file| report::json(document, file))?;
    Ok(written)
}

/// Whether [`document`] will find a place.
///
/// # Errors
/// When a report cannot be written there.
pub fn check(app: &App, out: Option<&Path>) -> Result<(), Problem> {
    let Some(out) = out else { return folder(app).map(drop) };
    let Written { page, json } = beside(out)?;
    must_be_writable(&page)?;
    must_be_writable(&json)
}

/// Leaves what is there as it is, and nothing where nothing is.
///
/// # Errors
/// When it is no file that can be written.
pub fn must_be_writable(path: &Path) -> Result<(), Problem> {
    let refused = |error: std::io::Error| Problem::usage(format!("{}: {error}", path.display()));
    let is_new = !path.exists();
    fs::OpenOptions::new().append(true).create(true).open(path).map_err(refused)?;
    if is_new { fs::remove_file(path).map_err(refused) } else { Ok(()) }
}

fn beside(base: &Path) -> Result<Written, Problem> {
    let base = std::path::absolute(base).map_err(|error| Problem::failed(error.to_string()))?;
    let named = |extension: &str| {
        let mut name = base.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    Ok(Written { page: named(".html"), json: named(".json") })
}

/// Keeps what was proved of an app of this shape. That it keeps its objective at no rate proves that what was kept before is so
/// no more.
///
/// # Errors
/// When it cannot be written.
pub fn remember_capacity(app: &App, shape: &str, capacity: &Capacity) -> Result<(), Problem> {
    let path = folder(app)?.join(CAPACITY_FILE);
    let Some(rate) = capacity.at_objective else { return forget(&path) };
    let remembered = Remembered { shape: shape.to_owned(), visits_per_second: rate.visits_per_second };
    let text = serde_json::to_vec(&remembered).map_err(|error| Problem::failed(error.to_string()))?;
    put(app, &path, |file| file.write_all(&text))
}

fn forget(path: &Path) -> Result<(), Problem> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Problem::failed(format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Visits per second that an app of this shape was found to serve.
pub fn capacity(app: &App, shape: &str) -> Option<f64> {
    let text = fs::read(app.state.rehearsals().join(CAPACITY_FILE)).ok()?;
    let remembered: Remembered = serde_json::from_slice(&text).ok()?;
    (remembered.shape == shape).then_some(remembered.visits_per_second)
}

/// Nobody's business but that of the app's owner: it names what visitors ask for.
fn folder(app: &App) -> Result<PathBuf, Problem> {
    let folder = app.state.rehearsals();
    let failed = |error: std::io::Error| Problem::failed(format!("{}: {error}", folder.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
    let open = fs::File::open(&folder).map_err(failed)?;
    give_to_owner_of(&app.dir, &open).map_err(failed)?;
    // An earlier version made it for everybody.
    open.set_permissions(fs::Permissions::from_mode(0o700)).map_err(failed)?;
    Ok(folder)
}

fn put(
    app: &App,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<fs::File>) -> io::Result<()>,
) -> Result<(), Problem> {
    let failed = |error: std::io::Error| Problem::failed(format!("{}: {error}", path.display()));
    // What is named outside the state folder is for whom the umask says.
    let mode = if path.starts_with(app.state.rehearsals()) { 0o600 } else { 0o666 };
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .map_err(failed)?;
    give_to_owner_of(&app.dir, &file).map_err(failed)?;
    let mut file = BufWriter::new(file);
    write(&mut file).and_then(|()| file.flush()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use local::paths::StateDir;
    use rehearsal::capacity::Rate;

    use super::*;

    #[test]
    fn what_an_app_served_once_is_forgotten_when_it_keeps_its_objective_at_no_rate() {
        let folder = tempfile::tempdir().unwrap();
        let app =
            App { dir: folder.path().to_owned(), state: StateDir::at(&folder.path().join(".switchback")) };
        let found = |at_objective| Capacity { at_objective, ..Capacity::of(Vec::new(), 1) };
        let none = || remember_capacity(&app, "stage 1", &found(None)).unwrap();
        // Where nothing was known there is nothing to forget.
        none();
        let rate = Rate { visits_per_second: 12.0, requests_per_second: 40.0 };
        remember_capacity(&app, "stage 1", &found(Some(rate))).unwrap();
        assert_eq!(capacity(&app, "stage 1"), Some(12.0));
        none();
        assert_eq!(capacity(&app, "stage 1"), None);
    }
}

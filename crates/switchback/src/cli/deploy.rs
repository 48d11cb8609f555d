//! `deploy` and `rollback`: another release, with no failed request in between.

use local::chain;
use local::release::Releases;
use model::{ByteSize, ReleaseId, counted};

use super::connect::App;
use super::say::{self, BOLD, GREEN, Problem, Stream, paint};
use super::{Place, manifest, progress};
use crate::api::{Outcome, Request, StoredRelease};

pub fn deploy(place: &Place, as_json: bool) -> Result<(), Problem> {
    let app = place.app()?;
    let manifest = manifest::read(&app.dir)?;
    carry_out(&app, Request::Deploy { graph: manifest.graph().clone() }, as_json)
}

pub fn rollback(place: &Place, release: Option<ReleaseId>, as_json: bool) -> Result<(), Problem> {
    let app = place.app()?;
    let manifest = manifest::read(&app.dir)?;
    carry_out(&app, Request::Rollback { graph: manifest.graph().clone(), release }, as_json)
}

fn carry_out(app: &App, request: Request, as_json: bool) -> Result<(), Problem> {
    let outcome: Outcome = progress::ask(app, request)?;
    if as_json {
        return say::json(&outcome);
    }
    for note in &outcome.notes {
        say::talk(&format!("{} {note}", paint(Stream::Err, BOLD, "note:")));
    }
    for (service, release) in &outcome.releases {
        say::talk(&format!("{} {service} serves release {release}", paint(Stream::Err, GREEN, "ok:")));
    }
    Ok(())
}

pub fn list(place: &Place, as_json: bool) -> Result<(), Problem> {
    let app = place.app()?;
    let releases = app.ask_or_look(&Request::Releases, |stopped| {
        let topology = stopped.world().map_err(|error| Problem::failed(chain(&error)))?.topology;
        let stored = Releases::at(app.state.releases());
        StoredRelease::all(&stored, &topology).map_err(|error| Problem::failed(chain(&error)))
    })?;
    if as_json {
        return say::json(&releases);
    }
    if releases.is_empty() {
        say::talk("no release is kept yet; `switchback up` makes the first");
    }
    let mut text = String::new();
    for StoredRelease { id, created, files, bytes, serving, failed } in releases {
        let state = match (serving, failed) {
            (true, _) => "serving".to_owned(),
            (false, Some(because)) => format!("failed: {because}"),
            (false, None) => String::new(),
        };
        let files = counted(files as usize, "file");
        let size = ByteSize::from_bytes(bytes).rounded();
        let created = say::local_time(created);
        text.push_str(format!("{id}  {created}  {files:>12} {size:>8}  {state}").trim_end());
        text.push('\n');
    }
    say::data(&text)
}

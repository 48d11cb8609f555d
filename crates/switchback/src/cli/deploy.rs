//! `deploy` and `rollback`: another release, with no failed request in between.

use model::{ByteSize, ReleaseId};
use serde_json::Value;

use super::progress::Progress;
use super::say::{self, BOLD, GREEN, Problem, Stream, paint};
use super::{Place, manifest};
use crate::api::{Outcome, Request};

pub fn deploy(place: &Place, as_json: bool) -> Result<(), Problem> {
    let app = place.app()?;
    let manifest = manifest::read(&app.dir)?;
    carry_out(place, &Request::Deploy { graph: manifest.graph().clone() }, as_json)
}

pub fn rollback(place: &Place, release: Option<ReleaseId>, as_json: bool) -> Result<(), Problem> {
    let app = place.app()?;
    let manifest = manifest::read(&app.dir)?;
    carry_out(place, &Request::Rollback { graph: manifest.graph().clone(), release }, as_json)
}

fn carry_out(place: &Place, request: &Request, as_json: bool) -> Result<(), Problem> {
    let progress = Progress::new();
    let outcome: Outcome = place.app()?.ask(request, |event| progress.hear(event))?;
    drop(progress);
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
    let releases: Vec<Value> = place.app()?.ask(&Request::Releases, |_| {})?;
    if as_json {
        return say::json(&releases);
    }
    let mut text = String::new();
    for release in releases {
        let field = |name: &str| release.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| release.get(name).and_then(Value::as_u64).unwrap_or_default();
        let serving = if release.get("serving") == Some(&Value::Bool(true)) { "serving" } else { "" };
        let size = ByteSize::from_bytes(number("bytes")).rounded();
        let (id, created, files) = (field("id"), field("created"), number("files"));
        text.push_str(format!("{id}  {created}  {files:>6} files {size:>8}  {serving}").trim_end());
        text.push('\n');
    }
    say::data(&text)
}

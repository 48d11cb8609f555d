//! `init`, `check`, `explain`: what can be said of a folder without running anything.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use local::process::missing_program;
use local::user::give_to_owner_of;
use manifest::init::{FILES_TO_READ, FolderListing, MAX_FILE_BYTES};
use manifest::{FILE_NAME, MAX_TEXT_BYTES, Manifest, Problems, Surroundings};
use model::ResourceGraph;
use serde_json::json;

use super::Place;
use super::say::{self, BOLD, GREEN, Problem, Stream, YELLOW, paint};

/// Reads the app's manifest.
///
/// # Errors
/// When it is not there, or has problems.
pub fn read(dir: &Path) -> Result<Manifest, Problem> {
    let (path, text) = read_text(dir)?;
    Ok(parse(dir, &path, &text)?)
}

/// The manifest's path and text.
pub fn read_text(dir: &Path) -> Result<(PathBuf, String), Problem> {
    let path = dir.join(FILE_NAME);
    match fs::read(&path) {
        Ok(bytes) => {
            // Larger texts are a problem that the reader names; here they are only kept from filling memory.
            let bytes = bytes.get(..MAX_TEXT_BYTES + 1).unwrap_or(&bytes);
            Ok((path, String::from_utf8_lossy(bytes).into_owned()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Problem::usage(format!("there is no {FILE_NAME} in {}", dir.display()))
                .hint("`switchback init` writes one; -C names another folder"))
        }
        Err(error) => Err(Problem::failed(format!("{}: {error}", path.display()))),
    }
}

fn parse(dir: &Path, path: &Path, text: &str) -> Result<Manifest, Problems> {
    let procfile = fs::read_to_string(dir.join("Procfile")).ok();
    manifest::read(&path.display().to_string(), text, &Surroundings { procfile })
}

/// What `manifest` would expand to at another stage. The file stays as it is.
///
/// # Errors
/// When there is no such stage, or its manifest has problems.
pub fn at_stage(app: &Path, manifest: &Manifest, stage: u8) -> Result<ResourceGraph, Problem> {
    let text = manifest::set_stage(&manifest.text, stage)?;
    Ok(parse(app, Path::new(&manifest.source_name), &text)?.graph().clone())
}

/// What it would expand to at each stage above `stage`, the nearest first. One that it cannot have is left out: nothing can be
/// said of it, and it is no reason to say nothing of the others.
pub fn above(app: &Path, manifest: &Manifest, stage: u8) -> Vec<ResourceGraph> {
    let stages = manifest::PRESETS.iter().map(|preset| preset.stage).filter(|above| *above > stage);
    stages.filter_map(|above| at_stage(app, manifest, above).ok()).collect()
}

pub fn check(place: &Place, as_json: bool) -> Result<(), Problem> {
    let app = place.app()?;
    let (path, text) = read_text(&app.dir)?;
    match parse(&app.dir, &path, &text) {
        Ok(manifest) if as_json => {
            let warnings = missing_programs(&app.dir, &manifest);
            say::json(&json!({ "problems": [], "warnings": warnings, "notes": manifest.notes }))
        }
        Ok(manifest) => {
            for note in &manifest.notes {
                say::talk(&format!("{} {note}", paint(Stream::Err, BOLD, "note:")));
            }
            for warning in missing_programs(&app.dir, &manifest) {
                say::talk(&format!("{} {warning}", paint(Stream::Err, YELLOW.bold(), "warning:")));
            }
            say::talk(&format!("{} {} has no problems", paint(Stream::Err, GREEN, "ok:"), path.display()));
            Ok(())
        }
        Err(problems) if as_json => {
            say::json(&problems.to_json())?;
            Err(Problem::Said(2))
        }
        Err(problems) => Err(problems.into()),
    }
}

/// A sentence for each command whose program is not there. A build may make whatever comes after it.
fn missing_programs(dir: &Path, manifest: &Manifest) -> Vec<String> {
    let mut warnings = Vec::new();
    for (id, service) in manifest.graph().services() {
        let path = service.env.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
        let commands = match &service.build {
            Some(build) => vec![("build", build)],
            None => std::iter::once(("run", &service.run))
                .chain(service.release.iter().map(|line| ("release", line)))
                .collect(),
        };
        for (key, line) in commands {
            let Some(program) = missing_program(line, path.as_deref(), dir) else { continue };
            let position = manifest.position(&format!("{id}.{key}"));
            let place = position
                .map_or_else(|| "Procfile".to_owned(), |at| format!("{}:{}", manifest.source_name, at.line));
            let whence = if program.contains('/') { "the app's folder" } else { "PATH" };
            let mend = match key {
                "build" => "write a command that is there, or install it",
                _ => "write a command that is there, or the `build` that makes it",
            };
            warnings.push(format!("{place}: `{key}` starts `{program}`, which is not in {whence}; {mend}"));
        }
    }
    warnings
}

pub fn explain(place: &Place, as_json: bool) -> Result<(), Problem> {
    let manifest = read(&place.app()?.dir)?;
    if as_json { say::json(&manifest.explain_json()) } else { say::data(&manifest.explain()) }
}

pub fn init(place: &Place, print: bool) -> Result<(), Problem> {
    let dir = place.app()?.dir;
    let path = dir.join(FILE_NAME);
    if !print && path.exists() {
        return Err(Problem::refused(format!("{} is there already", path.display()))
            .hint("`switchback init --print` shows what would be written; `switchback check` checks the one you have"));
    }
    let detection = manifest::init::detect(&listing(&dir)?);
    if print {
        return say::data(&detection.manifest);
    }
    let written = fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let written = written.and_then(|mut file| {
        give_to_owner_of(&dir, &file)?;
        file.write_all(detection.manifest.as_bytes())
    });
    written.map_err(|error| Problem::failed(format!("{}: {error}", path.display())))?;
    say::talk(&format!("{} wrote {}", paint(Stream::Err, GREEN, "ok:"), path.display()));
    for line in &detection.recognised {
        say::talk(&format!("  {line}"));
    }
    for line in &detection.to_fill_in {
        say::talk(&format!("{} {line}", paint(Stream::Err, BOLD, "to do:")));
    }
    if detection.to_fill_in.is_empty() {
        say::talk(&format!("{} `switchback up` runs it", paint(Stream::Err, BOLD, "next:")));
    }
    Ok(())
}

fn listing(dir: &Path) -> Result<FolderListing, Problem> {
    let failed = |error: std::io::Error| Problem::failed(format!("{}: {error}", dir.display()));
    let mut entries = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        entries.insert(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    let head = |name: &str| {
        let mut text = Vec::new();
        fs::File::open(dir.join(name)).ok()?.take(MAX_FILE_BYTES as u64).read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    };
    let contents = FILES_TO_READ.iter().filter_map(|name| Some(((*name).to_owned(), head(name)?))).collect();
    let folder_name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let git_ignored = git_ignored(dir, &entries);
    Ok(FolderListing { folder_name, entries, contents, git_ignored })
}

/// Asks git, where there is one: nobody knows its rules better.
fn git_ignored(dir: &Path, entries: &BTreeSet<String>) -> BTreeSet<String> {
    let asked = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(["check-ignore", "-z", "--"])
        .args(entries)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let Ok(output) = asked else { return BTreeSet::new() };
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

//! `plan`, `apply`, `stage`: what would change, and changing it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use model::{ResourceGraph, ResourceId, counted};
use plan::{ChangeKind, Interruption, Plan};

use super::connect::App;
use super::say::{self, BOLD, DIM, GREEN, Problem, RED, Stream, YELLOW, paint};
use super::up::INTERRUPTED;
use super::{Place, manifest, progress};
use crate::api::{Outcome, Planned, Request};

/// A plan file is a few kB; anything much larger is not one.
const MAX_PLAN_FILE_BYTES: u64 = 16 * 1024 * 1024;

pub fn plan(
    place: &Place,
    out: Option<&Path>,
    as_json: bool,
    destroy: BTreeSet<ResourceId>,
) -> Result<(), Problem> {
    let app = place.app()?;
    let manifest = manifest::read(&app.dir)?;
    let planned = ask_for_plan(&app, manifest.graph(), destroy)?;
    if let Some(path) = out {
        if let Some(reason) = &planned.preview_because {
            return Err(Problem::refused(format!("this plan can only be looked at: {reason}")));
        }
        write(path, &planned.plan)?;
    }
    if as_json {
        return say::json(&planned);
    }
    if planned.starts.is_empty() {
        say::data(&text(&planned.plan))?;
    } else {
        let starts = format!("start    {}: they stand and do not run\n", planned.starts.join(", "));
        let then = if planned.plan.is_empty() { String::new() } else { format!("\n{}", text(&planned.plan)) };
        say::data(&(starts + &then))?;
    }
    for note in planned.notes.iter().chain(&planned.preview_because) {
        say::talk(&format!("{} {note}", paint(Stream::Err, BOLD, "note:")));
    }
    if let Some(path) = out {
        let path = path.display();
        say::talk(&format!("{} wrote {path}; `switchback apply {path}`", paint(Stream::Err, GREEN, "ok:")));
    }
    Ok(())
}

pub fn apply(
    place: &Place,
    file: Option<&Path>,
    yes: bool,
    destroy: BTreeSet<ResourceId>,
) -> Result<(), Problem> {
    let app = place.app()?;
    let plan = match file {
        Some(_) if !destroy.is_empty() => {
            return Err(Problem::usage("a plan from a file says itself what it destroys")
                .hint("give --destroy to `switchback plan --out`"));
        }
        Some(path) => read_plan(path)?,
        None => {
            let manifest = manifest::read(&app.dir)?;
            let planned = ask_for_plan(&app, manifest.graph(), destroy)?;
            if let Some(reason) = planned.preview_because {
                return Err(Problem::refused(reason).hint("`switchback plan` shows what `up` would do"));
            }
            planned.plan
        }
    };
    carry_out(&app, plan, yes)
}

/// The argument of `stage`.
pub fn stage_number(text: &str) -> Result<u8, String> {
    ::manifest::known_stage(text.parse().map_err(|error| format!("{error}"))?)
}

pub fn stage(place: &Place, number: u8, yes: bool) -> Result<(), Problem> {
    let app = place.app()?;
    app.must_be_ours()?;
    let (path, before) = manifest::read_text(&app.dir)?;
    // Problems the file has now are not the new stage's fault: they are said first.
    manifest::read(&app.dir)?;
    let after = ::manifest::set_stage(&before, number)?;
    write_manifest(&path, &after)?;
    let changed = manifest::read(&app.dir).and_then(|manifest| {
        let planned = ask_for_plan(&app, manifest.graph(), BTreeSet::new())?;
        if let Some(reason) = planned.preview_because {
            say::talk(&format!(
                "{} the manifest says stage {number} now; {reason}",
                paint(Stream::Err, BOLD, "note:")
            ));
            return Ok(());
        }
        carry_out(&app, planned.plan, yes)
    });
    if matches!(changed, Err(Problem::Said(INTERRUPTED))) {
        // The daemon goes on to it.
        say::talk(&format!("{} keeps the new stage", path.display()));
    } else if changed.is_err() {
        let untouched = manifest::read_text(&app.dir).is_ok_and(|(_, text)| text == after);
        if app.hello().is_none() && app.state.database().exists() {
            // The next daemon finishes the plan or takes it back: only it can tell which stage stands.
            say::talk(&format!("{} keeps the new stage; `switchback up` goes on with it", path.display()));
        } else if untouched {
            // The manifest says what stands: a stage that was not reached must not be claimed.
            write_manifest(&path, &before)?;
            say::talk(&format!("{} is as it was", path.display()));
        }
    }
    changed
}

fn ask_for_plan(app: &App, graph: &ResourceGraph, destroy: BTreeSet<ResourceId>) -> Result<Planned, Problem> {
    // Planning needs what stands, which the daemon knows. It starts nothing of the app.
    let (_, started) = app.ensure_daemon(&graph.app, None)?;
    let planned = app.ask(&Request::Plan { graph: graph.clone(), destroy }, |_| {});
    if started {
        app.ask::<()>(&Request::Leave, |_| {})?;
    }
    planned
}

fn carry_out(app: &App, plan: Plan, yes: bool) -> Result<(), Problem> {
    if plan.is_empty() {
        say::talk(&format!("{} nothing to change", paint(Stream::Err, GREEN, "ok:")));
        return Ok(());
    }
    say::talk(text(&plan).trim_end());
    if !yes && !agreed("Carry it out?")? {
        return Err(Problem::refused("nothing was changed"));
    }
    let outcome: Outcome = progress::ask(app, Request::Apply { plan })?;
    say::talk(&format!("{} {}", paint(Stream::Err, GREEN, "applied:"), counted(outcome.steps, "step")));
    Ok(())
}

/// # Errors
/// When there is nobody to ask.
pub fn agreed(question: &str) -> Result<bool, Problem> {
    use std::io::IsTerminal;
    if !std::io::stdin().is_terminal() {
        return Err(Problem::refused("this needs a yes, and there is no terminal to ask").hint("say --yes"));
    }
    let mut err = std::io::stderr();
    let _ = write!(err, "{question} [y/N] ").and_then(|()| err.flush());
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| Problem::failed(error.to_string()))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn text(plan: &Plan) -> String {
    if plan.is_empty() {
        return "Nothing to change.\n".to_owned();
    }
    let mut text = String::new();
    for change in &plan.changes {
        let kind = change.kind.to_string();
        let style = match change.kind {
            ChangeKind::Create => GREEN,
            ChangeKind::Update | ChangeKind::Replace => YELLOW,
            ChangeKind::Delete => RED,
        };
        let kind = paint(Stream::Out, style, &format!("{kind:<8}"));
        text.push_str(&format!("{kind} {}: {}\n", change.resource, change.why));
        text.push_str(&format!("         expected interruption: {}\n", change.interruption));
    }
    text.push_str(&format!("\n{}:\n", counted(plan.steps.len(), "step")));
    for (number, step) in plan.steps.iter().enumerate() {
        let cost = match step.interruption {
            Interruption::None => String::new(),
            interruption => paint(Stream::Out, DIM, &format!(" (interrupts {interruption})")),
        };
        text.push_str(&format!("{:>4}. {}{cost}\n", number + 1, step.action));
    }
    text.push_str(&format!("\nplan {} from generation {}\n", plan.id, plan.parent));
    text
}

fn write(path: &Path, plan: &Plan) -> Result<(), Problem> {
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |error: std::io::Error| Problem::failed(format!("{}: {error}", path.display()));
    // A plan holds the environment that the manifest gives to instances: for its owner only.
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    // The mode above is for a new file only.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
    let text = serde_json::to_string_pretty(plan).map_err(|error| Problem::failed(error.to_string()))?;
    file.write_all(text.as_bytes()).map_err(failed)
}

fn read_plan(path: &Path) -> Result<Plan, Problem> {
    let failed = |error: std::io::Error| Problem::usage(format!("{}: {error}", path.display()));
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > MAX_PLAN_FILE_BYTES {
        return Err(Problem::usage(format!("{}: too large for a plan", path.display())));
    }
    let text = fs::read(path).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| {
        Problem::usage(format!("{} is not a plan: {error}", path.display()))
            .hint("`switchback plan --out FILE` writes one")
    })
}

fn write_manifest(path: &Path, text: &str) -> Result<(), Problem> {
    let failed = |error: std::io::Error| Problem::failed(format!("{}: {error}", path.display()));
    // Beside and renamed: a crash must not leave half a manifest. The mode is the file's own.
    let partial = path.with_extension("toml.partial");
    fs::write(&partial, text).map_err(failed)?;
    let before = fs::metadata(path).map_err(failed)?;
    // Root, acting for the folder's owner, must not take the file away from them.
    std::os::unix::fs::chown(&partial, Some(before.uid()), Some(before.gid())).map_err(failed)?;
    fs::set_permissions(&partial, before.permissions()).map_err(failed)?;
    fs::rename(&partial, path).map_err(failed)
}

//! `status`: what runs, as a table or JSON; and the same as a live view for `up`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use local::machine::Phase;
use local::machine::{
    BackupDoing, BackupState, BackupStatus, Commits, CommitsStatus, ProcessKind, ProcessStatus,
};
use model::{ByteSize, DatabaseRole, counted};
use serde::Serialize;

use super::Place;
use super::rehearse::journey::Beside;
use super::say::{self, BOLD, DIM, GREEN, Problem, RED, Stream, YELLOW, paint};
use crate::api::{Request, Status};

/// A PostgreSQL that has less has no space for the next segment of its log.
const DISK_FULL_BYTES: u64 = 16 * ByteSize::MB;

pub fn status(place: &Place, as_json: bool) -> Result<(), Problem> {
    let app = place.app()?;
    let journey = Beside::of(&app);
    let note = journey.map(|journey| format!("{} {}", paint(Stream::Err, BOLD, "note:"), journey.words()));
    let status = app.ask::<Status>(&Request::Status, |_| {});
    if let Some(note) = note.filter(|_| !as_json || status.is_err()) {
        say::talk(&note);
    }
    let status = status?;
    if as_json {
        return say::json(&Shown { status: &status, journey });
    }
    say::data(&table(&status, Stream::Out))
}

/// `status --json`. Fields are only ever added.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    status: &'a Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    journey: Option<Beside>,
}

pub fn metrics(place: &Place) -> Result<(), Problem> {
    let text: String = place.app()?.ask(&Request::Metrics, |_| {})?;
    say::data(&text)
}

fn table(status: &Status, stream: Stream) -> String {
    let machine = &status.machine;
    let mut text = String::new();
    let zones = match machine.zones.as_slice() {
        [] => "no zone".to_owned(),
        [one] => format!("zone {one}"),
        several => format!("zones {}", several.join(", ")),
    };
    let title = format!("{} at stage {}, {zones}", machine.app, machine.stage);
    text.push_str(&format!("{}  {}\n", paint(stream, BOLD, &title), machine.front.join("  ")));
    if let Some(operation) = &status.operation {
        let seconds = operation.running_ms / 1_000;
        text.push_str(&paint(stream, YELLOW, &format!("{} in progress for {seconds} s\n", operation.name)));
    }
    if let Some(low) = &machine.disk_low {
        text.push_str(&paint(stream, RED, &format!("no change is possible: {low}\n")));
    }
    if let Some(why) = &machine.unlimited_because {
        text.push_str(&paint(stream, DIM, &format!("sizes are not enforced: {why}\n")));
    }
    let header = format!(
        "{:<14} {:<5} {:<14} {:<13} {:>9} {:>9} {:>7} {:>9}  {}",
        "PROCESS", "ZONE", "STATE", "RELEASE", "IN FLIGHT", "REQ/S", "CPU %", "MEMORY", "ADDRESS"
    );
    text.push_str(&paint(stream, DIM, &header));
    text.push('\n');
    for process in &machine.processes {
        text.push_str(&row(process, stream));
    }
    for process in &machine.departing {
        let line = format!("{process} was replaced, and serves the sessions it still has\n");
        text.push_str(&paint(stream, DIM, &line));
    }
    for commits in &machine.commits {
        text.push_str(&commits_line(commits, stream));
    }
    for backups in &machine.backups {
        text.push_str(&backups_line(backups, stream));
    }
    text
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Nothing as long as standbys confirm them.
fn commits_line(commits: &CommitsStatus, stream: Stream) -> String {
    let (since, database) = (ago(commits.for_s), &commits.database);
    let (style, said, hint) = match commits.state {
        Commits::Confirmed => return String::new(),
        Commits::Waiting => (
            RED,
            format!("wait for a standby since {since}; reads do not"),
            "they go on when one follows; `without_standby = \"degrade\"` lets the primary acknowledge alone",
        ),
        Commits::Alone => (
            YELLOW,
            format!("acknowledged by the primary alone since {since}"),
            "until a standby follows, what is lost with the primary's disk is lost",
        ),
    };
    let said = paint(stream, style, &said);
    format!("commits of {database}: {said}\n  {} {hint}\n", paint(stream, BOLD, "hint:"))
}

fn backups_line(backups: &BackupStatus, stream: Stream) -> String {
    let proven = || {
        let age = backups.proven_age_s.map(ago);
        age.map_or_else(|| "none proven".to_owned(), |age| format!("the newest proven is {age} old"))
    };
    let name = &backups.database;
    let copies = format!("{}, {}", counted(backups.copies, "copy"), proven());
    let (style, said) = match (backups.state, &backups.problem) {
        (BackupState::Off, _) => (DIM, "off".to_owned()),
        (_, Some(problem)) => (RED, format!("failing: {problem}; {copies}")),
        (BackupState::Proven, None) => (GREEN, copies),
        (BackupState::Waiting, None) => (YELLOW, "no copy yet".to_owned()),
        (BackupState::Unproven | BackupState::Failing, None) => (YELLOW, copies),
    };
    let mut text = format!("backups of {name}: {}\n", paint(stream, style, &said));
    if let Some(work) = &backups.under_way {
        let doing = match work.doing {
            BackupDoing::Making => "being made",
            BackupDoing::Proving => "being proven",
        };
        let line = format!("  backup {} is {doing}, for {} s\n", work.backup, work.running_ms / 1_000);
        text.push_str(&paint(stream, YELLOW, &line));
    }
    if !backups.kept_aside.is_empty() {
        let nodes = backups.kept_aside.join(", ");
        text.push_str(&format!(
            "  kept aside by a restore: {nodes} (`switchback restore --forget-replaced` deletes it)\n"
        ));
    }
    if let Some(hint) = &backups.hint {
        text.push_str(&format!("  {} {hint}\n", paint(stream, BOLD, "hint:")));
    }
    text
}

fn row(process: &ProcessStatus, stream: Stream) -> String {
    let state = shown_state(process);
    let style = match (process.state, state.as_str()) {
        (Phase::Ready, "ready") => GREEN,
        (Phase::CrashLooping | Phase::Failed, _) => RED,
        _ => YELLOW,
    };
    let state = paint(stream, style, &format!("{state:<14}"));
    let release = process.release.as_deref().or(process.role.map(named)).unwrap_or("-");
    let number =
        |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
    let in_flight = process.in_flight.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let memory = process.memory_bytes.map(|bytes| ByteSize::from_bytes(bytes).rounded());
    let memory = memory.unwrap_or_else(|| "-".to_owned());
    let address = match process.kind {
        ProcessKind::Postgres => match &process.version {
            Some(version) => format!("{version}, {}", behind(process)),
            None => behind(process),
        },
        _ => process.address.clone(),
    };
    let mut text = format!(
        "{:<14} {:<5} {state} {release:<13} {in_flight:>9} {:>9} {:>7} {memory:>9}  {address}\n",
        process.name,
        process.zone,
        number(process.requests_per_second, 1),
        number(process.cpu_percent, 1),
    );
    if process.state != Phase::Ready
        && let Some(reason) = &process.reason
    {
        let restarts = counted(process.restarts as usize, "time");
        text.push_str(&format!("  {reason} (restarted {restarts})\n"));
        if let Some(hint) = &process.hint {
            text.push_str(&format!("  {} {hint}\n", paint(stream, BOLD, "hint:")));
        }
        for line in process.last_lines.iter().rev().take(5).rev() {
            text.push_str(&paint(stream, DIM, &format!("  | {line}\n")));
        }
    }
    if let Some(why) = &process.not_following {
        text.push_str(&format!("  does not follow: {why}\n"));
        let hint = "what stands in its way has to go; `switchback why` shows what was tried";
        text.push_str(&format!("  {} {hint}\n", paint(stream, BOLD, "hint:")));
    }
    text
}

fn named(role: DatabaseRole) -> &'static str {
    match role {
        DatabaseRole::Primary => "primary",
        DatabaseRole::Standby => "standby",
        DatabaseRole::ReadReplica => "read replica",
    }
}

/// How far a node that follows is behind; of a primary, where it is to be reached.
fn behind(process: &ProcessStatus) -> String {
    if let Some(free) = process.disk_free_bytes.filter(|free| *free < DISK_FULL_BYTES) {
        return format!("its disk is full: {} MB free", free / ByteSize::MB);
    }
    match (process.role, process.streaming, process.replay_lag_bytes) {
        (Some(DatabaseRole::Primary) | None, _, _) => "through pgproxy".to_owned(),
        (_, Some(true), _) if process.confirms_commits == Some(false) => "catching up".to_owned(),
        (_, Some(true), _) if process.serves_reads == Some(false) => "gets no reads yet".to_owned(),
        (_, Some(true), Some(0)) => "up to date".to_owned(),
        (_, Some(true), Some(bytes)) => {
            format!("{} kB, {} ms behind", bytes.div_ceil(1_024), process.replay_lag_ms.unwrap_or_default())
        }
        _ => "not following".to_owned(),
    }
}

/// The keeper's view, or what the edge knows beyond it.
fn shown_state(process: &ProcessStatus) -> String {
    use edge::status::Health;
    match (process.state, process.health, process.in_rotation) {
        (Phase::Ready, Some(Health::Ejected), _) => "ejected".to_owned(),
        (Phase::Ready, Some(Health::Unhealthy), _) => "unhealthy".to_owned(),
        (Phase::Ready, _, Some(false)) => "no traffic".to_owned(),
        (phase, _, _) => {
            let value = serde_json::to_value(phase).unwrap_or_default();
            value.as_str().unwrap_or("unknown").to_owned()
        }
    }
}

/// Whether a database node does what it is there for; others have nothing to follow.
pub fn follows(process: &ProcessStatus) -> bool {
    match process.role {
        Some(DatabaseRole::Standby) => process.confirms_commits == Some(true),
        Some(DatabaseRole::ReadReplica) => process.serves_reads == Some(true),
        Some(DatabaseRole::Primary) | None => true,
    }
}

/// `what`, such as `a drill`, says something of an app that is whole only.
///
/// # Errors
/// When something of it is not ready.
pub fn must_be_whole(status: &Status, what: &str) -> Result<(), Problem> {
    let unready = |process: &&ProcessStatus| process.state != Phase::Ready || !follows(process);
    match status.machine.processes.iter().find(unready) {
        None => Ok(()),
        Some(process) => Err(Problem::refused(format!(
            "{} is not ready; {what} begins with an app that is whole",
            process.name
        ))
        .hint("`switchback status` shows what it waits for")),
    }
}

/// The table, drawn again in place; nothing where there is no terminal.
pub struct LiveView {
    bar: ProgressBar,
}

impl LiveView {
    pub fn new() -> LiveView {
        let bar = ProgressBar::new_spinner();
        if Stream::Err.is_terminal() {
            bar.set_style(
                ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.enable_steady_tick(Duration::from_secs(1));
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        LiveView { bar }
    }

    pub fn show(&self, status: &Status) {
        self.bar.set_message(table(status, Stream::Err));
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

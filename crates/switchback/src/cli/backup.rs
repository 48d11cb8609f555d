//! `backup`, `backup list` and `restore`: copies of the database, and the way back to them.

use std::path::PathBuf;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use local::backup::BaseBackup;
use local::chain;
use local::stopped::ForgetError;
use model::{ByteSize, NodeId, RecoveryTarget, ResourceId, counted};

use super::plan::agreed;
use super::say::{self, DIM, GREEN, Problem, RED, Stream, YELLOW, paint};
use super::{Place, progress};
use crate::api::{Request, Restored};

pub fn take(place: &Place, cluster: ResourceId, as_json: bool) -> Result<(), Problem> {
    let backup: BaseBackup = progress::ask(&place.app()?, Request::Backup { cluster })?;
    if as_json {
        return say::json(&backup);
    }
    let size = ByteSize::from_bytes(backup.stored_bytes).rounded();
    say::talk(&format!("{} {}, {size}", paint(Stream::Err, GREEN, "backup"), backup.number));
    Ok(())
}

pub fn list(place: &Place, cluster: ResourceId, from: Option<PathBuf>, as_json: bool) -> Result<(), Problem> {
    let backups: Vec<BaseBackup> = place.app()?.ask(&Request::Backups { cluster, from }, |_| {})?;
    if as_json {
        return say::json(&backups);
    }
    let header = format!(
        "{:<7} {:<20} {:>9} {:>9} {:>9}  {}",
        "BACKUP", "OF", "STORED", "RESTORED", "TIMELINE", "PROVEN"
    );
    let mut text = format!("{}\n", paint(Stream::Out, DIM, &header));
    for backup in &backups {
        let proven = match (&backup.proof, &backup.refuted) {
            (_, Some(why)) => paint(Stream::Out, RED, &format!("no: {why}")),
            (Some(proof), None) => paint(
                Stream::Out,
                GREEN,
                &format!(
                    "{}, {} compared with the primary",
                    counted(proof.tables as usize, "table"),
                    proof.compared
                ),
            ),
            (None, None) => paint(Stream::Out, YELLOW, "not yet"),
        };
        text.push_str(&format!(
            "{:<7} {:<20} {:>9} {:>9} {:>9}  {proven}\n",
            backup.number,
            say::local_time(backup.ended),
            ByteSize::from_bytes(backup.stored_bytes).rounded(),
            ByteSize::from_bytes(backup.data_bytes).rounded(),
            backup.timeline,
        ));
    }
    say::data(&text)
}

pub fn restore(
    place: &Place,
    cluster: ResourceId,
    to: RecoveryTarget,
    from: Option<PathBuf>,
    yes: bool,
    as_json: bool,
) -> Result<(), Problem> {
    let app = place.app()?;
    app.ask::<()>(&Request::CheckRestore { cluster: cluster.clone(), to, from: from.clone() }, |_| {})?;
    let what = match &from {
        None => "What was written since".to_owned(),
        Some(folder) => format!("It would be what is in {}. What it has now", folder.display()),
    };
    say::talk(&format!(
        "{cluster} would be brought back to {}. {what} would be kept aside, and no longer be seen by the app.",
        shown(to)
    ));
    if !yes && !agreed("Bring it back?")? {
        return Err(Problem::refused("nothing was changed"));
    }
    let restored: Restored = progress::ask(&app, Request::Restore { cluster, to, from })?;
    if as_json {
        return say::json(&restored);
    }
    let Restored { backup, primary, took_ms, .. } = restored;
    let done = paint(Stream::Err, GREEN, "restored:");
    say::talk(&format!(
        "{done} {primary} serves, from backup {backup} and the log after it, after {took_ms} ms"
    ));
    Ok(())
}

pub fn forget(place: &Place, cluster: ResourceId, yes: bool, as_json: bool) -> Result<(), Problem> {
    let app = place.app()?;
    if !yes && !agreed("Delete the data that restores have put aside?")? {
        return Err(Problem::refused("nothing was deleted"));
    }
    let mut moved = Vec::new();
    let nodes: Vec<NodeId> =
        app.ask_or_look(&Request::ForgetReplaced { cluster: cluster.clone() }, |stopped| {
            let (nodes, folders) = stopped.forget_replaced(&cluster).map_err(not_forgotten)?;
            moved = folders;
            Ok(nodes)
        })?;
    for folder in moved {
        std::fs::remove_dir_all(&folder).map_err(|error| {
            Problem::failed(format!("{}: {error}", folder.display()))
                .hint("it can be deleted by hand; nothing needs it")
        })?;
    }
    if as_json {
        return say::json(&nodes);
    }
    if nodes.is_empty() {
        say::talk("nothing was kept aside");
        return Ok(());
    }
    let text = nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    say::talk(&format!("{} {text}", paint(Stream::Err, GREEN, "deleted:")));
    Ok(())
}

fn not_forgotten(error: ForgetError) -> Problem {
    let hint = match error {
        ForgetError::PlanInProgress => "`switchback up` ends it first",
        ForgetError::Store(_) => "`switchback up` starts a daemon, which puts it in order",
        ForgetError::Io(_) => "see that the state folder is yours to write",
    };
    Problem::failed(chain(&error)).hint(hint)
}

fn shown(to: RecoveryTarget) -> String {
    match to {
        RecoveryTarget::Latest => "the newest moment that is stored".to_owned(),
        RecoveryTarget::Time { unix_us } => {
            Timestamp::from_microsecond(unix_us).map(say::local_time).unwrap_or_default()
        }
    }
}

/// A folder, which the daemon looks for from another one than this command.
pub fn folder(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| error.to_string())
}

/// `latest`, a time with its zone (`2026-11-25T16:00:00Z`), or one of this machine's (`2026-11-25 16:00`).
pub fn target(text: &str) -> Result<RecoveryTarget, String> {
    if text == "latest" {
        return Ok(RecoveryTarget::Latest);
    }
    let local = || {
        let time: DateTime = text.parse().ok()?;
        Some(time.to_zoned_datetime(TimeZone::system()).ok()?.timestamp())
    };
    let time: Option<Timestamp> = text.parse().ok().or_else(local);
    let time =
        time.ok_or("expected `latest` or a time such as 2026-11-25T16:00:00Z or \"2026-11-25 16:00\"")?;
    Ok(RecoveryTarget::Time { unix_us: time.as_microsecond() })
}

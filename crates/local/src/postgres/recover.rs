//! Starting an unpacked copy so that it replays the log up to a target.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use model::{Lsn, RecoveryTarget};

use super::archiving::restore_command;
use super::{Launch, NodePaths, Owner, command_line};
use crate::backup::Archive;
use crate::engines::PostgresEngine;

/// Where a replay ends, and what becomes of the node then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// It becomes a primary on a timeline of its own.
    Promote(RecoveryTarget),
    /// It stays as it is, and can be read. Everything before this position is replayed.
    PauseAt(Lsn),
}

/// How to start it. Settings here win over those in files: its own log goes nowhere before it has taken a place in the
/// cluster, so that one that never does leaves no trace in the archive.
pub fn recovery_command(
    engine: &PostgresEngine,
    paths: &NodePaths,
    owner: &Owner,
    program: &Path,
    archive: &Archive,
    timeline: u32,
    replay: Replay,
) -> Launch {
    let mut launch = command_line(engine, paths, owner);
    let mut set = |name: &str, value: &str| {
        launch.argv.extend([OsString::from("-c"), OsString::from(format!("{name}={value}"))]);
    };
    set("restore_command", &restore_command(program, archive));
    set("recovery_target_timeline", &timeline.to_string());
    // Not `always`: what comes from the archive does not go back there.
    set("archive_mode", "on");
    set("archive_command", "");
    match replay {
        Replay::Promote(target) => {
            set("hot_standby", "off");
            if let RecoveryTarget::Time { unix_us } = target {
                set("recovery_target_time", &timestamp(unix_us));
                set("recovery_target_action", "promote");
            }
        }
        Replay::PauseAt(lsn) => {
            set("recovery_target_lsn", &format!("{:X}/{:X}", lsn.0 >> 32, lsn.0 & 0xFFFF_FFFF));
            set("recovery_target_inclusive", "off");
            set("recovery_target_action", "pause");
        }
    }
    launch
}

/// Makes the next start a recovery.
///
/// # Errors
/// When the signal file cannot be written.
pub fn mark_for_recovery(paths: &NodePaths, owner: &Owner) -> io::Result<()> {
    let signal = paths.pgdata().join("recovery.signal");
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&signal)?.sync_all()?;
    owner.take(&signal)
}

fn timestamp(unix_us: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(unix_us).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}

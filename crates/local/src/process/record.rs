//! The record by which a process is found again: `NAME.pid` in the run folder, one line of JSON.
//!
//! It is written by the child itself, between `fork` and `exec`, where only system calls are allowed: so the
//! text around the two numbers is prepared before the fork ([`Draft`]) and the child fills them in.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::StopSignal;

/// Longest record read; a longer file is not one.
const MAX_RECORD_BYTES: u64 = 4096;

/// Which process was started under a name. Names that process for ever: pids are reused, a pid with a start
/// time is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub name: String,
    pub pid: u32,
    /// The process group, and the session: the leader's own pid.
    pub pgid: u32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start_time_ticks: u64,
    pub boot_id: String,
    pub spawned_at: Timestamp,
    pub stop_signal: StopSignal,
}

impl Record {
    pub(super) fn read(path: &Path) -> Option<Record> {
        let metadata = std::fs::metadata(path).ok()?;
        if metadata.len() > MAX_RECORD_BYTES {
            return None;
        }
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

/// Every record in the run folder, by its name. What is no record is passed over.
pub(super) fn read_all(run_dir: &Path) -> Vec<Record> {
    let entries = std::fs::read_dir(run_dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut records: Vec<Record> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "pid"))
        .filter_map(|path| Record::read(&path))
        .collect();
    records.sort_by(|a, b| a.name.cmp(&b.name));
    records
}

/// Differs from one start of the machine to the next. Empty when the kernel does not say.
pub(super) fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.unwrap_or_default().trim().to_owned()
}

/// A record but for the numbers that only the child knows.
pub(super) struct Draft {
    /// Before each number, and after the last: pid, pgid, start time.
    pub pieces: [Vec<u8>; 4],
    pub temporary: CString,
    pub path: CString,
}

impl Draft {
    pub(super) fn new(
        path: &Path,
        name: &str,
        boot_id: &str,
        spawned_at: Timestamp,
        stop_signal: StopSignal,
    ) -> Option<Draft> {
        let signal = serde_json::to_string(&stop_signal).ok()?;
        let name = serde_json::to_string(name).ok()?;
        let last =
            format!(r#","boot_id":"{boot_id}","spawned_at":"{spawned_at}","stop_signal":{signal}}}"#) + "\n";
        Some(Draft {
            pieces: [
                format!(r#"{{"name":{name},"pid":"#).into_bytes(),
                br#","pgid":"#.to_vec(),
                br#","start_time_ticks":"#.to_vec(),
                last.into_bytes(),
            ],
            temporary: CString::new([path.as_os_str().as_bytes(), b".new"].concat()).ok()?,
            path: CString::new(path.as_os_str().as_bytes()).ok()?,
        })
    }
}

//! What PostgreSQL runs to hand over its log, and to get it back. Said to it in exit codes; the words go to its log.

use std::path::Path;
use std::process::ExitCode;

use local::backup::{Archive, Fetched};
use local::chain;

use super::say;

/// Above 125 PostgreSQL ends a recovery; below, it takes the log to have ended before this file.
const UNREADABLE: u8 = 200;

pub fn push(archive: &Path, source: &Path) -> ExitCode {
    match Archive::at(archive).push(source) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            say::talk(&format!("wal-push: {}", chain(&error)));
            ExitCode::FAILURE
        }
    }
}

pub fn fetch(archive: &Path, name: &str, to: &Path) -> ExitCode {
    match Archive::at(archive).fetch(name, to) {
        Ok(Fetched::Got) => ExitCode::SUCCESS,
        Ok(Fetched::NotThere) => ExitCode::FAILURE,
        Err(error) => {
            say::talk(&format!("wal-fetch: {}", chain(&error)));
            ExitCode::from(UNREADABLE)
        }
    }
}

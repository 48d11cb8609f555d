//! How a node is started, told and stopped. Doing so is the supervisor's business.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

use super::{NodePaths, Owner};
use crate::engines::PostgresEngine;
use crate::user::Identity;

/// Makes PostgreSQL read its configuration again.
pub const RELOAD_SIGNAL: Signal = Signal::HUP;

/// What the supervisor starts as one process. It does not fork away: the process is the postmaster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program first.
    pub argv: Vec<OsString>,
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    /// `None`: as whom the supervisor runs.
    pub user: Option<Identity>,
}

/// The two ways of stopping that are ever used, in their order. There is no third: SIGTERM would wait for every client
/// to leave by itself, and SIGKILL of the postmaster leaves backends behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ends sessions, writes a checkpoint.
    Fast,
    /// Ends everything at once, as a crash would; the next start replays the log. For when fast is not fast enough.
    Immediate,
}

impl Stop {
    pub fn signal(self) -> Signal {
        match self {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        }
    }
}

/// How to start the node in `paths`, once it is made and configured.
pub fn command_line(engine: &PostgresEngine, paths: &NodePaths, owner: &Owner) -> Launch {
    let setting = |name: &str, file: &str| {
        let mut setting = OsString::from(format!("{name}="));
        setting.push(paths.conf().join(file));
        setting
    };
    let argv = vec![
        engine.program("postgres").into_os_string(),
        "-D".into(),
        paths.pgdata().into_os_string(),
        "-c".into(),
        setting("config_file", "node.conf"),
        "-c".into(),
        setting("hba_file", "pg_hba.conf"),
        "-c".into(),
        setting("ident_file", "pg_ident.conf"),
    ];
    let mut env = engine.env.clone();
    // Messages are read by `diagnose`, so they are in one language; times are in one zone.
    env.insert("LC_ALL".to_owned(), "C".to_owned());
    env.insert("TZ".to_owned(), "UTC".to_owned());
    Launch { argv, env, cwd: paths.root().to_owned(), user: owner.identity().cloned() }
}

/// Makes a running node read its configuration again. Settings that need a restart stay as they are.
///
/// # Errors
/// When there is no such process.
pub fn reload(postmaster: Pid) -> io::Result<()> {
    Ok(kill_process(postmaster, RELOAD_SIGNAL)?)
}

//! How a process ended, in the words of the log and of `why`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Command;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// It ended, but was not our child (an earlier daemon started it), and the kernel is too old to tell.
    Unknown,
}

impl Exit {
    /// What a shell says when there is no such command.
    pub const NO_SUCH_COMMAND: i32 = 127;
    /// What a shell says of a command that may not be executed, or is no program.
    pub const MAY_NOT_EXECUTE: i32 = 126;

    pub fn success(self) -> bool {
        self == Exit::Code(0)
    }

    /// From the kernel's status word.
    pub(super) fn from_status(status: i32) -> Exit {
        if libc::WIFSIGNALED(status) {
            Exit::Signal(libc::WTERMSIG(status))
        } else {
            Exit::Code(libc::WEXITSTATUS(status))
        }
    }

    /// What it most likely means, when it means something for this command.
    pub fn explain(self, command: &Command) -> Option<&'static str> {
        match (self, command) {
            (Exit::Code(0), _) => Some("by itself, and without an error"),
            (Exit::Code(Exit::NO_SUCH_COMMAND), Command::Shell(_)) => Some("the shell found no such command"),
            (Exit::Code(Exit::MAY_NOT_EXECUTE), Command::Shell(_)) => {
                Some("the shell may not execute the command (permission or format)")
            }
            (Exit::Signal(libc::SIGKILL), _) => Some("killed: by someone, or because memory ran out"),
            (Exit::Signal(libc::SIGSEGV), _) => Some("it crashed: invalid memory access"),
            (Exit::Signal(libc::SIGABRT), _) => Some("it aborted itself"),
            _ => None,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "{name}"),
                None => write!(f, "signal {signal}"),
            },
            Exit::Unknown => f.write_str("ended (how is unknown)"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

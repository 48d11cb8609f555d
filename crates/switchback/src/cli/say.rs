//! How things are said: colours where they help, a hint with every problem, an exit code that means something.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::up::INTERRUPTED;
use crate::api::{Failure, FailureKind};

pub const BOLD: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();
pub const GREEN: Style = AnsiColor::Green.on_default();
pub const RED: Style = AnsiColor::Red.on_default();
pub const YELLOW: Style = AnsiColor::Yellow.on_default();

/// Where a text goes decides whether it is coloured. `NO_COLOR` switches colours off (no-color.org).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

impl Stream {
    pub fn is_terminal(self) -> bool {
        match self {
            Stream::Out => std::io::stdout().is_terminal(),
            Stream::Err => std::io::stderr().is_terminal(),
        }
    }

    fn coloured(self) -> bool {
        self.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }
}

/// `text` in a style, where the stream shows styles.
pub fn paint(stream: Stream, style: Style, text: &str) -> String {
    if stream.coloured() { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// As people are shown it: on this machine's clock, to the second. Programs get it exact, by `--json`.
pub fn local_time(time: Timestamp) -> String {
    time.to_zoned_datetime(TimeZone::system()).strftime("%F %T").to_string()
}

/// The same to the millisecond, of what comes many times a second.
pub fn local_time_ms(time: Timestamp) -> String {
    time.to_zoned_datetime(TimeZone::system()).strftime("%F %T%.3f").to_string()
}

/// Writes data. A reader that has seen enough and closed the pipe is no error (`switchback logs | head`).
pub fn data(text: &str) -> Result<(), Problem> {
    more_data(text).map(drop)
}

/// The same, of data without an end. `false`: there is no reader any more.
pub fn more_data(text: &str) -> Result<bool, Problem> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Problem::failed(error.to_string())),
    }
}

/// Pretty JSON on stdout.
pub fn json(value: &impl serde::Serialize) -> Result<(), Problem> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Problem::failed(error.to_string()))?;
    data(&format!("{text}\n"))
}

/// A line of talk.
pub fn talk(text: &str) {
    // Nobody to talk to is no error.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Why a command ends badly.
#[derive(Debug)]
pub enum Problem {
    Failed {
        message: String,
        hint: Option<String>,
        last_lines: Vec<String>,
    },
    Refused {
        message: String,
        hint: Option<String>,
        last_lines: Vec<String>,
    },
    /// Somebody else changes things: nothing was begun.
    Busy {
        message: String,
        hint: Option<String>,
    },
    /// Of the arguments.
    Usage {
        message: String,
        hint: Option<String>,
    },
    Manifest(Box<manifest::Problems>),
    /// It was interrupted before anything was asked of the daemon.
    NotBegun,
    /// Everything was said already.
    Said(u8),
}

impl Problem {
    pub fn failed(message: impl Into<String>) -> Problem {
        Problem::Failed { message: message.into(), hint: None, last_lines: Vec::new() }
    }

    pub fn refused(message: impl Into<String>) -> Problem {
        Problem::Refused { message: message.into(), hint: None, last_lines: Vec::new() }
    }

    pub fn usage(message: impl Into<String>) -> Problem {
        Problem::Usage { message: message.into(), hint: None }
    }

    pub fn hint(mut self, text: impl Into<String>) -> Problem {
        match &mut self {
            Problem::Failed { hint, .. }
            | Problem::Refused { hint, .. }
            | Problem::Busy { hint, .. }
            | Problem::Usage { hint, .. } => {
                *hint = Some(text.into());
            }
            Problem::Manifest(_) | Problem::NotBegun | Problem::Said(_) => {}
        }
        self
    }

    /// What went wrong, in a sentence without its full stop.
    pub fn message(&self) -> String {
        match self {
            Problem::Failed { message, .. }
            | Problem::Refused { message, .. }
            | Problem::Busy { message, .. }
            | Problem::Usage { message, .. } => message.clone(),
            Problem::Manifest(_) => "the manifest has problems".to_owned(),
            Problem::NotBegun | Problem::Said(INTERRUPTED) => "it was interrupted".to_owned(),
            Problem::Said(code) => format!("it ended with code {code}"),
        }
    }

    /// Says it and gives the exit code.
    pub fn report(self) -> ExitCode {
        let (code, message, hint, last_lines) = match self {
            Problem::Failed { message, hint, last_lines } => (1, message, hint, last_lines),
            Problem::Usage { message, hint } => (2, message, hint, Vec::new()),
            Problem::Refused { message, hint, last_lines } => (3, message, hint, last_lines),
            Problem::Busy { message, hint } => (3, message, hint, Vec::new()),
            Problem::NotBegun => {
                talk("interrupted: nothing was begun");
                return ExitCode::from(INTERRUPTED);
            }
            Problem::Manifest(problems) => {
                talk(&format!("{:?}", miette::Report::new(*problems)));
                return ExitCode::from(2);
            }
            Problem::Said(code) => return ExitCode::from(code),
        };
        talk(&format!("{} {message}", paint(Stream::Err, RED.bold(), "error:")));
        if !last_lines.is_empty() {
            talk("it said last:");
            for line in last_lines {
                talk(&format!("  {} {line}", paint(Stream::Err, DIM, "|")));
            }
        }
        if let Some(hint) = hint {
            talk(&format!("{} {hint}", paint(Stream::Err, BOLD, "hint:")));
        }
        ExitCode::from(code)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        let Failure { kind, message, hint, last_lines } = failure;
        match kind {
            FailureKind::Failed => Problem::Failed { message, hint, last_lines },
            FailureKind::Refused => Problem::Refused { message, hint, last_lines },
            FailureKind::Busy => Problem::Busy { message, hint },
        }
    }
}

impl From<manifest::Problems> for Problem {
    fn from(problems: manifest::Problems) -> Problem {
        Problem::Manifest(Box::new(problems))
    }
}

/// Structured log lines for the daemon and the roles; whoever starts them points stderr at a file. `SWITCHBACK_LOG`
/// chooses what is said, by default everything from `info` up.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SWITCHBACK_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that a full disk refuses is lost. The subscriber would say so on the same stderr, and panic there.
        .log_internal_errors(false)
        .init();
}

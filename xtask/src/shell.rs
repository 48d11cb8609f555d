//! Running other programs, said aloud; and phases, timed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};
use crate::house;

/// `cargo`, in the root of the repository. The one that runs us, where one does.
pub fn cargo() -> Command {
    run_of_cargo(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program that is cargo, or runs it, in the root of the repository.
pub fn run_of_cargo(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    // What `cargo run` sets for us is about xtask; build scripts of others must not see it change.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR") {
            command.env_remove(name);
        }
    }
    command.current_dir(house::root()).env("CARGO_TARGET_DIR", house::target());
    command
}

/// Runs to the end, says the command line first, and shows what it prints.
///
/// # Errors
/// When it cannot be started or ends badly.
pub fn run(command: &mut Command) -> Result {
    let line = line_of(command);
    eprintln!("    $ {line}");
    let status = command.stdin(Stdio::null()).status().map_err(Failure::while_doing(&line))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("`{line}` ended with {status}"))) }
}

/// Runs to the end in silence and gives what it printed.
///
/// # Errors
/// When it cannot be started or ends badly; the message carries what it said.
pub fn read(command: &mut Command) -> Result<String> {
    let line = line_of(command);
    let output = command.stdin(Stdio::null()).output().map_err(Failure::while_doing(&line))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(format!("`{line}` ended with {}\n{said}", output.status)))
}

/// Finds a program in `PATH`, or where the system keeps its own (which `PATH` of a user may not name).
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(program)).find(|path| path.is_file())
}

pub fn line_of(command: &Command) -> String {
    let short = |word: &OsStr| {
        let word = word.to_string_lossy();
        let word = word.strip_prefix(&format!("{}/", house::root().display())).unwrap_or(&word).to_owned();
        if word.len() > 200 { format!("{}...", word.chars().take(60).collect::<String>()) } else { word }
    };
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(short(program)).chain(command.get_args().map(short));
    words.collect::<Vec<_>>().join(" ")
}

/// Named parts of a long command, each timed.
#[derive(Default)]
pub struct Phases {
    done: Vec<(&'static str, Duration)>,
}

impl Phases {
    /// # Errors
    /// Those of `work`.
    pub fn run(&mut self, name: &'static str, work: impl FnOnce() -> Result) -> Result {
        eprintln!("\n==> {name}");
        let began = Instant::now();
        let result = work();
        let took = began.elapsed();
        eprintln!("    {name}: {} in {}", if result.is_ok() { "done" } else { "FAILED" }, seconds(took));
        self.done.push((name, took));
        result.map_err(|failure| Failure::new(format!("{name}: {failure}")))
    }

    pub fn summary(&self) -> String {
        let total: Duration = self.done.iter().map(|(_, took)| *took).sum();
        let parts: Vec<String> =
            self.done.iter().map(|(name, took)| format!("{name} {}", seconds(*took))).collect();
        format!("{} in all: {}", seconds(total), parts.join(", "))
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

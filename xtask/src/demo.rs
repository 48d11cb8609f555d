//! The whole thing running, from a fresh clone, by one command: the example app behind our front door.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::flags::Flags;
use crate::house;
use crate::http;
use crate::port;
use crate::setup;
use crate::shell::{self, Phases};

/// `up` has waited for the app already; this is for the very first page.
const FIRST_PAGE_LIMIT: Duration = Duration::from_secs(30);

/// # Errors
/// When something cannot be installed, built or started.
pub fn run(mut flags: Flags) -> Result {
    let detach = flags.switch("--detach");
    let consent = setup::Consent::from_flags(&mut flags);
    flags.end()?;
    // Rather than after the builds, which take minutes.
    if let Some(who) = who_has_its_address()? {
        let Some(url) = front() else { return Err(Failure::new(who)) };
        say_that_it_runs(&url);
        return Ok(());
    }
    let mut phases = Phases::default();
    phases.run("setup", || setup::install(setup::Needs::DEMO, consent))?;
    phases.run("build switchback", build_switchback)?;
    if let Some(url) = front() {
        say_that_it_runs(&url);
        return Ok(());
    }
    phases.run("build examples/frontpage", build_frontpage)?;
    if !detach {
        eprintln!("\n==> switchback up (Ctrl-C stops it)");
        // From here on this process is `switchback`: the terminal and its signals are its own.
        let error = switchback(&["up"]).exec();
        return Err(Failure::new(format!("switchback: {error}")));
    }
    phases.run("switchback up", || shell::run(&mut switchback(&["up", "--detach"])))?;
    let url = front().ok_or_else(|| Failure::new("switchback is up, but says no address"))?;
    let authority = http::authority(&url).ok_or_else(|| Failure::new(format!("{url} is no http address")))?;
    http::wait_for_200(authority, FIRST_PAGE_LIMIT)?;
    eprintln!("\nThe front page is at {url}");
    eprintln!(
        "hint: `{} status -C examples/frontpage` shows what runs, `down` stops it",
        program().display()
    );
    println!("{url}");
    Ok(())
}

/// That somebody has the address that the demo listens on, and what can be done about it.
fn who_has_its_address() -> Result<Option<String>> {
    let path = house::frontpage().join("switchback.toml");
    let manifest = std::fs::read_to_string(&path).map_err(Failure::while_doing(path.display()))?;
    let taken = port::listen(&manifest).and_then(|address| Some((address, port::taken_by(address)?)));
    Ok(taken.map(|(address, who)| {
        format!(
            "the demo listens on {address}, which {who} has\nhint: stop it, or choose another address with `listen` under \
             [edge] in {}",
            path.display()
        )
    }))
}

fn say_that_it_runs(url: &str) {
    eprintln!("\nThe demo is already running: {url}");
    eprintln!("hint: `{} down -C examples/frontpage` stops it", program().display());
    println!("{url}");
}

/// # Errors
/// When it does not compile.
pub fn build_switchback() -> Result {
    shell::run(shell::cargo().args(["build", "--release", "--locked", "--package", "switchback"]))
}

/// As the app's own manifest builds it, so that `up` finds it done.
///
/// # Errors
/// When it does not compile.
pub fn build_frontpage() -> Result {
    let mut build = shell::cargo();
    build.args(["build", "--release", "--locked", "--target-dir", "target"]);
    shell::run(build.current_dir(house::frontpage()))
}

/// The program that [`build_switchback`] makes.
pub fn program() -> PathBuf {
    house::target().join("release/switchback")
}

fn switchback(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    // The app is built by its own command; where this workspace is built is none of its business.
    command.env_remove("CARGO_TARGET_DIR").args(arguments).arg("-C").arg(house::frontpage());
    command
}

/// The first plain address of the running demo, if it runs.
fn front() -> Option<String> {
    let status: Value =
        serde_json::from_str(&shell::read(&mut switchback(&["status", "--json"])).ok()?).ok()?;
    if status.get("running").and_then(Value::as_bool) == Some(false) {
        return None;
    }
    let front = status.get("front")?.as_array()?;
    front.iter().filter_map(Value::as_str).find(|url| url.starts_with("http://")).map(str::to_owned)
}

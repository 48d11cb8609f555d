//! From nothing to the first page: `up` of examples/frontpage, already built, with a new state folder each time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::figures::Figures;
use super::quiet::{self, Busy};
use crate::demo;
use crate::failure::{Failure, Result};
use crate::flags::Flags;
use crate::house;
use crate::http;
use crate::setup;
use crate::shell;

const DEFAULT_ROUNDS: u32 = 5;
const LIMIT: Duration = Duration::from_secs(120);
/// What the example's manifest leaves at its default.
pub const FRONT: &str = "127.0.0.1:8080";

/// # Errors
/// When it does not come up, or the machine is busy.
pub fn run(mut flags: Flags) -> Result {
    let rounds = flags.option("--rounds")?.unwrap_or(DEFAULT_ROUNDS).max(1);
    let busy = if flags.switch("--anyway") { Busy::Measure } else { Busy::Refuse };
    let consent = setup::Consent::from_flags(&mut flags);
    flags.end()?;
    prepare(consent)?;
    let watch = quiet::must_be_quiet(busy)?;
    let mut figures = Figures::default();
    for round in 1..=rounds {
        let up = Up::start("bench-up")?;
        let took = up.first_page()?.as_secs_f64();
        eprintln!("    round {round}: {took:.2} s");
        figures.add(took);
    }
    if let Some(busy) = watch.end() {
        println!("The machine was busy with something else ({busy}); for orientation only.");
    }
    println!("From nothing to the first 200, s: {}", figures.text(2));
    Ok(())
}

/// # Errors
/// When something is missing or does not build.
pub fn prepare(consent: setup::Consent) -> Result {
    setup::install(setup::Needs::DEMO, consent)?;
    demo::build_switchback()?;
    demo::build_frontpage()?;
    if http::status(FRONT).is_ok() {
        return Err(Failure::new(format!("somebody answers at {FRONT} already; is the demo running?")));
    }
    Ok(())
}

/// The example, up with a state folder of its own. Taken down with everything when dropped.
pub struct Up {
    state: PathBuf,
    began: Instant,
    child: std::process::Child,
}

impl Up {
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str) -> Result<Up> {
        let state = house::target().join(name);
        // What a broken run has left.
        let _ = std::fs::remove_dir_all(&state);
        let log = house::target().join(format!("{name}.log"));
        let log = std::fs::File::create(&log).map_err(Failure::while_doing(log.display()))?;
        let began = Instant::now();
        let mut command = switchback(&state, &["up", "--detach"]);
        let child =
            command.stderr(log).stdout(Stdio::null()).spawn().map_err(Failure::while_doing("switchback"))?;
        Ok(Up { state, began, child })
    }

    /// Since the start.
    ///
    /// # Errors
    /// When there is none within two minutes.
    pub fn first_page(&self) -> Result<Duration> {
        http::wait_for_200(FRONT, LIMIT)?;
        Ok(self.began.elapsed())
    }

    /// What `status --json` says, once `up` has returned.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn status(&mut self) -> Result<serde_json::Value> {
        self.child.wait().map_err(Failure::while_doing("switchback up"))?;
        let text = shell::read(&mut switchback(&self.state, &["status", "--json"]))?;
        serde_json::from_str(&text).map_err(Failure::while_doing("status --json"))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.wait();
        let mut down = switchback(&self.state, &["down", "--destroy", "--yes", "frontpage"]);
        if let Err(failure) = shell::read(&mut down) {
            eprintln!("    {failure}");
        }
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

fn switchback(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(demo::program());
    command.env_remove("CARGO_TARGET_DIR").stdin(Stdio::null());
    command.arg("-C").arg(house::frontpage()).arg("--state-dir").arg(state).args(arguments);
    command
}

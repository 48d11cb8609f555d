//! What a running app costs while nobody asks for anything: the daemon and each role.

use std::time::Duration;

use serde_json::Value;

use super::processes::{Usage, usage_of_one};
use super::quiet::{self, Busy};
use super::up::{Up, prepare};
use crate::failure::{Failure, Result};
use crate::flags::Flags;
use crate::setup;

const DEFAULT_SECONDS: u64 = 30;
/// After the first page there is still something to tidy up.
const SETTLE: Duration = Duration::from_secs(5);

/// # Errors
/// When it does not come up, or the machine is busy.
pub fn run(mut flags: Flags) -> Result {
    let duration = Duration::from_secs(flags.option("--seconds")?.unwrap_or(DEFAULT_SECONDS).max(1));
    let busy = if flags.switch("--anyway") { Busy::Measure } else { Busy::Refuse };
    let consent = setup::Consent::from_flags(&mut flags);
    flags.end()?;
    prepare(consent)?;
    let watch = quiet::must_be_quiet(busy)?;
    let mut up = Up::start("bench-idle")?;
    up.first_page()?;
    let status = up.status()?;
    std::thread::sleep(SETTLE);
    let watched = watched(&status)?;
    let before: Vec<Usage> = watched.iter().map(|(_, pid)| usage_of_one(*pid)).collect();
    std::thread::sleep(duration);
    let after: Vec<Usage> = watched.iter().map(|(_, pid)| usage_of_one(*pid)).collect();
    if let Some(busy) = watch.end() {
        println!("The machine is busy with something else ({busy}); for orientation only.");
    }
    println!("Idle for {} s:\n", duration.as_secs());
    println!("| process | CPU, % of a core | memory, MB |\n|---|---|---|");
    for ((name, _), (before, after)) in watched.iter().zip(before.iter().zip(after)) {
        let percent = (after.cpu_seconds - before.cpu_seconds) / duration.as_secs_f64() * 100.0;
        println!("| {name} | {percent:.2} | {:.1} |", after.memory_bytes as f64 / 1024.0 / 1024.0);
    }
    Ok(())
}

/// The daemon and the roles; the app and its database are not ours to answer for.
fn watched(status: &Value) -> Result<Vec<(String, u32)>> {
    let pid = |value: &Value| value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    let daemon = pid(&status["daemon"]).ok_or_else(|| Failure::new("status names no daemon"))?;
    let mut watched = vec![("daemon".to_owned(), daemon)];
    for process in status["processes"].as_array().into_iter().flatten() {
        if let (Some("edge" | "pgproxy"), Some(name), Some(pid)) =
            (process["kind"].as_str(), process["name"].as_str(), pid(process))
        {
            watched.push((name.to_owned(), pid));
        }
    }
    Ok(watched)
}

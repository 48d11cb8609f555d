//! The two loads, as the generator reads them.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::house;
use crate::shell;

/// Of the steady load.
pub const REQUESTS_PER_SECOND: f64 = 10_000.0;
/// Of a visit in the steady load, on one connection.
const STEPS: u32 = 40;
/// Between two of them. The mean is about 14, so a visit lasts about half a second.
const THINK_MS: u32 = 10;
/// The example of `rehearsal` that counts a seed's visits.
const SCHEDULE: &str = "scheduled_visits";
/// Until visits begin and end at the same rate.
pub const WARM_UP_SECONDS: u32 = 3;

/// 10,000 requests/s: visits of many small steps, each on one kept connection.
pub fn steady(port: u16, seconds: u32, seed: u64) -> Value {
    let rate = REQUESTS_PER_SECOND / f64::from(STEPS);
    let lasts_ms = u64::from(seconds + WARM_UP_SECONDS) * 1_000;
    let steps: Vec<Value> = (0..STEPS).map(|at| step(if at == 0 { 0 } else { THINK_MS })).collect();
    let phases = json!([{ "name": "steady", "lasts_ms": lasts_ms, "from": rate, "to": rate }]);
    load(port, seed, phases, steps, 10_000)
}

/// Arrivals of the crowd take so long.
pub const CROWD_ARRIVES_SECONDS: u32 = 20;

/// So many who have a page, and read it until the run is over.
pub fn crowd(port: u16, visitors: u32, seed: u64) -> Value {
    // A little more than needed: what arrives is a matter of chance.
    let rate = f64::from(visitors) * 1.05 / f64::from(CROWD_ARRIVES_SECONDS);
    let phases = json!([
        { "name": "arrive", "lasts_ms": CROWD_ARRIVES_SECONDS * 1_000, "from": rate, "to": rate },
        { "name": "read", "lasts_ms": 60_000, "from": 0.0, "to": 0.0 },
    ]);
    // Nobody reads so fast as to leave before the last has come.
    load(port, seed, phases, vec![step(0), step(3_600_000)], visitors * 2)
}

/// Builds what [`scheduled`] asks.
///
/// # Errors
/// When it does not compile.
pub fn build_schedule() -> Result {
    let mut build = shell::cargo();
    build.args(["build", "--quiet", "--release", "--locked", "-p", "rehearsal", "--example", SCHEDULE]);
    shell::run(&mut build)
}

/// Visits that a load has, by its seed. Asked of the schedule itself, and of no generator.
///
/// # Errors
/// When it does not say.
pub fn scheduled(load: &Value) -> Result<f64> {
    let program = house::target().join("release/examples").join(SCHEDULE);
    let failed = || Failure::while_doing(program.display());
    let mut command = Command::new(&program);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed())?;
    if let Some(mut input) = child.stdin.take() {
        write!(input, "{load}").map_err(failed())?;
    }
    let output = child.wait_with_output().map_err(failed())?;
    let said = String::from_utf8_lossy(&output.stdout);
    said.trim().parse().map_err(|_| Failure::new(format!("{} said: {said:?}", program.display())))
}

fn step(think_median_ms: u32) -> Value {
    json!({
        "class": "page", "probability": 1.0, "think_median_ms": think_median_ms, "method": "GET",
        "paths": ["/1k"], "form": [], "expect": [200], "assets": [],
    })
}

fn load(port: u16, seed: u64, phases: Value, steps: Vec<Value>, visitors: u32) -> Value {
    json!({
        "origin": {
            "authority": format!("127.0.0.1:{port}"), "address": format!("127.0.0.1:{port}"),
            "protocol": "http1", "tls": null,
        },
        "seed": seed,
        "phases": phases,
        "noise": 0.0,
        "visits": [
            { "name": "visit", "weight": 1.0, "steps": steps, "fetches_assets": false, "retries": 0.0 },
        ],
        "limits": {
            "visitors": visitors, "connections": visitors, "connections_per_visit": 6, "body_bytes": 1 << 20,
            "patience_ms": 8_000, "redirects": 0, "threads": 1,
        },
    })
}

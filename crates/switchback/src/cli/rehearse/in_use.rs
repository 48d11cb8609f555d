//! Whether somebody uses the app now. What rehearsals and drills ask for is no use of it.

use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use local::machine::{Observation, ProcessKind};
use rehearsal::site::access_log::requests_of_others;

use crate::api::{Request, Status};
use crate::cli::connect::App;
use crate::cli::say::Problem;

/// Who asked in this time uses it.
const LATELY: Duration = Duration::from_secs(60);
/// Of the end of a log: a minute of some thousand requests a second.
const MOST_BYTES: u64 = 64 << 20;
/// Where there is no log.
const COUNTED_FOR: Duration = Duration::from_secs(2);

/// Requests per second of others. By the access log, which the edge writes while no daemon runs, too, and which says who asked;
/// where that is off, by what the edge counts.
pub fn requests_per_second(app: &App) -> f64 {
    match by_log(&app.state.access_log()) {
        Ok(Some(rate)) => rate,
        Ok(None) | Err(_) => by_edge(app).unwrap_or(0.0),
    }
}

/// `None`: it was not written lately.
fn by_log(path: &Path) -> io::Result<Option<f64>> {
    let written = std::fs::metadata(path)?.modified()?;
    if SystemTime::now().duration_since(written).is_ok_and(|age| age >= LATELY) {
        return Ok(None);
    }
    let since = Timestamp::now() - LATELY;
    let mut requests = 0;
    // This one may have just been begun.
    let before = path.with_extension("log.1");
    for path in [before.as_path(), path] {
        match File::open(path) {
            Ok(mut log) => {
                let length = log.metadata()?.len();
                log.seek(SeekFrom::Start(length.saturating_sub(MOST_BYTES)))?;
                requests += requests_of_others(BufReader::new(log), since)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(requests as f64 / LATELY.as_secs_f64()))
}

/// The daemon's rate may be of a rehearsal that is over, so that it is counted anew what comes now.
fn by_edge(app: &App) -> Result<f64, Problem> {
    let status: Status = app.ask_at_once(&Request::Status)?;
    let edges = status.machine.processes.iter().filter(|process| process.kind == ProcessKind::Edge);
    let rate: f64 = edges.filter_map(|edge| edge.requests_per_second).sum();
    if rate <= 0.0 {
        return Ok(rate);
    }
    let counted = || -> Result<u64, Problem> {
        let observed: Observation = app.ask_at_once(&Request::Observe { named: Vec::new() })?;
        Ok(observed.edges.values().map(|edge| edge.requests_total).sum())
    };
    let before = counted()?;
    std::thread::sleep(COUNTED_FOR);
    Ok(counted()?.saturating_sub(before) as f64 / COUNTED_FOR.as_secs_f64())
}

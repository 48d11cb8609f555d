//! What can be known before anything is asked of the app, so that nobody waits ten minutes to be told.

use std::path::Path;

use model::Metric;
use rehearsal::baseline;
use rehearsal::load::Phase;
use rehearsal::profile::{self, Known, Pace, Replay, UNKNOWN_BASE};
use rehearsal::record::Record;
use rehearsal::site::rates::Rates;

use super::conduct::Subject;
use super::{RehearseArgs, write};
use crate::cli::connect::App;
use crate::cli::say::Problem;

/// What is compared with, where something is.
///
/// # Errors
/// When the profile cannot be played as it was asked for, there is nothing to be compared with, or a report or a baseline could
/// not be written.
pub fn check(app: &App, args: &RehearseArgs, subject: &Subject) -> Result<Option<Record>, Problem> {
    if !args.find && args.profile == "replay" {
        replay(args).check().map_err(unplayable)?;
    } else if !args.find {
        preset_phases(args, None, write::capacity(app, &subject.shape))?;
    }
    if let Some(asked) = args.thresholds.iter().find(|one| one.metric == Metric::Capacity && !args.find) {
        return Err(Problem::usage(format!("`{asked}` is required of what a search finds"))
            .hint("`switchback rehearse --find` is one"));
    }
    write::check(app, args.out.as_deref())?;
    if let Some(path) = &args.save_baseline {
        write::must_be_writable(path)?;
    }
    args.baseline.as_deref().map(|path| baseline(path, subject)).transpose()
}

/// Visits over time. `rates`: when they began, by the access log.
///
/// # Errors
/// When the profile cannot be played.
pub fn phases(
    args: &RehearseArgs,
    rates: Option<&Rates>,
    capacity: Option<f64>,
) -> Result<Vec<Phase>, Problem> {
    if args.profile != "replay" {
        return preset_phases(args, rates, capacity);
    }
    let Some(rates) = rates else {
        return Err(Problem::usage("there is nothing to replay: the access log has no visits")
            .hint("`access_log` under [edge] may be off; `switchback rehearse front-page` needs no log"));
    };
    profile::replay(rates, replay(args)).map_err(unplayable)
}

fn preset_phases(
    args: &RehearseArgs,
    rates: Option<&Rates>,
    capacity: Option<f64>,
) -> Result<Vec<Phase>, Problem> {
    let preset = profile::preset(&args.profile).map_err(unplayable)?;
    let base = args.base.or_else(|| rates?.mean()).unwrap_or(UNKNOWN_BASE);
    let pace = match args.duration {
        Some(seconds) => Pace::Within { total_ms: seconds.saturating_mul(1_000) },
        None => Pace::Rehearsal,
    };
    preset.phases(&Known { base, capacity }, pace).map_err(unplayable)
}

fn replay(args: &RehearseArgs) -> Replay {
    let usual = Replay { factor: args.times, ..Replay::default() };
    match args.duration {
        Some(seconds) => Replay { lasts_ms: seconds.saturating_mul(1_000), ..usual },
        None => usual,
    }
}

fn unplayable(error: profile::Unplayable) -> Problem {
    Problem::usage(error.to_string())
}

fn baseline(path: &Path, subject: &Subject) -> Result<Record, Problem> {
    let before = baseline::load(path).map_err(|error| Problem::usage(local::chain(&error)))?;
    let unfit = baseline::unfit(&before, &subject.app, &subject.profile);
    if unfit.is_empty() {
        return Ok(before);
    }
    Err(Problem::usage(format!("{} cannot be compared with: {}", path.display(), unfit.join(" ")))
        .hint("`--save-baseline` of a run of this profile writes one"))
}

//! `journey`: the whole story on the user's own app, stage by stage, under load, with one report.
//!
//! It runs beside the app and never touches it: a copy of it is taken through the stages ([`copy`]), as the diagnosis at each
//! asks for or in spite of it ([`trip`], [`advice`]), within a time that was given ([`time`]), and what was measured is told,
//! however it ended ([`tale`]).

mod advice;
mod copy;
mod tale;
mod time;
mod trip;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use model::{Metric, Rehearsal, Threshold};
use rehearsal::capacity::Effort;

pub use copy::{Beside, end};

use self::copy::Copy;
use self::time::Budget;
use self::trip::Wish;
use super::{in_use, objective, write};
use crate::cli::connect::App;
use crate::cli::plan::agreed;
use crate::cli::say::{self, BOLD, Problem, Stream, paint};
use crate::cli::up::Interrupts;
use crate::cli::{Place, manifest as file};

/// Less than this is no time for a journey.
const LEAST_SECONDS: u64 = 60;
const MOST_SECONDS: u64 = 86_400;

#[derive(Debug, clap::Args)]
pub struct JourneyArgs {
    /// Three minutes instead of ten: coarser steps, so rougher figures
    #[arg(long)]
    quick: bool,
    /// How long all of it may take, a build left out [default: 600, or 180 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(LEAST_SECONDS..=MOST_SECONDS))]
    within: Option<u64>,
    /// End where the diagnosis asks for something else than a further stage
    #[arg(long)]
    only_advised: bool,
    /// What is required, such as `p99 < 250ms` [default: `slo` of the manifest]
    #[arg(long = "threshold", value_name = "THRESHOLD")]
    thresholds: Vec<Threshold>,
    /// Of all that is drawn at random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the report there, as FILE.html and FILE.json [default: in the state folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Do not ask whether this machine may be loaded although others use the app
    #[arg(long)]
    yes: bool,
    #[arg(long)]
    json: bool,
}

impl JourneyArgs {
    fn budget(&self, began: Instant) -> Budget {
        let usual = if self.quick { time::QUICK } else { time::FULL };
        Budget::new(began, self.within.map_or(usual, Duration::from_secs))
    }
}

pub fn journey(place: &Place, args: &JourneyArgs) -> Result<(), Problem> {
    if let Some(asked) = args.thresholds.iter().find(|one| one.metric == Metric::Capacity) {
        return Err(Problem::usage(format!(
            "`{asked}` is required of one shape, and a journey takes several"
        ))
        .hint("`switchback rehearse --find` takes it"));
    }
    let app = place.app()?;
    app.must_be_ours()?;
    let manifest = file::read(&app.dir)?;
    let own = manifest.graph().rehearsal.as_ref();
    // Rather than after ten minutes.
    write::check(&app, args.out.as_deref())?;
    consent(&app, own, args.yes)?;
    let began = Instant::now();
    let interrupts = Interrupts::listen()?;
    let copy = Copy::make(&app, &manifest.graph().app, &interrupts)?;
    let wish = Wish {
        manifest: &manifest,
        own,
        objective: objective(&args.thresholds, own),
        effort: if args.quick { Effort::Quick } else { Effort::Full },
        seed: args.seed,
        only_advised: args.only_advised,
    };
    let travelled = trip::travel(&app, &copy, &wish, &mut args.budget(began), &interrupts);
    // Told before anything else can go wrong.
    let told = travelled.and_then(|travelled| tale::tell(&app, travelled, args.out.as_deref(), args.json));
    say::talk("deleting the copy");
    match (told, copy.remove()) {
        (told, Ok(())) => told,
        (Ok(()), left) => left,
        (Err(problem), Err(left)) => {
            left.report();
            Err(problem)
        }
    }
}

/// Says what is written, and asks where others might suffer: the copy has no visitors, but it has this machine's processors.
fn consent(app: &App, own: Option<&Rehearsal>, is_agreed: bool) -> Result<(), Problem> {
    if own.is_some_and(Rehearsal::writes) {
        say::talk(&format!(
            "{} visits of this journey send forms, as `[rehearsal]` of the manifest says: what they write into the database is \
             deleted with the copy, and what the app does with them elsewhere is done",
            paint(Stream::Err, BOLD, "note:")
        ));
    }
    if is_agreed || in_use::requests_per_second(app) <= 0.0 {
        return Ok(());
    }
    say::talk(&format!(
        "{} somebody uses the app, and a journey takes all processors of this machine",
        paint(Stream::Err, BOLD, "careful:")
    ));
    match agreed("Begin it all the same?")? {
        true => Ok(()),
        false => Err(Problem::refused("nothing was begun")),
    }
}

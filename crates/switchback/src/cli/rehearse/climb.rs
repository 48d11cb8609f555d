//! Up a staircase of rates until the app gives way, and what that says of it.

use std::future::pending;
use std::time::{Duration, Instant};

use model::Threshold;
use rehearsal::capacity::{self, Capacity, Staircase, Step};
use rehearsal::diagnosis::{self, Diagnosis, Shape, diagnose};
use rehearsal::summary::Summary;

use super::conduct::{Conductor, Played};
use crate::cli::say::Problem;

/// What was found.
pub struct Climb {
    pub capacity: Capacity,
    pub diagnosis: Diagnosis,
    /// Requests that failed at rates at which the objective was kept.
    pub failed_while_kept: u64,
    /// There was no time to climb on.
    pub was_out_of_time: bool,
}

/// Climbs until the app has given way, the ceiling is reached, the next step would not be over in time, or it is interrupted.
/// What makes a step up to the first that was too much say nothing of the app makes the record invalid. Probes only say where
/// to climb, and beyond that step a full machine holds up the generator, too.
///
/// # Errors
/// When there is no generator.
pub async fn climb(
    conductor: &mut Conductor<'_>,
    staircase: &Staircase,
    objective: &[Threshold],
    shape: Shape,
    until: Option<Instant>,
) -> Result<Climb, Problem> {
    let (mut done, mut played): (Vec<Step>, Vec<Played>) = (Vec::new(), Vec::new());
    let mut was_out_of_time = false;
    while let Some(phase) = staircase.next(&done) {
        let ends = Instant::now() + Duration::from_millis(phase.lasts_ms);
        was_out_of_time = until.is_some_and(|until| ends > until);
        if was_out_of_time {
            break;
        }
        let one = conductor.try_out(vec![phase], pending()).await?;
        if conductor.was_cut_short() {
            break;
        }
        let Some(step) = Step::of(conductor.seconds(&one), objective) else { break };
        conductor.note(format!(
            "{}: {:.0} of {:.0} requests/s as they should be, p99 {}",
            if step.kept { "kept" } else { "not kept" },
            step.achieved,
            step.offered,
            step.p99_us.map_or("-".to_owned(), |us| format!("{:.0} ms", us as f64 / 1e3)),
        ));
        if let Some(fault) = one.end.validity.faults.first() {
            conductor.note(format!("at {:.0} requests/s {fault}", step.offered));
        }
        done.push(step);
        played.push(one);
    }
    let failed = |(step, played): (&Step, &Played)| match step.kept {
        true => Summary::of(conductor.seconds(played)).failed(),
        false => 0,
    };
    let failed_while_kept = done.iter().zip(&played).map(failed).sum();
    let probes = staircase.probes(&done).unwrap_or(done.len());
    // The last ones stand between others.
    let mut by_rate: Vec<(Step, Played)> =
        done.split_off(probes).into_iter().zip(played.split_off(probes)).collect();
    by_rate.sort_by(|(a, _), (b, _)| a.visits.total_cmp(&b.visits));
    let (steps, played): (Vec<Step>, Vec<Played>) = by_rate.into_iter().unzip();
    let counted = capacity::gave_way(&steps).map_or(steps.len(), |at| at + 1);
    played[..counted].iter().for_each(|played| conductor.count(played));
    let tiers = conductor.tiers();
    let diagnosed = |(step, played): (&Step, &Played)| diagnosis::Step {
        faults: played.end.validity.faults.clone(),
        ..diagnosis::Step::of(step, &tiers, capacity::window(conductor.seconds(played)))
    };
    let staircase = diagnosis::Staircase {
        steps: steps.iter().zip(&played).map(diagnosed).collect(),
        shape,
        faults: Vec::new(),
        top_statement: conductor.top_statement(),
    };
    // What was cut short is no proof for that reason already.
    if !conductor.was_cut_short() {
        conductor.doubt(&diagnosis::faults(&staircase));
    }
    let capacity = Capacity::of(steps, conductor.seed());
    Ok(Climb { capacity, diagnosis: diagnose(&staircase), failed_while_kept, was_out_of_time })
}

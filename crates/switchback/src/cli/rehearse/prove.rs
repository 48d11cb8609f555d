//! Whether what a search has found is so: a tenth less of what is said to be full, and of something else, while more is asked of
//! the app than it can do ([`intervention`]). Three stretches of load at one rate: with all there is, and with either taken.
//!
//! An app may miss its objective before anything is full. So the rate is one that would fill what is suspected, and where the
//! app does all that it is asked for even then, nothing is said: less of anything would show nothing.

use std::cell::RefCell;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rehearsal::capacity::Step;
use rehearsal::diagnosis::intervention::{self, Trial, can_test};
use rehearsal::diagnosis::{Diagnosis, Verdict};
use rehearsal::load::Phase;

use super::climb::Climb;
use super::conduct::Conductor;
use super::observe::Looks;
use crate::api::Request;
use crate::api::client::{Call, CallError};
use crate::cli::say::Problem;
use crate::rehearse::intervention::{TAKEN, a_tenth_less, other_than};

/// Of what the suspected tier can do, what it is asked for.
const ASKED: f64 = 1.15;
/// Of the highest rate of the search, what is never exceeded, however little was full there. Nor is the search's ceiling.
const MOST_RAISED: f64 = 2.0;
/// Of a stretch, four fifths of which are counted.
const LASTS_MS: u64 = 16_000;
/// From when a stretch is asked for, which begins within a second: by then two looks have seen the load, and none of what is
/// counted has begun.
const BEFORE_TAKING: Duration = Duration::from_secs(3);
/// Until a stretch is over, and hardly longer.
const TAKEN_FOR: Duration = Duration::from_secs(15);
/// For the daemon to say that what was taken is back.
const BACK_LIMIT: Duration = Duration::from_secs(30);

/// From whom a tenth is taken.
#[derive(Debug, Clone, Copy)]
enum Whom<'a> {
    Tier(&'a str),
    /// The tier that is farthest from full, this one left out.
    OtherThan(&'a str),
}

/// What a stretch gave.
struct Served {
    /// That were answered as they should be.
    requests: u64,
    /// The app did not do all that it was asked for.
    falls_short: bool,
    /// From which a tenth was taken. Empty: from none.
    tier: String,
}

/// What was taken. The daemon gives it back by itself.
struct Taken {
    tier: String,
    call: Call,
}

/// Tests the diagnosis of a search, where that can be tested, and changes it by what comes of that. `ceiling`: visits per
/// second that the search would not have exceeded.
///
/// # Errors
/// When there is no generator.
pub async fn prove(
    conductor: &mut Conductor<'_>,
    daemon: &Path,
    unlimited_because: Option<&str>,
    ceiling: f64,
    climb: &mut Climb,
) -> Result<(), Problem> {
    let Some(suspect) = suspect(&climb.diagnosis) else { return Ok(()) };
    let (Some(highest), Some(cause)) = (climb.capacity.steps.last(), climb.diagnosis.causes.first()) else {
        return Ok(());
    };
    let rate = rate(highest.visits, cause.utilisation, ceiling);
    let because = match (suspect, unlimited_because) {
        (Err(because), _) => Some(because.to_owned()),
        (Ok(_), Some(because)) => Some(because.to_owned()),
        (Ok(tier), None) => {
            let proof = Proof { rate, daemon: daemon.to_owned(), looks: conductor.looks() };
            let tier = tier.to_owned();
            match proof.carry_out(conductor, &tier).await? {
                Ok([suspect, other]) => {
                    climb.diagnosis = intervention::judge(climb.diagnosis.clone(), &suspect, &other);
                    None
                }
                Err(because) => Some(because),
            }
        }
    };
    climb.diagnosis.doubts.extend(because.map(|because| format!("it was not tested: {because}")));
    Ok(())
}

/// The tier of the one cause, or why taking something from it would say nothing. `None`: nobody is suspected alone.
fn suspect(diagnosis: &Diagnosis) -> Option<Result<&str, &'static str>> {
    let cause = diagnosis.causes.first().filter(|_| diagnosis.verdict == Verdict::Bottleneck)?;
    match can_test(cause.kind) {
        true => Some(Ok(&cause.tier)),
        false => Some(Err("less of a tier's processors says nothing about it")),
    }
}

/// Visits per second that are more than the app can do, if the diagnosis is right: at `highest` of them the suspect had so much
/// of its processors in use.
fn rate(highest: f64, utilisation: f64, ceiling: f64) -> f64 {
    let raised = ASKED / utilisation.max(f64::MIN_POSITIVE);
    (highest * raised.clamp(1.0, MOST_RAISED)).min(ceiling)
}

struct Proof {
    /// Visits per second, more than the app can do.
    rate: f64,
    daemon: PathBuf,
    looks: Looks,
}

impl Proof {
    /// What less of the suspected tier did, and less of another; or why that is not known.
    async fn carry_out(
        &self,
        conductor: &mut Conductor<'_>,
        suspect: &str,
    ) -> Result<Result<[Trial; 2], String>, Problem> {
        let before = match self.served(conductor, None).await? {
            Ok(served) if served.falls_short => served.requests,
            Ok(_) => {
                let because = format!("at {:.0} visits/s it still did all that it was asked for", self.rate);
                return Ok(Err(because));
            }
            Err(because) => return Ok(Err(because)),
        };
        let mut trials = Vec::new();
        for from in [Whom::Tier(suspect), Whom::OtherThan(suspect)] {
            match self.served(conductor, Some(from)).await? {
                Ok(Served { requests: during, tier, .. }) => {
                    trials.push(Trial { tier, taken: TAKEN, before, during });
                }
                Err(because) => return Ok(Err(because)),
            }
        }
        Ok(<[Trial; 2]>::try_from(trials).map_err(|_| "a trial is missing".to_owned()))
    }

    /// One stretch, with a tenth taken `from` somebody.
    async fn served(
        &self,
        conductor: &mut Conductor<'_>,
        from: Option<Whom<'_>>,
    ) -> Result<Result<Served, String>, Problem> {
        let taken = RefCell::new(None);
        let taking = async {
            tokio::time::sleep(BEFORE_TAKING).await;
            *taken.borrow_mut() = from.map(|from| self.take(from));
            pending::<()>().await
        };
        let phase = Phase { name: "test".to_owned(), lasts_ms: LASTS_MS, from: self.rate, to: self.rate };
        let played = conductor.try_out(vec![phase], taking).await?;
        if let Some(why) = conductor.go_on() {
            // The search was over before, and stands.
            return Ok(Err(why));
        }
        if let Some(fault) = played.end.validity.faults.first() {
            return Ok(Err(fault.clone()));
        }
        let tier = match taken.into_inner() {
            None => String::new(),
            Some(Err(because)) => return Ok(Err(because)),
            // It is given back whether or not that is waited for.
            Some(Ok(Taken { tier, call })) => {
                match conductor.unless_interrupted(call.answered::<()>(BACK_LIMIT)).await {
                    Some(Ok(())) => tier,
                    Some(Err(error)) => return Ok(Err(why(&error))),
                    None => return Ok(Err("it was interrupted".to_owned())),
                }
            }
        };
        let Some(step) = Step::of(conductor.seconds(&played), &[]) else {
            return Ok(Err("nothing was measured".to_owned()));
        };
        conductor.note(match tier.as_str() {
            "" => format!("test: {:.0} requests/s as they should be, with all there is", step.achieved),
            tier => format!("test: {:.0} requests/s with a tenth less of {tier}", step.achieved),
        });
        let requests = (step.achieved * step.seconds).round() as u64;
        Ok(Ok(Served { requests, falls_short: step.falls_short(), tier }))
    }

    fn take(&self, from: Whom<'_>) -> Result<Taken, String> {
        let (before, now) = self.looks.last_two().ok_or("what the tiers do was not seen")?;
        let tier = match from {
            Whom::Tier(tier) => tier,
            Whom::OtherThan(tier) => {
                other_than(tier, &before, &now).ok_or("of no other tier is there anything to be taken")?
            }
        };
        let nothing = || format!("of {tier} there is nothing to be taken");
        let cpu_millis = a_tenth_less(&before, &now, tier).ok_or_else(nothing)?;
        let lasts_ms = u64::try_from(TAKEN_FOR.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Intervene { cpu_millis, lasts_ms };
        let call = Call::begin(&self.daemon, &request, BACK_LIMIT).map_err(|error| why(&error))?;
        Ok(Taken { tier: tier.to_owned(), call })
    }
}

fn why(error: &CallError) -> String {
    match error {
        CallError::NoDaemon(error) | CallError::Lost(error) => format!("the daemon did not answer: {error}"),
        CallError::Failed(failure) => failure.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use rehearsal::diagnosis::{Cause, Confidence, Kind};

    use super::*;

    fn found(verdict: Verdict, kind: Kind) -> Diagnosis {
        Diagnosis {
            verdict,
            causes: vec![Cause { tier: "web".to_owned(), kind, score: 0.9, utilisation: 1.0 }],
            capacity: 40.0,
            sentence: String::new(),
            evidence: Vec::new(),
            recommendation: None,
            alternatives: Vec::new(),
            confidence: Confidence::Fair,
            doubts: Vec::new(),
            falsified_by: String::new(),
        }
    }

    /// Beyond the ceiling the generator would need a machine of its own, here as in the search.
    #[test]
    fn the_test_asks_for_what_would_fill_the_suspect_and_for_no_more_than_the_search_may() {
        assert!((rate(100.0, 1.0, 1_000.0) - 115.0).abs() < 1e-9);
        assert_eq!(rate(100.0, 0.1, 1_000.0), 200.0);
        assert_eq!(rate(100.0, 0.1, 150.0), 150.0);
    }

    #[test]
    fn only_one_cause_that_is_of_processors_is_tested() {
        assert_eq!(suspect(&found(Verdict::Bottleneck, Kind::WebCpu)), Some(Ok("web")));
        assert!(suspect(&found(Verdict::Bottleneck, Kind::Locks)).unwrap().is_err());
        assert_eq!(suspect(&found(Verdict::TwoCandidates, Kind::WebCpu)), None);
        assert_eq!(suspect(&found(Verdict::Invalid, Kind::WebCpu)), None);
    }
}

//! The gate of a deployment: does the new release answer worse than the one it replaces?
//!
//! Both serve the same traffic for a window, and the edge counts what each answered. The new one is turned back when
//! its share of 5xx answers and failures is higher by more than the gate allows, judged only once it gave enough
//! answers; and when its process ends, however little it answered. So the window is waited for also where nobody asks anything.

use std::collections::BTreeMap;
use std::time::Duration;

use edge::status::EndpointStatus;
use model::{CompareGate, InstanceId, counted};
use tokio::time::{Instant, sleep};

use super::roles::edge_unit;
use super::{Event, Machine, Report, StepError};
use crate::control::{self, Request};
use crate::keeper::Phase;

/// Often enough to turn back early, rarely enough to cost nothing.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Answers and how many of them were bad.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Tally {
    answers: u64,
    bad: u64,
}

impl Tally {
    fn percent(self) -> f64 {
        if self.answers == 0 { 0.0 } else { self.bad as f64 * 100.0 / self.answers as f64 }
    }
}

#[derive(Debug, PartialEq)]
enum Verdict {
    /// Too few answers to judge.
    Unknown,
    Fine,
    Worse,
}

fn judge(new: Tally, old: Tally, gate: &CompareGate) -> Verdict {
    if new.answers < u64::from(gate.min_answers) {
        return Verdict::Unknown;
    }
    if new.percent() > old.percent() + f64::from(gate.max_worse_percent) {
        Verdict::Worse
    } else {
        Verdict::Fine
    }
}

/// What people are told when a release goes on without a verdict.
fn unjudged(new: &InstanceId, tallied: Tally, old: Tally, gate: &CompareGate) -> Option<String> {
    match judge(tallied, old, gate) {
        Verdict::Unknown if tallied.answers + old.answers == 0 => {
            Some(format!("there was no traffic to compare {new} by"))
        }
        Verdict::Unknown => Some(format!(
            "{new} was not judged: it answered {}, and {} are needed",
            counted(tallied.answers as usize, "request"),
            gate.min_answers
        )),
        Verdict::Fine | Verdict::Worse => None,
    }
}

impl Machine {
    pub(super) async fn compare(
        &self,
        new: &InstanceId,
        old: &[InstanceId],
        gate: &CompareGate,
        report: &Report,
    ) -> Result<(), StepError> {
        let start = self.endpoint_statuses().await;
        let until = Instant::now() + Duration::from_millis(gate.window_ms);
        let restarts = self.restarts_of(new);
        loop {
            let now = self.endpoint_statuses().await;
            let tally = |ids: &[InstanceId]| tally(&start, &now, ids);
            let (new_tally, old_tally) = (tally(std::slice::from_ref(new)), tally(old));
            let verdict = judge(new_tally, old_tally, gate);
            let evidence = format!(
                "{new} answered {}, {:.1} % of them badly; the old release {} with {:.1} %",
                counted(new_tally.answers as usize, "request"),
                new_tally.percent(),
                old_tally.answers,
                old_tally.percent()
            );
            if verdict == Verdict::Worse {
                return Err(self.with_last_lines(
                    new,
                    StepError::new(format!("the new release answers worse: {evidence}")),
                ));
            }
            if self.restarts_of(new) != restarts {
                return Err(
                    self.with_last_lines(new, StepError::new(format!("{new} ended while it was compared")))
                );
            }
            if Instant::now() >= until {
                if let Some(text) = unjudged(new, new_tally, old_tally, gate) {
                    report(Event::Note { text });
                }
                self.remember(&new.to_string(), "let the deployment go on", evidence);
                return Ok(());
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// `None` when it is not ready: a restart may not have been counted yet.
    fn restarts_of(&self, id: &InstanceId) -> Option<u32> {
        let units = self.units();
        let state = units.instances.get(id)?.keeper.state();
        matches!(state.phase, Phase::Ready | Phase::Unresponsive).then_some(state.restarts)
    }

    fn with_last_lines(&self, id: &InstanceId, error: StepError) -> StepError {
        let lines = self.inner.setup.last_lines(&id.to_string());
        let hint = format!("`switchback logs {id}` has all it said; the old release serves");
        StepError { last_lines: lines, ..error }.hint(hint)
    }

    /// What all edges together counted for each endpoint. An edge that cannot be asked counts nothing.
    pub(super) async fn endpoint_statuses(&self) -> BTreeMap<String, EndpointStatus> {
        let mut all: BTreeMap<String, EndpointStatus> = BTreeMap::new();
        for edge in self.topology().edges.keys() {
            let Some(control) = self.control_of(&edge_unit(edge)) else { continue };
            let asked =
                tokio::time::timeout(Duration::from_secs(2), control::ask(&control, &Request::Status)).await;
            let Ok(Ok(value)) = asked else { continue };
            let Ok(status) = serde_json::from_value::<edge::Status>(value) else { continue };
            all.extend(status.endpoints);
        }
        all
    }
}

fn tally(
    start: &BTreeMap<String, EndpointStatus>,
    now: &BTreeMap<String, EndpointStatus>,
    ids: &[InstanceId],
) -> Tally {
    let bad = |status: &EndpointStatus| status.responses_5xx_total + status.failures_total;
    ids.iter().map(InstanceId::to_string).fold(Tally::default(), |sum, id| {
        let before = start.get(&id).cloned().unwrap_or_default();
        let after = now.get(&id).cloned().unwrap_or_default();
        Tally {
            answers: sum.answers + after.requests_total.saturating_sub(before.requests_total),
            bad: sum.bad + bad(&after).saturating_sub(bad(&before)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: CompareGate = CompareGate { window_ms: 5_000, max_worse_percent: 5, min_answers: 20 };

    fn of(answers: u64, bad: u64) -> Tally {
        Tally { answers, bad }
    }

    #[test]
    fn a_release_is_not_judged_by_too_few_answers() {
        assert_eq!(judge(of(19, 19), of(1_000, 0), &GATE), Verdict::Unknown);
    }

    #[test]
    fn whoever_is_not_judged_is_said_to_be_with_the_reason() {
        let new: InstanceId = "web.2".parse().unwrap();
        let unjudged = |new_tally, old| unjudged(&new, new_tally, old, &GATE);
        assert_eq!(unjudged(of(0, 0), of(0, 0)).unwrap(), "there was no traffic to compare web.2 by");
        let little = unjudged(of(1, 0), of(3, 0)).unwrap();
        assert_eq!(little, "web.2 was not judged: it answered 1 request, and 20 are needed");
        assert_eq!(unjudged(of(20, 0), of(20, 0)), None);
    }

    #[test]
    fn a_release_that_fails_more_than_the_old_one_is_worse() {
        assert_eq!(judge(of(100, 6), of(1_000, 0), &GATE), Verdict::Worse);
        assert_eq!(judge(of(100, 5), of(1_000, 0), &GATE), Verdict::Fine);
    }

    #[test]
    fn what_the_old_release_got_wrong_too_is_not_held_against_the_new_one() {
        assert_eq!(judge(of(100, 50), of(1_000, 500), &GATE), Verdict::Fine);
    }
}

//! Whether what was measured is what was required.
//!
//! Of a latency all requests count, and not only those that were answered: whoever gave up, or found nobody to connect to,
//! would have waited for longer than any bound. Otherwise an app that answers half of its visitors at once, and the others
//! never, would be a fast one. Whoever was answered, but not as they should be, does not count: an app that turns visitors away
//! fast is none that serves them fast.

use model::{Metric, Threshold};
use serde::Serialize;

use crate::record::Second;
use crate::summary::Summary;

/// One requirement and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    pub threshold: Threshold,
    /// Nobody has said it: it holds where nothing else is said.
    pub implied: bool,
    /// In `unit`. `None`: nothing was measured that it could be judged by, or it is a latency of those who got no answer.
    /// Neither keeps it.
    pub actual: Option<f64>,
    pub unit: &'static str,
    /// Where the latency is that of a request without a whole answer: the share of these, from 0 to 1.
    pub unanswered: Option<f64>,
    pub kept: bool,
}

/// Judges each over all of the seconds. Of `implied`, such as `shed <= 1%`, that is required as well of whose metric `objective` says
/// nothing.
pub fn judge(objective: &[Threshold], implied: &[&str], seconds: &[Second]) -> Vec<Judgement> {
    let implied: Vec<Threshold> = implied.iter().filter_map(|text| text.parse().ok()).collect();
    let is_silent = |one: &&Threshold| objective.iter().all(|threshold| threshold.metric != one.metric);
    let judged = objective.iter().map(|threshold| judgement(threshold, seconds));
    let more = implied.iter().filter(is_silent);
    let more = more.map(|threshold| Judgement { implied: true, ..judgement(threshold, seconds) });
    judged.chain(more).collect()
}

/// Judges what is required of [`Metric::Capacity`] by the rate up to which the objective was kept.
pub fn judge_capacity<'a>(thresholds: impl IntoIterator<Item = &'a Threshold>, kept: f64) -> Vec<Judgement> {
    let judgement = |threshold: &Threshold| Judgement {
        threshold: threshold.clone(),
        implied: false,
        actual: Some(kept),
        unit: threshold.metric.unit(),
        unanswered: None,
        kept: threshold.is_kept_by(kept),
    };
    thresholds.into_iter().map(judgement).collect()
}

/// In µs, the shortest latency that anything is required of. `None`: of none.
pub fn shortest(objective: &[Threshold]) -> Option<f64> {
    let latencies = objective.iter().filter(|threshold| matches!(threshold.metric, Metric::Latency(_)));
    latencies.map(|threshold| threshold.bound).min_by(f64::total_cmp)
}

fn judgement(threshold: &Threshold, seconds: &[Second]) -> Judgement {
    let summary = match &threshold.class {
        Some(class) => Summary::of_class(seconds, class),
        None => Summary::of(seconds),
    };
    let (mut actual, mut unanswered) = (None, None);
    match threshold.metric {
        Metric::Latency(share) => match summary.latency_of_all(share) {
            Some(us) => actual = Some(us as f64),
            None => unanswered = summary.unanswered_share(),
        },
        Metric::Errors => actual = summary.failed_share(),
        Metric::Shed => actual = summary.shed_share(),
        // Of seconds nobody knows it: see [`judge_capacity`].
        Metric::Capacity => {}
        Metric::Rate => actual = (summary.sent > 0).then(|| summary.ok_rate()),
    }
    Judgement {
        threshold: threshold.clone(),
        implied: false,
        actual,
        unit: threshold.metric.unit(),
        unanswered,
        kept: actual.is_some_and(|actual| threshold.is_kept_by(actual)),
    }
}

impl std::fmt::Display for Judgement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Judgement { threshold, actual, unanswered, .. } = self;
        let kept = if self.kept { "kept" } else { "not kept" };
        let said = match (actual, unanswered, &threshold.class) {
            (Some(actual), _, _) => format!("is {}, {kept}", threshold.metric.amount(*actual)),
            (None, Some(share), _) => format!(
                "is longer than anybody waited, for {} got no answer, {kept}",
                Metric::Errors.amount(*share)
            ),
            (None, None, Some(class)) => {
                format!("{kept}, as no request of class `{class}` was sent or served")
            }
            (None, None, None) => format!("{kept}, as no request was sent or served"),
        };
        let implied = if self.implied { " (implied)" } else { "" };
        write!(f, "{threshold}{implied}: {said}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Outcome;
    use crate::summary::made::second;

    fn judged(threshold: &str) -> String {
        let seconds = [
            second(0, "page", Outcome::Ok, &[(100_000, 90), (300_000, 9)]),
            second(1, "page", Outcome::Status, &[(1_500_000, 1)]),
            second(2, "asset", Outcome::Shed, &[(1_000, 100)]),
        ];
        judge(&[threshold.parse().unwrap()], &[], &seconds)[0].to_string()
    }

    #[test]
    fn a_threshold_is_judged_by_all_requests_or_by_those_of_its_class() {
        assert_eq!(judged("p50 < 20ms"), "p50 < 20ms: is 100ms, not kept");
        assert_eq!(judged("p50{page} < 20ms"), "p50{page} < 20ms: is 100ms, not kept");
        assert_eq!(judged("p99{page} < 1s"), "p99{page} < 1s: is 300ms, kept");
        assert_eq!(judged("p100 < 1s"), "p100 < 1s: is 300ms, kept");
        assert_eq!(judged("errors < 0.1%"), "errors < 0.1%: is 0.5%, not kept");
        assert_eq!(judged("errors{asset} <= 0%"), "errors{asset} <= 0%: is 0%, kept");
        assert_eq!(judged("shed < 1%"), "shed < 1%: is 50%, not kept");
        assert_eq!(judged("rate > 30/s"), "rate > 30/s: is 33/s, kept");
        assert_eq!(judged("rate{page} > 50/s"), "rate{page} > 50/s: is 33/s, not kept");
    }

    #[test]
    fn what_was_not_measured_is_not_kept() {
        let said = judged("p99{search} < 1s");
        assert_eq!(said, "p99{search} < 1s: not kept, as no request of class `search` was sent or served");
        assert!(!judge(&["rate >= 0/s".parse().unwrap()], &[], &[])[0].kept);
    }

    /// An app that answers 98 of 100 within a millisecond and the others never is not fast for 99 of 100.
    #[test]
    fn a_request_without_an_answer_is_slower_than_any_threshold() {
        let mut seconds =
            [second(0, "page", Outcome::Ok, &[(1_000, 98)]), second(1, "page", Outcome::GaveUp, &[])];
        for outcome in [Outcome::GaveUp, Outcome::Refused, Outcome::Broken] {
            let lost = seconds[1].classes.get_mut("page").unwrap();
            (lost.sent, lost.outcomes) = (2, [(outcome, 2)].into());
            let judged = |text: &str| judge(&[text.parse().unwrap()], &[], &seconds).remove(0);
            let said = judged("p99 < 1m");
            assert_eq!((said.actual, said.kept), (None, false));
            assert_eq!(
                said.to_string(),
                "p99 < 1m: is longer than anybody waited, for 2% got no answer, not kept"
            );
            assert!(judged("p98 < 2ms").kept);
        }
    }

    #[test]
    fn what_nobody_speaks_of_is_implied_and_said_to_be() {
        let mut second = second(0, "page", Outcome::Ok, &[(1_000, 1_000)]);
        second.classes.get_mut("page").unwrap().outcomes =
            [(Outcome::Ok, 990), (Outcome::Status, 8), (Outcome::Shed, 2)].into();
        let said = |objective: &[&str], implied: &[&str]| -> Vec<String> {
            let objective: Vec<Threshold> = objective.iter().map(|text| text.parse().unwrap()).collect();
            judge(&objective, implied, std::slice::from_ref(&second))
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            said(&["p99 < 1s"], &["errors <= 0.1%"]),
            ["p99 < 1s: is 1ms, kept", "errors <= 0.1% (implied): is 0.8%, not kept"]
        );
        assert_eq!(
            said(&["errors < 1%"], &["errors <= 0.1%", "shed <= 0.1%"]),
            ["errors < 1%: is 0.8%, kept", "shed <= 0.1% (implied): is 0.2%, not kept"]
        );
    }

    #[test]
    fn the_judgement_as_json_has_the_amount_and_its_unit() {
        let seconds = [second(0, "page", Outcome::Ok, &[(100_000, 90)])];
        let json = serde_json::to_value(judge(&["p99 < 250ms".parse().unwrap()], &[], &seconds)).unwrap();
        let expected = serde_json::json!([{
            "threshold": "p99 < 250ms", "implied": false, "actual": 100_000.0, "unit": "us", "unanswered": null, "kept": true
        }]);
        assert_eq!(json, expected);
    }
}

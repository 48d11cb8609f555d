//! Whether what was measured is what was required.

use model::{Metric, Threshold};
use serde::Serialize;

use crate::record::Second;
use crate::summary::Summary;

/// One requirement and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    pub threshold: Threshold,
    /// In `unit`. `None`: nothing was measured that it could be judged by, which does not keep it.
    pub actual: Option<f64>,
    pub unit: &'static str,
    pub kept: bool,
}

/// Judges each over all of the seconds.
pub fn judge(thresholds: &[Threshold], seconds: &[Second]) -> Vec<Judgement> {
    thresholds.iter().map(|threshold| judgement(threshold, seconds)).collect()
}

fn judgement(threshold: &Threshold, seconds: &[Second]) -> Judgement {
    let summary = match &threshold.class {
        Some(class) => Summary::of_class(seconds, class),
        None => Summary::of(seconds),
    };
    let actual = match threshold.metric {
        Metric::Latency(share) => summary.latency.quantile(share).map(|us| us as f64),
        Metric::Errors => summary.failed_share(),
        Metric::Shed => summary.shed_share(),
        Metric::Rate => (summary.sent > 0).then(|| summary.ok_rate()),
    };
    Judgement {
        threshold: threshold.clone(),
        actual,
        unit: threshold.metric.unit(),
        kept: actual.is_some_and(|actual| threshold.is_kept_by(actual)),
    }
}

impl std::fmt::Display for Judgement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = match (self.actual, &self.threshold.class) {
            (Some(actual), _) => format!("is {}", self.threshold.metric.amount(actual)),
            (None, Some(class)) => format!("cannot be judged: no request of class `{class}` ended"),
            (None, None) => "cannot be judged: no request ended".to_owned(),
        };
        write!(f, "{}: {said}, {}", self.threshold, if self.kept { "kept" } else { "not kept" })
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
        judge(&[threshold.parse().unwrap()], &seconds)[0].to_string()
    }

    #[test]
    fn a_threshold_is_judged_by_all_requests_or_by_those_of_its_class() {
        assert_eq!(judged("p50 < 20ms"), "p50 < 20ms: is 1ms, kept");
        assert_eq!(judged("p50{page} < 20ms"), "p50{page} < 20ms: is 100ms, not kept");
        assert_eq!(judged("p99{page} < 1s"), "p99{page} < 1s: is 300ms, kept");
        assert_eq!(judged("p100 < 1s"), "p100 < 1s: is 1.5s, not kept");
        assert_eq!(judged("errors < 0.1%"), "errors < 0.1%: is 0.5%, not kept");
        assert_eq!(judged("errors{asset} <= 0%"), "errors{asset} <= 0%: is 0%, kept");
        assert_eq!(judged("shed < 1%"), "shed < 1%: is 50%, not kept");
        assert_eq!(judged("rate > 30/s"), "rate > 30/s: is 33/s, kept");
        assert_eq!(judged("rate{page} > 50/s"), "rate{page} > 50/s: is 33/s, not kept");
    }

    #[test]
    fn what_was_not_measured_is_not_kept() {
        let said = judged("p99{search} < 1s");
        assert_eq!(said, "p99{search} < 1s: cannot be judged: no request of class `search` ended, not kept");
        assert!(!judge(&["rate >= 0/s".parse().unwrap()], &[])[0].kept);
    }

    #[test]
    fn the_judgement_as_json_has_the_amount_and_its_unit() {
        let seconds = [second(0, "page", Outcome::Ok, &[(100_000, 90)])];
        let json = serde_json::to_value(judge(&["p99 < 250ms".parse().unwrap()], &seconds)).unwrap();
        let expected = serde_json::json!([
            { "threshold": "p99 < 250ms", "actual": 100_000.0, "unit": "us", "kept": true }
        ]);
        assert_eq!(json, expected);
    }
}

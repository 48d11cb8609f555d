//! The test of a diagnosis: take a tenth of what is suspected away, and of something else, and see.
//!
//! A bottleneck with a tenth less of its processors serves a tenth less (utilisation law); with a tenth less of anything else
//! it serves as much as before. What chance does to counts within some seconds is known, so each trial proves, disproves, or
//! says nothing.

use serde::{Deserialize, Serialize};

use super::say::{figure, percent};
use super::{Confidence, Diagnosis, Kind, Verdict};

/// What a tenth less of one tier did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub tier: String,
    /// Of its processors, from 0 to 1.
    pub taken: f64,
    /// Requests answered in as many seconds before, at a load above what it can do.
    pub before: u64,
    /// And while it had less.
    pub during: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// As much as it would where the tier is what gives way.
    Full,
    None,
    /// Too little was counted to say.
    Unclear,
}

/// So many standard deviations are not chance.
const SURE: f64 = 2.0;

impl Trial {
    /// How much less was served, from 0 to 1.
    pub fn lost(&self) -> f64 {
        if self.before == 0 { 0.0 } else { 1.0 - self.during as f64 / self.before as f64 }
    }

    fn effect(&self) -> Effect {
        if self.before == 0 {
            return Effect::Unclear;
        }
        // Of the quotient of two counts, each with a variance of itself.
        let deviation = ((1.0 + self.during as f64 / self.before as f64) / self.before as f64).sqrt();
        let lost = self.lost();
        let (from_none, from_full) = (lost / deviation, (self.taken - lost) / deviation);
        if lost > self.taken / 2.0 && from_none > SURE {
            Effect::Full
        } else if lost <= self.taken / 2.0 && from_full > SURE {
            Effect::None
        } else {
            Effect::Unclear
        }
    }

    fn says(&self) -> String {
        let became = if self.during < self.before { "less" } else { "more" };
        format!(
            "a tenth less of {}: {} {became} was served ({} before, {} then)",
            self.tier,
            percent(self.lost().abs()),
            figure(self.before as f64),
            figure(self.during as f64)
        )
    }
}

/// Whether taking processors away says anything about a cause of this kind.
pub fn can_test(kind: Kind) -> bool {
    match kind {
        Kind::WebCpu
        | Kind::EdgeCpu
        | Kind::ProxyCpu
        | Kind::PrimaryReads
        | Kind::MissingIndex
        | Kind::PrimaryWrites
        | Kind::ReplicaLag
        | Kind::ReplicaCpu => true,
        Kind::WebThread
        | Kind::WebWorkers
        | Kind::Pool
        | Kind::Locks
        | Kind::DataDisk
        | Kind::LogDisk
        | Kind::LimitTooLow => false,
    }
}

/// The diagnosis with what the trials say of it. One that they contradict is one no more.
pub fn judge(diagnosis: Diagnosis, suspect: &Trial, other: &Trial) -> Diagnosis {
    let mut diagnosis = diagnosis;
    if diagnosis.verdict != Verdict::Bottleneck {
        return diagnosis;
    }
    let said = format!("{}; {}", suspect.says(), other.says());
    match (suspect.effect(), other.effect()) {
        (Effect::Full, Effect::None) => {
            diagnosis.confidence = Confidence::Good;
            diagnosis.sentence = format!("{}. Proved: {said}", diagnosis.sentence);
        }
        (Effect::None, _) => {
            diagnosis.verdict = Verdict::Unexplained;
            diagnosis.confidence = Confidence::Low;
            diagnosis.recommendation = None;
            diagnosis.sentence =
                format!("not what it looked like: {said}. It looked like this: {}", diagnosis.sentence);
        }
        (Effect::Full, Effect::Full) => {
            diagnosis.verdict = Verdict::TwoCandidates;
            diagnosis.confidence = Confidence::Low;
            diagnosis.doubts.push(format!("both hold it: {said}"));
        }
        _ => diagnosis.doubts.push(format!("the test says nothing clear: {said}")),
    }
    diagnosis
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(tier: &str, before: u64, during: u64) -> Trial {
        Trial { tier: tier.to_owned(), taken: 0.1, before, during }
    }

    #[test]
    fn a_tenth_less_of_the_bottleneck_is_a_tenth_less_served() {
        assert_eq!(trial("web", 2_000, 1_800).effect(), Effect::Full);
        assert_eq!(trial("primary", 2_000, 1_990).effect(), Effect::None);
        // More served than before is no effect either.
        assert_eq!(trial("primary", 2_000, 2_050).effect(), Effect::None);
    }

    #[test]
    fn a_few_requests_prove_nothing() {
        assert_eq!(trial("web", 100, 90).effect(), Effect::Unclear);
        assert_eq!(trial("web", 0, 0).effect(), Effect::Unclear);
    }

    fn diagnosis() -> Diagnosis {
        Diagnosis {
            verdict: Verdict::Bottleneck,
            causes: Vec::new(),
            capacity: 200.0,
            sentence: "the app's processors".to_owned(),
            evidence: Vec::new(),
            recommendation: None,
            alternatives: Vec::new(),
            confidence: Confidence::Fair,
            doubts: Vec::new(),
            falsified_by: String::new(),
        }
    }

    fn check(web: u64, primary: u64) -> (Verdict, Confidence) {
        let judged = judge(diagnosis(), &trial("web", 2_000, web), &trial("primary", 2_000, primary));
        (judged.verdict, judged.confidence)
    }

    #[test]
    fn a_diagnosis_is_proved_contradicted_or_left_as_it_is() {
        assert_eq!(check(1_800, 2_000), (Verdict::Bottleneck, Confidence::Good));
        assert_eq!(check(2_000, 2_000), (Verdict::Unexplained, Confidence::Low));
        assert_eq!(check(2_000, 1_800), (Verdict::Unexplained, Confidence::Low));
        assert_eq!(check(1_800, 1_800), (Verdict::TwoCandidates, Confidence::Low));
        assert_eq!(check(1_900, 2_000), (Verdict::Bottleneck, Confidence::Fair));
    }
}

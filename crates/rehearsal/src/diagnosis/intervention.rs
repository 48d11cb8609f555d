//! The test of a diagnosis: take a tenth of what is suspected away, and of something else, and see.
//!
//! A bottleneck with a tenth less of its processors serves a tenth less (utilisation law); with a tenth less of anything else
//! it serves as much as before. What chance does to counts within some seconds is known, so each trial proves, disproves, or
//! says nothing.

use serde::{Deserialize, Serialize};

use super::say::{figure, percent, without_advice};
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

/// The diagnosis with what the trials say of it. One that they contradict is withdrawn, and what it advised with it.
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
        // Of two that hold it, what helps one alone gains next to nothing.
        (Effect::Full, Effect::Full) => {
            return withdrawn(diagnosis, &format!("{} is not alone in holding it: {said}", suspect.tier));
        }
        (Effect::None, _) | (Effect::Unclear, Effect::Full) => {
            return withdrawn(diagnosis, &format!("not what it looked like: {said}"));
        }
        (Effect::Full | Effect::Unclear, Effect::None | Effect::Unclear) => {
            diagnosis.doubts.push(format!("the test says nothing clear: {said}"));
        }
    }
    diagnosis
}

fn withdrawn(diagnosis: Diagnosis, because: &str) -> Diagnosis {
    Diagnosis {
        verdict: Verdict::Unexplained,
        confidence: Confidence::Low,
        sentence: format!("{because}. It looked like this: {}", without_advice(&diagnosis)),
        recommendation: None,
        alternatives: Vec::new(),
        falsified_by: String::new(),
        ..diagnosis
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::{Change, Recommendation};

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
        let says = "go to stage 2".to_owned();
        let change = Change::Stage { stage: 2, web_instances: 2, read_replicas: 0 };
        let recommendation = Recommendation { change, says, predicted: None };
        Diagnosis {
            verdict: Verdict::Bottleneck,
            causes: Vec::new(),
            capacity: 200.0,
            sentence: "what gives way is the app's processors; go to stage 2".to_owned(),
            evidence: Vec::new(),
            recommendation: Some(recommendation.clone()),
            alternatives: vec![recommendation],
            confidence: Confidence::Fair,
            doubts: Vec::new(),
            falsified_by: String::new(),
        }
    }

    /// Of a hundred requests nothing is clear.
    const UNCLEAR: (u64, u64) = (100, 95);

    fn judged(web: (u64, u64), primary: (u64, u64)) -> Diagnosis {
        judge(diagnosis(), &trial("web", web.0, web.1), &trial("primary", primary.0, primary.1))
    }

    fn check(web: (u64, u64), primary: (u64, u64), verdict: Verdict, confidence: Confidence) {
        let judged = judged(web, primary);
        assert_eq!((judged.verdict, judged.confidence), (verdict, confidence), "{}", judged.sentence);
    }

    #[test]
    fn a_diagnosis_is_proved_contradicted_or_left_as_it_is() {
        let (full, none) = ((2_000, 1_800), (2_000, 2_000));
        check(full, none, Verdict::Bottleneck, Confidence::Good);
        check(none, none, Verdict::Unexplained, Confidence::Low);
        check(none, full, Verdict::Unexplained, Confidence::Low);
        check(full, full, Verdict::Unexplained, Confidence::Low);
        check(UNCLEAR, full, Verdict::Unexplained, Confidence::Low);
        check(UNCLEAR, none, Verdict::Bottleneck, Confidence::Fair);
        check(full, UNCLEAR, Verdict::Bottleneck, Confidence::Fair);
    }

    /// Whoever reads only the sentence, or only what to do, is told the same as who reads the verdict.
    #[test]
    fn what_is_withdrawn_advises_nothing_any_more() {
        let (full, none) = ((2_000, 1_800), (2_000, 2_000));
        for (web, primary, begins) in [
            (full, full, "web is not alone in holding it: a tenth less of web: 10 % less was served"),
            (UNCLEAR, full, "not what it looked like: a tenth less of web"),
            (none, none, "not what it looked like: a tenth less of web"),
        ] {
            let judged = judged(web, primary);
            assert_eq!(judged.verdict, Verdict::Unexplained);
            assert!(judged.sentence.starts_with(begins), "{}", judged.sentence);
            assert!(judged.sentence.contains("a tenth less of primary"), "{}", judged.sentence);
            assert!(
                judged.sentence.ends_with("what gives way is the app's processors"),
                "{}",
                judged.sentence
            );
            assert_eq!((judged.recommendation, judged.alternatives), (None, Vec::new()));
        }
        let proved = judged(full, none);
        assert!(proved.sentence.contains("; go to stage 2. Proved: "), "{}", proved.sentence);
        assert!(proved.recommendation.is_some());
    }
}

//! Whether a stage is taken because the diagnosis of the one below asks for it, and what that promised.

use rehearsal::diagnosis::{Change, Diagnosis, Recommendation, Verdict};

/// Why a stage is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// It is the first.
    Begin,
    Asked,
    /// A higher one is asked for.
    OnTheWay {
        to: u8,
    },
    /// It is only the next. `instead`: what the diagnosis says.
    NotAsked {
        instead: String,
    },
}

impl Because {
    /// `found`: at the stage below `next`. `None`: nothing.
    pub fn of(found: Option<&Diagnosis>, next: u8) -> Because {
        let Some(found) = found else {
            return Because::NotAsked { instead: "there is none".to_owned() };
        };
        match found.recommendation.as_ref().map(|recommended| (recommended, asked(recommended))) {
            Some((_, Some(stage))) if stage == next => Because::Asked,
            Some((_, Some(stage))) if stage > next => Because::OnTheWay { to: stage },
            Some((recommended, _)) => Because::NotAsked { instead: recommended.says.clone() },
            None => Because::NotAsked { instead: without_advice(found.verdict).to_owned() },
        }
    }

    /// After `because`. `below`: the stage that was diagnosed.
    pub fn words(&self, below: u8) -> String {
        match self {
            Because::Begin => "a journey begins with it".to_owned(),
            Because::Asked => format!("the diagnosis at stage {below} asks for it"),
            Because::OnTheWay { to } => {
                format!("the diagnosis at stage {below} asks for stage {to}, and it is on the way")
            }
            Because::NotAsked { instead } => format!(
                "a journey goes through all stages; the diagnosis at stage {below} does not ask for it: {instead}"
            ),
        }
    }
}

/// How many times as much `stage` was said to carry, whether it was recommended or only thought of.
pub fn predicted(found: &Diagnosis, stage: u8) -> Option<f64> {
    let mut thought_of = found.recommendation.iter().chain(&found.alternatives);
    let of_stage = thought_of.find(|recommended| asked(recommended) == Some(stage))?;
    Some(of_stage.predicted.as_ref()?.gain)
}

fn without_advice(found: Verdict) -> &'static str {
    match found {
        Verdict::NoBottleneckUpTo => "nothing gave way there",
        Verdict::Invalid => "what was seen there says nothing about the app",
        Verdict::Unexplained | Verdict::Bottleneck | Verdict::TwoCandidates => {
            "what gave way there is not known"
        }
    }
}

fn asked(recommended: &Recommendation) -> Option<u8> {
    match recommended.change {
        Change::Stage { stage, .. } => Some(stage),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rehearsal::diagnosis::{Confidence, Prediction};

    use super::*;

    fn stage(stage: u8, gain: f64) -> Recommendation {
        recommendation(Change::Stage { stage, web_instances: 2, read_replicas: 0 }, gain)
    }

    fn recommendation(change: Change, gain: f64) -> Recommendation {
        let predicted = Prediction { gain, capacity: 0.0, formula: String::new(), bounds: Vec::new() };
        Recommendation { change, says: "use a larger machine".to_owned(), predicted: Some(predicted) }
    }

    fn found(recommendation: Option<Recommendation>, alternatives: Vec<Recommendation>) -> Diagnosis {
        Diagnosis {
            verdict: Verdict::Bottleneck,
            causes: Vec::new(),
            capacity: 100.0,
            sentence: "no bottleneck up to 100/s".to_owned(),
            evidence: Vec::new(),
            recommendation,
            alternatives,
            confidence: Confidence::Fair,
            doubts: Vec::new(),
            falsified_by: String::new(),
        }
    }

    #[test]
    fn a_stage_that_the_diagnosis_asks_for_is_taken_because_it_does() {
        let found = found(Some(stage(2, 2.0)), Vec::new());
        let because = Because::of(Some(&found), 2);
        assert_eq!(because.words(1), "the diagnosis at stage 1 asks for it");
        assert_eq!(predicted(&found, 2), Some(2.0));
    }

    #[test]
    fn a_stage_on_the_way_to_the_one_that_is_asked_for_is_said_to_be_that() {
        let found = found(Some(stage(3, 2.0)), Vec::new());
        let because = Because::of(Some(&found), 2);
        assert_eq!(because.words(1), "the diagnosis at stage 1 asks for stage 3, and it is on the way");
        assert_eq!(predicted(&found, 2), None, "nothing was promised of the one on the way");
    }

    #[test]
    fn a_stage_that_nothing_asks_for_is_said_to_be_taken_all_the_same_and_what_was_asked_for() {
        let larger = recommendation(Change::LargerMachine { cores: 4.0 }, 3.0);
        let found = found(Some(larger), vec![stage(2, 1.2)]);
        let words = Because::of(Some(&found), 2).words(1);
        assert!(words.ends_with("does not ask for it: use a larger machine"), "{words}");
        assert_eq!(predicted(&found, 2), Some(1.2), "what it would gain was thought of all the same");
        // Going back is no way up.
        assert!(matches!(Because::of(Some(&found), 3), Because::NotAsked { .. }));
    }

    #[test]
    fn without_a_recommendation_the_diagnosis_is_the_reason() {
        let nothing = Diagnosis { verdict: Verdict::NoBottleneckUpTo, ..found(None, Vec::new()) };
        let words = Because::of(Some(&nothing), 3).words(2);
        assert!(words.ends_with("does not ask for it: nothing gave way there"), "{words}");
        assert!(matches!(Because::of(None, 2), Because::NotAsked { .. }));
    }
}

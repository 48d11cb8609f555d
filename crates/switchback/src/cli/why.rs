//! `why`: the last decisions and the evidence they were taken on.

use local::chain;
use local::store::Decision;

use super::Place;
use super::say::{self, BOLD, DIM, Problem, Stream, paint};
use crate::api::Request;

pub fn why(place: &Place, lines: usize, as_json: bool) -> Result<(), Problem> {
    let decisions: Vec<Decision> = place.app()?.ask_or_look(&Request::Why { limit: lines }, |stopped| {
        stopped.decisions(lines).map_err(|error| Problem::failed(chain(&error)))
    })?;
    if as_json {
        return say::json(&decisions);
    }
    if decisions.is_empty() {
        say::talk("nothing was decided yet");
    }
    let mut text = String::new();
    for decision in decisions {
        let time = say::local_time(decision.time);
        let (time, subject) = (paint(Stream::Out, DIM, &time), paint(Stream::Out, BOLD, &decision.subject));
        text.push_str(&format!("{time} {subject}: {}", decision.decision));
        if !decision.evidence.is_empty() {
            text.push_str(&format!(" ({})", decision.evidence));
        }
        text.push('\n');
    }
    say::data(&text)
}

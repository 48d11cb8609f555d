//! `intervene`: takes a tenth of a tier's processors for some seconds, as a rehearsal does to test what it says. For drills.

use std::time::Duration;

use local::machine::Observation;
use serde_json::json;

use super::Place;
use super::say::{self, Problem};
use crate::api::Request;
use crate::rehearse::intervention::{a_tenth_less, other_than};

/// Between two looks at what there is to take from.
const LOOKS: Duration = Duration::from_secs(2);

/// From whom it is taken.
#[derive(Debug, Clone)]
pub enum From {
    Tier(String),
    /// The tier that is farthest from full, this one left out.
    OtherThan(String),
}

pub fn intervene(place: &Place, from: &From, seconds: u64) -> Result<(), Problem> {
    let app = place.app()?;
    let look = || app.ask::<Observation>(&Request::Observe { named: Vec::new() }, |_| {});
    let before = look()?;
    std::thread::sleep(LOOKS);
    let now = look()?;
    let tier = match from {
        From::Tier(tier) => tier,
        From::OtherThan(tier) => other_than(tier, &before, &now)
            .ok_or_else(|| Problem::refused("of no other tier is there anything to be taken"))?,
    };
    let cpu_millis = a_tenth_less(&before, &now, tier)
        .ok_or_else(|| Problem::refused(format!("of {tier} there is nothing to be taken")))?;
    say::talk(&format!("a tenth less of {tier} for {seconds} s"));
    let request = Request::Intervene { cpu_millis: cpu_millis.clone(), lasts_ms: seconds * 1_000 };
    app.ask::<()>(&request, |_| {})?;
    say::json(&json!({ "tier": tier, "cpu_millis": cpu_millis }))
}

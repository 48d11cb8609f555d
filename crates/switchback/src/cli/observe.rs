//! `observe`: what each tier does, second by second, as a rehearsal sees it. For drills, and for whoever looks by hand for
//! what gives way.

use std::time::{Duration, Instant};

use serde_json::json;

use super::say::{self, Problem};
use super::{Place, manifest};
use crate::api::{Request, Status};
use crate::rehearse::evidence::Watch;
use crate::rehearse::shape;

/// `generators`: processes of the load, whose processor time is told from that of others.
pub fn observe(place: &Place, seconds: u32, generators: Vec<u32>) -> Result<(), Problem> {
    let app = place.app()?;
    let status: Status = app.ask(&Request::Status, |_| {})?;
    let manifest = manifest::read(&app.dir)?;
    let graph = manifest.graph();
    let shape = shape::of(graph, &manifest::above(&app.dir, &manifest, graph.stage), &status);
    let began = Instant::now();
    let mut watch =
        Watch::new(&app.state.daemon_socket(), [generators, vec![std::process::id()]].concat(), began);
    for second in 0..=seconds {
        let until = began + Duration::from_secs(second.into());
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        if watch.look().is_err() {
            say::talk("the daemon did not answer; this second is missing");
        }
    }
    say::json(&json!({ "shape": shape, "tiers": watch.tiers(), "top_statement": watch.top_statement() }))
}

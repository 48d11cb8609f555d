//! Executes a plan on this machine: supervisor, zones, postgres.
//!
//! [`machine`] carries plans out and holds up what they made, by way of keepers and jobs. The rest are the pieces it is
//! made of, none of which knows a plan: [`process`] and [`cgroup`] start, limit and end; [`output`] captures what is
//! said; [`probe`] and [`usage`] look; [`engines`] and [`postgres`] find and run a database; [`backup`] keeps its copies;
//! [`release`] stores what instances run; [`control`] speaks to the roles; [`store`] and [`paths`] keep what must survive,
//! and [`stopped`] reads it while no daemon runs.
//!
//! The only room that starts processes of the app. It makes no choices: a plan names every port, zone and order.

pub mod backup;
pub mod cgroup;
pub mod control;
pub mod engines;
mod jobs;
mod keeper;
mod listener;
pub mod machine;
pub mod output;
pub mod paths;
pub mod postgres;
pub mod probe;
pub mod process;
pub mod release;
pub mod setup;
pub mod stopped;
pub mod store;
pub mod usage;
pub mod user;

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

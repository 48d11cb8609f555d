//! Load as a crowd makes it, what it measured, and what gave way.
//!
//! A stranger that speaks only HTTP: it knows no manifest, plan, stage or process. Who calls it says where the app is
//! ([`load::Load`]), and hands it what the tiers of the app measured of themselves ([`record::Tier`]).
//!
//! A [`load::Load`] is what is to be done, second by second and visit by visit. The generator carries it out in a process of
//! its own and says once a second what it saw ([`record::Second`]). All of these, with what the tiers said and what
//! happened meanwhile, are a [`record::Record`], which is written, compared, diagnosed and drawn.

pub mod arrivals;
pub mod baseline;
pub mod capacity;
mod chance;
mod client;
pub mod diagnosis;
pub mod fetch;
#[doc(hidden)]
pub mod fuzzing;
pub mod generator;
mod giving_way;
mod histogram;
pub mod load;
pub mod profile;
pub mod record;
pub mod report;
pub mod site;
pub mod summary;
pub mod threshold;
pub mod usl;

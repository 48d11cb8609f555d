//! A generator against small real servers: what visitors do on the wire, and what is said of it.

mod app;
mod crowd;
mod misbehaviour;
mod parsers;
mod properties;
mod protocols;
mod run;
mod visits;

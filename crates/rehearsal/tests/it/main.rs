//! A generator against small real servers: what visitors do on the wire, and what is said of it. And what outside bytes are
//! read by, over made inputs.

mod app;
mod crowd;
mod misbehaviour;
mod outside;
mod parsers;
mod properties;
mod protocols;
mod run;
mod visits;

//! A generator against small real servers: what visitors do on the wire, and what is said of it. What outside bytes are read
//! by, over made inputs. And what a record becomes: a report.

mod app;
mod crowd;
mod misbehaviour;
mod outside;
mod page;
mod parsers;
mod properties;
mod protocols;
mod record;
mod run;
mod sample;
mod script;
mod visits;

//! A generator against small real servers: what visitors do on the wire, and what is said of it. What outside bytes are read
//! by, over made inputs. And a record in, a report out.

mod app;
mod crowd;
mod misbehaviour;
mod outside;
mod page;
mod parsers;
mod properties;
mod protocols;
mod record;
mod record_properties;
mod run;
mod sample;
mod script;
mod visits;

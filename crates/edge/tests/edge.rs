//! The edge from outside: real sockets, small real servers behind it, and clients that count bytes.

mod support;

mod bodies;
mod certificates;
mod drain;
mod fields;
mod h2;
mod h2_lost;
mod h2_streams;
mod in_flight;
mod interim;
mod keep_alive;
mod limits;
mod marks;
mod observability;
mod parsers;
mod restart;
mod retries;
mod smuggling;
mod timeouts;
mod upgrade;

//! The proxy at its border: real PostgreSQL where truth matters, bare sockets where a moment must be caught.

mod admin;
mod cancelling;
mod cluster;
mod config;
mod copying;
mod differential;
mod drivers;
mod failover;
mod fresh;
mod implicit;
mod late;
mod load;
mod login;
mod lost;
mod phases;
mod pooling;
mod prepared;
mod properties;
mod proxy;
mod reads;
mod replies;
mod settings;
mod shown;
mod sqlsmith;
mod tools;
mod wire;

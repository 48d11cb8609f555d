//! The proxy at its border: real PostgreSQL where truth matters, small fakes where a moment must be caught.

mod cluster;
mod fake;
mod opening;
mod postgres;
mod proxy;

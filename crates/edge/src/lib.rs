//! The front door: TLS, HTTP/1.1 and HTTP/2, balancing, health and drain.

pub mod config;
pub mod status;

pub use config::Config;
pub use status::Status;

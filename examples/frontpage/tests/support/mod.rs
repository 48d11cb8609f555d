//! Real neighbours for the tests: a throwaway PostgreSQL, instances of the service, and a browser without a window.

mod browser;
mod cluster;
mod instance;

pub use browser::{Browser, PASSWORD};
pub use cluster::Cluster;
pub use instance::Instance;

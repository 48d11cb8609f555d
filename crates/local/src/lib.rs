//! Executes a plan on this machine: supervisor, zones, postgres.
pub mod cgroup;
pub mod control;
pub mod engines;
mod jobs;
mod keeper;
pub mod machine;
pub mod output;
pub mod paths;
pub mod postgres;
pub mod probe;
pub mod process;
pub mod release;
pub mod setup;
pub mod store;
pub mod usage;
pub mod user;

//! Executes a plan on this machine: supervisor, zones, postgres.
pub mod control;
pub mod paths;
pub mod store;
pub mod cgroup;
pub mod process;
pub mod user;
pub mod engines;
pub mod postgres;
pub mod release;

//! Executes a plan on this machine: supervisor, zones, postgres.

//! Rehearsals of the running app: what its tiers do meanwhile, and what it consists of.

pub mod evidence;
pub mod shape;

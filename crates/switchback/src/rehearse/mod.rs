//! Rehearsals of the running app: what its tiers do meanwhile, what it consists of, and what is taken from it to be sure.

pub mod evidence;
pub mod intervention;
pub mod shape;

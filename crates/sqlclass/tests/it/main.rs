//! The verdicts at their border, and the servers they are about: a real primary and a real hot standby.

mod details;
mod folding;
mod made_texts;
mod properties;
mod servers;
mod sqlsmith;
mod table;
mod verdicts;

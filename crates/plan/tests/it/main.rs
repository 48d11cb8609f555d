//! What must hold of every plan, over random graphs and over the moves people make.

mod always;
mod databases;
mod moves;
mod restores;
mod wish;

//! The crate at its border.

mod folding;

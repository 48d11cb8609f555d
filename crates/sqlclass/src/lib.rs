//! What a SQL statement is: a read, which a replica may answer, or something for the primary alone.
//!
//! So far the first step of it: [`Folder`] gives one key to all texts that differ in their literals only. The key is what
//! verdicts will be remembered by.

mod fold;

pub use fold::{Folded, Folder, Hint, Key, MAX_TEXT, Scope};

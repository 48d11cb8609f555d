//! What a SQL statement is: a read, which a replica may answer, or something for the primary alone.
//!
//! A proxy that splits reads from writes must say so for every text that passes, of an app that knows nothing of it. It
//! asks a [`Classifier`], one for each of its workers:
//!
//! 1. [`Folder`] gives one key to all texts that differ in their literals only;
//! 2. [`Cache`] remembers the verdict of a key;
//! 3. [`classify`] parses with PostgreSQL's own grammar and asks the [`Catalog`] about every name.
//!
//! [`details`] tells the names and values in statements that shape the session.
//!
//! All of it is a function of values: no connection, no clock, no file. The caller reads the catalog and gives the seed.
//!
//! Two things must hold of a session, or its statements are not to be judged but sent to the primary:
//! `standard_conforming_strings` is on, as it is unless someone switches it off, and `client_encoding` is one in which a
//! byte below 0x80 is always ASCII (UTF-8 is; SJIS, BIG5, GBK, UHC, GB18030 and JOHAB are not).
//!
//! A verdict may be wrong to the safe side, never to the other, but for functions whose declared volatility lies; those a
//! standby refuses with the error 25006 before any effect, and [`Classifier::refused`] remembers it.

mod cache;
mod catalog;
mod classifier;
mod details;
mod fold;
mod judge;
mod set;
mod statement;
mod transaction;

#[doc(hidden)]
pub mod fuzzing;

pub use cache::{CAPACITY, Cache};
pub use catalog::{Builder, Catalog, FINGERPRINT, Query, RowError, SearchPath};
pub use classifier::{Classifier, Session, Source, Verdict};
pub use details::{Change, Detail, Discard, Lasts, Setting, details};
pub use fold::{Folded, Folder, Hint, Key, MAX_TEXT, Scope, folded_text};
pub use judge::{Context, classify, classify_prepared};
pub use set::{Member, Set};
pub use statement::{Because, Class, Flag, Pin, Statement};
pub use transaction::{Access, Command, Deferrable, Isolation, Modes, Next};

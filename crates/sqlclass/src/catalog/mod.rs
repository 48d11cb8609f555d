//! What the names in a statement stand for, as far as it decides where the statement may run.
//!
//! Read from the server with ordinary rights, by the queries in [`Query`], and put together by a [`Builder`]. For every
//! name a catalog keeps the worst that it can mean: which of several overloads is called depends on types, and those a
//! statement does not show.
//!
//! A function's volatility is taken as it is declared. A function declared STABLE or IMMUTABLE that calls a volatile
//! one lies, to PostgreSQL as well as to us; PostgreSQL keeps it from writing, and a standby does so too.

mod builder;
mod known;
mod names;
mod queries;
mod search_path;

use std::collections::HashSet;

pub use builder::{Builder, RowError};
pub(crate) use known::{Marks, marks, reads_by_its_name, tells_the_server};
pub(crate) use names::Name;
use names::{Names, Worst};
pub use queries::{FINGERPRINT, Query};
pub use search_path::SearchPath;

/// What is known of one database.
pub struct Catalog {
    epoch: u64,
    functions: Names<Function>,
    relations: Names<Place>,
    operators: Names<Place>,
    types: Names<Place>,
    /// Functions that need the primary, and that `column.name` can call.
    like_columns: HashSet<Box<str>>,
    implicit: Place,
}

/// Where something may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Anywhere,
    Primary,
}

/// What calling a function means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Function {
    pub place: Place,
    pub marks: Marks,
}

impl Worst for Place {
    fn worst(self, other: Place) -> Place {
        self.max(other)
    }
}

impl Worst for Function {
    fn worst(self, other: Function) -> Function {
        Function { place: self.place.max(other.place), marks: self.marks.union(other.marks) }
    }
}

impl Catalog {
    /// Knows nothing: every statement that names anything is for the primary. What holds until the first is read.
    pub fn empty() -> Catalog {
        Catalog {
            epoch: 0,
            functions: Names::default(),
            relations: Names::default(),
            operators: Names::default(),
            types: Names::default(),
            like_columns: HashSet::new(),
            implicit: Place::Anywhere,
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// It is [`Catalog::empty`], whose epoch no other has.
    pub fn is_unread(&self) -> bool {
        self.epoch == 0
    }

    pub(crate) fn function(&self, name: Name<'_>, path: &SearchPath) -> Option<Function> {
        self.functions.find(name, path)
    }

    pub(crate) fn relation(&self, name: Name<'_>, path: &SearchPath) -> Option<Place> {
        self.relations.find(name, path)
    }

    pub(crate) fn operator(&self, name: Name<'_>, path: &SearchPath) -> Option<Place> {
        self.operators.find(name, path)
    }

    pub(crate) fn type_named(&self, name: Name<'_>, path: &SearchPath) -> Option<Place> {
        self.types.find(name, path)
    }

    /// Can `column.name` call a function that needs the primary?
    pub(crate) fn is_call_like_a_column(&self, name: &str) -> bool {
        self.like_columns.contains(name)
    }

    /// Where what no text shows may run: implicit casts, the functions behind indexes and sorting.
    pub(crate) fn implicit(&self) -> Place {
        self.implicit
    }
}

#[cfg(test)]
mod tests;

//! What the service knows, and the only place where SQL for requests is written.
//!
//! Pages that only look are made of `SELECT`s alone. Everything a form changes happens in one statement or one
//! transaction.

pub mod comments;
pub mod people;
pub mod stories;

/// A page of a list.
pub struct Page<T> {
    pub items: Vec<T>,
    pub more: More,
}

/// Whether a list goes on after this page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    Follows,
    Ends,
}

impl<T> Page<T> {
    /// Makes a page of at most `size` items from a query that asked for one item more, to see whether there is one.
    pub fn from_one_more(mut items: Vec<T>, size: usize) -> Self {
        let more = if items.len() > size { More::Follows } else { More::Ends };
        items.truncate(size);
        Self { items, more }
    }
}

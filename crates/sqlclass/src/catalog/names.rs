//! Finding what a name means, without knowing the types it is used with.

use std::collections::HashMap;

use super::SearchPath;

/// Where every built-in stands, in front of every search path that does not say otherwise.
pub const BUILT_IN: &str = "pg_catalog";

/// By name and schema, the worst of all that share them.
pub struct Names<T> {
    by_name: HashMap<Box<str>, Vec<(Box<str>, T)>>,
}

/// Two of one name are as bad as both.
pub trait Worst: Copy {
    #[must_use]
    fn worst(self, other: Self) -> Self;
}

impl<T: Worst> Names<T> {
    pub fn add(&mut self, schema: &str, name: &str, value: T) {
        let places = match self.by_name.get_mut(name) {
            Some(places) => places,
            None => self.by_name.entry(name.into()).or_default(),
        };
        match places.iter_mut().find(|(there, _)| **there == *schema) {
            Some((_, there)) => *there = there.worst(value),
            None => places.push((schema.into(), value)),
        }
    }

    /// The worst of all that `name` can mean. PostgreSQL takes one of them, by the types of the arguments and the order
    /// of the path; which one is not worth knowing, as nearly always all are alike.
    pub fn find(&self, name: Name<'_>, path: &SearchPath) -> Option<T> {
        let places = self.by_name.get(name.name)?.iter();
        let visible = places.filter(|(schema, _)| match name.schema {
            Some(wanted) => **schema == *wanted,
            None => path.has(schema),
        });
        visible.map(|(_, value)| *value).reduce(Worst::worst)
    }
}

impl<T> Default for Names<T> {
    fn default() -> Names<T> {
        Names { by_name: HashMap::new() }
    }
}

/// A name as it stands in a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    pub schema: Option<&'a str>,
    pub name: &'a str,
}

impl<'a> Name<'a> {
    /// Of the parts between dots. A database in front can only be this one.
    pub fn of(mut parts: impl DoubleEndedIterator<Item = &'a str>) -> Option<Name<'a>> {
        let name = parts.next_back()?;
        Some(Name { schema: parts.next_back(), name })
    }

    /// Does it stand in the temporary schema of a session, which no catalog of ours has?
    pub fn is_temporary(self) -> bool {
        self.schema.is_some_and(|schema| schema.starts_with("pg_temp"))
    }

    /// Can it stand for the built-in `name`?
    pub fn is_built_in(self, name: &str) -> bool {
        self.name == name && self.schema.is_none_or(|schema| schema == BUILT_IN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Worst for u8 {
        fn worst(self, other: u8) -> u8 {
            self.max(other)
        }
    }

    #[test]
    fn the_worst_of_the_visible_is_found() {
        let mut names = Names::default();
        names.add("pg_catalog", "lower", 1_u8);
        names.add("public", "lower", 2);
        names.add("public", "lower", 3);
        names.add("hidden", "lower", 9);
        let find = |schema, path| names.find(Name { schema, name: "lower" }, &path);
        assert_eq!(find(None, SearchPath::of(["public"])), Some(3));
        assert_eq!(find(None, SearchPath::of([])), Some(1), "built-ins are always found");
        assert_eq!(find(Some("hidden"), SearchPath::of(["public"])), Some(9));
        assert_eq!(find(Some("nowhere"), SearchPath::of(["public"])), None);
        assert_eq!(find(None, SearchPath::Unknown), Some(9), "where the path is unknown all are found");
    }
}

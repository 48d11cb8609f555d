//! Where unqualified names are looked for.

use super::names::BUILT_IN;

/// The schemas of a session's `search_path`. Built-ins are found whether it names them or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SearchPath {
    /// These, with `"$user"` already replaced.
    Known(Vec<Box<str>>),
    /// The session has set it to something we did not see: a name may be found in any schema.
    Unknown,
}

impl SearchPath {
    pub fn of<'a>(schemas: impl IntoIterator<Item = &'a str>) -> SearchPath {
        SearchPath::Known(schemas.into_iter().map(Box::from).collect())
    }

    pub(crate) fn has(&self, schema: &str) -> bool {
        match self {
            SearchPath::Known(schemas) => {
                schema == BUILT_IN || schemas.iter().any(|there| **there == *schema)
            }
            SearchPath::Unknown => true,
        }
    }
}

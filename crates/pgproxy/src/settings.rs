//! The settings of a session (GUCs) that are carried from one connection to another.
//!
//! A client sets them in its startup packet or with a plain `SET`. A connection that last served a client with other
//! settings is changed to these before it serves this one. What cannot be carried pins the session instead: see
//! [`crate::statement`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// What one setting was set to, in the words of whoever set it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Setting {
    /// As in a startup packet: the value itself, a list being one text.
    Raw(String),
    /// As in `SET name TO ...`: SQL, known to be nothing but values.
    Sql(String),
}

/// The setting by which a session says that none of its reads may run on a replica.
const READS: &str = "switchback.reads";

/// All of a session, cheap to clone and to compare.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    values: Arc<BTreeMap<Box<str>, Setting>>,
    hash: u64,
    /// See [`Settings::meaning`].
    meaning: u64,
    /// As they are asked for each request.
    allow_replica: bool,
}

/// Settings that change nothing in what a statement means. All others are taken to.
const NO_MEANING: &[&str] = &[
    "application_name",
    "client_min_messages",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "enable_seqscan",
    "idle_in_transaction_session_timeout",
    "jit",
    "lock_timeout",
    "maintenance_work_mem",
    "statement_timeout",
    "synchronous_commit",
    "work_mem",
];

impl Settings {
    pub fn builder() -> Builder {
        Builder(BTreeMap::new())
    }

    pub fn with(&self, name: &str, setting: Setting) -> Settings {
        let mut builder = Builder(BTreeMap::clone(&self.values));
        builder.insert(name, setting);
        builder.build()
    }

    pub fn without(&self, name: &str) -> Settings {
        let mut builder = Builder(BTreeMap::clone(&self.values));
        builder.0.remove(name);
        builder.build()
    }

    /// Those of these names.
    pub fn only(&self, names: &[&str]) -> Settings {
        self.filtered(|name| names.contains(&name))
    }

    /// Those of other names.
    pub fn except(&self, names: &[&str]) -> Settings {
        self.filtered(|name| !names.contains(&name))
    }

    fn filtered(&self, is_kept: impl Fn(&str) -> bool) -> Settings {
        let kept = self.values.iter().filter(|(name, _)| is_kept(name));
        Builder(kept.map(|(name, setting)| (name.clone(), setting.clone())).collect()).build()
    }

    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.values.get(name)
    }

    /// A hash of those of which [`has_meaning`] says so.
    pub fn meaning(&self) -> u64 {
        self.meaning
    }

    /// Whether they leave the session's reads to replicas.
    pub fn allow_replica(&self) -> bool {
        self.allow_replica
    }

    /// What was given in the startup packet and not changed since.
    pub fn raw(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().filter_map(|(name, setting)| match setting {
            Setting::Raw(value) => Some((&**name, value.as_str())),
            Setting::Sql(_) => None,
        })
    }

    /// The SQL that changes a connection that has these settings to one that has the `wanted` ones.
    pub fn change_to(&self, wanted: &Settings) -> String {
        let mut sql = String::new();
        for name in self.values.keys().filter(|name| !wanted.values.contains_key(*name)) {
            write!(sql, "RESET {};", identifier(name)).expect("a String takes all");
        }
        for (name, setting) in &*wanted.values {
            if self.values.get(name) == Some(setting) {
                continue;
            }
            match setting {
                Setting::Raw(value) => {
                    write!(sql, "SELECT pg_catalog.set_config({}, {}, false);", literal(name), literal(value))
                }
                // An interval, which has a place in this form alone.
                Setting::Sql(value) if &**name == "timezone" && value.contains(' ') => {
                    write!(sql, "SET TIME ZONE {value};")
                }
                Setting::Sql(value) => write!(sql, "SET {} TO {value};", identifier(name)),
            }
            .expect("a String takes all");
        }
        sql
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::builder().build()
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Settings) -> bool {
        self.hash == other.hash && (Arc::ptr_eq(&self.values, &other.values) || self.values == other.values)
    }
}

pub(crate) struct Builder(BTreeMap<Box<str>, Setting>);

impl Builder {
    /// Names of settings know no case.
    pub fn insert(&mut self, name: &str, setting: Setting) {
        self.0.insert(name.to_ascii_lowercase().into(), setting);
    }

    pub fn build(self) -> Settings {
        let (mut hasher, mut meaning) = (DefaultHasher::new(), DefaultHasher::new());
        self.0.hash(&mut hasher);
        self.0.iter().filter(|(name, _)| has_meaning(name)).for_each(|setting| setting.hash(&mut meaning));
        let allow_replica = allow_replica(&self.0);
        let (hash, meaning) = (hasher.finish(), meaning.finish());
        Settings { values: Arc::new(self.0), hash, meaning, allow_replica }
    }
}

/// Whether it may depend on the setting what a statement means. It does not on those of apps and extensions, which have a
/// dot in their names.
pub(crate) fn has_meaning(name: &str) -> bool {
    !name.contains('.') && !NO_MEANING.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// A standby knows no serializable transactions.
fn allow_replica(values: &BTreeMap<Box<str>, Setting>) -> bool {
    let says = |name: &str, word: &str| {
        values.get(name).is_some_and(|(Setting::Raw(value) | Setting::Sql(value))| {
            value.trim_matches(['\'', '"']).eq_ignore_ascii_case(word)
        })
    };
    !says("default_transaction_isolation", "serializable") && !says(READS, "primary")
}

/// A name with dots is one of an extension: each part is quoted.
fn identifier(name: &str) -> String {
    let parts: Vec<String> =
        name.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    parts.join(".")
}

/// Right whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_changed_by_what_differs_and_nothing_else() {
        let none = Settings::default();
        let mut first = Settings::builder();
        first.insert("TimeZone", Setting::Raw("it's \\ odd".to_owned()));
        first.insert("app.tenant", Setting::Raw("7".to_owned()));
        let first = first.build();
        let second = first.with("statement_timeout", Setting::Sql("'5s'".to_owned()));
        assert_eq!(first.change_to(&first), "");
        assert_eq!(first.change_to(&second), "SET \"statement_timeout\" TO '5s';");
        assert_eq!(second.change_to(&first), "RESET \"statement_timeout\";");
        assert_eq!(
            none.change_to(&first),
            "SELECT pg_catalog.set_config( E'app.tenant',  E'7', false);\
             SELECT pg_catalog.set_config( E'timezone',  E'it''s \\\\ odd', false);"
        );
        assert_ne!(first, second);
        assert_eq!(first.with("timezone", Setting::Raw("it's \\ odd".to_owned())), first);
    }

    #[test]
    fn what_statements_mean_does_not_depend_on_settings_of_the_app_and_of_their_time() {
        let meaning = |name: &str| Settings::default().with(name, Setting::Sql("1".to_owned())).meaning();
        let none = Settings::default().meaning();
        for name in ["application_name", "Statement_Timeout", "app.tenant"] {
            assert_eq!(meaning(name), none, "{name}");
        }
        for name in ["timezone", "search_path", "role", "bytea_output", "array_nulls"] {
            assert_ne!(meaning(name), none, "{name}");
        }
    }

    #[test]
    fn a_session_can_keep_its_reads_to_the_primary() {
        let allow_replica = |name: &str, value: &str| {
            Settings::default().with(name, Setting::Sql(value.to_owned())).allow_replica()
        };
        assert!(Settings::default().allow_replica());
        assert!(allow_replica("default_transaction_isolation", "'repeatable read'"));
        assert!(!allow_replica("default_transaction_isolation", "'serializable'"));
        assert!(!allow_replica(READS, "primary"));
        assert!(allow_replica(READS, "replica"));
    }
}

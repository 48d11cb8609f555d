//! What we know about functions beyond what PostgreSQL's catalog says of them.
//!
//! The catalog says whether a function is volatile. That is not the question we ask. `random` is volatile and harmless on
//! a replica; `txid_current` is stable and fails there; `pg_backend_pid` is stable and answers for one connection, and
//! `pg_stat_get_activity` for one server. An app that knows one database, and asks it such a thing, means the primary.

use super::names::{BUILT_IN, Name};
use super::{Function, Place};
use crate::set::Set;
use crate::statement::{Flag, Pin};

/// Volatile in PostgreSQL's eyes, because they answer anew each time; they change nothing and answer anywhere.
const HARMLESS: &[&str] = &[
    "array_sample",
    "array_shuffle",
    "bernoulli",
    "clock_timestamp",
    "gen_random_uuid",
    "pg_column_compression",
    "pg_column_size",
    "pg_column_toast_chunk_id",
    "pg_database_size",
    "pg_indexes_size",
    "pg_relation_size",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "random",
    "random_normal",
    "system",
    "timeofday",
    "uuidv4",
    "uuidv7",
];

/// The same, of extensions that come with PostgreSQL.
const HARMLESS_IN_EXTENSIONS: &[(&str, &[&str])] = &[
    ("pgcrypto", &["gen_random_bytes", "gen_random_uuid", "gen_salt"]),
    ("tablefunc", &["normal_rand"]),
    ("tsm_system_rows", &["system_rows"]),
    ("tsm_system_time", &["system_time"]),
    ("uuid-ossp", &["uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4"]),
];

/// Not volatile, and yet not for a replica: they need a transaction of their own, say what holds for one server, or read
/// what a text names.
const PRIMARY: &[&str] = &[
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "inet_server_addr",
    "inet_server_port",
    "pg_conf_load_time",
    "pg_config",
    "pg_current_xact_id",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_listening_channels",
    "pg_postmaster_start_time",
    "pg_show_all_file_settings",
    "pg_show_all_settings",
    "pg_stat_file",
    "pg_timezone_abbrevs",
    "pg_walfile_name",
    "pg_walfile_name_offset",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "txid_current",
];

/// Families of the same.
const PRIMARY_PREFIXES: &[&str] =
    &["pg_stat_get_", "pg_ls_", "pg_get_replication_", "pg_get_wal_", "pg_get_shmem_"];

/// Answer from what their server process did before.
const SAME_BACKEND: &[&str] = &[
    "currval",
    "lastval",
    "pg_backend_pid",
    "pg_current_xact_id_if_assigned",
    "pg_cursor",
    "pg_prepared_statement",
    "txid_current_if_assigned",
];

/// Stable in their extensions, and run a query that they are given as a text.
const RUNS_A_TEXT: &[&str] = &["connectby", "crosstab", "crosstab2", "crosstab3", "crosstab4", "xpath_table"];

/// Built in, and called so often that they are known without a catalog.
const FREQUENT: &[&str] = &[
    "avg",
    "count",
    "date",
    "length",
    "lower",
    "max",
    "min",
    "now",
    "round",
    "row_number",
    "sum",
    "text",
    "upper",
];

/// Whether a function that no catalog was asked about is taken to only read. Another of that name, in a schema of the search
/// path, is not told apart.
pub fn reads_by_its_name(name: Name<'_>) -> bool {
    FREQUENT.iter().any(|frequent| name.is_built_in(frequent))
}

/// What the catalog's row says of a function.
#[derive(Debug, Clone, Copy)]
pub struct Described<'a> {
    pub schema: &'a str,
    pub name: &'a str,
    /// The extension it belongs to, or nothing.
    pub extension: &'a str,
    pub declared: Place,
}

/// What calling a function means.
pub fn judge(described: Described<'_>) -> Function {
    let Described { schema, name, extension, declared } = described;
    let place = if schema == BUILT_IN {
        built_in(name).unwrap_or(declared)
    } else {
        of_extension(extension, name).unwrap_or(declared)
    };
    Function { place, marks: marks(Name { schema: Some(schema), name }) }
}

fn built_in(name: &str) -> Option<Place> {
    let is_primary = PRIMARY.contains(&name)
        || SAME_BACKEND.contains(&name)
        || PRIMARY_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if is_primary {
        return Some(Place::Primary);
    }
    HARMLESS.contains(&name).then_some(Place::Anywhere)
}

fn of_extension(extension: &str, name: &str) -> Option<Place> {
    if !extension.is_empty() && RUNS_A_TEXT.contains(&name) {
        return Some(Place::Primary);
    }
    let (_, harmless) = HARMLESS_IN_EXTENSIONS.iter().find(|(there, _)| *there == extension)?;
    harmless.contains(&name).then_some(Place::Anywhere)
}

/// What a call leaves behind, or depends on, by the name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    pub flags: Set<Flag>,
    pub pins: Set<Pin>,
}

impl Marks {
    pub const NONE: Marks = Marks { flags: Set::EMPTY, pins: Set::EMPTY };

    #[must_use]
    pub fn union(self, other: Marks) -> Marks {
        Marks { flags: self.flags.union(other.flags), pins: self.pins.union(other.pins) }
    }
}

/// The marks of a function of this name. Where the schema is not said they hold as well: an error costs a connection that
/// is kept, or a read on the primary.
pub fn marks(name: Name<'_>) -> Marks {
    let pin = |pin| Marks { pins: Set::from_iter([pin]), ..Marks::NONE };
    let flag = |flag| Marks { flags: Set::from_iter([flag]), ..Marks::NONE };
    if matches!(name.name, "dblink_connect" | "dblink_connect_u") {
        return pin(Pin::Dblink);
    }
    if name.schema.is_some_and(|schema| schema != BUILT_IN) {
        return Marks::NONE;
    }
    match name.name {
        "pg_advisory_lock"
        | "pg_advisory_lock_shared"
        | "pg_try_advisory_lock"
        | "pg_try_advisory_lock_shared" => pin(Pin::AdvisoryLock),
        "pg_advisory_unlock" | "pg_advisory_unlock_shared" | "pg_advisory_unlock_all" => {
            flag(Flag::SameBackend)
        }
        "setseed" => pin(Pin::Seed),
        "pg_notify" => flag(Flag::Notify),
        name if SAME_BACKEND.contains(&name) => flag(Flag::SameBackend),
        _ => Marks::NONE,
    }
}

/// Settings that tell one server from another. Whoever asks for them asks for the primary's.
pub fn tells_the_server(setting: &str) -> bool {
    const SETTINGS: &[&str] = &[
        "cluster_name",
        "config_file",
        "data_directory",
        "hba_file",
        "in_hot_standby",
        "listen_addresses",
        "port",
        "primary_conninfo",
        "primary_slot_name",
        "transaction_read_only",
    ];
    SETTINGS.iter().any(|there| there.eq_ignore_ascii_case(setting))
}

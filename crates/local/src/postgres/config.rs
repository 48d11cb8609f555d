//! The configuration files of a node, all outside of its data directory.
//!
//! ```text
//! conf/node.conf      where this node is and what it listens on; includes managed.conf
//! conf/managed.conf   what follows from the manifest: memory, and where the log is kept
//! conf/replication.conf  whom this node follows, or who confirms its commits; changes with each failover
//! conf/pg_hba.conf    passwords (SCRAM) for everybody, over the Unix socket only; while a node is made from another cluster's
//!                     backups, the supervisor alone
//! conf/pg_ident.conf  empty, but then
//! ```
//!
//! `postgresql.conf` in the data directory is read by nobody but what recovers alone before a rewind. `postgresql.auto.conf`,
//! which `ALTER SYSTEM` writes, is read: it is how a database administrator overrides us, knowingly.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::archiving::HANDED_OVER_AFTER;
use super::{Archiving, Membership, NodePaths, Place, PostgresError, Settings, standby_names};
use crate::engines::PgVersion;

/// `recovery_init_sync_method` is new in 14; without it, a start after a crash walks the whole data directory.
const SYNCFS_SINCE: u32 = 14;
/// `log_startup_progress_interval` is new in 15.
const STARTUP_PROGRESS_SINCE: u32 = 15;

const HBA: &str = "\
# Written by switchback. There is no TCP listener: everybody comes by the Unix socket, with a password.
local  all          all       scram-sha-256
local  replication  postgres  scram-sha-256
";

/// Writes the node's configuration files. Files that say the same already are left alone.
///
/// They hold no secret, and are readable by all: PostgreSQL may run as another user than we.
///
/// # Errors
/// When a file cannot be written; the old one is whole then.
pub fn write_config(
    paths: &NodePaths,
    version: &PgVersion,
    settings: &Settings,
    membership: &Membership,
    archiving: &Archiving,
) -> Result<(), PostgresError> {
    let conf = paths.conf();
    let write = || {
        super::Owner::Ourselves.make_folder(&conf, 0o755)?;
        replace(&conf.join("pg_hba.conf"), HBA)?;
        replace(&conf.join("pg_ident.conf"), "# Written by switchback.\n")?;
        replace(&conf.join("managed.conf"), &managed(settings, archiving))?;
        replace(&conf.join("replication.conf"), &replication(paths, membership))?;
        replace(&conf.join("node.conf"), &node(paths, version))
    };
    write().map_err(|source| PostgresError::Io { path: conf.clone(), source })
}

/// For a node that was made from the backups of another cluster, whose passwords nobody here knows: until the configuration
/// is written again, the supervisor enters as the system user `name` that the kernel knows it by, and nobody else does.
///
/// # Errors
/// When a file cannot be written.
pub fn admit_supervisor(paths: &NodePaths, name: &str) -> Result<(), PostgresError> {
    let conf = paths.conf();
    let admit = || {
        let map = format!("# Written by switchback, for a restore.\nsupervisor  \"{name}\"  postgres\n");
        replace(&conf.join("pg_ident.conf"), &map)?;
        replace(
            &conf.join("pg_hba.conf"),
            "# Written by switchback, for a restore.\nlocal  all  postgres  peer  map=supervisor\n",
        )
    };
    admit().map_err(|source| PostgresError::Io { path: conf.clone(), source })
}

fn node(paths: &NodePaths, version: &PgVersion) -> String {
    let mut text = String::from("# Written by switchback.\n");
    let mut set = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} = {}", quoted(value));
    };
    let path = |path: &Path| path.display().to_string();
    set("data_directory", &path(&paths.pgdata()));
    set("hba_file", &path(&paths.conf().join("pg_hba.conf")));
    set("ident_file", &path(&paths.conf().join("pg_ident.conf")));
    // The Unix socket only. The proxy may run as another user than PostgreSQL, so the socket is open to all, as it is in
    // Debian's packages; a password is asked of everybody.
    set("listen_addresses", "");
    set("port", &paths.port().to_string());
    set("unix_socket_directories", &list_item(&path(paths.socket_dir())));
    set("unix_socket_permissions", "0777");
    // The log goes to the supervisor's file.
    set("log_destination", "stderr");
    set("logging_collector", "off");
    set("log_line_prefix", "%m [%p] %q%u@%d ");
    set("log_timezone", "UTC");
    set("log_checkpoints", "on");
    set("log_lock_waits", "on");
    set("log_min_duration_statement", "1s");
    // Durability is not for sale.
    set("fsync", "on");
    set("full_page_writes", "on");
    // One of its processes that crashes takes all down either way. This way the supervisor hears of it, and lets a standby
    // take over, or starts it again.
    set("restart_after_crash", "off");
    set("wal_level", "replica");
    set("wal_log_hints", "on");
    // Followers store the log, too: what a lost primary had not stored yet is stored by whoever takes over.
    set("archive_mode", "always");
    set("hot_standby", "on");
    // For the followers that a manifest may ask for, a copy or two being made, and the backups.
    set("max_wal_senders", "20");
    set("max_replication_slots", "20");
    // A log that a follower still needs is kept for it, up to a bound: beyond that the follower is copied anew, rather
    // than the primary's disk filled.
    set("max_slot_wal_keep_size", "2GB");
    // For who has no slot yet at a primary that was promoted just now. All of it is copied when a node is rewound.
    set("wal_keep_size", "64MB");
    // What a follower reads is not cleaned away under it.
    set("hot_standby_feedback", "on");
    // What else stands in the way of replaying, such as a lock, gets this long. Then the query is cancelled, and the proxy
    // asks the primary instead: a replica that waited for the default of 30 s would show everybody an old state.
    set("max_standby_streaming_delay", "5s");
    set("max_standby_archive_delay", "5s");
    // A follower notices the loss of its primary, and a new one, at once and not after the default of 5 s.
    set("wal_retrieve_retry_interval", "100ms");
    set("wal_receiver_status_interval", "1s");
    set("wal_receiver_timeout", "5s");
    set("wal_sender_timeout", "5s");
    if version.major() >= SYNCFS_SINCE {
        set("recovery_init_sync_method", "syncfs");
    }
    if version.major() >= STARTUP_PROGRESS_SINCE {
        set("log_startup_progress_interval", "1s");
    }
    set("huge_pages", "try");
    // Compiling pays for long analytic queries only, and needs LLVM; web apps' queries get slower by it.
    set("jit", "off");
    set("password_encryption", "scram-sha-256");
    // What initdb would have written for its locale.
    set("timezone", "UTC");
    set("datestyle", "iso, mdy");
    set("default_text_search_config", "pg_catalog.english");
    set("lc_messages", "C");
    let _ = writeln!(text, "include = 'managed.conf'\ninclude = 'replication.conf'");
    text
}

fn replication(paths: &NodePaths, membership: &Membership) -> String {
    let mut text = String::from("# Written by switchback. Changes with each failover.\n");
    let mut set = |name: &str, value: &str| {
        let _ = writeln!(text, "{name} = {}", quoted(value));
    };
    set("cluster_name", &membership.name);
    match &membership.place {
        Place::Primary { confirmed_by } => {
            set("synchronous_standby_names", &standby_names(confirmed_by));
        }
        Place::Follower { primary_port } => {
            // For the moment in which it is promoted: nobody follows it yet.
            set("synchronous_standby_names", "");
            set("primary_conninfo", &connection_string(paths, *primary_port, &membership.name));
            set("primary_slot_name", &membership.name);
        }
    }
    text
}

/// For PostgreSQL's own programs, as the superuser. The password is in a file that only they can read.
pub(super) fn connection_string(paths: &NodePaths, port: u16, name: &str) -> String {
    let value = |path: &Path| path.display().to_string().replace('\\', "\\\\").replace('\'', "\\'");
    format!(
        "host='{}' port={port} user=postgres dbname=postgres passfile='{}' application_name={name}",
        value(paths.socket_dir()),
        value(&paths.passfile()),
    )
}

fn managed(settings: &Settings, archiving: &Archiving) -> String {
    let mut text = String::from("# Written by switchback, from the manifest.\n");
    for (name, value) in [
        ("max_connections", settings.max_connections.to_string()),
        ("shared_buffers", settings.shared_buffers.to_string()),
        ("effective_cache_size", settings.effective_cache_size.to_string()),
        ("work_mem", settings.work_mem.to_string()),
        ("maintenance_work_mem", settings.maintenance_work_mem.to_string()),
        ("max_parallel_workers", settings.max_parallel_workers.to_string()),
        ("max_parallel_workers_per_gather", settings.max_parallel_workers_per_gather.to_string()),
        ("archive_command", archiving.command()),
        ("archive_timeout", HANDED_OVER_AFTER.to_owned()),
    ] {
        let _ = writeln!(text, "{name} = {}", quoted(&value));
    }
    text
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// For settings that are lists separated by commas.
fn list_item(value: &str) -> String {
    format!("\"{}\"", value.replace('"', "\"\""))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|written| written == text) {
        return Ok(());
    }
    let partial = path.with_extension("partial");
    let mut file =
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o644).open(&partial)?;
    // The umask may have taken what PostgreSQL's user needs.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn folders_with_odd_names_are_quoted() {
        let root = PathBuf::from("/srv/it's, \"odd\"\\");
        let paths = NodePaths::new(&root, &root, 5432).unwrap();
        let text = node(&paths, &PgVersion::parse("13.1").unwrap());
        assert!(text.contains(r#"data_directory = '/srv/it''s, "odd"\\/pgdata'"#), "{text}");
        assert!(text.contains(r#"unix_socket_directories = '"/srv/it''s, ""odd""\\"'"#), "{text}");
        assert!(!text.contains("syncfs"), "13 does not know it");
    }
}

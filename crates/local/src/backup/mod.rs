//! Where backups are kept: the log of a database and copies of it, in a folder that may be on another disk.
//!
//! ```text
//! TO/db-7391273612831/        one database cluster, named by its system identifier: a new database never meets an old log
//!   wal/0000000100000000000000A7.zst   a segment of the log, whole and durable before PostgreSQL may forget it
//!   wal/00000002.history.zst           where a timeline left the one before
//!   base/4/                   a copy: base.tar.gz, pg_wal.tar.gz, backup_manifest, and backup.json, written last
//!   base/5.partial/           one being made
//! ```
//!
//! A copy and the log from there on lead to any later moment. PostgreSQL hands over each segment by running this program
//! ([`Archive::push`]) as the user it runs as, and asks for them in the same way when it recovers ([`Archive::fetch`]).
//! All that touches the target is [`Archive`] and [`Catalog`]: a bucket would stand behind the same few functions.

mod archive;
mod catalog;
mod retention;
mod schedule;
mod timeline;
mod wal;

pub use archive::{Archive, ArchiveError, Fetched, Pushed};
pub use catalog::{BaseBackup, Catalog, Proof};
pub use retention::{Excess, excess};
pub use schedule::{Due, due};
pub use timeline::{Lineage, base_for, base_for_latest, position};
pub use wal::{SEGMENT_BYTES, WalName};

#[cfg(test)]
mod tests;

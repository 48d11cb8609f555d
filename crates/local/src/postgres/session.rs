//! A kept session of the supervisor on one node: asking and telling without the cost of a new connection, which is what
//! makes a failover short.

use std::time::Duration;

use model::{Lsn, Promotion, ResourceId};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::membership::is_member_name;
use super::ready::connect;
use super::{Credentials, NodePaths, PostgresError};
use crate::backup::SEGMENT_BYTES;

/// Everything here is answered from memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// What was written since the checkpoint before has to reach the disk.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(300);
/// The disk is asked for each file.
const SIZE_LIMIT: Duration = Duration::from_secs(60);
/// Of a log that is filled, at once.
const FILL_BYTES: u64 = SEGMENT_BYTES / 16;
/// While a promotion is waited for.
const PROMOTION_POLL: Duration = Duration::from_millis(1);
/// Ending recovery writes a record and renames a file; a node that takes longer is in trouble.
const PROMOTION_LIMIT: Duration = Duration::from_secs(30);

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// It takes writes; this much is written.
    Primary(Lsn),
    /// It follows; how far it is, where that is known.
    Follower(Option<Progress>),
}

/// How far a follower is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub received: Lsn,
    /// The highest of which it has log. One that is past the point where its primary went another way receives none of the
    /// timeline that begins there.
    pub timeline: u32,
    /// To be seen on it.
    pub replayed: Lsn,
}

/// A follower as its primary sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    /// See [`super::member_name`].
    pub name: String,
    /// The process of the primary that sends it the log. One that is refused comes again at once, to another.
    pub sender: u32,
    /// Has caught up with the log and gets it as it is written.
    pub streaming: bool,
    /// Commits may count on its confirmation.
    pub synchronous: bool,
    /// The process that sends it the log lets commits go on when it confirms.
    pub counts: bool,
    pub flushed: Lsn,
    pub replayed: Lsn,
    /// Written by the primary and not yet to be seen on the follower.
    pub replay_lag_bytes: u64,
    /// How long it took, the last time that something was replayed, from its being written on. 0 when all has been.
    pub replay_lag_ms: u64,
}

/// The checkpointer of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpointer {
    pub(super) pid: u32,
    /// `wait_event`, as PostgreSQL calls it.
    pub(super) wait: Option<String>,
}

/// The log of a primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    pub written: Lsn,
    /// What is on the disk for good.
    pub flushed: Lsn,
}

/// How far a node's log is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archiver {
    /// The last file that was stored, and when, in Unix time.
    pub stored: Option<(String, i64)>,
    /// The same of the last that was not.
    pub failed: Option<(String, i64)>,
    /// Files that wait.
    pub waiting: u64,
}

/// What the sessions of one database do at this moment, and what the database has read since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Run, and wait for nothing.
    pub running: u64,
    /// Wait for a lock: of a row, of a table, or within the server.
    pub locked: u64,
    /// Wait for data to be read or written.
    pub data_io: u64,
    /// Wait for the log to be written, or for a standby to confirm.
    pub log: u64,
    /// Have an open transaction and ask for nothing.
    pub idle_in_transaction: u64,
    /// Rows that scans returned.
    pub rows_read_total: u64,
    /// Pages that had to be read, and pages that were there.
    pub pages_read_total: u64,
    pub pages_hit_total: u64,
}

impl Archiver {
    /// Whether the last attempt failed.
    pub fn fails(&self) -> bool {
        let at = |file: &Option<(String, i64)>| file.as_ref().map_or(i64::MIN, |(_, at)| *at);
        self.failed.is_some() && at(&self.failed) > at(&self.stored)
    }
}

pub struct Session {
    client: Client,
}

impl Session {
    /// As the superuser, over the Unix socket.
    ///
    /// # Errors
    /// When the node does not take connections.
    pub async fn open(paths: &NodePaths, credentials: &Credentials) -> Result<Session, PostgresError> {
        let client =
            connect(paths, &credentials.superuser, "postgres").await.map_err(PostgresError::Connection)?;
        // Nothing that the supervisor itself writes may wait for a standby.
        client.batch_execute("SET synchronous_commit = local").await.map_err(PostgresError::Connection)?;
        Ok(Session { client })
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    async fn rows(&self, query: &str) -> Result<Vec<SimpleQueryRow>, PostgresError> {
        self.rows_within(ANSWER_LIMIT, query).await
    }

    async fn rows_within(&self, limit: Duration, query: &str) -> Result<Vec<SimpleQueryRow>, PostgresError> {
        let Ok(answer) = timeout(limit, self.client.simple_query(query)).await else {
            let waited_ms = limit.as_millis() as u64;
            return Err(PostgresError::NotReady { waited_ms, last: "it does not answer".to_owned() });
        };
        let messages = answer.map_err(PostgresError::Connection)?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// `None` of a follower that has not received anything since it was started: what lies in its log already and is
    /// not replayed yet would not be counted. The timeline of what it received is known to the process alone that
    /// receives it, which ends with the primary; what stays are the files of the log, each named after its timeline.
    /// Cancel safe, as are all that only ask.
    ///
    /// # Errors
    /// When the connection fails or PostgreSQL refuses; so for all below.
    pub async fn position(&self) -> Result<Position, PostgresError> {
        let query = "SELECT pg_is_in_recovery(), CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn() \
                     WHEN pg_last_wal_receive_lsn() IS NOT NULL \
                     THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) END - '0/0'::pg_lsn, \
                     pg_last_wal_replay_lsn() - '0/0'::pg_lsn, CASE WHEN pg_is_in_recovery() \
                     THEN (SELECT max(left(name, 8)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$') END";
        let rows = self.rows(query).await?;
        let column = |index: usize| rows.first().and_then(|row| row.get(index));
        let lsn = |index: usize| column(index).and_then(|text| text.parse().ok()).map(Lsn);
        Ok(match (column(0), lsn(1)) {
            (Some("f"), Some(next)) => Position::Primary(written(next)),
            (_, received) => {
                let timeline = column(3).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                let progress = |(received, timeline)| Progress {
                    received,
                    timeline,
                    replayed: lsn(2).unwrap_or_default(),
                };
                Position::Follower(received.zip(timeline).map(progress))
            }
        })
    }

    /// As [`super::NodePaths::system_identifier`], of the cluster that runs.
    pub async fn system_identifier(&self) -> Result<u64, PostgresError> {
        let rows = self.rows("SELECT system_identifier FROM pg_control_system()").await?;
        let number = rows.first().and_then(|row| row.get(0)).and_then(|text| text.parse::<i64>().ok());
        let missing =
            || PostgresError::NotReady { waited_ms: 0, last: "it does not say who it is".to_owned() };
        // The control file has it unsigned, and SQL has no such number.
        number.map(i64::cast_unsigned).ok_or_else(missing)
    }

    /// Who follows this primary. What it has written is in the log before this returns.
    pub async fn followers(&self) -> Result<Vec<Follower>, PostgresError> {
        let query = "SELECT application_name, state = 'streaming', sync_state IN ('sync', 'quorum'), \
                     flush_lsn - '0/0'::pg_lsn, \
                     CASE WHEN replay_lsn IS NOT NULL THEN greatest(pg_current_wal_lsn() - replay_lsn, 0) END, \
                     coalesce(round(extract(epoch FROM replay_lag) * 1000), 0), replay_lsn - '0/0'::pg_lsn, \
                     sync_priority > 0, pid FROM pg_stat_replication";
        let rows = self.rows(query).await?;
        let follower = |row: &SimpleQueryRow| {
            let text = |index: usize| row.get(index).unwrap_or_default();
            Follower {
                name: text(0).to_owned(),
                sender: text(8).parse().unwrap_or_default(),
                streaming: text(1) == "t",
                synchronous: text(2) == "t",
                counts: text(7) == "t",
                flushed: Lsn(text(3).parse().unwrap_or_default()),
                replayed: Lsn(text(6).parse().unwrap_or_default()),
                // An unknown lag, of a follower that has just come, is an endless one.
                replay_lag_bytes: text(4).parse().unwrap_or(u64::MAX),
                replay_lag_ms: text(5).parse().unwrap_or_default(),
            }
        };
        Ok(rows.iter().map(follower).collect())
    }

    /// The process that says whether commits wait, and what was told here of whom they wait for.
    pub(super) async fn checkpointer(&self) -> Result<Option<(Checkpointer, String)>, PostgresError> {
        let query = "SELECT pid, wait_event, current_setting('synchronous_standby_names') FROM pg_stat_activity \
                     WHERE backend_type = 'checkpointer'";
        let rows = self.rows(query).await?;
        let seen = |row: &SimpleQueryRow| {
            let wait = row.get(1).map(str::to_owned);
            Some((Checkpointer { pid: row.get(0)?.parse().ok()?, wait }, row.get(2)?.to_owned()))
        };
        Ok(rows.first().and_then(seen))
    }

    /// What this primary has written to its log, and how much of that its disk has taken. `None` of a follower.
    pub async fn log(&self) -> Result<Option<Log>, PostgresError> {
        let query = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, pg_current_wal_flush_lsn() - '0/0'::pg_lsn \
                     WHERE NOT pg_is_in_recovery()";
        let rows = self.rows(query).await?;
        let lsn = |index: usize| rows.first()?.get(index)?.parse().ok().map(Lsn);
        Ok(lsn(0).zip(lsn(1)).map(|(next, flushed)| Log { written: written(next), flushed }))
    }

    /// Writes a few bytes to the log of this primary that mean nothing to anybody. They belong to no transaction, so that
    /// none gets an id, and PostgreSQL hands them to the disk a moment later without anybody waiting for that.
    /// Where they end.
    pub async fn write_to_log(&self) -> Result<Lsn, PostgresError> {
        let query = "SELECT pg_logical_emit_message(false, 'switchback', '') - '0/0'::pg_lsn";
        let rows = self.rows(query).await?;
        Ok(Lsn(rows.first().and_then(|row| row.get(0)?.parse().ok()).unwrap_or_default()))
    }

    /// As [`Session::write_to_log`], of as much as is missing until so many bytes of the segment that is being written are
    /// used, or of the next part of that. `None` where they are.
    pub async fn fill_segment(&self, until: u64) -> Result<Option<Lsn>, PostgresError> {
        let query = format!(
            "SELECT pg_logical_emit_message(false, 'switchback', repeat(' ', least(free, {FILL_BYTES})::int)) \
             - '0/0'::pg_lsn FROM (SELECT {until} - (pg_current_wal_insert_lsn() - '0/0'::pg_lsn) % {SEGMENT_BYTES} \
             AS free) AS segment WHERE free > 0"
        );
        let rows = self.rows(&query).await?;
        Ok(rows.first().and_then(|row| row.get(0)?.parse().ok()).map(Lsn))
    }

    /// Whether the node that this one follows has said something within `within`.
    pub async fn hears_from_its_primary(&self, within: Duration) -> Result<bool, PostgresError> {
        let query = format!(
            "SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming' \
             AND last_msg_receipt_time > clock_timestamp() - interval '{} ms'",
            within.as_millis()
        );
        Ok(!self.rows(&query).await?.is_empty())
    }

    /// Sessions of this role that do something, or are in a transaction.
    pub async fn busy(&self, role: &str) -> Result<u64, PostgresError> {
        let query = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND state <> 'idle'",
            role.replace('\'', "''")
        );
        let rows = self.rows(&query).await?;
        Ok(rows.first().and_then(|row| row.get(0)).and_then(|count| count.parse().ok()).unwrap_or_default())
    }

    /// What goes on in one database.
    pub async fn activity(&self, database: &str) -> Result<Activity, PostgresError> {
        // Waits for the log are of kind IO and LWLock alike, and `WAL...` or `Wal...` by the version.
        let query = format!(
            "SELECT count(*) FILTER (WHERE state = 'active' AND wait_event_type IS NULL), \
             count(*) FILTER (WHERE state = 'active' AND (wait_event_type IN ('Lock', 'BufferPin') \
             OR wait_event_type = 'LWLock' AND wait_event NOT ILIKE 'wal%')), \
             count(*) FILTER (WHERE state = 'active' AND wait_event_type = 'IO' AND wait_event NOT ILIKE 'wal%'), \
             count(*) FILTER (WHERE state = 'active' AND (wait_event = 'SyncRep' \
             OR wait_event_type IN ('IO', 'LWLock') AND wait_event ILIKE 'wal%')), \
             count(*) FILTER (WHERE state LIKE 'idle in transaction%'), \
             max(d.tup_returned), max(d.blks_read), max(d.blks_hit) \
             FROM pg_stat_database d LEFT JOIN pg_stat_activity a ON a.datid = d.datid \
             AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid() WHERE d.datname = '{}'",
            database.replace('\'', "''")
        );
        let rows = self.rows(&query).await?;
        let number = |index: usize| {
            let text = rows.first().and_then(|row| row.get(index));
            text.and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        Ok(Activity {
            running: number(0),
            locked: number(1),
            data_io: number(2),
            log: number(3),
            idle_in_transaction: number(4),
            rows_read_total: number(5),
            pages_read_total: number(6),
            pages_hit_total: number(7),
        })
    }

    /// Of a copy that is being made of this node.
    pub async fn copy_progress(&self) -> Result<Option<(u64, u64)>, PostgresError> {
        let rows = self
            .rows("SELECT backup_streamed, backup_total FROM pg_stat_progress_basebackup LIMIT 1")
            .await?;
        let number = |row: &SimpleQueryRow, index| row.get(index).and_then(|text| text.parse().ok());
        Ok(rows.first().and_then(|row| Some((number(row, 0)?, number(row, 1)?))))
    }

    /// How large all databases of the cluster are on the disk.
    pub async fn databases_bytes(&self) -> Result<u64, PostgresError> {
        let query = "SELECT sum(pg_database_size(oid)) FROM pg_database";
        let rows = self.rows_within(SIZE_LIMIT, query).await?;
        Ok(rows.first().and_then(|row| row.get(0)?.parse().ok()).unwrap_or_default())
    }

    /// Makes a follower the primary and returns when it takes writes. Called on one that does already, it does nothing.
    /// `None` where that was so, or nobody looked between the last that it replayed and its first transaction: what others
    /// do on it from then on must not be taken for what it had replayed.
    ///
    /// Not cancel safe in that the promotion goes on.
    pub async fn promote(&self) -> Result<Option<Promotion>, PostgresError> {
        let mut last = self.replayed().await?;
        self.rows("SELECT pg_promote(wait => false) WHERE pg_is_in_recovery()").await?;
        let promoted = async {
            while let Some(replayed) = self.replayed().await? {
                last = Some(replayed);
                sleep(PROMOTION_POLL).await;
            }
            Ok(())
        };
        timeout(PROMOTION_LIMIT, promoted).await.unwrap_or_else(|_| {
            let waited_ms = PROMOTION_LIMIT.as_millis() as u64;
            Err(PostgresError::NotReady { waited_ms, last: "it is still in recovery".to_owned() })
        })?;
        // Where its replay has ended stays to be seen for as long as it runs. Without an answer it is promoted all the same.
        let query = "SELECT pg_last_wal_replay_lsn(), left(pg_walfile_name(pg_current_wal_lsn()), 8)";
        let rows = self.rows(query).await.unwrap_or_default();
        let column = |index: usize| rows.first().and_then(|row| row.get(index));
        let timeline = column(1).and_then(|text| u32::from_str_radix(text, 16).ok());
        let last = last.filter(|last| column(0) == Some(&last.up_to));
        Ok(last.zip(timeline).map(|(last, timeline)| Promotion { timeline, first_xid: last.next_xid }))
    }

    /// `None` of a node that does not recover.
    async fn replayed(&self) -> Result<Option<Replayed>, PostgresError> {
        // First the position, and in a statement of its own: the ids are those of then or of later, never of before.
        let up_to = self.rows("SELECT pg_last_wal_replay_lsn()").await?;
        // PostgreSQL takes the snapshot before it looks whether it recovers.
        let xids =
            self.rows("SELECT pg_snapshot_xmax(pg_current_snapshot()) WHERE pg_is_in_recovery()").await?;
        let up_to = up_to.first().and_then(|row| row.get(0)).unwrap_or_default().to_owned();
        let next_xid = xids.first().and_then(|row| row.get(0)).and_then(|text| text.parse().ok());
        Ok(next_xid.map(|next_xid| Replayed { up_to, next_xid }))
    }

    /// Writes what is in memory to the disk: what is to be shut down is then shut down fast, and what is to be rewound
    /// finds the new timeline in the primary's control file.
    pub async fn checkpoint(&self) -> Result<(), PostgresError> {
        self.rows_within(CHECKPOINT_LIMIT, "CHECKPOINT").await.map(drop)
    }

    /// Ends what was written so far with the end of a transaction, so that a recovery to any time before now finds where
    /// to stop, and hands the segment over. Returns the name of the segment that has everything.
    ///
    /// The transaction is rolled back. A new primary may give it an id that the one before gave to a transaction that is
    /// lost, and whoever asks for the fate of that one must not hear of a commit.
    pub async fn hand_over_log(&self) -> Result<String, PostgresError> {
        self.rows("BEGIN; SELECT pg_current_xact_id(); ROLLBACK").await?;
        let rows = self.rows("SELECT pg_walfile_name(pg_switch_wal())").await?;
        Ok(rows.first().and_then(|row| row.get(0)).unwrap_or_default().to_owned())
    }

    /// The file of the log that is being written.
    pub async fn segment_written(&self) -> Result<String, PostgresError> {
        let rows = self.rows("SELECT pg_walfile_name(pg_current_wal_lsn())").await?;
        Ok(rows.first().and_then(|row| row.get(0)).unwrap_or_default().to_owned())
    }

    /// Whether no client has a transaction open or a statement under way.
    pub async fn is_at_rest(&self) -> Result<bool, PostgresError> {
        let query = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'client backend' AND state <> 'idle' \
                     AND pid <> pg_backend_pid() LIMIT 1";
        Ok(self.rows(query).await?.is_empty())
    }

    /// Of a node that recovers: whether it has arrived where it was to pause.
    pub async fn replay_is_paused(&self) -> Result<bool, PostgresError> {
        Ok(!self.rows("SELECT 1 WHERE pg_is_in_recovery() AND pg_is_wal_replay_paused()").await?.is_empty())
    }

    /// How far the log of this node is stored.
    pub async fn archiver(&self) -> Result<Archiver, PostgresError> {
        let query = "SELECT last_archived_wal, round(extract(epoch FROM last_archived_time) * 1000), \
                     last_failed_wal, round(extract(epoch FROM last_failed_time) * 1000), \
                     (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready') \
                     FROM pg_stat_archiver";
        let rows = self.rows(query).await?;
        let Some(row) = rows.first() else { return Ok(Archiver::default()) };
        let file = |index| Some((row.get(index)?.to_owned(), row.get(index + 1)?.parse().ok()?));
        let waiting = row.get(4).and_then(|text| text.parse().ok()).unwrap_or_default();
        Ok(Archiver { stored: file(0), failed: file(2), waiting })
    }

    /// On a follower that is about to be promoted: keeps the log from its own last checkpoint on for a member, and so from
    /// where that member, once it is rewound, begins to read. Asked for after the promotion it would be kept from there.
    pub async fn keep_slot_from_here(&self, name: &str) -> Result<(), PostgresError> {
        let query = format!(
            "SELECT pg_create_physical_replication_slot('{name}', true) \
             WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{name}')"
        );
        self.rows(&query).await.map(drop)
    }

    /// Keeps the log for these members of the cluster `of` from now on, and for no other member. Slots of anybody else are
    /// left alone.
    pub async fn keep_slots(&self, of: &ResourceId, names: &[String]) -> Result<(), PostgresError> {
        let query = "SELECT slot_name, active, wal_status = 'lost' FROM pg_replication_slots \
                     WHERE slot_type = 'physical'";
        let slot = |row: &SimpleQueryRow| Slot {
            name: row.get(0).unwrap_or_default().to_owned(),
            active: row.get(1) == Some("t"),
            lost: row.get(2) == Some("t"),
        };
        let mut slots: Vec<Slot> = self.rows(query).await?.iter().map(slot).collect();
        slots.retain(|slot| is_member_name(of, &slot.name));
        for slot in &slots {
            // One that is in use is somebody's who is just leaving; it goes the next time.
            if !slot.active && (slot.lost || !names.contains(&slot.name)) {
                self.rows(&format!("SELECT pg_drop_replication_slot('{}')", slot.name)).await?;
            }
        }
        slots.retain(|slot| slot.active || !slot.lost);
        for name in names.iter().filter(|name| !slots.iter().any(|slot| slot.name == **name)) {
            self.rows(&format!("SELECT pg_create_physical_replication_slot('{name}', true)")).await?;
        }
        Ok(())
    }
}

/// Connects to the database of the app once. PostgreSQL keeps what the first session of a database has read of its
/// catalogues in a file for those after it, until it is started again; without it many that come at once read it all.
///
/// # Errors
/// As [`Session::open`].
pub async fn warm_up(paths: &NodePaths, credentials: &Credentials) -> Result<(), PostgresError> {
    let client = connect(paths, &credentials.superuser, &credentials.database).await;
    client.map(drop).map_err(PostgresError::Connection)
}

/// What a node that recovers knows.
struct Replayed {
    /// How far it has replayed at least, as PostgreSQL writes it.
    up_to: String,
    /// Above the id of every transaction whose end it has replayed.
    next_xid: u64,
}

struct Slot {
    name: String,
    active: bool,
    /// What its follower needs next is gone: it was away for longer than the log is kept.
    lost: bool,
}

/// `XLOG_BLCKSZ`, and the headers of the first page of a segment and of every other (`SizeOfXLogLongPHD`,
/// `SizeOfXLogShortPHD`).
const PAGE_BYTES: u64 = 8_192;
const LONG_HEADER: u64 = 40;
const SHORT_HEADER: u64 = 24;

/// A primary names the position of what it will write next, behind the header of its page. Where nothing was written to
/// that page yet, as after each segment that was handed over before it was full, its followers have everything and name
/// the end of the page before: this is that position.
fn written(next: Lsn) -> Lsn {
    match (next.0 % SEGMENT_BYTES, next.0 % PAGE_BYTES) {
        (LONG_HEADER, _) => Lsn(next.0 - LONG_HEADER),
        (_, SHORT_HEADER) => Lsn(next.0 - SHORT_HEADER),
        _ => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_that_has_written_nothing_to_a_page_is_not_ahead_of_its_followers() {
        for (next, is) in [
            (3 * SEGMENT_BYTES + LONG_HEADER, 3 * SEGMENT_BYTES),
            (3 * SEGMENT_BYTES + PAGE_BYTES + SHORT_HEADER, 3 * SEGMENT_BYTES + PAGE_BYTES),
            (3 * SEGMENT_BYTES + SHORT_HEADER + 8, 3 * SEGMENT_BYTES + SHORT_HEADER + 8),
            (3 * SEGMENT_BYTES + PAGE_BYTES + LONG_HEADER, 3 * SEGMENT_BYTES + PAGE_BYTES + LONG_HEADER),
        ] {
            assert_eq!(written(Lsn(next)), Lsn(is), "{next}");
        }
    }
}

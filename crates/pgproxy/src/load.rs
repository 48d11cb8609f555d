//! What the nodes have to do, statement by statement, while somebody watches.
//!
//! How long a node takes for its statements, divided by the time that passed, is how many it works on at once: its load. By
//! what statements may do, it tells how much of that replicas could take; by their text, whether it is one statement. To
//! know it takes two looks at the clock and a lock for each request, so it is counted only for [`WATCHED_FOR`] after
//! somebody has asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::statement::Kind;

/// After somebody has asked. Who watches asks oftener.
pub const WATCHED_FOR: Duration = Duration::from_secs(10);
/// Texts that are told apart. The time of others is in the sums only.
const MAX_TEXTS: usize = 256;
/// Of a text that is kept.
const MAX_TEXT_BYTES: usize = 400;

/// Totals only grow, and only while somebody watches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadStatus {
    pub primary: NodeLoad,
    /// All of them together.
    pub replicas: NodeLoad,
    /// Of the primary, by text. Literals are `'` or `0`.
    pub statements: BTreeMap<String, StatementLoad>,
}

/// By what statements may do, as in `statements_total` of [`crate::DatabaseStatus`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLoad {
    /// From a request to the end of its answer.
    pub busy_us_total: BTreeMap<String, u64>,
    pub requests_total: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementLoad {
    pub busy_us_total: u64,
    pub requests_total: u64,
}

impl NodeLoad {
    fn spent(&mut self, kind: Kind, us: u64) {
        *self.busy_us_total.entry(kind.name().to_owned()).or_default() += us;
        *self.requests_total.entry(kind.name().to_owned()).or_default() += 1;
    }
}

/// A request that is under way.
pub(crate) struct Asked {
    at: Instant,
    kind: Kind,
    /// Folded, of its first statement.
    text: Option<Vec<u8>>,
}

impl Asked {
    pub fn now(kind: Kind, text: Option<Vec<u8>>) -> Asked {
        Asked { at: Instant::now(), kind, text }
    }

    /// Another statement of the same request. One that does not only read decides what it is.
    pub fn and(&mut self, kind: Kind) {
        if self.kind == Kind::Read {
            self.kind = kind;
        }
    }
}

#[derive(Default)]
pub(crate) struct Load {
    is_watched: AtomicBool,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    until: Option<Instant>,
    primary: NodeLoad,
    replicas: NodeLoad,
    statements: HashMap<Vec<u8>, StatementLoad>,
}

impl Load {
    /// What was counted so far. Counts from now on, for [`WATCHED_FOR`].
    pub fn watch(&self) -> LoadStatus {
        let mut counted = self.counted();
        counted.until = Some(Instant::now() + WATCHED_FOR);
        self.is_watched.store(true, Relaxed);
        let statements = counted.statements.iter();
        LoadStatus {
            primary: counted.primary.clone(),
            replicas: counted.replicas.clone(),
            statements: statements
                .map(|(text, load)| (String::from_utf8_lossy(text).into_owned(), *load))
                .collect(),
        }
    }

    pub fn is_watched(&self) -> bool {
        self.is_watched.load(Relaxed)
    }

    /// The key under which the time of `sql` is summed.
    pub fn text(sql: &[u8]) -> Option<Vec<u8>> {
        let mut text = sqlclass::folded_text(sql)?;
        text.truncate(MAX_TEXT_BYTES);
        Some(text)
    }

    /// A request has its answer.
    pub fn answered(&self, asked: Asked, by_replica: bool) {
        let now = Instant::now();
        let us = u64::try_from((now - asked.at).as_micros()).unwrap_or(u64::MAX);
        let mut counted = self.counted();
        if counted.until.is_none_or(|until| until < now) {
            self.is_watched.store(false, Relaxed);
            return;
        }
        if by_replica {
            return counted.replicas.spent(asked.kind, us);
        }
        counted.primary.spent(asked.kind, us);
        let Some(text) = asked.text else { return };
        let has_room = counted.statements.len() < MAX_TEXTS;
        let load = match counted.statements.get_mut(&text) {
            Some(load) => load,
            None if has_room => counted.statements.entry(text).or_default(),
            None => return,
        };
        load.busy_us_total += us;
        load.requests_total += 1;
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(load: &Load, kind: Kind, sql: &str, by_replica: bool) {
        load.answered(Asked::now(kind, Load::text(sql.as_bytes())), by_replica);
    }

    #[test]
    fn time_is_summed_by_node_by_class_and_by_text_without_literals() {
        let load = Load::default();
        load.watch();
        answer(&load, Kind::Read, "SELECT * FROM t WHERE id = 1", false);
        answer(&load, Kind::Read, "select * from t where id = 22", false);
        answer(&load, Kind::Work, "UPDATE t SET n = 1", false);
        answer(&load, Kind::Read, "SELECT 1", true);
        let status = load.watch();
        assert_eq!(status.primary.requests_total["read"], 2);
        assert_eq!(status.primary.requests_total["write"], 1);
        assert_eq!(status.replicas.requests_total["read"], 1);
        assert_eq!(status.statements["select * from t where id = 0"].requests_total, 2);
        assert_eq!(status.statements.len(), 2);
    }

    #[test]
    fn nothing_is_counted_while_nobody_watches() {
        let load = Load::default();
        assert!(!load.is_watched());
        answer(&load, Kind::Read, "SELECT 1", false);
        assert_eq!(load.watch(), LoadStatus::default());
        assert!(load.is_watched());
        load.counted().until = Some(Instant::now());
        answer(&load, Kind::Read, "SELECT 1", false);
        assert!(!load.is_watched());
        assert_eq!(load.watch(), LoadStatus::default());
    }

    #[test]
    fn texts_without_end_are_not_all_kept() {
        let load = Load::default();
        load.watch();
        for number in 0..2 * MAX_TEXTS {
            answer(&load, Kind::Read, &format!("SELECT * FROM t{number}"), false);
        }
        let status = load.watch();
        assert_eq!(status.statements.len(), MAX_TEXTS);
        assert_eq!(status.primary.requests_total["read"], 2 * MAX_TEXTS as u64);
    }
}

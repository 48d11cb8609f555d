//! What the tiers measure, by name: the one place that says what a name in [`record::Tier`](crate::record::Tier) means.
//!
//! Whoever measures writes these names, whoever diagnoses reads them. A value that is not there was not measured, which is
//! something else than 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::{Tier, TierSecond};

/// Names of tiers. Of each, `in_flight` is the mean of a second, `waiting` what stands in front of it, `done` what it
/// finished, and `cpu` what all its processes used together.
pub mod tier {
    /// All cores, and all who use them. `cpu_allowed`: how many there are.
    pub const MACHINE: &str = "machine";
    /// `in_flight`: requests from their head to the end of their answer. `waiting`: those without an endpoint.
    pub const EDGE: &str = "edge";
    /// Instances of the app. `in_flight`: requests that the edge has sent them.
    pub const WEB: &str = "web";
    /// `in_flight`: connections that clients have. `waiting`: clients that wait for one to the primary.
    pub const PROXY: &str = "pgproxy";
    /// `in_flight`: statements that wait for its answer, the mean of which is its load ("average active sessions").
    pub const PRIMARY: &str = "primary";
    pub const STANDBYS: &str = "standbys";
    /// As the primary; `waiting`: clients that wait for a connection to one.
    pub const REPLICAS: &str = "replicas";
}

/// Names within [`TierSecond::more`].
pub mod more {
    /// Of the machine: share of the second in which something that could run waited for a processor, from 0 to 1
    /// (`/proc/pressure`).
    pub const PRESSURE_CPU: &str = "pressure_cpu";
    /// Of the machine: as before, for disks.
    pub const PRESSURE_IO: &str = "pressure_io";
    /// Of the machine: as before, for memory.
    pub const PRESSURE_MEMORY: &str = "pressure_memory";
    /// Of the machine: cores that the generator of the load used.
    pub const GENERATOR_CPU: &str = "generator_cpu";
    /// Of the machine: cores that nobody of the app, nor the generator, used.
    pub const FOREIGN_CPU: &str = "foreign_cpu";
    /// Of the proxy: connections to the primary that it may have.
    pub const POOL_SIZE: &str = "pool_size";
    /// Of the proxy: connections to the primary that a client had, whether or not it asked for anything.
    pub const POOL_BUSY: &str = "pool_busy";
    /// Of a database tier: the part of `in_flight` that only reads.
    pub const READS_IN_FLIGHT: &str = "reads_in_flight";
    /// Of the primary: the part of `in_flight` of the one statement that has most of it, whatever its literals.
    pub const TOP_IN_FLIGHT: &str = "top_in_flight";
    /// Of the primary: how often that statement was run in the second.
    pub const TOP_DONE: &str = "top_done";
    /// Of the primary: rows that scans returned in the second (`pg_stat_database.tup_returned`).
    pub const ROWS_READ: &str = "rows_read";
    /// Of the primary: pages that were not in its memory in the second (`blks_read`).
    pub const PAGES_READ: &str = "pages_read";
    /// Of the primary: pages that were (`blks_hit`).
    pub const PAGES_HIT: &str = "pages_hit";
    /// Of the primary: sessions that ran and waited for nothing, when looked at (`pg_stat_activity`). The next ones are as
    /// this, and what they are by `wait_event_type`.
    pub const SESSIONS_RUNNING: &str = "sessions_running";
    /// Waited for a lock, of a row, a table or within the server (`Lock`, `LWLock` but for those of the log).
    pub const SESSIONS_LOCKED: &str = "sessions_locked";
    /// Waited for data to be read or written (`IO`, but for the log).
    pub const SESSIONS_DATA_IO: &str = "sessions_data_io";
    /// Waited for the log to be written, or for a standby to confirm (`IO` of the log, `WALWrite`, `SyncRep`).
    pub const SESSIONS_LOG: &str = "sessions_log";
    /// Had an open transaction and asked for nothing.
    pub const SESSIONS_IDLE_IN_TRANSACTION: &str = "sessions_idle_in_transaction";
    /// Of the replicas: reads in the second that went to the primary, because none had what they must see.
    pub const READS_TOO_LATE: &str = "reads_too_late";
    /// Of the replicas: how old the oldest is. The mean of a second.
    pub const LAG_MS: &str = "lag_ms";
}

/// The mean of some seconds of one tier.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    pub members: f64,
    /// In cores.
    pub cpu: f64,
    /// In cores. 0: not known.
    pub cpu_allowed: f64,
    /// From 0 to 1.
    pub throttled: f64,
    pub in_flight: f64,
    pub waiting: f64,
    /// Per second.
    pub done: f64,
    /// Per second.
    pub errors: f64,
    pub more: BTreeMap<String, f64>,
}

impl Window {
    /// Of the seconds from `from` up to but not including `to`. `None` where none of them was looked at. A name in `more`
    /// is averaged over the seconds that have it.
    pub fn of(tier: &Tier, from: u32, to: u32) -> Option<Window> {
        let seconds: Vec<&TierSecond> =
            tier.seconds.iter().filter(|second| (from..to).contains(&second.at)).collect();
        if seconds.is_empty() {
            return None;
        }
        let mean = |read: fn(&TierSecond) -> f64| {
            seconds.iter().map(|second| read(second)).sum::<f64>() / seconds.len() as f64
        };
        let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for (name, value) in seconds.iter().flat_map(|second| &second.more) {
            let (sum, count) = sums.entry(name.clone()).or_default();
            *sum += value;
            *count += 1.0;
        }
        Some(Window {
            members: mean(|second| f64::from(second.members)),
            cpu: mean(|second| second.cpu),
            cpu_allowed: mean(|second| second.cpu_allowed),
            throttled: mean(|second| second.throttled),
            in_flight: mean(|second| second.in_flight),
            waiting: mean(|second| second.waiting),
            done: mean(|second| second.done),
            errors: mean(|second| second.errors),
            more: sums.into_iter().map(|(name, (sum, count))| (name, sum / count)).collect(),
        })
    }

    /// `None`: it was not measured.
    pub fn more(&self, name: &str) -> Option<f64> {
        self.more.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_the_mean_of_its_seconds_and_of_no_others() {
        let second = |at, cpu, lag: Option<f64>| TierSecond {
            at,
            members: 2,
            cpu,
            more: lag.map(|lag| (more::LAG_MS.to_owned(), lag)).into_iter().collect(),
            ..TierSecond::default()
        };
        let seconds = vec![
            second(0, 9.0, Some(900.0)),
            second(1, 1.0, Some(10.0)),
            second(2, 2.0, None),
            second(3, 9.0, None),
        ];
        let tier = Tier { name: tier::REPLICAS.to_owned(), seconds };
        let window = Window::of(&tier, 1, 3).unwrap();
        assert_eq!((window.members, window.cpu), (2.0, 1.5));
        assert_eq!(window.more(more::LAG_MS), Some(10.0));
        assert_eq!(window.more(more::READS_TOO_LATE), None);
        assert_eq!(Window::of(&tier, 4, 9), None);
    }
}

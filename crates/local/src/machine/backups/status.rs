//! What `status` says about backups.

use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use model::{ResourceId, Topology};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::Seen;
use crate::backup::{Archive, BaseBackup, Catalog};
use crate::machine::Machine;

/// A target that takes longer does not hold up the rest of the status.
const LIST_LIMIT: Duration = Duration::from_secs(2);

/// One database's backups. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupStatus {
    pub database: String,
    pub state: BackupState,
    /// The folder they are kept in.
    pub to: Option<String>,
    /// What is wrong, in a sentence without its full stop, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Files of the log that are not stored yet.
    pub log_waiting: u64,
    /// When the log was stored last.
    pub log_stored_at: Option<Timestamp>,
    pub copies: usize,
    pub newest: Option<u32>,
    pub newest_at: Option<Timestamp>,
    /// The newest copy that was restored and found whole.
    pub proven: Option<u32>,
    pub proven_at: Option<Timestamp>,
    /// How old what it holds is.
    pub proven_age_s: Option<u64>,
    /// What is being done at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way: Option<BackupWork>,
    /// Nodes whose data restores have put aside, until it is said that nobody needs it.
    pub kept_aside: Vec<String>,
}

/// A copy that is worked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupWork {
    pub doing: BackupDoing,
    pub backup: u32,
    pub running_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupDoing {
    Making,
    Proving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupState {
    Off,
    /// There is no copy yet.
    Waiting,
    /// There is a copy, and none was proven.
    Unproven,
    Proven,
    /// Something stands in the way: see the problem.
    Failing,
}

impl Machine {
    pub(in crate::machine) async fn backup_statuses(&self) -> Vec<BackupStatus> {
        let topology = self.world().topology;
        let mut statuses = Vec::new();
        for id in topology.clusters.keys() {
            statuses.push(self.backup_status(id, &topology).await);
        }
        statuses
    }

    async fn backup_status(&self, id: &ResourceId, topology: &Topology) -> BackupStatus {
        let primary = topology.primary_of(id).and_then(|node| self.node_kept(&node.id));
        // That it cannot be read is told by the one who watches it.
        let archive = primary.and_then(|job| job.archive().ok().flatten());
        let to = archive.as_ref().map(|archive| archive.root().display().to_string());
        let is_off = topology.clusters.get(id).is_none_or(|cluster| cluster.backups.is_none());
        let copies = match archive {
            Some(archive) => self.copies(id, archive).await,
            None => Vec::new(),
        };
        let seen = self.inner.backups.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = if is_off { Seen::default() } else { seen.get(id).cloned().unwrap_or_default() };
        let newest = copies.last();
        let trouble = seen.trouble.as_ref().or(seen.failed.as_ref());
        let proven = copies.iter().rev().find(|backup| backup.is_proven());
        let state = match (is_off, trouble, newest, proven) {
            (true, ..) => BackupState::Off,
            (_, Some(_), ..) => BackupState::Failing,
            (_, _, None, _) => BackupState::Waiting,
            (_, _, _, None) => BackupState::Unproven,
            _ => BackupState::Proven,
        };
        let age = |backup: &BaseBackup| {
            u64::try_from(Timestamp::now().duration_since(backup.ended).as_secs()).unwrap_or_default()
        };
        let stored = seen.archiver.stored.as_ref();
        let under_way = seen.under_way.map(|(doing, backup, since)| BackupWork {
            doing,
            backup,
            running_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        BackupStatus {
            database: id.to_string(),
            state,
            to,
            problem: trouble.map(|trouble| trouble.reason.clone()),
            hint: trouble.map(|trouble| trouble.hint.clone()),
            log_waiting: seen.archiver.waiting,
            log_stored_at: stored.and_then(|(_, at)| Timestamp::from_millisecond(*at).ok()),
            copies: copies.len(),
            newest: newest.map(|backup| backup.number),
            newest_at: newest.map(|backup| backup.ended),
            proven: proven.map(|backup| backup.number),
            proven_at: proven.and_then(|backup| backup.proof.as_ref()).map(|proof| proof.at),
            proven_age_s: proven.map(age),
            under_way,
            kept_aside: self.inner.setup.state.replaced_of(id).iter().map(ToString::to_string).collect(),
        }
    }

    /// What there is; where the target does not answer, what there was when it did.
    async fn copies(&self, id: &ResourceId, archive: Archive) -> Vec<BaseBackup> {
        let seen = || self.inner.backups.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever asks it leaves a thread there that hangs.
        let hangs = seen().get(id).is_some_and(|seen| seen.hangs);
        let list = || tokio::task::spawn_blocking(move || Catalog::of(&archive).list());
        if !hangs && let Ok(listed) = timeout(LIST_LIMIT, list()).await {
            let listed = listed.ok().and_then(Result::ok);
            if let Some(copies) = &listed {
                seen().entry(id.clone()).or_default().copies.clone_from(copies);
            }
            return listed.unwrap_or_default();
        }
        seen().get(id).map(|seen| seen.copies.clone()).unwrap_or_default()
    }
}

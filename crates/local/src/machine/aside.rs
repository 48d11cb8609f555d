//! Data that stands aside: named to be destroyed by a plan that is not carried out yet, or made by one that was taken back.
//!
//! A plan's destruction is all or nothing: its steps only rename, and what they renamed is deleted when the last of them
//! is written down. A daemon that dies in between leaves that to the next.

use std::fs;
use std::path::{Path, PathBuf};

use model::{ByteSize, DatabaseNode, NodeId, Topology};

use super::apply::{Event, Report};
use super::nodes::{at, move_if_there};
use super::{Machine, StepError};
use crate::keeper::Begin;

/// What a node's data is called while it waits to be deleted.
const DESTROYED: &str = ".destroyed";

/// Of the data that stands aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aside {
    /// What a plan was told to destroy.
    Destroyed,
    /// Also what plans made and took back. It never served: see [`Machine::keep_new_nodes`].
    All,
}

impl Machine {
    /// Stops a node for good. Its data is deleted when the whole plan was carried out; until then it can be
    /// [brought back](Machine::bring_node_back).
    pub(super) async fn set_node_aside(&self, node: &DatabaseNode) -> Result<(), StepError> {
        self.stop_node(&node.id).await;
        let from = self.inner.setup.state.node(&node.id);
        let (to, kept) = self.set_aside(&node.id);
        if from.exists() {
            // Of another plan, whose daemon did not come to delete it.
            Machine::remove_tree(to.clone()).await?;
        }
        let retired = self.inner.setup.state.retired();
        fs::create_dir_all(&retired).map_err(|error| at(&retired, &error))?;
        // Taken again after a crash, what was kept then is what opens the data.
        let first = from.exists() || !kept.exists();
        move_if_there(&from, &to)?;
        let credentials = self.inner.setup.state.database_credentials(node.id.resource());
        if first { move_if_there(&credentials, &kept) } else { Ok(()) }
    }

    pub(super) async fn bring_node_back(
        &self,
        node: &DatabaseNode,
        topology: &Topology,
        report: &Report,
    ) -> Result<(), StepError> {
        let (from, kept) = self.set_aside(&node.id);
        move_if_there(&kept, &self.inner.setup.state.database_credentials(node.id.resource()))?;
        move_if_there(&from, &self.inner.setup.state.node(&node.id))?;
        if self.units().nodes.contains_key(&node.id) {
            return Ok(());
        }
        let job = self.node_job(node, topology, report).await?;
        self.begin_node(job, node, Begin::Restore).await
    }

    /// Where the data and the credentials of a node wait to be deleted.
    fn set_aside(&self, id: &NodeId) -> (PathBuf, PathBuf) {
        let retired = self.inner.setup.state.retired();
        (retired.join(format!("{id}{DESTROYED}")), retired.join(format!("{id}{DESTROYED}.json")))
    }

    /// Deletes data that stands aside, off the runtime's threads. What cannot be deleted is said; a later plan tries again.
    pub(super) async fn delete_what_stands_aside(&self, which: Aside, report: &Report) {
        let retired = self.inner.setup.state.retired();
        // A node that stands, and whose data could not be brought back.
        let needed: Vec<String> =
            self.topology().nodes.keys().map(|node| format!("{node}{DESTROYED}")).collect();
        let deleted = tokio::task::spawn_blocking(move || delete_aside(&retired, which, &needed)).await;
        let text = match deleted {
            Ok(Ok(0)) => return,
            Ok(Ok(bytes)) => {
                format!("deleted {} of data that stood aside", ByteSize::from_bytes(bytes).rounded())
            }
            Ok(Err(error)) => format!("data that stands aside could not be deleted: {error}"),
            Err(error) => format!("data that stands aside could not be deleted: {error}"),
        };
        report(Event::Note { text });
    }
}

/// Returns how many bytes that gave back.
fn delete_aside(retired: &Path, which: Aside, needed: &[String]) -> std::io::Result<u64> {
    let entries = match fs::read_dir(retired) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if needed.iter().any(|needed| name == *needed || name == format!("{needed}.json")) {
            continue;
        }
        if which == Aside::Destroyed && !name.contains(DESTROYED) {
            continue;
        }
        bytes += bytes_of(&entry.path());
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    // What a later plan may still need keeps it.
    let _ = fs::remove_dir(retired);
    Ok(bytes)
}

/// What a file or folder takes on the disk. What cannot be looked at counts nothing.
fn bytes_of(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    own + entries.map(|entry| bytes_of(&entry.path())).sum::<u64>()
}

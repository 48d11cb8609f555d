//! Proving that commits wait for whom PostgreSQL was told they wait for, before that is written down.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{DatabaseNode, DatabaseRole, NodeId, ResourceId};
use tokio::time::{Instant, timeout};

use super::guard::LOOK_LIMIT;
use crate::jobs::node::NodeJob;
use crate::machine::world::Journaling;
use crate::machine::{Machine, StepError};
use crate::postgres::{ControlFile, Follower, member_name, prove_in_force};

/// After this long it is said that a standby is not counted on, and why.
const SAID_AFTER: Duration = Duration::from_secs(10);

/// What PostgreSQL was told last of whom commits wait for, and whether it is known to go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Proof {
    /// Not looked for yet.
    #[default]
    Open,
    /// Looked for in vain since then; whether that was said.
    Missing {
        since: Instant,
        said: bool,
    },
    Given,
}

/// The start of a primary for which nobody is counted on.
pub(super) struct Start {
    /// Who was, before.
    recorded: BTreeSet<NodeId>,
    /// By it, whether the primary came to serve is seen.
    control: ControlFile,
}

impl Machine {
    /// Sees whether commits on the primary go by what it was told last, where that is still to be written down.
    pub(super) async fn prove_who_confirms(&self, id: &ResourceId, primary: &DatabaseNode) {
        let Some(cluster) = self.topology().clusters.get(id).cloned() else { return };
        let (proof, told) = self.watched(id, |watch| (watch.proof, watch.confirmed_by.clone()));
        if proof == Proof::Given || told == cluster.synchronous {
            return;
        }
        let names: Vec<String> = told.iter().map(member_name).collect();
        let prove = async {
            let session = self.session(&primary.id).await.map_err(|error: StepError| error.reason)?;
            let job = self.node_kept(&primary.id).ok_or("it does not run")?;
            prove_in_force(&session, &job.paths, &names).await
        };
        let proved =
            timeout(LOOK_LIMIT, prove).await.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        let Err(reason) = proved else {
            self.watched(id, |watch| watch.proof = Proof::Given);
            return;
        };
        let (since, said) = match proof {
            Proof::Missing { since, said } => (since, said),
            Proof::Open | Proof::Given => (Instant::now(), false),
        };
        let is_late = since.elapsed() >= SAID_AFTER;
        if is_late && !said {
            let nodes: Vec<String> = told.iter().map(ToString::to_string).collect();
            let evidence = format!(
                "PostgreSQL was told {} s ago to let commits wait for it, and is not proved to do so: {reason}",
                since.elapsed().as_secs()
            );
            self.remember(id.as_str(), format!("do not count on {} yet", nodes.join(", ")), evidence);
        }
        self.watched(id, |watch| watch.proof = Proof::Missing { since, said: said || is_late });
    }

    /// Before a node is started: where it is a primary of a PostgreSQL that may let the first commits go on without a
    /// standby, nobody is counted on until it is proved again that they wait.
    ///
    /// # Errors
    /// When that cannot be written down. It must not start then: what it acknowledged alone would be lost with the next
    /// failover.
    pub(in crate::machine) fn counts_on_nobody_at_start(&self, job: &NodeJob) -> Result<(), StepError> {
        let (node, id) = (&job.id, job.id.resource());
        let topology = self.topology();
        let recorded =
            topology.clusters.get(id).map(|cluster| cluster.synchronous.clone()).unwrap_or_default();
        let is_primary = topology.role_of(node) == DatabaseRole::Primary;
        let engine = job.engine();
        if engine.version.commits_wait_from_the_start() || !is_primary {
            return Ok(());
        }
        self.watched(id, |watch| {
            watch.proof = Proof::Open;
            watch.quorum.starts_anew();
        });
        if recorded.is_empty() {
            return Ok(());
        }
        // Where it cannot be read, nothing is proved by it later.
        let control = ControlFile::read(&job.paths);
        self.record(id, &BTreeSet::new()).map_err(|error| StepError {
            reason: format!(
                "PostgreSQL {} may serve commits without a standby when it starts, and that none is counted on meanwhile \
                 cannot be written down: {}",
                engine.version, error.reason
            ),
            ..error
        })?;
        self.watched(id, |watch| watch.start = control.ok().map(|control| Start { recorded, control }));
        self.remember(
            id.as_str(),
            "count on no standby until commits are proved to wait for one",
            format!("PostgreSQL {} may serve commits without one when it starts", engine.version),
        );
        Ok(())
    }

    /// A primary has ended. Where it was started with nobody to count on, and never came to serve, whoever had every commit
    /// before has every commit still.
    pub(super) fn counts_as_before_the_start(&self, node: &NodeId) {
        let id = node.resource();
        let (Some(start), Some(job)) = (self.watched(id, |watch| watch.start.take()), self.node_kept(node))
        else {
            return;
        };
        let has_ended = ControlFile::read(&job.paths);
        if self.topology().role_of(node) != DatabaseRole::Primary
            || !has_ended.is_ok_and(|control| control.never_served_since(&start.control))
        {
            return;
        }
        if let Err(error) = self.record(id, &start.recorded) {
            tracing::warn!(%node, error = error.reason, "who had every commit cannot be written down");
            self.watched(id, |watch| watch.start = Some(start));
            return;
        }
        let nodes: Vec<String> = start.recorded.iter().map(ToString::to_string).collect();
        self.remember(
            id.as_str(),
            format!("count on {} again", nodes.join(", ")),
            format!("{node} has ended without having served since"),
        );
    }

    /// Writes down who has every acknowledged commit between them.
    pub(super) fn record(&self, id: &ResourceId, nodes: &BTreeSet<NodeId>) -> Result<(), StepError> {
        self.change_world(Journaling::Keep, |world| {
            if let Some(cluster) = world.topology.clusters.get_mut(id) {
                cluster.synchronous.clone_from(nodes);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Whom commits are proved to wait for, by what was seen of the followers afterwards.
    pub(super) fn proved_to_confirm(
        &self,
        id: &ResourceId,
        followers: &[Follower],
    ) -> Option<BTreeSet<NodeId>> {
        let (proof, told) = self.watched(id, |watch| (watch.proof, watch.confirmed_by.clone()));
        let names: BTreeSet<String> = told.iter().map(member_name).collect();
        let nobody_else = followers.iter().all(|follower| !follower.counts || names.contains(&follower.name));
        (proof == Proof::Given && nobody_else).then_some(told)
    }
}

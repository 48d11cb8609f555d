//! Followers that run and do not follow: why that is, and what is done about it.
//!
//! Most are past the point where their primary went another way, or the log that they need is gone: those are rewound,
//! and copied anew where that does not help. What else stands in the way, such as a setting or a password that somebody
//! has changed, goes by somebody's hand. Then a copy does not help either, and costs the primary what a copy costs, so each
//! waits twice as long as the one before.

use std::time::Duration;

use model::{NodeId, ResourceId, Topology};
use tokio::time::Instant;

use super::locked;
use crate::keeper::Phase;
use crate::machine::{Machine, StepError};
use crate::postgres::{Follower, Need, Session, member_name, said_of_following};

/// A follower that runs and does not follow for this long has lost its way.
const ASTRAY_LIMIT: Duration = Duration::from_secs(10);
/// Who cannot follow still comes to its primary, many times a second, and is there until that has refused it. One that is
/// sent the log by one process for this long is not refused.
const HELD_LIMIT: Duration = Duration::from_secs(1);
/// Between two copies of one that no copy helps.
const COPY_INTERVAL: Duration = Duration::from_secs(600);
/// One that does not follow for less than this is about to.
const SHOWN_AFTER: Duration = Duration::from_secs(2);

/// A follower that runs and does not follow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Astray {
    /// When it was last seen to follow, to start, or to be helped.
    since: Instant,
    /// The process that sends it the log, and when that was first seen.
    sender: Option<(u32, Instant)>,
    /// What was done about it since it last had all of the log.
    attempts: u32,
}

impl Astray {
    fn begin() -> Self {
        Self { since: Instant::now(), sender: None, attempts: 0 }
    }

    fn see(&mut self, sender: Option<u32>) {
        self.sender = sender.map(|pid| match self.sender {
            Some((known, since)) if known == pid => (pid, since),
            _ => (pid, Instant::now()),
        });
    }

    fn follows(&self) -> bool {
        self.sender.is_some_and(|(_, since)| since.elapsed() >= HELD_LIMIT)
    }

    /// The next attempt, when it is due.
    fn attempt(&mut self) -> Option<(u32, Duration)> {
        let waited = self.since.elapsed();
        if waited < patience(self.attempts) {
            return None;
        }
        self.since = Instant::now();
        self.attempts += 1;
        Some((self.attempts, waited))
    }
}

/// How long it may not follow after so many attempts before the next one: the first rewinds it, all others copy it.
fn patience(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    ASTRAY_LIMIT.saturating_mul(1 << doublings).min(COPY_INTERVAL)
}

impl Machine {
    /// Brings followers back that have lost their way.
    pub(super) async fn mind_followers(
        &self,
        id: &ResourceId,
        topology: &Topology,
        session: &Session,
        followers: &[Follower],
    ) -> Result<(), StepError> {
        for node in topology.followers_of(id) {
            let name = member_name(&node.id);
            let seen = followers.iter().find(|follower| follower.name == name);
            let phase = self.node_phase(&node.id);
            // Then it does not become ready, however long it runs.
            let lacks_log = phase == Some(Phase::Starting) && self.lacks_log(&node.id);
            let runs = phase == Some(Phase::Ready) || lacks_log;
            let due = self.watched(id, |watch| {
                if seen.is_some_and(|follower| follower.streaming) {
                    watch.astray.remove(&node.id);
                    return None;
                }
                let astray = watch.astray.entry(node.id.clone()).or_insert_with(Astray::begin);
                astray.see(seen.map(|follower| follower.sender));
                if astray.follows() || !runs {
                    astray.since = Instant::now();
                    return None;
                }
                astray.attempt()
            });
            let (Some((attempts, waited)), Some(job)) = (due, self.node_kept(&node.id)) else { continue };
            let names: Vec<String> = topology.followers_of(id).map(|node| member_name(&node.id)).collect();
            session.keep_slots(id, &names).await?;
            let (need, decision) = match attempts {
                1 if !lacks_log => (Need::Rewind, "rewind it"),
                _ => (Need::Copy, "copy it anew"),
            };
            let why = said_of_following(&self.inner.setup.last_lines(&node.id.to_string()));
            let evidence = format!(
                "it runs and has not followed for {} s: {}; the next attempt is due after {} s",
                waited.as_secs(),
                why.unwrap_or_else(|| "it does not say why".to_owned()),
                patience(attempts).as_secs()
            );
            self.remember(&node.id.to_string(), decision, evidence);
            *locked(&job.need) = need;
            let watched = self.units().nodes.get(&node.id).map(|unit| unit.keeper.watch());
            if let Some(mut watched) = watched {
                watched.ask_to_restart().await;
            }
        }
        Ok(())
    }

    /// Whether a node asks for log that its primary does not have any more.
    fn lacks_log(&self, node: &NodeId) -> bool {
        let said = said_of_following(&self.inner.setup.last_lines(&node.to_string()));
        said.is_some_and(|said| said.contains("has already been removed"))
    }

    /// Why a node that runs does not follow its primary, where that is so.
    pub(in crate::machine) fn not_following(&self, node: &NodeId) -> Option<String> {
        let astray = self.watched(node.resource(), |watch| watch.astray.get(node).copied())?;
        let is_so = !astray.follows()
            && astray.since.elapsed() >= SHOWN_AFTER
            && self.node_phase(node) == Some(Phase::Ready);
        let why = || said_of_following(&self.inner.setup.last_lines(&node.to_string()));
        is_so.then(|| {
            why().unwrap_or_else(|| "its primary does not see it, and it does not say why".to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_again_and_again_does_not_follow() {
        let mut refused = Astray::begin();
        for pid in 1..100 {
            refused.see(Some(pid));
            tokio::time::advance(HELD_LIMIT / 4).await;
            assert!(!refused.follows());
            refused.see(Some(pid));
            assert!(!refused.follows());
        }
        assert_eq!(refused.attempt().map(|(attempt, _)| attempt), Some(1));

        let mut sent = Astray::begin();
        sent.see(Some(1));
        tokio::time::advance(HELD_LIMIT).await;
        sent.see(Some(1));
        assert!(sent.follows());
        sent.see(None);
        assert!(!sent.follows());
    }

    #[test]
    fn what_no_copy_helps_is_copied_ever_more_rarely() {
        let waits: Vec<u64> = (0..9).map(|attempts| patience(attempts).as_secs()).collect();
        assert_eq!(waits, [10, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(patience(u32::MAX), COPY_INTERVAL);
    }
}

//! A primary that lets nobody in, though whoever is in is served.
//!
//! The session that looks are made on is open, and so are those of the proxies: all of them are answered, while a new one
//! would wait without end. So a new connection is tried now and then as well.

use std::time::Duration;

use model::DatabaseNode;
use tokio::time::Instant;

use super::guard::LOOK_LIMIT;
use crate::machine::Machine;

/// Between two new connections.
const TRY_INTERVAL: Duration = Duration::from_secs(1);
/// A postmaster that does nothing about any of them for this long is hung. Clients that are in are served meanwhile and lose
/// their connection by its end, so it is given more time than one that answers nobody.
const SILENT_LIMIT: Duration = Duration::from_secs(3);

/// What has become of new connections to a primary.
#[derive(Default)]
pub(super) struct Doors {
    tried: Option<Instant>,
    /// Since when none was answered.
    silent: Option<Instant>,
}

impl Doors {
    /// Whether it is time for another one. While there is no answer each look tries.
    fn should_try(&self) -> bool {
        self.silent.is_some() || self.tried.is_none_or(|tried| tried.elapsed() >= TRY_INTERVAL)
    }

    /// For how long none was answered, after one that was made at `tried`.
    fn note(&mut self, tried: Instant, is_silent: bool) -> Duration {
        self.tried = Some(tried);
        self.silent = is_silent.then(|| self.silent.unwrap_or(tried));
        self.silent.map(|since| since.elapsed()).unwrap_or_default()
    }
}

impl Machine {
    /// Kills a primary that has let nobody in for long.
    pub(super) async fn mind_doors(&self, primary: &DatabaseNode) {
        let id = primary.id.resource();
        let Some(job) = self.node_kept(&primary.id) else { return };
        if !self.watched(id, |watch| watch.doors.should_try()) {
            return;
        }
        let tried = Instant::now();
        let is_silent = job.is_silent(LOOK_LIMIT).await;
        let silent_for = self.watched(id, |watch| watch.doors.note(tried, is_silent));
        if silent_for < SILENT_LIMIT {
            return;
        }
        self.watched(id, |watch| watch.doors = Doors::default());
        let evidence = format!("for {} s it has done nothing about new connections", silent_for.as_secs());
        self.kill_primary(&primary.id, "kill it: it lets nobody in", evidence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_primary_that_lets_somebody_in_now_and_then_is_not_hung() {
        let mut doors = Doors::default();
        for look in 0..40 {
            let waited = doors.note(Instant::now(), look % 8 != 0);
            assert!(waited < SILENT_LIMIT, "{look}: {waited:?}");
            tokio::time::advance(LOOK_LIMIT).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn new_connections_are_rare_until_one_is_not_answered() {
        let mut doors = Doors::default();
        assert!(doors.should_try());
        doors.note(Instant::now(), false);
        assert!(!doors.should_try());
        tokio::time::advance(TRY_INTERVAL).await;
        assert!(doors.should_try());
        doors.note(Instant::now(), true);
        assert!(doors.should_try());
        tokio::time::advance(SILENT_LIMIT).await;
        assert_eq!(doors.note(Instant::now(), true), SILENT_LIMIT);
    }
}

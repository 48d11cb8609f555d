//! What the proxies of a cluster see of its primary: the evidence of those whom it is there for.

use std::path::PathBuf;
use std::time::Duration;

use model::ResourceId;
use tokio::time::timeout;

use crate::control::{self, Request};
use crate::machine::Machine;
use crate::machine::roles::proxy_unit;

/// A proxy answers from memory. One that needs longer says nothing.
const ANSWER_LIMIT: Duration = Duration::from_millis(100);

/// The requests of clients to a primary, of all proxies together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Requests {
    /// Since the proxies were started.
    answered: u64,
    /// Connections to the primary that clients use at this moment.
    under_way: u64,
}

/// What that says of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// It has answered clients.
    Answers,
    /// Clients wait, and none got an answer.
    Waits { requests: u64 },
    /// No client wants anything, or no proxy says anything.
    Nothing,
}

impl Evidence {
    /// Of two looks at the proxies.
    pub(super) fn of(before: Option<Requests>, now: Option<Requests>) -> Evidence {
        match (before, now) {
            (Some(before), Some(now)) if now.answered > before.answered => Evidence::Answers,
            // Less than before are those of another process.
            (Some(before), Some(now)) if now.answered == before.answered && now.under_way > 0 => {
                Evidence::Waits { requests: now.under_way }
            }
            _ => Evidence::Nothing,
        }
    }
}

impl Machine {
    /// The control sockets of the proxy of a cluster, and of those before it that still have sessions.
    pub(super) fn proxies_of(&self, id: &ResourceId) -> Vec<PathBuf> {
        let unit = proxy_unit(id);
        let departing = self.departing_of(&unit);
        let departing = departing.iter().map(|process| self.inner.setup.state.control_socket(process));
        self.control_of(&unit).into_iter().chain(departing).collect()
    }

    /// `None` when not every proxy has answered in time.
    pub(super) async fn requests(&self, id: &ResourceId) -> Option<Requests> {
        let mut all = Requests::default();
        for control in self.proxies_of(id) {
            let status = timeout(ANSWER_LIMIT, control::ask(&control, &Request::Status)).await.ok()?.ok()?;
            let database = &status["databases"][id.as_str()];
            let (servers, idle) = (database["servers"].as_u64()?, database["servers_idle"].as_u64()?);
            all.answered += database["primary_requests_total"].as_u64()?;
            all.under_way += servers.saturating_sub(idle);
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_get_answers_or_wait_for_them_are_evidence_and_those_at_rest_are_none() {
        let requests = |answered, under_way| Some(Requests { answered, under_way });
        for (before, now, evidence) in [
            (requests(7, 0), requests(8, 0), Evidence::Answers),
            (requests(7, 3), requests(8, 3), Evidence::Answers),
            (requests(7, 0), requests(7, 3), Evidence::Waits { requests: 3 }),
            (requests(7, 3), requests(7, 0), Evidence::Nothing),
            // The proxy was replaced in between.
            (requests(7, 3), requests(2, 3), Evidence::Nothing),
            (requests(7, 3), None, Evidence::Nothing),
            (None, requests(7, 3), Evidence::Nothing),
        ] {
            assert_eq!(Evidence::of(before, now), evidence, "{before:?} {now:?}");
        }
    }
}

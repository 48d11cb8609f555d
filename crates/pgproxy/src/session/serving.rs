//! The connection that serves a client for the moment: how it comes by one, and how that goes back.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::route::Route;
use super::{End, MAX_INSPECTED_BYTES, Session};
use crate::acquire::acquire;
use crate::cancel::cancel_abandoned;
use crate::config::PoolMode;
use crate::message::{Refusal, TransactionStatus};
use crate::replicas::{Life, Replica, reader, reader_at_once};
use crate::server::Server;

/// A client that has closed its half of the connection may be gone, or wait for its answer. So long it is waited with for a
/// connection to PostgreSQL: enough for one that is made.
const SAYS_NO_MORE_WAIT: Duration = Duration::from_secs(1);

/// A connection, and the replica to which it leads.
type Acquired = (Box<Server>, Option<(Arc<Replica>, Life)>);

impl Session {
    /// Gets a connection for what the client wants now.
    pub(super) async fn begin_unit(&mut self) -> Result<(), End> {
        if let Some(refusal) = self.owed.take() {
            self.refuse_request(&refusal);
            return Ok(());
        }
        match self.connect().await? {
            Ok(()) => Ok(()),
            Err(refusal) if refusal.sqlstate == "22023" => Err(End::Fatal(refusal)),
            Err(refusal) => {
                self.refuse_request(&refusal);
                Ok(())
            }
        }
    }

    /// Gets a connection and prepares it for this client.
    pub(super) async fn connect(&mut self) -> Result<Result<(), Refusal>, End> {
        let acquired = match self.connection_at_once() {
            Some(acquired) => Ok(acquired),
            None => self.connection_in_time().await?,
        };
        Ok(match acquired {
            Ok(acquired) => {
                self.be_served_by(acquired);
                Ok(())
            }
            Err(refusal) => {
                self.registered.slot.serve_by(None);
                Err(refusal)
            }
        })
    }

    /// The same where there is nothing to wait for. `false`: nothing has changed.
    pub(super) fn connect_at_once(&mut self) -> bool {
        if self.owed.is_some() {
            return false;
        }
        let Some(acquired) = self.connection_at_once() else { return false };
        self.be_served_by(acquired);
        true
    }

    fn be_served_by(&mut self, (server, replica): Acquired) {
        self.registered.slot.serve_by(Some(server.key.clone()));
        self.unit.written_before = server.wire.written;
        server.key.was_asked_for();
        if replica.is_none() {
            // So it stays, whatever is sent behind the read that has come here.
            self.route = Route::Primary;
        }
        self.server = Some(server);
        self.replica = None;
        if let Some((replica, life)) = replica {
            (self.replica, self.life) = (Some(replica), life);
        }
        self.is_routed = true;
        self.tell_parameters();
        if self.is_block_lost {
            self.enter_lost_block();
        }
        self.withhold();
    }

    /// One that is there for the taking, as almost every one is.
    fn connection_at_once(&mut self) -> Option<Acquired> {
        match self.route {
            Route::Primary => self.shared.pool.take(&self.settings).map(|server| (server, None)),
            Route::Replica => {
                let needed = self.needed();
                let (replicas, served) = (self.replicas.get(), self.served.get());
                let at_once = reader_at_once(&self.shared, replicas, &served.config, &self.settings, needed);
                at_once.map(|(server, replica, life)| (server, Some((replica, life))))
            }
        }
    }

    /// One for which the client may have to wait.
    async fn connection_in_time(&mut self) -> Result<Result<Acquired, Refusal>, End> {
        let wanted = self.settings.clone();
        let cancelled = self.registered.slot.wait();
        let needed = self.needed();
        let (shared, mut served, route) = (&self.shared, self.served.news(), self.route);
        let acquiring = async {
            if route == Route::Replica
                && let Some((server, replica, life)) = reader(shared, &served, &wanted, needed).await
            {
                return Ok((server, Some((replica, life))));
            }
            Ok((acquire(shared, &mut served, &wanted).await?, None))
        };
        let client = &mut self.client;
        // A client that leaves while it waits frees its place; what it sends more is kept, within limits.
        let silent = std::future::poll_fn(|cx| {
            loop {
                if client.input.len() > MAX_INSPECTED_BYTES || self.has_client_ended {
                    return Poll::Pending;
                }
                match std::task::ready!(client.poll_fill(cx)) {
                    Ok(0) => return Poll::Ready(SAYS_NO_MORE_WAIT),
                    Err(_) => return Poll::Ready(Duration::ZERO),
                    Ok(_) => {}
                }
            }
        });
        let left = async { tokio::time::sleep(silent.await).await };
        tokio::select! {
            biased;
            () = cancelled => {
                Ok(Err(Refusal::new("57014", "canceling statement due to user request", "")))
            }
            acquired = acquiring => Ok(acquired),
            () = left => Err(End::Client),
        }
    }

    /// Gives the connection back where nothing of this client depends on it.
    pub(super) fn release(&mut self) {
        let is_at_rest = self.server.as_ref().is_some_and(|server| server.status == TransactionStatus::Idle)
            && self.expected.is_empty()
            && !self.is_in_group
            && !self.framer.is_inside();
        if !is_at_rest {
            return;
        }
        if self.is_kept() {
            self.unit.written_before = self.server.as_ref().map_or(0, |server| server.wire.written);
            return;
        }
        self.give_back();
        if self.client.input.is_empty() {
            self.client.shrink();
        }
    }

    /// Whether the client keeps its connection although it is at rest.
    pub(super) fn is_kept(&mut self) -> bool {
        let is_kept = self.served.get().config.pool_mode == PoolMode::Session;
        let is_as_wanted = || self.server.as_ref().is_some_and(|server| server.settings == self.settings);
        self.is_pinned || is_kept && is_as_wanted()
    }

    /// The connection goes back to its pool.
    pub(super) fn give_back(&mut self) {
        self.registered.slot.serve_by(None);
        self.replica = None;
        self.is_routed = false;
        if let Some(server) = self.server.take() {
            server.give_back();
        }
    }

    /// The session has ended: the connection goes back clean, or is closed.
    pub(super) async fn leave(&mut self) {
        self.registered.slot.serve_by(None);
        let Some(mut server) = self.server.take() else { return };
        let is_idle = server.status == TransactionStatus::Idle
            && self.expected.is_empty()
            && !self.is_in_group
            && server.wire.output.is_empty();
        if is_idle {
            if server.discard_all().await.is_ok() {
                server.give_back();
            }
            return;
        }
        // An open transaction is rolled back by closing. A server that works does not look whether anybody waits for it: what
        // is sure to only read is cancelled, and what may be meant to be done is done.
        let key = server.key.clone();
        drop(server);
        if self.replica.is_some() {
            cancel_abandoned(&key, &self.shared).await;
        }
    }
}

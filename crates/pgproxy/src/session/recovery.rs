//! The connection is lost: what was under way is run again, settled, or refused.
//!
//! What may have been committed is never run again. What surely was not is run again as long as the client cannot tell
//! the difference: the requests that were answered first, compared with their answers, then the one in flight.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::time::{sleep, timeout_at};

use super::failure::Block;
use super::replies::Heard;
use super::route::Route;
use super::unit::{Loss, Rewound};
use super::{End, Session};
use crate::horizon::{Asked, Given, Known};
use crate::message::{Refusal, TransactionStatus};
use crate::prepared::Statement;
use crate::status::Gauge;

const RUN_AGAIN: &str = "Run the transaction again.";
const LOOK_FIRST: &str = "Look whether it was done before running it again.";

/// A backend that lives on without its connection has not ended its transaction yet. So long it is waited for.
const IN_PROGRESS_LIMIT: Duration = Duration::from_secs(2);
const IN_PROGRESS_PAUSE: Duration = Duration::from_millis(20);

/// The node that has committed may say so while no standby has the commit: who waited for that was ended, and the node
/// may be next. What is written behind the commit is answered when the standbys have both.
const BEHIND: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgproxy', '')";

/// What takes its connection down so often, without ever being answered, is the reason for it.
const MAX_REPLAYS: u32 = 8;

/// How the fate of a commit was found.
enum Fate {
    Committed,
    NotCommitted,
    Unclear,
}

impl Session {
    /// The connection is lost because of `cause`.
    pub(super) async fn recover(&mut self, cause: &str) -> Result<(), End> {
        if let Some(replica) = &self.replica {
            replica.lost();
        }
        let is_cut_short = self.withheld.is_none() && self.is_reply_cut_short();
        self.take_back();
        let by = self.server.as_ref().map(|server| server.primary());
        let is_sent = self.lose_server();
        tracing::debug!(database = self.shared.name, cause, "a connection to PostgreSQL was lost");
        if is_cut_short {
            return Err(End::CutShort);
        }
        if self.is_pinned {
            return Err(self.end_of_session(cause));
        }
        let loss = match self.unit.loss(is_sent) {
            // One portal run twice is one statement for the unit.
            Loss::Settle { .. } if self.expected.statements() > 1 => Loss::Unknown,
            loss => loss,
        };
        match loss {
            Loss::Replay | Loss::Failed if self.keep_failed_block() => Ok(()),
            Loss::Nothing => {
                self.expected.clear();
                self.held = None;
                Ok(())
            }
            Loss::Replay => self.replay(cause).await,
            Loss::Settle { xid, issued } => self.settle(Given { xid, issued, by }, cause).await,
            Loss::Failed => {
                let block = self.block();
                self.fail(&lost(cause, "it cannot be repeated"), block);
                Ok(())
            }
            Loss::Unknown => {
                self.shared.counters.unknown_outcomes.fetch_add(1, Relaxed);
                self.fail(&unknown(cause), Block::Ended);
                Ok(())
            }
        }
    }

    /// Whether PostgreSQL can have got anything of the unit.
    pub(super) fn lose_server(&mut self) -> bool {
        self.registered.slot.serve_by(None);
        self.replica = None;
        self.is_routed = false;
        // What is said from here on is said by us.
        self.withheld = None;
        let Some(server) = self.server.take() else { return false };
        server.wire.written > self.unit.written_before
    }

    async fn settle(&mut self, given: Given, cause: &str) -> Result<(), End> {
        self.route = Route::Primary;
        let mut attempts = 0;
        loop {
            if let Err(refusal) = self.connect_again().await? {
                self.shared.counters.unknown_outcomes.fetch_add(1, Relaxed);
                tracing::warn!(
                    database = self.shared.name,
                    xid = given.xid,
                    "the fate of a COMMIT could not be asked for"
                );
                self.fail(&unknown(&refusal.message), Block::Ended);
                return Ok(());
            }
            attempts += 1;
            let fate = match self.fate(given).await {
                Some(fate) => fate,
                None => {
                    self.lose_server();
                    if attempts < MAX_REPLAYS {
                        continue;
                    }
                    Fate::Unclear
                }
            };
            match fate {
                Fate::Committed => {
                    self.shared.counters.settled_commits.fetch_add(1, Relaxed);
                    self.answer_commit();
                    return Ok(());
                }
                Fate::NotCommitted => return self.replay_here(cause).await,
                Fate::Unclear => {
                    self.shared.counters.unknown_outcomes.fetch_add(1, Relaxed);
                    self.fail(&unknown(cause), Block::Ended);
                    return Ok(());
                }
            }
        }
    }

    /// `None`: the new connection was lost as well.
    async fn fate(&mut self, given: Given) -> Option<Fate> {
        let server = self.server.as_mut()?;
        let asked = Asked { begun: server.begun, primary: server.primary() };
        match self.shared.pool.with_horizons(|horizons| horizons.known(given, asked)) {
            Known::Lost => return Some(Fate::NotCommitted),
            Known::Unclear => return Some(Fate::Unclear),
            Known::Ask => {}
        }
        let sql = format!("SELECT pg_catalog.pg_xact_status('{}'::pg_catalog.xid8)", given.xid);
        let since = Instant::now();
        loop {
            let status = server.ask(&sql).await.ok()?.ok().and_then(|row| row.into_iter().flatten().next());
            return Some(match status.as_deref() {
                Some(b"committed") => return self.confirm().await,
                Some(b"aborted") => Fate::NotCommitted,
                Some(b"in progress") if since.elapsed() < IN_PROGRESS_LIMIT => {
                    sleep(IN_PROGRESS_PAUSE).await;
                    continue;
                }
                _ => Fate::Unclear,
            });
        }
    }

    /// Whether a commit that the node knows of will be known to every next primary. `None`: the connection was lost.
    async fn confirm(&mut self) -> Option<Fate> {
        let server = self.server.as_mut()?;
        let confirmed = server.ask(BEHIND).await;
        // What waited may have been cancelled, and the client's settings keep the server from saying so.
        let was_cancelled = server.key.was_asked_for();
        match confirmed {
            Ok(Ok(_)) if !was_cancelled => Some(Fate::Committed),
            Ok(_) => Some(Fate::Unclear),
            Err(cause) if cause.kind() == io::ErrorKind::TimedOut => {
                // It waits for a standby that does not come.
                self.lose_server();
                Some(Fate::Unclear)
            }
            Err(_) => None,
        }
    }

    pub(super) async fn replay(&mut self, cause: &str) -> Result<(), End> {
        match self.connect_again().await? {
            Ok(()) => self.replay_here(cause).await,
            Err(refusal) => {
                let block = self.block();
                self.fail(&refusal, block);
                Ok(())
            }
        }
    }

    /// Runs the unit again on the connection that there is now, or on the next when that is lost as well.
    async fn replay_here(&mut self, cause: &str) -> Result<(), End> {
        let statements = self.statements_before.clone().unwrap_or_else(|| self.statements.clone());
        let told = (self.status, self.is_in_group);
        let (names, unnamed) = (self.statements.clone(), self.unnamed.clone());
        // As what is in flight has found it.
        if let Some(before) = self.expected.unnamed_before() {
            self.unnamed = before.clone();
        }
        let expected = std::mem::take(&mut self.expected);
        self.held = None;
        let block = self.block();
        let mut held = std::mem::take(&mut self.client.input);
        let outcome = match self.unit.rewind() {
            None => Err(lost(cause, "it is too long to be repeated")),
            Some(_) if self.replays == MAX_REPLAYS => Err(lost(cause, "so it was each time it was run")),
            Some(rewound) => {
                self.replays += 1;
                let outcome = self.repeat(&rewound, &statements, &mut held).await?;
                // Then the requests that were not answered, and what came since.
                self.client.input.clear();
                self.client.input.extend_from_slice(&rewound.in_flight);
                outcome
            }
        };
        if let Err(refusal) = outcome {
            // Nothing of what was in flight is sent again: it is answered by the error.
            self.lose_server();
            self.client.input.clear();
            self.expected = expected;
            (self.status, self.is_in_group) = told;
            (self.statements, self.unnamed) = (names, unnamed);
            self.fail(&refusal, block);
        } else {
            if self.client.input.is_empty() {
                // The next request is yet to be given its place.
                (self.is_routed, self.withheld) = (false, None);
            }
            self.shared.counters.replays.fetch_add(1, Relaxed);
            // Of what was set again, too.
            self.tell_parameters();
        }
        self.client.input.unsplit(held);
        Ok(())
    }

    /// Runs what was answered again, and compares. What the client sends meanwhile is added to `held`.
    async fn repeat(
        &mut self,
        rewound: &Rewound,
        statements: &HashMap<Vec<u8>, Arc<Statement>>,
        held: &mut BytesMut,
    ) -> Result<Result<(), Refusal>, End> {
        let limit = Duration::from_millis(self.served.get().config.hold_ms);
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            self.expected.clear();
            self.unit = super::Unit::new();
            self.unit.written_before = self.server.as_ref().map_or(0, |server| server.wire.written);
            self.statements.clone_from(statements);
            self.statements_before = None;
            self.is_in_group = false;
            self.status = TransactionStatus::Idle;
            if rewound.answered.is_empty() {
                return Ok(Ok(()));
            }
            // What it was before the first of these is not known.
            self.unnamed = None;
            self.client.input.clear();
            self.client.input.extend_from_slice(&rewound.answered);
            self.is_muted = true;
            let lost_again = timeout_at(deadline, self.repeat_once()).await;
            self.is_muted = false;
            match lost_again {
                Err(_) => {
                    return Ok(Err(lost("the next one is too slow", "it could not be repeated in time")));
                }
                Ok(Err(end)) => return Err(end),
                Ok(Ok(None)) if rewound.is_equal(&self.unit) => return Ok(Ok(())),
                Ok(Ok(None)) => {
                    return Ok(Err(lost("what it had read has changed", "it cannot be repeated")));
                }
                Ok(Ok(Some(_))) => {
                    self.lose_server();
                    // What is left of it is not what the client sends while we wait.
                    self.client.input.clear();
                    let connected = self.connect_again().await?;
                    held.unsplit(self.client.input.split());
                    if let Err(refusal) = connected {
                        return Ok(Err(refusal));
                    }
                }
            }
        }
    }

    /// `Some`: the connection was lost, and why.
    async fn repeat_once(&mut self) -> Result<Option<String>, End> {
        loop {
            self.read_requests()?;
            if self.expected.is_empty() && self.client.input.is_empty() {
                return Ok(None);
            }
            let Some(server) = &mut self.server else { return Ok(Some("no connection".to_owned())) };
            let exchanged = async {
                server.wire.flush().await?;
                server.wire.fill().await
            };
            if let Err(cause) = exchanged.await {
                return Ok(Some(cause.to_string()));
            }
            match self.read_replies()? {
                Heard::Replies => {}
                Heard::Goodbye(cause) => return Ok(Some(cause)),
                Heard::Refused(_) => {
                    self.route = Route::Primary;
                    return Ok(Some("a read replica could not answer".to_owned()));
                }
            }
        }
    }

    /// What the client believes, if what is in flight fails.
    fn block(&self) -> Block {
        if self.status != TransactionStatus::Idle && self.unit.is_block_open() {
            Block::Failed
        } else {
            Block::Ended
        }
    }

    async fn connect_again(&mut self) -> Result<Result<(), Refusal>, End> {
        let shared = self.shared.clone();
        let _held = Gauge::enter(&shared.counters.held);
        self.connect().await
    }
}

fn lost(cause: &str, why: &str) -> Refusal {
    let message = format!("the connection to PostgreSQL was lost during the transaction, and {why}: {cause}");
    Refusal::new("40001", message, RUN_AGAIN)
}

fn unknown(cause: &str) -> Refusal {
    let message = format!(
        "the connection to PostgreSQL was lost, and whether the statement was done is unknown: {cause}"
    );
    Refusal::new("08007", message, LOOK_FIRST)
}

//! One connection to PostgreSQL: how it begins, and what is known of its session.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, BytesMut};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use tokio::time::timeout;

use crate::connection::{Connection, connect, fence, is_quiet};
use crate::credentials::Credentials;
use crate::frame::{Cut, Framer};
use crate::horizon::{Moment, Primary};
use crate::lsn::Lsn;
use crate::message::{
    self, Refusal, TransactionStatus, body, cstr, error_field, no_longer_waits, split_cstr, until_nul,
};
use crate::pool::{Permit, Serves, Target};
use crate::prepared::{OnServer, StatementId};
use crate::scram::MECHANISM;
use crate::settings::Settings;
use crate::wire::Wire;

/// Up to this size a message is forwarded in one piece, so that a connection that is lost ends between two messages.
pub(crate) const WHOLE_MESSAGE_BYTES: usize = 32 * 1024;
/// To connect and to log in. A primary that hangs must not hold those who wait for the next.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For what the proxy itself asks a server.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Must be the first thing said on a connection: it takes a transaction id, which is above every one that the node has
/// ever given, and at or below every one that it had not yet given when it crashed. See [`crate::horizon`]. It also
/// asks whether there are rules of the app's, other than views, how far a standby has replayed, and which timeline a
/// primary writes.
///
/// The transaction is rolled back: whoever asks for the fate of one that was lost, whose id this connection was given
/// again and has not told yet, must not hear of a commit.
const INTRODUCTION: &str = "BEGIN; SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.txid_current() END, \
     EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_type <> '1' AND oid >= 16384), \
     pg_catalog.pg_last_wal_replay_lsn(), CASE WHEN NOT pg_catalog.pg_is_in_recovery() \
     THEN pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) END; ROLLBACK";

/// The parameter that tells a standby from a primary. Clients are not to see which of them answers.
const IN_HOT_STANDBY: &[u8] = b"in_hot_standby";

/// ParameterStatus, as last said.
pub(crate) type Parameters = BTreeMap<Vec<u8>, Vec<u8>>;

/// What cancels the query of a connection.
pub(crate) struct CancelKey {
    pub target: Arc<Target>,
    pub pid_and_secret: Vec<u8>,
    pub opened: Instant,
    /// Cancel requests that are under way. While there are any, the connection must not serve somebody else.
    pub under_way: AtomicU32,
    /// Whether there was one since the request that it serves began.
    pub was_asked: AtomicBool,
}

pub(crate) struct Server {
    pub wire: Wire<Connection>,
    pub framer: Framer,
    pub key: Arc<CancelKey>,
    pub parameters: Arc<Parameters>,
    /// In force for the session.
    pub settings: Settings,
    pub prepared: OnServer,
    /// What the unnamed statement is. 0: nothing that we know.
    pub unnamed: StatementId,
    /// After an error within a group: it reads over everything, Queries too.
    pub skips_to_sync: bool,
    /// An answer may still come that belongs to no request: nobody else may get it.
    pub may_say_more: bool,
    /// A question of ours has failed the client's transaction with this: the Query behind it is answered so.
    pub untold: Option<BytesMut>,
    pub status: TransactionStatus,
    /// A write may be rewritten to several statements, of which a Query alone answers more than one.
    pub has_rules: bool,
    /// How far a standby had replayed when the connection was made.
    pub replayed: Lsn,
    /// Among the connections of its pool.
    pub begun: Moment,
    /// That it writes; 0 of a standby.
    timeline: u32,
    pub last_used: Instant,
    pub permit: Permit,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum NotConnected {
    /// Trying again may help: it is down, starting, full, or not promoted yet.
    NotNow(String),
    /// It will not get better by itself.
    Refused(Refusal),
}

impl CancelKey {
    fn new(target: Arc<Target>, pid_and_secret: Vec<u8>) -> CancelKey {
        CancelKey {
            target,
            pid_and_secret,
            opened: Instant::now(),
            under_way: AtomicU32::new(0),
            was_asked: AtomicBool::new(false),
        }
    }

    /// Whether a cancel request was made since this was asked last, or is under way.
    pub fn was_asked_for(&self) -> bool {
        // Almost never: a load is cheaper than a swap.
        let was_asked =
            self.was_asked.load(Ordering::Acquire) && self.was_asked.swap(false, Ordering::AcqRel);
        was_asked || self.under_way.load(Ordering::Acquire) > 0
    }

    /// Of the process that serves the connection.
    pub fn pid(&self) -> Option<u64> {
        self.pid_and_secret.first_chunk::<4>().map(|pid| u32::from_be_bytes(*pid).into())
    }
}

impl Server {
    /// Connects and logs in.
    ///
    /// # Errors
    /// See [`NotConnected`].
    pub async fn connect(permit: Permit, login: &Credentials) -> Result<Server, NotConnected> {
        let connect = async {
            let mut server = Server::log_in(permit, login).await?;
            server.introduce().await?;
            Ok(server)
        };
        timeout(CONNECT_TIMEOUT, connect)
            .await
            .unwrap_or_else(|_| Err(NotConnected::NotNow("it does not answer".to_owned())))
    }

    async fn log_in(mut permit: Permit, login: &Credentials) -> Result<Server, NotConnected> {
        let target = permit.target().clone();
        let connection = connect(&target.upstream).await?;
        permit.fence_with(fence(&connection)?);
        let mut server = Server {
            wire: Wire::new(connection),
            framer: Framer::new(WHOLE_MESSAGE_BYTES),
            key: Arc::new(CancelKey::new(target, Vec::new())),
            parameters: Arc::default(),
            settings: Settings::default(),
            prepared: OnServer::default(),
            unnamed: 0,
            skips_to_sync: false,
            may_say_more: false,
            untold: None,
            status: TransactionStatus::Idle,
            has_rules: true,
            replayed: Lsn::default(),
            begun: Moment::default(),
            timeline: 0,
            last_used: Instant::now(),
            permit,
        };
        message::sized(&mut server.wire.output, |out| {
            out.put_u32(196_608);
            for (name, value) in [("user", &login.role), ("database", &login.database)] {
                cstr(out, name.as_bytes());
                cstr(out, value.as_bytes());
            }
            out.put_u8(0);
        });
        server.authenticate(login).await?;
        Ok(server)
    }

    async fn authenticate(&mut self, login: &Credentials) -> Result<(), NotConnected> {
        let mut scram: Option<ScramSha256> = None;
        let sasl =
            |cause: io::Error| refused("28000", format!("PostgreSQL's half of SCRAM does not hold: {cause}"));
        loop {
            let said = self.next_message().await?;
            match said[0] {
                b'R' => {
                    let Some((code, data)) = body(&said).split_first_chunk::<4>() else { continue };
                    match (u32::from_be_bytes(*code), &mut scram) {
                        (0, _) => {}
                        (10, _) => {
                            let binding = ChannelBinding::unsupported();
                            let exchange = ScramSha256::new(login.password.as_bytes(), binding);
                            message::message(&mut self.wire.output, b'p', |out| {
                                cstr(out, MECHANISM.as_bytes());
                                out.put_u32(exchange.message().len() as u32);
                                out.put_slice(exchange.message());
                            });
                            scram = Some(exchange);
                        }
                        (11, Some(exchange)) => {
                            exchange.update(data).map_err(sasl)?;
                            let answer = exchange.message();
                            message::message(&mut self.wire.output, b'p', |out| out.put_slice(answer));
                        }
                        (12, Some(exchange)) => exchange.finish(data).map_err(sasl)?,
                        (code, _) => {
                            return Err(refused(
                                "28000",
                                format!("PostgreSQL asks for authentication {code}"),
                            ));
                        }
                    }
                }
                b'K' => {
                    let target = self.permit.target().clone();
                    self.key = Arc::new(CancelKey::new(target, body(&said).to_vec()));
                }
                b'E' => return Err(judge(&said)),
                b'Z' => return Ok(()),
                _ => learn(&mut self.parameters, &said),
            }
        }
    }

    async fn introduce(&mut self) -> Result<(), NotConnected> {
        self.begun = self.permit.pool().with_horizons(|horizons| horizons.ask());
        let row = self.ask(INTRODUCTION).await?.map_err(|error| judge(&error))?;
        let mut columns = row.into_iter();
        let xid = columns.next().flatten();
        self.has_rules = columns.next().flatten().as_deref() != Some(b"f");
        let replayed = columns.next().flatten().and_then(|text| Lsn::parse(&text));
        let timeline = columns.next().flatten().and_then(|text| String::from_utf8(text).ok());
        self.timeline = timeline.and_then(|text| u32::from_str_radix(&text, 16).ok()).unwrap_or_default();
        let xid = xid.and_then(|text| String::from_utf8(text).ok()?.parse().ok());
        match (self.permit.target().serves, xid) {
            (Serves::Everything, Some(xid)) => {
                self.permit.pool().with_horizons(|horizons| horizons.record(self.begun, xid));
                Ok(())
            }
            (Serves::Everything, None) => Err(NotConnected::NotNow("it is still a standby".to_owned())),
            (Serves::Reads, None) => {
                self.replayed = replayed.unwrap_or_default();
                Ok(())
            }
            (Serves::Reads, Some(_)) => Err(NotConnected::NotNow("it is no standby".to_owned())),
        }
    }

    /// Which primary it leads to.
    pub fn primary(&self) -> Primary {
        Primary { epoch: self.permit.target().epoch, timeline: self.timeline }
    }

    /// Back to the pool that it is of.
    pub fn give_back(self: Box<Self>) {
        let pool = self.permit.pool().clone();
        pool.put(self);
    }

    /// Asks on an idle connection and waits for the whole answer: the columns of the first row, or the ErrorResponse.
    ///
    /// # Errors
    /// When the connection is lost, or does not answer in time.
    pub async fn ask(&mut self, sql: &str) -> io::Result<Result<Vec<Option<Vec<u8>>>, BytesMut>> {
        let mut first = Vec::new();
        let answer = self.ask_all(sql, ASK_TIMEOUT, |row| {
            if first.is_empty() {
                first = columns(row);
            }
        });
        Ok(answer.await?.map(|()| first))
    }

    /// The same, with each DataRow given to `row`, and a limit for all of it.
    ///
    /// # Errors
    /// When the connection is lost, or the answer has not come to its end within the limit.
    pub async fn ask_all(
        &mut self,
        sql: &str,
        limit: Duration,
        mut row: impl FnMut(&[u8]),
    ) -> io::Result<Result<(), BytesMut>> {
        message::query(&mut self.wire.output, sql);
        // The simple protocol destroys it.
        self.unnamed = 0;
        let answer = async {
            let mut answer = Ok(());
            loop {
                let said = self.next_message().await?;
                match said[0] {
                    b'D' => row(&said),
                    b'E' => answer = Err(said),
                    b'N' if no_longer_waits(&said) => answer = Err(said),
                    b'Z' => {
                        self.status = status(&said);
                        return Ok(answer);
                    }
                    _ => learn(&mut self.parameters, &said),
                }
            }
        };
        timeout(limit, answer).await?
    }

    /// Returns when the connection is lost. Nothing must be asked meanwhile.
    ///
    /// Cancel safe.
    pub async fn lost(&mut self) -> io::Error {
        loop {
            // A change of a parameter is read when something is asked.
            if let Err(cause) = self.wire.fill().await {
                return cause;
            }
        }
    }

    async fn next_message(&mut self) -> io::Result<BytesMut> {
        self.wire.flush().await?;
        loop {
            match self.framer.cut(&self.wire.input).map_err(io::Error::other)? {
                Cut::Whole { bytes, .. } => return Ok(self.wire.input.split_to(bytes)),
                Cut::More => self.wire.fill().await?,
                // Nothing that we ask for is answered with more than fits. What does not is not looked at.
                Cut::Head { bytes, .. } | Cut::Rest { bytes } => self.wire.input.advance(bytes),
            }
        }
    }

    /// Whether nothing has happened on an idle connection. It may have been closed, or a late answer have come.
    pub fn is_quiet(&self) -> bool {
        self.wire.input.is_empty() && is_quiet(self.wire.stream())
    }

    /// Forgets everything that a client left in the session.
    ///
    /// # Errors
    /// When the connection is lost or refuses; it must not be used again.
    pub async fn discard_all(&mut self) -> io::Result<()> {
        if self.ask("DISCARD ALL").await?.is_err() || self.status != TransactionStatus::Idle {
            return Err(io::Error::other("DISCARD ALL failed"));
        }
        self.forget_session();
        Ok(())
    }

    pub fn forget_session(&mut self) {
        self.prepared.clear();
        self.settings = Settings::default();
    }
}

impl From<io::Error> for NotConnected {
    fn from(cause: io::Error) -> NotConnected {
        NotConnected::NotNow(cause.to_string())
    }
}

fn refused(sqlstate: &'static str, message: String) -> NotConnected {
    let hint = "The proxy's credentials, pg_hba.conf and PostgreSQL's log say more.";
    NotConnected::Refused(Refusal::new(sqlstate, message, hint))
}

/// Of an ErrorResponse to a connection that begins.
fn judge(error: &[u8]) -> NotConnected {
    let text = |field| String::from_utf8_lossy(error_field(error, field).unwrap_or_default()).into_owned();
    match error_field(error, b'C') {
        // Starting or stopping; out of connections, memory or disk; being ended.
        Some(code) if code.starts_with(b"57P") || code.starts_with(b"53") || code.starts_with(b"58") => {
            NotConnected::NotNow(text(b'M'))
        }
        // The role or database does not exist, or not yet.
        Some(b"3D000") => refused("3D000", text(b'M')),
        _ => refused("28000", format!("PostgreSQL does not let the proxy in: {}", text(b'M'))),
    }
}

/// What a message says about the session, whoever reads it.
pub(crate) fn learn(parameters: &mut Arc<Parameters>, message: &[u8]) {
    if message[0] == b'S'
        && let Some((name, value)) = split_cstr(body(message))
    {
        let value = if name == IN_HOT_STANDBY { b"off" } else { until_nul(value) };
        Arc::make_mut(parameters).insert(name.to_vec(), value.to_vec());
    }
}

pub(crate) fn status(ready_for_query: &[u8]) -> TransactionStatus {
    let byte = body(ready_for_query).first().copied().unwrap_or_default();
    // Anything else is a protocol that does not exist yet; a failed transaction is the careful reading.
    TransactionStatus::of(byte).unwrap_or(TransactionStatus::Failed)
}

/// The columns of a DataRow.
pub(crate) fn columns(row: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut rest = body(row).get(2..).unwrap_or_default();
    let mut columns = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let column = usize::try_from(i32::from_be_bytes(*length)).ok();
        let Some((value, after)) = after.split_at_checked(column.unwrap_or(0)) else { break };
        columns.push(column.map(|_| value.to_vec()));
        rest = after;
    }
    columns
}

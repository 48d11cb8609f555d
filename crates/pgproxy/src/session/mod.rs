//! One client that is logged in, and the connection that serves it for the moment.
//!
//! The client's task does everything: it reads from the client, gets a connection from the pool, writes to it, reads
//! from it and writes to the client. No other task is woken on the way.
//!
//! ```text
//!  client.input --requests.rs--> server.output
//!  client.output <--replies.rs-- server.input        recovery.rs: when that connection is lost
//! ```

mod context;
mod deallocate;
mod expected;
mod failure;
mod held;
mod implicit;
mod recovery;
mod replies;
mod requests;
mod route;
mod serving;
mod settings;
mod shown;
mod statements;
mod unit;
mod waits;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use bytes::BytesMut;
use freshness::Mark;
use tokio::sync::watch;

use crate::frame::Framer;
use crate::judge::Judge;
use crate::latest::Latest;
use crate::load::Asked;
use crate::lookout::Lookout;
use crate::message::{Refusal, Severity, TransactionStatus};
use crate::prepared::Statement;
use crate::replicas::{Life, Replica, Replicas};
use crate::server::{Parameters, Server};
use crate::settings::Settings;
use crate::shared::{Registered, Served, Shared};
use crate::statement::Assignment;
use crate::tls::ClientStream;
use crate::wire::Wire;
use context::Reported;
pub(crate) use deallocate::DEALLOCATE;
use expected::Queue;
use held::Held;
pub(crate) use implicit::XID;
use requests::Step;
use route::Route;
pub(crate) use settings::SET_CONFIG;
pub(crate) use shown::REPLAYED;
use shown::Withheld;
use unit::Unit;

/// Up to this size a client's message is looked into as a whole. Of a longer one only the beginning is.
const MAX_INSPECTED_BYTES: usize = 256 * 1024;
/// Nothing is read from one side while so much waits for the other.
const HIGH_WATER_BYTES: usize = 128 * 1024;

pub(crate) struct Session {
    shared: Arc<Shared>,
    served: Latest<Arc<Served>>,
    registered: Registered,
    /// See [`Shared::ending`].
    ending: Lookout,
    client: Wire<ClientStream>,
    framer: Framer,
    server: Option<Box<Server>>,
    /// Where that leads to, when it is not the primary.
    replica: Option<Arc<Replica>>,
    /// Of that.
    life: Life,
    replicas: Latest<Replicas>,
    route: Route,
    /// The request at the front has its place.
    is_routed: bool,
    /// A reply that the client does not get yet.
    withheld: Option<Withheld>,
    /// Reads must find everything as of then.
    seen: Mark,
    /// The client is about to be sent rows.
    has_rows: bool,
    /// Since it was last at rest.
    may_have_written: bool,
    may_have_defined: bool,
    /// The search path, the time zone or the like.
    may_have_altered: bool,
    reported: Reported,
    /// It has set something of the kind when it had prepared statements.
    has_altered: bool,
    expected: Queue,
    /// The client's prepared statements, by its names.
    statements: HashMap<Vec<u8>, Arc<Statement>>,
    unnamed: Option<Arc<Statement>>,
    /// As they were when the unit began, if it has changed them.
    statements_before: Option<HashMap<Vec<u8>, Arc<Statement>>>,
    /// What is bound without a name may be a DISCARD ALL or DEALLOCATE ALL.
    bound_discards: bool,
    /// So may what was bound by some name since it was last at rest.
    named_discards: bool,
    /// What is bound without a name sets this when it is run.
    bound_sets: Option<Vec<Assignment>>,
    /// The statement that it deallocates.
    bound_deallocates: Option<Vec<u8>>,
    /// Those that the Query under way deallocates, and has not yet, in its order.
    deallocates: VecDeque<Vec<u8>>,
    startup_settings: Settings,
    settings: Settings,
    judge: Judge,
    /// Settings that were set, and hold once the transaction is known to have ended.
    set: Vec<Assignment>,
    /// What the client was last told of the server's parameters.
    told: Arc<Parameters>,
    unit: Unit,
    /// How often it was run again.
    replays: u32,
    /// Replies that wait for a commit.
    held: Option<Held>,
    /// As the client was last told.
    status: TransactionStatus,
    /// The session has state that only its connection has.
    is_pinned: bool,
    /// A DISCARD, DEALLOCATE or RESET was sent, and perhaps not answered yet.
    has_discarded: bool,
    /// The server is reading COPY data.
    is_copying_in: bool,
    /// A Sync was sent before the data of the COPY IN that runs. The server reads over it, unless the COPY fails first.
    has_sync_read_over: bool,
    /// Extended messages were sent since the last Sync.
    is_in_group: bool,
    /// After an error of ours, until the client's Sync.
    is_skipping: bool,
    /// The client believes to be in a failed transaction block, and no connection is.
    is_block_lost: bool,
    /// Where the rest of a large message goes, in either direction.
    client_rest: Rest,
    server_rest: Rest,
    /// Replies are compared and not forwarded.
    is_muted: bool,
    has_client_ended: bool,
    /// Requests of its input wait until it has taken some of its answers.
    waits_for_room: bool,
    /// An error that nothing was in flight for: the next request is answered with it.
    owed: Option<Refusal>,
    /// What the client is told outside of any reply, at the next place between two messages.
    own_aside: BytesMut,
    /// A request that was answered with the message just read.
    answered: Option<TransactionStatus>,
    /// The request under way, while somebody watches the load.
    asked: Option<Asked>,
    /// What the statement that is asked next is counted as, while somebody watches.
    asked_text: Option<Vec<u8>>,
    /// Of what was read from the client and written to it, what is counted already.
    counted: Traffic,
}

#[derive(Default)]
struct Traffic {
    received: u64,
    sent: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Forward,
    Drop,
}

/// Why a session ends.
pub(crate) enum End {
    /// The client said so, or is gone.
    Client,
    /// The client is told.
    Fatal(Refusal),
    /// The server has said why; that was forwarded.
    Told,
    /// Within a message to the client: whatever it were told would be taken for the rest of that.
    CutShort,
}

enum Event {
    Client,
    Server,
    ServerLost(io::Error),
    ClientGone,
    /// Nothing is under way, and the session is to end.
    Ending,
}

impl Session {
    pub fn new(
        shared: Arc<Shared>,
        served: watch::Receiver<Arc<Served>>,
        registered: Registered,
        client: Wire<ClientStream>,
        mut settings: Settings,
        told: Arc<Parameters>,
    ) -> Session {
        shared.pool.has_set(&mut settings);
        let judge = Judge::new(shared.known.subscribe(), shared.paths.clone());
        let replicas = Latest::of(shared.replicas.subscribe());
        shared.positions.wake();
        Session {
            ending: Lookout::of(shared.ending.clone()),
            shared,
            served: Latest::of(served),
            registered,
            client,
            framer: Framer::new(MAX_INSPECTED_BYTES),
            server: None,
            replica: None,
            life: Life::default(),
            replicas,
            route: Route::Primary,
            is_routed: false,
            withheld: None,
            seen: Mark::default(),
            has_rows: false,
            may_have_written: false,
            may_have_defined: false,
            may_have_altered: false,
            reported: Reported::default(),
            has_altered: false,
            expected: Queue::default(),
            statements: HashMap::new(),
            unnamed: None,
            statements_before: None,
            bound_discards: false,
            named_discards: false,
            bound_sets: None,
            bound_deallocates: None,
            deallocates: VecDeque::new(),
            startup_settings: settings.clone(),
            settings,
            judge,
            set: Vec::new(),
            told,
            unit: Unit::new(),
            replays: 0,
            held: None,
            status: TransactionStatus::Idle,
            is_pinned: false,
            has_discarded: false,
            is_copying_in: false,
            has_sync_read_over: false,
            is_in_group: false,
            is_skipping: false,
            is_block_lost: false,
            client_rest: Rest::Drop,
            server_rest: Rest::Drop,
            is_muted: false,
            has_client_ended: false,
            waits_for_room: false,
            owed: None,
            own_aside: BytesMut::new(),
            answered: None,
            asked: None,
            asked_text: None,
            counted: Traffic::default(),
        }
    }

    /// Serves the client to its end. Dropping the future closes both connections.
    pub async fn run(mut self) {
        let end = self.serve().await;
        if let End::Fatal(refusal) = end
            && !self.is_reply_cut_short()
        {
            refusal.write(Severity::Fatal, &mut self.client.output);
        }
        // Whether it is heard makes no difference to us; a client that does not read must not be waited for.
        let farewell = self.client.flush();
        let _ = tokio::time::timeout(crate::login::REFUSAL_TIMEOUT, farewell).await;
        self.count_traffic();
        self.leave().await;
    }

    async fn serve(&mut self) -> End {
        loop {
            match self.step().await {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    async fn step(&mut self) -> Result<(), End> {
        if self.replica.is_some() && !self.is_routed {
            // What follows a read is not sent behind it unseen.
            self.release();
        }
        match self.read_requests()? {
            Step::NeedsServer => return self.begin_unit().await,
            Step::Leaves => return self.leave_replica("it is not for a read replica").await,
            Step::Waits => {}
        }
        self.release();
        if self.has_client_ended && self.is_copying_in {
            return Err(End::Client);
        }
        match self.turn().await {
            Event::Client => Ok(()),
            Event::Server => match self.read_replies()? {
                replies::Heard::Replies => Ok(()),
                replies::Heard::Goodbye(cause) => self.recover(&cause).await,
                replies::Heard::Refused(repair) => self.repair(repair).await,
            },
            Event::ServerLost(cause) => self.recover(&cause.to_string()).await,
            Event::ClientGone => Err(End::Client),
            Event::Ending => Err(End::Fatal(Refusal::new(
                "57P01",
                "the proxy is being replaced or stopped",
                "Connect again.",
            ))),
        }
    }

    /// Writes what there is to write, and returns when there is something new to read.
    async fn turn(&mut self) -> Event {
        std::future::poll_fn(|cx| {
            self.stop_withholding_too_much();
            let flushed = match &mut self.withheld {
                // What stands before it is none of it.
                Some(withheld) => self.client.poll_flush_first(cx, &mut withheld.from),
                None => self.client.poll_flush(cx),
            };
            self.count_traffic();
            if let Poll::Ready(Err(_)) = flushed {
                return Poll::Ready(Event::ClientGone);
            }
            if self.waits_for_room && self.client.output.len() < HIGH_WATER_BYTES {
                // There is room for the answers to requests that were read before.
                self.waits_for_room = false;
                return Poll::Ready(Event::Client);
            }
            if self.has_client_ended && self.has_nothing_to_say() && flushed.is_ready() {
                // One that only says no more may still read: by now it has all that it has asked for.
                return Poll::Ready(Event::ClientGone);
            }
            let mut is_server_full = false;
            if let Some(server) = &mut self.server {
                let was_full = server.wire.output.len() >= HIGH_WATER_BYTES;
                if let Poll::Ready(Err(_)) = server.wire.poll_flush(cx) {
                    // What it said before it went is still to be read, and may be what matters most.
                    server.wire.output.clear();
                }
                is_server_full = server.wire.output.len() >= HIGH_WATER_BYTES;
                if was_full && !is_server_full {
                    // There is room for requests that were read before.
                    return Poll::Ready(Event::Client);
                }
                let unsaid =
                    self.client.output.len() - self.withheld.as_ref().map_or(0, |withheld| withheld.from);
                if unsaid < HIGH_WATER_BYTES {
                    match server.wire.poll_fill(cx) {
                        Poll::Ready(Ok(0)) => {
                            return Poll::Ready(Event::ServerLost(io::ErrorKind::UnexpectedEof.into()));
                        }
                        Poll::Ready(Err(cause)) => return Poll::Ready(Event::ServerLost(cause)),
                        Poll::Ready(Ok(_)) => return Poll::Ready(Event::Server),
                        Poll::Pending => {}
                    }
                }
            }
            // Also while a read runs on a replica, behind which nothing is looked at: a client that is gone frees its place.
            let is_client_full = self.client.input.len() > MAX_INSPECTED_BYTES;
            if !self.has_client_ended && !is_server_full && !is_client_full {
                match self.client.poll_fill(cx) {
                    Poll::Ready(Ok(0)) => {
                        self.has_client_ended = true;
                        return Poll::Ready(Event::Client);
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Event::ClientGone),
                    Poll::Ready(Ok(_)) => return Poll::Ready(Event::Client),
                    Poll::Pending => {}
                }
            }
            if self.is_at_rest() && self.ending.poll_cancelled(cx).is_ready() {
                return Poll::Ready(Event::Ending);
            }
            Poll::Pending
        })
        .await
    }

    fn has_nothing_to_say(&self) -> bool {
        self.expected.is_empty() && self.client.output.is_empty()
    }

    /// Whether so much waits for the client that no request is begun whose answer would be withheld.
    fn is_client_slow(&mut self) -> bool {
        self.client.output.len() >= HIGH_WATER_BYTES && self.has_replicas()
    }

    /// Whether nothing is under way: no request, no answer, no transaction.
    fn is_at_rest(&self) -> bool {
        self.status == TransactionStatus::Idle
            && self.expected.is_empty()
            && !self.is_in_group
            && !self.is_copying_in
            && !self.framer.is_inside()
            && self.client.input.is_empty()
            && self.client.output.is_empty()
    }

    /// Whether the client has got the beginning of a message and not its end.
    fn is_reply_cut_short(&self) -> bool {
        let is_inside = self.server.as_ref().is_some_and(|server| server.framer.is_inside());
        is_inside && self.server_rest == Rest::Forward && !self.is_muted
    }

    fn count_traffic(&mut self) {
        let counters = &self.shared.counters;
        let parts = [
            (self.client.read, &mut self.counted.received, &counters.received_bytes),
            (self.client.written, &mut self.counted.sent, &counters.sent_bytes),
        ];
        for (now, counted, counter) in parts {
            if now != *counted {
                counter.fetch_add(now - *counted, Relaxed);
                *counted = now;
            }
        }
    }

    fn count(&mut self, kind: crate::statement::Kind) {
        if self.shared.load.is_watched() {
            let text = self.asked_text.take();
            match &mut self.asked {
                Some(asked) => asked.and(kind),
                None => self.asked = Some(Asked::now(kind, text)),
            }
        }
        let statements = match &self.replica {
            Some(replica) => &replica.statements,
            None => &self.shared.counters.statements,
        };
        statements[kind as usize].fetch_add(1, Relaxed);
    }
}

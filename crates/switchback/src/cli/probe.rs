//! What clients of the app's database see while a drill breaks something, counted.
//!
//! They come by the address in `DATABASE_URL`, with an ordinary driver that retries nothing. Four write and read their own
//! writes, one only reads, one keeps a connection that it uses at the end again. Each write has a number of its own, so
//! that afterwards it can be said which acknowledged ones are not there, and which are there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use local::machine::ProcessKind;
use local::postgres::Credentials;
use model::ResourceId;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use super::connect::App;
use super::say::Problem;
use crate::api::Status;

/// An answer that takes longer is a failure.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Failures that are told in words; all are counted.
const TOLD_FAILURES: usize = 5;
/// Of each client, per second.
const ROUNDS_PER_SECOND: u64 = 100;
const WRITERS: i32 = 4;

const BEGIN: &str =
    "DROP TABLE IF EXISTS switchback_drill; CREATE TABLE switchback_drill (client int, number bigint)";
const WRITE: &str = "INSERT INTO switchback_drill (client, number) VALUES ($1, $2)";
const READ_OWN: &str = "SELECT max(number) FROM switchback_drill WHERE client = $1";
const READ: &str = "SELECT count(*) FROM switchback_drill";

/// What they saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SeenOfDatabase {
    pub reads: u64,
    pub writes: u64,
    /// Reads, writes and connects that ended in an error.
    pub failed: u64,
    /// The first few failures, with the time since the drill began.
    pub failures: Vec<String>,
    /// The longest read or write.
    pub longest_ms: u64,
    /// Writes that were acknowledged and are not there.
    pub lost: u64,
    /// Writes that are there more than once.
    pub doubled: u64,
    /// Reads that did not show what the same client had written before.
    pub stale: u64,
}

impl SeenOfDatabase {
    pub fn is_flawless(&self) -> bool {
        self.failed == 0 && self.lost == 0 && self.doubled == 0 && self.stale == 0
    }

    fn add(&mut self, other: SeenOfDatabase) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.failed += other.failed;
        self.stale += other.stale;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
        self.failures.extend(other.failures);
        self.failures.truncate(TOLD_FAILURES);
    }
}

/// Clients of the database, until stopped.
pub struct Probe {
    address: Address,
    stop: CancellationToken,
    clients: JoinSet<Outcome>,
    idle: Client,
}

#[derive(Default)]
struct Outcome {
    seen: SeenOfDatabase,
    /// By writer: the numbers that were acknowledged.
    acknowledged: BTreeMap<i32, BTreeSet<i64>>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Writer(i32),
    Reader,
}

#[derive(Clone)]
struct Address(tokio_postgres::Config);

impl Probe {
    /// `None` where the app has no database.
    ///
    /// # Errors
    /// When it cannot be reached, or the table that is written to cannot be made.
    pub async fn start(app: &App, status: &Status) -> Result<Option<Probe>, Problem> {
        let Some(address) = Address::of(app, status)? else { return Ok(None) };
        let cannot = |error: String| Problem::failed(format!("the database cannot be written to: {error}"));
        let idle = address.connect().await.map_err(cannot)?;
        idle.batch_execute(BEGIN).await.map_err(|error| cannot(local::chain(&error)))?;
        let stop = CancellationToken::new();
        let mut clients = JoinSet::new();
        for kind in (0..WRITERS).map(Kind::Writer).chain([Kind::Reader]) {
            clients.spawn(ask_again_and_again(address.clone(), kind, stop.clone()));
        }
        Ok(Some(Probe { address, stop, clients, idle }))
    }

    pub async fn stop(mut self) -> SeenOfDatabase {
        self.stop.cancel();
        let mut all = Outcome::default();
        while let Some(outcome) = self.clients.join_next().await {
            let Ok(outcome) = outcome else { continue };
            all.seen.add(outcome.seen);
            all.acknowledged.extend(outcome.acknowledged);
        }
        let mut seen = all.seen;
        if let Err(error) = within(self.idle.simple_query(READ)).await {
            fail(&mut seen, format!("a connection that nobody had used: {error}"));
        }
        match self.address.count().await {
            Ok(found) => {
                let written = all.acknowledged.iter();
                let mut numbers = written.flat_map(|(client, numbers)| numbers.iter().map(|n| (*client, *n)));
                seen.lost = numbers.by_ref().filter(|number| !found.contains_key(number)).count() as u64;
                seen.doubled = found.values().filter(|times| **times > 1).count() as u64;
            }
            Err(error) => fail(&mut seen, format!("what is there cannot be counted: {error}")),
        }
        seen
    }
}

impl Address {
    fn of(app: &App, status: &Status) -> Result<Option<Address>, Problem> {
        let proxy = status.machine.processes.iter().find(|process| process.kind == ProcessKind::Pgproxy);
        let Some(proxy) = proxy else { return Ok(None) };
        let id: Option<ResourceId> = proxy.name.strip_prefix("pgproxy-").and_then(|id| id.parse().ok());
        let address: Option<SocketAddr> = proxy.address.parse().ok();
        let (Some(id), Some(address)) = (id, address) else {
            return Err(Problem::failed(format!("{} has no address", proxy.name)));
        };
        let credentials = Credentials::load(&app.state.database_credentials(&id))
            .map_err(|error| Problem::failed(local::chain(&error)).hint(error.hint()))?;
        let mut config = tokio_postgres::Config::new();
        config
            .host(address.ip().to_string())
            .port(address.port())
            .user(&credentials.app.role)
            .password(&credentials.app.password)
            .dbname(&credentials.database)
            .application_name("switchback-drill");
        Ok(Some(Address(config)))
    }

    async fn connect(&self) -> Result<Client, String> {
        let (client, connection) = within(self.0.connect(NoTls)).await?;
        // It ends with its client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// How often each number is there, by writer and number.
    async fn count(&self) -> Result<BTreeMap<(i32, i64), i64>, String> {
        let client = self.connect().await?;
        // On the primary, whatever was read before.
        within(client.batch_execute("BEGIN")).await?;
        let rows = within(
            client
                .query("SELECT client, number, count(*) FROM switchback_drill GROUP BY client, number", &[]),
        )
        .await?;
        within(client.batch_execute("COMMIT; DROP TABLE switchback_drill")).await?;
        Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect())
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, String> {
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|error| local::chain(&error)),
        Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
    }
}

fn fail(seen: &mut SeenOfDatabase, failure: String) {
    seen.failed += 1;
    if seen.failures.len() < TOLD_FAILURES {
        seen.failures.push(failure);
    }
}

async fn ask_again_and_again(address: Address, kind: Kind, stop: CancellationToken) -> Outcome {
    let began = Instant::now();
    let mut outcome = Outcome::default();
    let mut ticks = interval(Duration::from_millis(1_000 / ROUNDS_PER_SECOND));
    let mut connection: Option<Client> = None;
    let mut number = 0;
    while !stop.is_cancelled() {
        ticks.tick().await;
        let round = async {
            let client = match connection.take().filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => address.connect().await?,
            };
            number += 1;
            let asked = ask(&client, kind, number, &mut outcome).await;
            connection = Some(client);
            asked
        };
        if let Err(error) = round.await {
            fail(&mut outcome.seen, format!("at {:.2} s: {error}", began.elapsed().as_secs_f64()));
        }
    }
    outcome
}

async fn ask(client: &Client, kind: Kind, number: i64, outcome: &mut Outcome) -> Result<(), String> {
    let seen = &mut outcome.seen;
    let Kind::Writer(writer) = kind else {
        let began = Instant::now();
        seen.reads += 1;
        let read = within(client.query_one(READ, &[])).await;
        seen.longest_ms = seen.longest_ms.max(millis(began));
        return read.map(drop);
    };
    let began = Instant::now();
    seen.writes += 1;
    let written = within(client.execute(WRITE, &[&writer, &number])).await;
    seen.longest_ms = seen.longest_ms.max(millis(began));
    written?;
    let mine = outcome.acknowledged.entry(writer).or_default();
    mine.insert(number);
    let newest = mine.last().copied();
    let began = Instant::now();
    seen.reads += 1;
    let read = within(client.query_one(READ_OWN, &[&writer])).await;
    seen.longest_ms = seen.longest_ms.max(millis(began));
    let read: Option<i64> = read?.try_get(0).map_err(|error| error.to_string())?;
    // One that was not acknowledged may be there as well.
    if read < newest {
        seen.stale += 1;
    }
    Ok(())
}

fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

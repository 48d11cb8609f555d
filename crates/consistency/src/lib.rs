//! Whether clients of the database can believe what they are told, while what serves them is killed, stopped and
//! replaced at random moments.
//!
//! Clients work through the address of `DATABASE_URL`, as an app would: transactions over lists that only grow, and over
//! accounts between which money moves, as single statements and in blocks, by both protocols of PostgreSQL. Each writes
//! down what it asked for and what it was told. In the end the tables are read, and a checker says whether all that could
//! have come about with nothing lost, doubled, torn, or taken back. An operation whose client was told nothing may have
//! happened or not.
//!
//! The checker is a function of the history and of the last state, and is tested on histories that are wrong.

pub mod bank;
pub mod check;
mod client;
pub mod faults;
pub mod history;
pub mod lists;
mod load;
mod report;
mod session;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use freshness::Freshness;
use testkit::{App, Status, Switchback};
use tokio_postgres::{Client, Config, NoTls};

use bank::Transfer;
use check::{Books, Reads, Violation};
use faults::Kind;
use history::Fault;
use load::{Heard, Load};
pub use report::{Counts, Report};

/// Of a disk that may be filled. It takes memory only for what is on it.
const DISK_MB: u64 = 2_000;

#[derive(Debug, Clone)]
pub struct Options {
    /// Chooses what clients do and what is broken. When something is broken is chosen too, and yet no run is like another:
    /// processes do not wait for each other.
    pub seed: u64,
    pub duration: Duration,
    /// Empty: nothing is broken.
    pub faults: Vec<Kind>,
    /// Where histories go.
    pub keep: PathBuf,
}

/// Runs load and faults against an app with a database `db`, which has to be up and whole, and judges what clients heard.
///
/// # Panics
/// When the app does not become whole again, or its tables cannot be made or read.
pub fn run(switchback: &Switchback, options: &Options) -> Report {
    let status = faults::wait_until_whole(switchback);
    let reads = match status.processes.iter().any(|node| node.role.as_deref() == Some("read_replica")) {
        true => Reads::Own,
        false => Reads::Newest,
    };
    let config = address(switchback, &status);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(make_tables(&config));
    let mut rng = Rng::with_seed(options.seed);
    let began = Instant::now();
    let load = {
        let _entered = runtime.enter();
        Load::start(&config, marks(switchback), &mut rng.fork(), began)
    };
    let faults = faults::break_things(switchback, &options.faults, &mut rng, began, began + options.duration);
    faults::wait_until_whole(switchback);
    let heard = runtime.block_on(load.stop());
    let (lists, books) = runtime.block_on(read_tables(&config));
    let mut violations = check::lists(&heard.lists, &lists, reads);
    violations.extend(check::bank(&heard.bank, &books));
    let kept = keep(options, &heard, &faults, &lists, &violations);
    Report::of(options.seed, &heard, &faults, violations, kept)
}

/// An app at this stage. Its first database node has a disk of its own, which can be filled, where one can be mounted.
pub fn app(stage: u8) -> App {
    let app = || App::guestbook("consistency").stage(stage);
    app().with_a_disk_at("data/postgres/db.1", DISK_MB).unwrap_or_else(|reason| {
        eprintln!("no disk will be full: {reason}");
        app()
    })
}

/// The marks of the database, where it has any.
fn marks(switchback: &Switchback) -> Option<Arc<Freshness>> {
    let path = switchback.app().state_dir().join("run/db.marks");
    path.exists().then(|| Arc::new(Freshness::open(&path).expect("the daemon has made it")))
}

fn address(switchback: &Switchback, status: &Status) -> Config {
    let path = switchback.app().state_dir().join("credentials/db.json");
    let text = std::fs::read(&path).expect("a database has credentials");
    let credentials: serde_json::Value = serde_json::from_slice(&text).expect("credentials are JSON");
    let word = |value: &serde_json::Value| value.as_str().expect("credentials are words").to_owned();
    let proxy = status.of_kind("pgproxy").into_iter().next().expect("a database has a proxy");
    let port =
        proxy.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("the proxy has a port");
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user(word(&credentials["app"]["role"]))
        .password(word(&credentials["app"]["password"]))
        .dbname(word(&credentials["database"]));
    config
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.expect("the database can be reached");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

async fn make_tables(config: &Config) {
    let client = connect(config).await;
    for table in session::TABLES {
        client.batch_execute(table).await.expect("a table");
    }
    let accounts = format!(
        "INSERT INTO accounts SELECT id, {} FROM generate_series(0, {}) id",
        bank::BEGINNING,
        bank::ACCOUNTS - 1
    );
    client.batch_execute(&accounts).await.expect("accounts");
}

/// In a transaction that writes, so that no replica answers.
async fn read_tables(config: &Config) -> (BTreeMap<lists::Key, Vec<lists::Value>>, Books) {
    let mut client = connect(config).await;
    let transaction = client.transaction().await.expect("a transaction");
    transaction.batch_execute("SELECT pg_current_xact_id()").await.expect("the primary");
    let lists = transaction.query("SELECT key, elements FROM lists", &[]).await.expect("lists");
    let lists = lists.iter().map(|row| {
        let elements: String = row.get(1);
        let values = elements.split(',').map(|value| value.parse().expect("values are numbers")).collect();
        (row.get::<_, i32>(0).cast_unsigned(), values)
    });
    let lists = lists.collect();
    let accounts =
        transaction.query("SELECT balance FROM accounts ORDER BY id", &[]).await.expect("accounts");
    let balances = accounts.iter().map(|row| row.get(0)).collect();
    let ledger = transaction.query("SELECT * FROM ledger", &[]).await.expect("the ledger");
    let ledger = ledger.iter().map(|row| {
        let number = |at| row.get::<_, i32>(at).cast_unsigned();
        Transfer { id: number(0), from: number(1), to: number(2), amount: number(3) }
    });
    (lists, Books { balances, ledger: ledger.collect() })
}

/// Writes down all that the verdict was made from.
fn keep(
    options: &Options,
    heard: &Heard,
    faults: &[Fault],
    lists: &BTreeMap<lists::Key, Vec<lists::Value>>,
    violations: &[Violation],
) -> PathBuf {
    let folder = options.keep.join(format!("seed-{}", options.seed));
    std::fs::create_dir_all(&folder).expect("a folder for the histories");
    let write = |name: &str, text: String| write(&folder, name, &text);
    write("lists.edn", history::edn(&heard.lists, faults));
    write("bank.edn", history::edn(&heard.bank, faults));
    let last = lists.iter().map(|(key, list)| format!("{key} {list:?}\n"));
    write("last.txt", last.collect());
    write("violations.txt", violations.iter().map(|violation| format!("{violation}\n")).collect());
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("a file of a history");
}

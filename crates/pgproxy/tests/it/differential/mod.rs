//! Whatever one session says, it is answered through the proxy as by PostgreSQL.
//!
//! Chance makes sequences of messages, the wrong ones among them. Each is said to PostgreSQL, and through the proxy from
//! the same state, and the answers are compared to their end. A sequence that is answered otherwise is printed as short as it
//! could be made.

mod exchange;
mod said;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use pgproxy::Database;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::proxy::{Proxy, of, start};
use crate::reads::{reads, split, split_in_two};
use crate::replies;
use exchange::Exchange;
use said::Session;

const FEW: u32 = 40;
const MANY: u32 = 3_000;
/// A shorter sequence is easier to read, and each try costs two sessions.
const MAX_SHRINK_TIME: Duration = Duration::from_secs(30);

/// A primary, and a proxy that leads to it.
struct World {
    primary: Cluster,
    proxy: Proxy,
    /// What the proxy may read from.
    _replica: Option<Cluster>,
}

async fn alone() -> World {
    pooled(20).await
}

async fn pooled(pool_size: u32) -> World {
    let primary = Cluster::create();
    let proxy = start(Database { pool_size, ..of(&primary) });
    World { primary, proxy, _replica: None }
}

async fn with_a_replica() -> World {
    let (primary, replica, proxy) = split().await;
    World { primary, proxy, _replica: Some(replica) }
}

async fn with_two_replicas() -> World {
    let (primary, replica, proxy) = split_in_two().await;
    World { primary, proxy, _replica: Some(replica) }
}

/// Others that use the same pool, so that a session is on another connection after each transaction.
struct Others {
    tasks: JoinSet<()>,
    have_left: Arc<AtomicBool>,
}

impl Others {
    async fn come(proxy: &Proxy, count: usize) -> Others {
        let mut others = Others { tasks: JoinSet::new(), have_left: Arc::default() };
        for n in 0..count {
            let client = proxy.connect().await.unwrap();
            let have_left = others.have_left.clone();
            others.tasks.spawn(async move {
                for turn in 0.. {
                    if have_left.load(Relaxed) {
                        return;
                    }
                    // Whether there is a place for them is up to the session.
                    let _ = client.batch_execute(&format!("set work_mem to '{}MB'", 5 + n)).await;
                    let _ = client.batch_execute("begin; select count(*) from t; commit").await;
                    let _ = client.query(&format!("select {}::int", turn % 7), &[]).await;
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
            });
        }
        others
    }

    async fn leave(self) {
        self.have_left.store(true, Relaxed);
        self.tasks.join_all().await;
    }
}

/// By the same chance each time.
fn few() -> TestRunner {
    TestRunner::new_with_rng(config(FEW), TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn many() -> TestRunner {
    TestRunner::new(config(MANY))
}

fn config(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: u32::MAX,
        max_shrink_time: MAX_SHRINK_TIME.as_millis() as u32,
        ..Config::default()
    }
}

fn check(world: impl AsyncFnOnce() -> World, others: usize, mut runner: TestRunner) -> World {
    let runtime = Runtime::new().unwrap();
    let (world, others) = runtime.block_on(async {
        let world = world().await;
        // What others have made is in the way, and theirs to be taken away.
        world.primary.sql("drop table if exists t");
        world.primary.sql(&format!("set role app; {}; {}", replies::SCHEMA, said::SCHEMA));
        let others = Others::come(&world.proxy, others).await;
        (world, others)
    });
    let outcome = runner.run(&said::session(), |session: Session| {
        runtime.block_on(compare(&world, &session)).map_err(TestCaseError::fail)
    });
    runtime.block_on(others.leave());
    // Not by `Debug` of the error, which is one line.
    if let Err(error) = outcome {
        panic!("{error}");
    }
    drop(runtime);
    world
}

async fn compare(world: &World, session: &Session) -> Result<(), String> {
    let direct = Exchange::directly(&world.primary, session).await?;
    let through = Exchange::through(&world.proxy, session, &direct).await?;
    direct.compare(&through)
}

#[test]
fn a_session_is_answered_as_by_postgres() {
    check(alone, 0, few());
}

#[test]
fn a_session_that_shares_one_connection_is_answered_as_by_postgres() {
    check(async || pooled(1).await, 1, few());
}

#[test]
fn a_session_that_changes_its_connections_is_answered_as_by_postgres() {
    check(async || pooled(3).await, 3, few());
}

#[test]
fn a_session_that_reads_on_a_replica_is_answered_as_by_postgres() {
    let world = check(with_a_replica, 0, few());
    assert!(reads(&world.proxy) > 0);
}

#[test]
fn a_session_that_reads_on_two_replicas_is_answered_as_by_postgres() {
    let world = check(with_two_replicas, 0, few());
    assert!(reads(&world.proxy) > 0);
}

#[test]
#[ignore = "takes minutes"]
fn thousands_of_sessions_are_answered_as_by_postgres() {
    check(alone, 0, many());
}

#[test]
#[ignore = "takes minutes"]
fn thousands_of_sessions_that_share_one_connection_are_answered_as_by_postgres() {
    check(async || pooled(1).await, 1, many());
}

#[test]
#[ignore = "takes minutes"]
fn thousands_of_sessions_that_change_their_connections_are_answered_as_by_postgres() {
    check(async || pooled(3).await, 3, many());
}

#[test]
#[ignore = "takes minutes"]
fn thousands_of_sessions_that_read_on_a_replica_are_answered_as_by_postgres() {
    check(with_a_replica, 0, many());
}

#[test]
#[ignore = "takes minutes"]
fn thousands_of_sessions_that_read_on_two_replicas_are_answered_as_by_postgres() {
    check(with_two_replicas, 1, many());
}

//! Drivers and ORMs as apps use them: small programs in `tests/drivers`, which know PostgreSQL and nothing of the proxy.
//! None can tell the one from the other, and none that writes sees a failover.
//!
//! `cargo xtask setup` installs what they are written with into the target folder.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::failover::{move_to, pair, take_over};
use crate::proxy::{Proxy, running, within};
use crate::reads::{reads, split_in_two};

/// Acknowledged writes before the primary dies, and after.
const WRITES: usize = 25;

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers")
}

fn installed(path: &str) -> PathBuf {
    // The folder for the files of tests lies in the target folder, as the drivers do.
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("drivers").join(path);
    assert!(path.exists(), "{} is missing: cargo xtask setup", path.display());
    path
}

fn python(program: &str) -> Command {
    let mut command = Command::new(installed("python/bin/python"));
    command.arg("-B").arg(programs().join(program));
    command
}

fn node(program: &str) -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", installed("node/node_modules")).arg(programs().join(program));
    command
}

/// Runs all that the program checks, in front of a primary alone, and where reads go to a replica.
async fn passes(program: impl Fn() -> Command) {
    let (_cluster, proxy) = running();
    check(program(), &proxy, "one-node").await;
    let (_primary, _replica, proxy) = split_in_two().await;
    let before = reads(&proxy);
    check(program(), &proxy, "two-nodes").await;
    assert!(reads(&proxy) > before, "nothing was read from the replica");
}

async fn check(mut program: Command, proxy: &Proxy, nodes: &str) {
    program.args(["check", nodes]).env("DATABASE_URL", proxy.url()).stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || program.output().unwrap());
    succeeded(&run.await.unwrap());
    proxy.until(|db| db.clients == 0).await;
}

/// Lets the program write, one statement after another, while the primary dies and its standby takes over.
async fn writes_on(program: Command) {
    let (mut primary, standby, proxy) = pair();
    primary.sql("create table written (n int primary key); alter table written owner to app");
    let writer = Writer::start(program, &proxy);
    writer.until_acknowledged(WRITES).await;
    let before = writer.acknowledged.lock().unwrap().len();
    primary.kill();
    take_over(&standby);
    move_to(&proxy, &standby, 2);
    writer.until_acknowledged(before + WRITES).await;
    let acknowledged = writer.finish().await;
    let there = standby.sql("select n from written order by n");
    let there: Vec<u32> = there.lines().map(|n| n.parse().unwrap()).collect();
    assert_eq!(there, acknowledged);
}

/// A program that writes numbers and says each that was acknowledged.
struct Writer {
    child: Child,
    acknowledged: Arc<Mutex<Vec<u32>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Writer {
    fn start(mut program: Command, proxy: &Proxy) -> Writer {
        program.arg("write").env("DATABASE_URL", proxy.url());
        let mut child =
            program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let heard = acknowledged.clone();
        let reader = std::thread::spawn(move || {
            for line in lines {
                heard.lock().unwrap().push(line.unwrap().parse().unwrap());
            }
        });
        Writer { child, acknowledged, reader }
    }

    async fn until_acknowledged(&self, count: usize) {
        within("so many writes are acknowledged", async {
            while self.acknowledged.lock().unwrap().len() < count && !self.reader.is_finished() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    /// Tells it to end, and gives what was acknowledged.
    async fn finish(mut self) -> Vec<u32> {
        drop(self.child.stdin.take());
        let end = tokio::task::spawn_blocking(move || {
            succeeded(&self.child.wait_with_output().unwrap());
            self.reader.join().unwrap();
            self.acknowledged.lock().unwrap().clone()
        });
        end.await.unwrap()
    }
}

fn succeeded(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_3_cannot_tell_the_proxy_from_postgres() {
    passes(|| python("psycopg_3.py")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_3_writes_on_through_a_failover() {
    writes_on(python("psycopg_3.py")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_2_cannot_tell_the_proxy_from_postgres() {
    passes(|| python("psycopg_2.py")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_2_writes_on_through_a_failover() {
    writes_on(python("psycopg_2.py")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asyncpg_cannot_tell_the_proxy_from_postgres() {
    passes(|| python("asyncpg_.py")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asyncpg_writes_on_through_a_failover() {
    writes_on(python("asyncpg_.py")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlalchemy_cannot_tell_the_proxy_from_postgres() {
    passes(|| python("sqlalchemy_.py")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlalchemy_writes_on_through_a_failover() {
    writes_on(python("sqlalchemy_.py")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn django_cannot_tell_the_proxy_from_postgres() {
    passes(|| python("django_.py")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn django_writes_on_through_a_failover() {
    writes_on(python("django_.py")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_postgres_cannot_tell_the_proxy_from_postgres() {
    passes(|| node("node_postgres.cjs")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_postgres_writes_on_through_a_failover() {
    writes_on(node("node_postgres.cjs")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_js_cannot_tell_the_proxy_from_postgres() {
    passes(|| node("postgres_js.cjs")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_js_writes_on_through_a_failover() {
    writes_on(node("postgres_js.cjs")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn knex_cannot_tell_the_proxy_from_postgres() {
    passes(|| node("knex_.cjs")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn knex_writes_on_through_a_failover() {
    writes_on(node("knex_.cjs")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequelize_cannot_tell_the_proxy_from_postgres() {
    passes(|| node("sequelize_.cjs")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequelize_writes_on_through_a_failover() {
    writes_on(node("sequelize_.cjs")).await;
}

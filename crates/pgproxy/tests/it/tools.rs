//! PostgreSQL's own programs, which must not be able to tell the proxy from PostgreSQL.

use std::process::{Command, Stdio};
use std::time::Duration;

use pgproxy::Drained;
use tokio_postgres::NoTls;

use crate::cluster::bin;
use crate::proxy::{self, running, within};

async fn succeeds(mut command: Command) -> String {
    let run = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap());
    let output = run.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn tool(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(bin().join(name));
    command.args(args);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_and_pgbench_cannot_tell_the_proxy_from_postgres() {
    let (_cluster, proxy) = running();
    let sum = "select sum(n) from generate_series(1, 100000) n";
    assert_eq!(succeeds(tool("psql", &["-XAtc", sum, &proxy.url()])).await, "5000050000\n");
    succeeds(tool("pgbench", &["-i", "-q", &proxy.url()])).await;
    for protocol in ["simple", "extended", "prepared"] {
        for script in ["tpcb-like", "select-only"] {
            let run = ["-c", "8", "-t", "50", "-M", protocol, "-b", script, &proxy.url()];
            let report = succeeds(tool("pgbench", &run)).await;
            assert!(report.contains("number of failed transactions: 0"), "{report}");
            assert!(report.contains("transactions actually processed: 400/400"), "{report}");
        }
    }
    proxy.until(|db| db.clients == 0).await;
    let db = proxy.db();
    assert!(db.servers <= 8, "{db:?}");
}

/// Many queries in flight at once, in and out of transaction blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbench_pipelines_through_the_proxy() {
    let (_cluster, proxy) = running();
    succeeds(tool("pgbench", &["-i", "-q", &proxy.url()])).await;
    let script = "\\set aid random(1, 100000)\n\\startpipeline\n\
                  select abalance from pgbench_accounts where aid = :aid;\n\
                  update pgbench_accounts set abalance = abalance + 1 where aid = :aid;\nbegin;\n\
                  insert into pgbench_history (tid, bid, aid, delta, mtime) values (1, 1, :aid, 1, now());\n\
                  commit;\nselect 1;\n\\endpipeline\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let path = file.path().display().to_string();
    for protocol in ["extended", "prepared"] {
        let run = ["-n", "-c", "8", "-t", "50", "-M", protocol, "-f", &path, &proxy.url()];
        let report = succeeds(tool("pgbench", &run)).await;
        assert!(report.contains("number of failed transactions: 0"), "{report}");
        assert!(report.contains("transactions actually processed: 400/400"), "{report}");
    }
    let client = proxy.connect().await.unwrap();
    assert_eq!(crate::proxy::value(&client, "select count(*) from pgbench_history").await, "800");
    assert_eq!(crate::proxy::value(&client, "select sum(abalance) from pgbench_accounts").await, "800");
}

/// What people type, and what deployment scripts are made of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_of_psql_runs_through_the_proxy() {
    let (_cluster, proxy) = running();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "1\tone\n2\ttwo\n3\tthree\n").unwrap();
    let script = format!(
        "\\set ON_ERROR_STOP on\ncreate table t (a int, b text);\n\\copy t from '{0}'\n\
         select sum(a) as sum from t \\gset\n\\echo sum :sum\n\
         select 'insert into t values (' || n || ', null)' from generate_series(4, 6) n \\gexec\n\
         \\copy (select a from t order by a) to stdout\nbegin;\nsavepoint s;\n\\set ON_ERROR_STOP off\n\
         insert into t values ('no');\nrollback to s;\n\\set ON_ERROR_STOP on\ndelete from t where a > 3;\ncommit;\n\
         prepare p(int) as select b from t where a = $1;\nexecute p(3);\n\
         deallocate p;\nselect a, b from t \\gdesc\n\\d t\n",
        file.path().display()
    );
    let mut psql = tool("psql", &["-XAtq", &proxy.url()]);
    psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = tokio::task::spawn_blocking(move || {
        let mut psql = psql.spawn().unwrap();
        std::io::Write::write_all(&mut psql.stdin.take().unwrap(), script.as_bytes()).unwrap();
        psql.wait_with_output().unwrap()
    });
    let output = run.await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("invalid input syntax for type integer") && errors.lines().count() == 3,
        "{errors}"
    );
    let said = String::from_utf8(output.stdout).unwrap();
    let expected = "sum 6\n1\n2\n3\n4\n5\n6\nthree\na|integer\nb|text\na|integer|||\nb|text|||\n";
    assert_eq!(said, expected);
}

/// A dump takes a snapshot, locks, uses cursors and COPY, and sets what only its own connection may have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_through_the_proxy_restores_through_the_proxy() {
    let (cluster, proxy) = running();
    succeeds(tool("pgbench", &["-i", "-q", &proxy.url()])).await;
    let dump = succeeds(tool("pg_dump", &[&proxy.url()])).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &dump).unwrap();
    cluster.sql("drop table pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers");
    let script = file.path().display().to_string();
    succeeds(tool("psql", &["-Xq", "-v", "ON_ERROR_STOP=1", "-f", &script, &proxy.url()])).await;
    assert_eq!(cluster.sql("select count(*) from pgbench_accounts"), "100000");
    let again = succeeds(tool("pg_dump", &[&proxy.url()])).await;
    // Newer ones guard a dump with a word of chance.
    let guarded = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    assert!(again.lines().filter(guarded).eq(dump.lines().filter(guarded)), "the second dump differs");
}

#[tokio::test]
async fn a_query_can_be_cancelled_even_when_every_place_is_taken() {
    let cluster = crate::cluster::Cluster::create();
    let mut settings = proxy::of(&cluster);
    settings.max_clients = 1;
    let proxy = proxy::start(settings);
    let client = proxy.connect().await.unwrap();

    let refused = proxy.connect().await.err().unwrap();
    assert_eq!(refused.as_db_error().unwrap().code().code(), "53300");

    let cancel = client.cancel_token();
    let query = tokio::spawn(async move { client.simple_query("select pg_sleep(600)").await });
    within("the query is cancelled", async {
        while !query.is_finished() {
            // Again and again: one that arrives before the query does cancels nothing.
            cancel.cancel_query(NoTls).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let cancelled = query.await.unwrap().err().unwrap();
    assert_eq!(cancelled.code().unwrap().code(), "57014");
    proxy.until(|db| db.clients == 0).await;
    proxy.connect().await.unwrap();
}

#[tokio::test]
async fn a_drain_lets_a_session_finish_its_work() {
    let (_cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    let work = tokio::spawn(async move { client.simple_query("select pg_sleep(0.3)").await });
    proxy.until(|db| db.servers > db.servers_idle).await;
    let drained = proxy.handle.drain(Duration::from_secs(60)).await;
    assert_eq!(drained, Drained { cut: 0 });
    work.await.unwrap().unwrap();
}

/// A pool of connections must not learn by an error that the proxy is replaced.
#[tokio::test]
async fn a_drain_ends_idle_sessions_only_when_its_grace_is_over_and_lets_transactions_end() {
    let (_cluster, proxy) = running();
    let idle = proxy.connect().await.unwrap();
    let busy = proxy.connect().await.unwrap();
    idle.simple_query("select 1").await.unwrap();
    busy.batch_execute("begin").await.unwrap();
    let grace = Duration::from_secs(4);
    let draining = proxy.handle.drain(grace);
    tokio::pin!(draining);
    let using = async {
        tokio::time::sleep(grace / 40).await;
        idle.simple_query("select 1").await.unwrap();
        busy.simple_query("select 1").await.unwrap();
        // The grace is over: the one has ended, and the other may finish.
        proxy.until(|db| db.clients == 1).await;
        busy.batch_execute("commit").await.unwrap();
    };
    let ((), drained) = tokio::join!(using, &mut draining);
    assert_eq!(drained, Drained { cut: 0 });
    for client in [idle, busy] {
        assert!(client.simple_query("select 1").await.is_err());
    }
}

//! The primary is lost, and clients do not notice.

use std::time::Duration;

use futures_util::StreamExt;
use pgproxy::{Database, Role};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::cluster::{Cluster, signal};
use crate::proxy::{Proxy, config, of, running, sqlstate, start, value, within};
use crate::wire::{Raw, ToSay};

const PID: &str = "select pg_backend_pid()";

/// A primary with a synchronous standby.
pub fn pair() -> (Cluster, Cluster, Proxy) {
    let primary = Cluster::create();
    let standby = primary.standby();
    primary.sql("alter system set synchronous_standby_names = '*'");
    primary.sql("select pg_reload_conf()");
    let proxy = start(of(&primary));
    (primary, standby, proxy)
}

/// Tells the proxy that `cluster` is the primary from now on.
pub fn move_to(proxy: &Proxy, cluster: &Cluster, generation: u64) {
    let database = Database { epoch: generation, ..of(cluster) };
    proxy.handle.configure(config(generation, database)).unwrap();
}

/// Tells it that nobody is.
fn hold(proxy: &Proxy, cluster: &Cluster, generation: u64) {
    let mut database = Database { epoch: generation - 1, ..of(cluster) };
    for node in database.nodes.values_mut() {
        node.role = Role::Standby;
    }
    proxy.handle.configure(config(generation, database)).unwrap();
}

/// The standby takes over, and says no more that it wants one of its own.
pub fn take_over(standby: &Cluster) {
    standby.sql("alter system reset synchronous_standby_names");
    standby.promote();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_clients_do_not_notice_a_failover_and_requests_wait_for_its_end() {
    let (mut primary, standby, proxy) = pair();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    let insert = client.prepare("insert into t values ($1)").await.unwrap();
    client.execute(&insert, &[&1]).await.unwrap();

    primary.kill();
    let late = proxy.connect().await.unwrap();
    let early = tokio::spawn(async move {
        client.execute(&insert, &[&2]).await.unwrap();
        value(&client, "select sum(a) from t").await
    });
    let waiting = tokio::spawn(async move { value(&late, "select count(*) from t").await });
    proxy.until(|db| db.waiting == 2).await;
    // Told of it before it is one: a standby is waited for.
    move_to(&proxy, &standby, 2);
    take_over(&standby);
    assert_eq!(early.await.unwrap(), "3");
    assert!(["1", "2"].contains(&waiting.await.unwrap().as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_change_drains_transactions_and_holds_new_ones() {
    let (primary, standby, proxy) = pair();
    let (client, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    client.simple_query("create table t (a int)").await.unwrap();
    client.simple_query("begin").await.unwrap();
    client.simple_query("insert into t values (1)").await.unwrap();
    hold(&proxy, &primary, 2);
    let waiting = tokio::spawn(async move { value(&other, "select count(*) from t").await });
    proxy.until(|db| db.waiting == 1).await;
    client.simple_query("commit").await.unwrap();
    proxy.until(|db| db.servers == 0).await;
    take_over(&standby);
    move_to(&proxy, &standby, 3);
    assert_eq!(waiting.await.unwrap(), "1");
}

/// The fence: whoever still has a connection to the old primary loses it before anybody reaches the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_higher_epoch_cuts_every_connection_to_the_old_primary() {
    let (old, standby, proxy) = pair();
    let (holder, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    holder.simple_query("create table t (a int)").await.unwrap();
    holder.simple_query("begin; insert into t values (1)").await.unwrap();
    take_over(&standby);
    move_to(&proxy, &standby, 2);
    assert_eq!(value(&other, "select count(*) from t").await, "0");
    old.sql("alter system reset synchronous_standby_names");
    assert_eq!(old.sql("select count(*) from pg_stat_activity where usename = 'app'"), "0");
    drop(holder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_in_flight_is_run_again() {
    let (cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    let locker = proxy.connect().await.unwrap();
    locker.simple_query("create table slow as select 1 as a").await.unwrap();
    // A lock keeps the read in flight for as long as the test needs it.
    locker.simple_query("begin; lock table slow in access exclusive mode").await.unwrap();
    let read = tokio::spawn(async move { value(&client, "select count(*) from slow").await });
    kill_backend(&cluster, "select count(*) from slow").await;
    locker.simple_query("rollback").await.unwrap();
    assert_eq!(read.await.unwrap(), "1");
    assert_eq!(proxy.db().replays_total, 1);
}

/// Ends the backend that runs `query`, once it does.
async fn kill_backend(cluster: &Cluster, query: &str) {
    let end = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where query = '{}' and state <> 'idle' \
         and pid <> pg_backend_pid()",
        query.replace('\'', "''")
    );
    within("the query runs", async {
        while cluster.sql(&end) == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A transaction that was lost with the primary before may have had it. Who asks for its fate must not hear of a commit.
#[tokio::test]
async fn the_id_that_a_new_connection_takes_is_of_no_commit() {
    let cluster = Cluster::create();
    let next: u64 = cluster.sql("select pg_snapshot_xmax(pg_current_snapshot())").parse().unwrap();
    let proxy = start(of(&cluster));
    assert_eq!(value(&proxy.connect().await.unwrap(), "select 1").await, "1");
    assert_eq!(cluster.sql(&format!("select pg_xact_status('{next}')")), "aborted");
}

/// For an advisory lock.
async fn until_somebody_waits(cluster: &Cluster) {
    within("somebody waits for the lock", async {
        while cluster.sql("select count(*) from pg_locks where locktype = 'advisory' and not granted") == "0"
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Repeating it lasts until somebody else lets go of a lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_sends_while_its_transaction_is_repeated_and_lost_again_is_kept() {
    const LOCK: &str = "select pg_advisory_xact_lock(7)";
    let (cluster, proxy) = running();
    let (mut client, mut other) = (Raw::connect(&proxy).await, Raw::connect_directly(&cluster).await);
    for (query, answer) in [
        (&b"create table t (a int)\0"[..], "CZI"),
        (b"begin\0", "CZT"),
        (b"select pg_advisory_xact_lock(7)\0", "TDCZT"),
    ] {
        client.say(b'Q', query).await;
        assert_eq!(client.answer().await, answer);
    }
    other.say(b'Q', b"begin; select pg_advisory_xact_lock(7)\0").await;
    until_somebody_waits(&cluster).await;
    kill_backend(&cluster, LOCK).await;
    assert_eq!(other.answer().await, "CTDCZT");
    until_somebody_waits(&cluster).await;
    hold(&proxy, &cluster, 2);
    kill_backend(&cluster, LOCK).await;
    proxy.until(|db| db.held == 1).await;
    client.say(b'Q', b"insert into t values (1)\0").await;
    client.say(b'Q', b"commit\0").await;
    // Whether the proxy has read it by then or not.
    tokio::time::sleep(Duration::from_millis(100)).await;
    other.say(b'Q', b"commit\0").await;
    assert_eq!(other.answer().await, "CZI");
    proxy.handle.configure(config(3, of(&cluster))).unwrap();
    assert_eq!(client.answer().await, "CZT");
    assert_eq!(client.answer().await, "CZI");
    assert_eq!(cluster.sql("select count(*) from t"), "1");
}

/// Nothing of it has to be done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_has_failed_is_still_there_to_be_rolled_back() {
    let (cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    let fail = "select 1 / (select count(*) from t)";
    for end in ["rollback", "commit"] {
        client.simple_query("begin").await.unwrap();
        client.simple_query("insert into t select 1 where false").await.unwrap();
        assert_eq!(sqlstate(&client, fail).await, "22012");
        kill_backend(&cluster, fail).await;
        assert_eq!(sqlstate(&client, "select 1").await, "25P02");
        client.simple_query(end).await.unwrap();
        assert_eq!(value(&client, "select count(*) from t").await, "0");
    }
    // What went before a savepoint is repeated: the client may go back to it.
    client.simple_query("begin").await.unwrap();
    client.simple_query("insert into t values (1)").await.unwrap();
    client.simple_query("savepoint a").await.unwrap();
    assert_eq!(sqlstate(&client, "select 1 / 0").await, "22012");
    kill_backend(&cluster, "select 1 / 0").await;
    client.simple_query("rollback to a").await.unwrap();
    client.simple_query("commit").await.unwrap();
    assert_eq!(value(&client, "delete from t returning a").await, "1");
    // As the connection goes, the end of the block is on its way.
    client.simple_query("begin").await.unwrap();
    assert_eq!(sqlstate(&client, fail).await, "22012");
    proxy.handle.configure(config(2, Database { epoch: 2, ..of(&cluster) })).unwrap();
    client.simple_query("rollback").await.unwrap();
    assert_eq!(value(&client, "select count(*) from t").await, "0");
}

/// They are gone for whoever goes on with it, and were there for what it had asked before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_has_deallocated_its_statements_is_run_again_with_them() {
    const SYNC: ToSay<'_> = (b'S', b"");
    const PARSE: ToSay<'_> = (b'P', b"a\0select 1\0\0\0");
    const RUN: [ToSay<'_>; 3] = [(b'B', b"\0a\0\0\0\0\0\0\0"), (b'E', &[0; 5]), SYNC];
    let (cluster, proxy) = running();
    let mut client = Raw::connect(&proxy).await;
    for (replays, deallocate) in
        ["deallocate all", "deallocate a", "select 2; deallocate a"].into_iter().enumerate()
    {
        let query = [deallocate.as_bytes(), b"\0"].concat();
        client.say_at_once(&[PARSE, SYNC]).await;
        assert_eq!(client.answer().await, "1ZI");
        client.say_at_once(&[(b'Q', b"begin\0")]).await;
        assert_eq!(client.answer().await, "CZT");
        client.say_at_once(&RUN).await;
        assert_eq!(client.answer().await, "2DCZT");
        client.say_at_once(&[(b'Q', &query)]).await;
        assert!(client.answer().await.ends_with("CZT"), "{deallocate}");
        cluster.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity where state = 'idle in transaction'",
        );
        client.say_at_once(&[(b'Q', b"select 3\0")]).await;
        assert_eq!(client.answer().await, "TDCZT", "{deallocate}");
        client.say_at_once(&[(b'Q', b"commit\0"), (b'D', b"Sa\0"), SYNC]).await;
        for expected in ["CZI", "EZI"] {
            assert_eq!(client.answer().await, expected, "{deallocate}");
        }
        assert_eq!(proxy.db().replays_total, replays as u64 + 1);
    }
}

/// Drivers that name a statement by its text prepare it again by that name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_was_given_or_closed_as_the_connection_was_lost_is_as_it_was() {
    const LOCK: &str = "select pg_advisory_xact_lock(7)";
    const SYNC: ToSay<'_> = (b'S', b"");
    let (cluster, proxy) = running();
    let (mut client, mut other) = (Raw::connect(&proxy).await, Raw::connect_directly(&cluster).await);
    client.say_at_once(&[(b'P', b"kept\0select 1\0\0\0"), SYNC]).await;
    assert_eq!(client.answer().await, "1ZI");
    // It is not known to be repeatable.
    client.say(b'Q', b"begin; select 1\0").await;
    assert_eq!(client.answer().await, "CTDCZT");
    other.say(b'Q', b"begin; select pg_advisory_xact_lock(7)\0").await;
    assert_eq!(other.answer().await, "CTDCZT");
    let lock = [b"\0", LOCK.as_bytes(), b"\0\0\0"].concat();
    client.say_at_once(&[(b'P', &lock), (b'B', &[0; 8]), (b'E', &[0; 5])]).await;
    client.say_at_once(&[(b'P', b"a\0select 1\0\0\0"), (b'C', b"Skept\0"), SYNC]).await;
    kill_backend(&cluster, LOCK).await;
    assert!(client.answer().await.ends_with("EZE"));
    client
        .say_at_once(&[(b'Q', b"rollback\0"), (b'P', b"a\0select 2\0\0\0"), (b'D', b"Skept\0"), SYNC])
        .await;
    for expected in ["CZI", "1tTZI"] {
        assert_eq!(client.answer().await, expected);
    }
}

/// Drivers prepare what is asked again and again: then only its name is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_savepoint_of_a_prepared_statement_is_there_after_a_failed_transaction_was_lost() {
    let (cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    let savepoint = client.prepare("SAVEPOINT sa_savepoint_1").await.unwrap();
    for n in 1..=2 {
        client.simple_query("begin").await.unwrap();
        client.simple_query(&format!("insert into t values ({n})")).await.unwrap();
        client.execute(&savepoint, &[]).await.unwrap();
        assert_eq!(sqlstate(&client, "select 1 / 0").await, "22012");
        kill_backend(&cluster, "select 1 / 0").await;
        client.simple_query("rollback to sa_savepoint_1").await.unwrap();
        client.simple_query("commit").await.unwrap();
        assert_eq!(value(&client, "select count(*) from t").await, n.to_string());
    }
    assert_eq!(proxy.db().replays_total, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_was_open_goes_on_where_nothing_it_had_read_has_changed() {
    let (mut primary, standby, proxy) = pair();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int primary key, b text)").await.unwrap();
    client.simple_query("insert into t values (1, 'one')").await.unwrap();
    let update = client.prepare("update t set b = $1 where a = 1").await.unwrap();
    client.simple_query("begin").await.unwrap();
    assert_eq!(value(&client, "select b from t").await, "one");
    client.execute(&update, &[&"two"]).await.unwrap();
    let insert = "insert into t select n, 'x' from generate_series(10, 19) n returning a";
    client.query(insert, &[]).await.unwrap();

    primary.kill();
    take_over(&standby);
    move_to(&proxy, &standby, 2);
    assert_eq!(value(&client, "select b from t where a = 1").await, "two");
    client.simple_query("commit").await.unwrap();
    assert_eq!(standby.sql("select count(*) from t where b in ('x', 'two')"), "11");
    assert_eq!(proxy.db().replays_total, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_past_has_changed_fails_with_40001_and_its_block_must_be_ended() {
    let (cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    client.simple_query("begin").await.unwrap();
    let pid = value(&client, PID).await;
    client.simple_query("insert into t values (1)").await.unwrap();
    signal("-TERM", pid.parse().unwrap());

    // It has read the number of a process that is gone.
    assert_eq!(sqlstate(&client, "select count(*) from t").await, "40001");
    assert_eq!(sqlstate(&client, "insert into t values (2)").await, "25P02");
    client.simple_query("rollback").await.unwrap();
    assert_eq!(value(&client, "select count(*) from t").await, "0");
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_too_long_to_repeat_fails_with_40001() {
    let (cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    client.simple_query("begin").await.unwrap();
    for n in 0..20 {
        client.execute("insert into t values ($1)", &[&n]).await.unwrap();
    }
    let query = "select count(*), pg_sleep(60) from t";
    let (outcome, ()) = tokio::join!(sqlstate(&client, query), kill_backend(&cluster, query));
    assert_eq!(outcome, "40001");
    client.simple_query("rollback").await.unwrap();
    assert_eq!(value(&client, "select count(*) from t").await, "0");
}

/// What may commit by itself, or is more than one statement, has no place where it could be asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_outcome_nobody_knows_is_said_to_be_unknown_and_never_repeated() {
    let (cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    for query in [
        "create table u as select 1 as a from pg_sleep(60)",
        "insert into t values (1); insert into t select 2 from pg_sleep(60)",
    ] {
        let (outcome, ()) = tokio::join!(sqlstate(&client, query), kill_backend(&cluster, query));
        assert_eq!(outcome, "08007", "{query}");
    }
    assert_eq!(value(&client, "select count(*) from t").await, "0");
    assert_eq!(proxy.db().unknown_outcomes_total, 2);
}

/// A COMMIT that is done at the primary and that nobody has confirmed.
async fn commit_that_waits_for_the_standby(client: Client, primary: &Cluster) -> JoinHandle<Client> {
    let commit = tokio::spawn(async move {
        client.simple_query("commit").await.unwrap();
        client
    });
    until_it_waits_for_the_standby(primary).await;
    commit
}

pub async fn until_it_waits_for_the_standby(primary: &Cluster) {
    within("it waits for the standby", async {
        while primary.sql("select count(*) from pg_stat_activity where wait_event = 'SyncRep'") == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The standby has the whole of what waits for it; it has not replayed it.
pub async fn until_the_standby_has_what_waits_for_it(primary: &Cluster, standby: &Cluster) {
    until_it_waits_for_the_standby(primary).await;
    let flushed = primary.sql("select pg_current_wal_flush_lsn()");
    within("the standby has it", async {
        while standby.sql(&format!("select pg_last_wal_receive_lsn() >= '{flushed}'")) != "t" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The standby has the commit, the primary has not heard so, and the client has heard nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_answered_by_the_next_primary_and_done_once() {
    let (mut primary, standby, proxy) = pair();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    client.simple_query("set synchronous_commit to 'remote_apply'").await.unwrap();
    // What is written arrives at the standby, but is not applied there, which is what this client waits for.
    standby.sql("select pg_wal_replay_pause()");
    client.simple_query("begin").await.unwrap();
    client.simple_query("insert into t values (1)").await.unwrap();
    let commit = commit_that_waits_for_the_standby(client, &primary).await;
    primary.kill();
    standby.sql("select pg_wal_replay_resume()");
    take_over(&standby);
    move_to(&proxy, &standby, 2);
    let client = commit.await.unwrap();
    assert_eq!(value(&client, "select count(*) from t").await, "1");
    assert_eq!(proxy.db().settled_commits_total, 1);
}

/// Some drivers and people send what opens the block with its first statement, as one Query.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_was_opened_with_its_first_write_is_committed_once() {
    let (mut primary, standby, proxy) = pair();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    client.simple_query("set synchronous_commit to 'remote_apply'").await.unwrap();
    standby.sql("select pg_wal_replay_pause()");
    client.simple_query("begin; insert into t values (1)").await.unwrap();
    let commit = commit_that_waits_for_the_standby(client, &primary).await;
    primary.kill();
    standby.sql("select pg_wal_replay_resume()");
    take_over(&standby);
    move_to(&proxy, &standby, 2);
    let client = commit.await.unwrap();
    assert_eq!(value(&client, "select count(*) from t").await, "1");
    assert_eq!((proxy.db().settled_commits_total, proxy.db().replays_total), (1, 0));
}

/// The block that is lost is not all that the client has sent since it began: what is committed stays as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_chained_commit_has_done_is_not_run_again_with_the_next_block() {
    for chained in ["commit and chain", "commit; begin"] {
        let (mut primary, standby, proxy) = pair();
        let client = proxy.connect().await.unwrap();
        client.simple_query("create table t (a int)").await.unwrap();
        for sql in ["begin", "insert into t values (1)", chained, "insert into t values (2)"] {
            client.simple_query(sql).await.unwrap();
        }
        primary.kill();
        take_over(&standby);
        move_to(&proxy, &standby, 2);
        assert_eq!(sqlstate(&client, "insert into t values (3)").await, "40001", "{chained}");
        client.simple_query("rollback").await.unwrap();
        assert_eq!(value(&client, "select string_agg(a::text, ' ') from t").await, "1", "{chained}");
    }
}

/// The other way round: the commit died with the primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_lost_with_the_primary_is_done_again_and_once() {
    let (mut primary, standby, proxy) = pair();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    client.simple_query("begin").await.unwrap();
    client.simple_query("insert into t values (1)").await.unwrap();
    // Nothing arrives any more.
    let receiver = primary.sql("select pid from pg_stat_replication").parse().unwrap();
    signal("-STOP", receiver);
    let commit = commit_that_waits_for_the_standby(client, &primary).await;
    primary.kill();
    take_over(&standby);
    move_to(&proxy, &standby, 2);
    let client = commit.await.unwrap();
    assert_eq!(value(&client, "select count(*) from t").await, "1");
    assert_eq!(proxy.db().settled_commits_total, 0);
    assert_eq!(proxy.db().replays_total, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_state_was_lost_is_told_so_and_closed() {
    let (cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create temp table mine (a int)").await.unwrap();
    let pid = value(&client, PID).await;
    signal("-TERM", pid.parse().unwrap());
    within("the session is closed", async {
        while !client.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    proxy.until(|db| db.clients == 0).await;
    drop(cluster);
}

/// A row too large to wait for is forwarded as it comes, and what is lost of it cannot be made up for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_connection_is_lost_within_a_row_ends_without_a_word() {
    let (cluster, proxy) = running();
    let mut raw = Raw::connect(&proxy).await;
    let query = "select repeat('x', 100000000)";
    raw.say(b'Q', format!("{query}\0").as_bytes()).await;
    assert_eq!(raw.read().await.0, b'T');
    let row = raw.rest_after(async || kill_backend(&cluster, query).await).await;
    assert_eq!(row[0], b'D');
    assert!(row.len() < 100_000_000, "all of it was sent");
    assert!(row[11..].iter().all(|&byte| byte == b'x'), "something else was written into the row");
}

/// A statement in flight whose rows were begun cannot be taken back; the session goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_whose_rows_have_begun_fails_and_leaves_the_session_usable() {
    let (cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    let query = "select repeat('x', 1000), pg_sleep(n / 10000) from generate_series(1, 600000) n";
    let mut rows = std::pin::pin!(client.simple_query_raw(query).await.unwrap());
    while !matches!(rows.next().await, Some(Ok(SimpleQueryMessage::Row(_)))) {}
    kill_backend(&cluster, query).await;
    let outcome = loop {
        if let Err(error) = rows.next().await.expect("it ends with an error") {
            break error.code().unwrap().clone();
        }
    };
    assert_eq!(outcome.code(), "40001");
    assert_eq!(value(&client, "select 1").await, "1");
}

/// Every client commits its own numbers, one after another, and notes which were acknowledged. Nodes die at random.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_transaction_is_lost_or_done_twice_while_the_server_is_killed_again_and_again() {
    let (mut cluster, proxy) = running();
    let setup = proxy.connect().await.unwrap();
    setup.simple_query("create table t (client int, n int)").await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let clients: Vec<_> = (0..4)
        .map(|id: i32| {
            let (url, stop) = (proxy.url(), stop.clone());
            tokio::spawn(async move {
                let (client, connection) =
                    tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
                tokio::spawn(connection);
                let mut acknowledged = Vec::new();
                let mut n = 0;
                while !stop.is_cancelled() {
                    n += 1;
                    client.simple_query("begin").await.unwrap();
                    client.simple_query(&format!("insert into t values ({id}, {n})")).await.unwrap();
                    client.simple_query("commit").await.unwrap();
                    acknowledged.push(n);
                }
                (id, acknowledged)
            })
        })
        .collect();
    for round in 0..5 {
        tokio::time::sleep(Duration::from_millis(150 + 37 * round)).await;
        cluster = cluster.crash().await;
    }
    stop.cancel();
    for client in clients {
        let (id, acknowledged) = client.await.unwrap();
        let there = cluster.sql(&format!("select n from t where client = {id} order by n"));
        let there: Vec<i32> = there.lines().map(|n| n.parse().unwrap()).collect();
        assert_eq!(there, acknowledged);
        assert!(!acknowledged.is_empty(), "client {id} was never served");
    }
    let db = proxy.db();
    assert!(db.replays_total + db.settled_commits_total > 0, "{db:?}");
}

//! Writes without a block, which are what most apps do, and the primary is lost under them.

use futures_util::future::join_all;
use pgproxy::{Database, Promotion};
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, signal};
use crate::failover::{
    move_to, pair, take_over, until_it_waits_for_the_standby, until_the_standby_has_what_waits_for_it,
};
use crate::proxy::{Proxy, config, of, running, sqlstate, start, value, within};
use crate::wire::{Raw, ToSay};

/// How a client sends its statements.
#[derive(Debug, Clone, Copy)]
enum Sends {
    Simple,
    Extended,
    Prepared,
}

const ALL: [Sends; 3] = [Sends::Simple, Sends::Extended, Sends::Prepared];

/// `kept` has what a client has added, and `counted` how often it has counted. What is `gone` was there for a moment.
const TABLES: &str =
    "create table kept (client int, n int, unique (client, n) deferrable initially deferred);
     create table gone (client int, n int);
     create table counted (client int primary key, n int not null)";

/// Adds, counts, and moves one row, each by a statement of its own, until it is told to stop. Gives how many it was told
/// are done, each once.
async fn write(proxy_url: String, client: i32, sends: Sends, stop: CancellationToken) -> i32 {
    let (connected, connection) = tokio_postgres::connect(&proxy_url, NoTls).await.unwrap();
    tokio::spawn(connection);
    run(&connected, sends, &format!("insert into counted values ({client}, 0)")).await;
    let mut n = 0;
    loop {
        n += 1;
        let texts = [
            format!("insert into kept values ({client}, {n})"),
            format!("insert into gone values ({client}, {n}) returning n"),
            format!("update counted set n = n + 1 where client = {client}"),
            format!("delete from gone where client = {client} and n = {n}"),
        ];
        for text in texts {
            assert_eq!(run(&connected, sends, &text).await, 1, "{text}");
        }
        if stop.is_cancelled() {
            return n;
        }
    }
}

/// How many rows were affected.
async fn run(client: &Client, sends: Sends, sql: &str) -> u64 {
    match sends {
        Sends::Simple => {
            let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            let complete = messages.iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
                _ => None,
            });
            complete.unwrap_or_default()
        }
        Sends::Extended => {
            let statement = client.execute_typed(sql, &[]).await;
            statement.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        }
        Sends::Prepared => {
            let statement = client.prepare(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            client.execute(&statement, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        }
    }
}

fn check(cluster: &Cluster, client: i32, acknowledged: i32) {
    let there =
        cluster.sql(&format!("select count(*), count(distinct n), max(n) from kept where client = {client}"));
    assert_eq!(there, format!("{acknowledged}|{acknowledged}|{acknowledged}"), "client {client}");
    assert_eq!(
        cluster.sql(&format!("select n from counted where client = {client}")),
        acknowledged.to_string()
    );
    assert_eq!(cluster.sql(&format!("select count(*) from gone where client = {client}")), "0");
}

fn writers(proxy: &Proxy, stop: &CancellationToken) -> Vec<tokio::task::JoinHandle<i32>> {
    let each = (0..6).zip(ALL.into_iter().cycle());
    each.map(|(client, sends)| tokio::spawn(write(proxy.url(), client, sends, stop.clone()))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_without_a_block_fails_is_lost_or_doubled_while_the_server_is_killed_again_and_again() {
    let (mut cluster, proxy) = running();
    cluster.sql(&format!("set role app; {TABLES}"));
    let stop = CancellationToken::new();
    let clients = writers(&proxy, &stop);
    for round in 0..8 {
        until_more_were_served(&proxy, 60 + 7 * round).await;
        cluster = cluster.crash().await;
    }
    stop.cancel();
    for (client, acknowledged) in (0..).zip(join_all(clients).await) {
        check(&cluster, client, acknowledged.unwrap());
    }
    assert!(proxy.db().replays_total > 0, "{:?}", proxy.db());
    assert_eq!(proxy.db().unknown_outcomes_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_without_a_block_fails_is_lost_or_doubled_when_standbys_take_over() {
    let (mut primary, mut standby, proxy) = pair();
    primary.sql(&format!("set role app; {TABLES}"));
    let stop = CancellationToken::new();
    let clients = writers(&proxy, &stop);
    for generation in 2..5 {
        until_more_were_served(&proxy, 100).await;
        primary.kill();
        take_over(&standby);
        move_to(&proxy, &standby, generation);
        primary = standby;
        standby = primary.standby();
        primary.sql("alter system set synchronous_standby_names = '*'");
        primary.sql("select pg_reload_conf()");
    }
    stop.cancel();
    for (client, acknowledged) in (0..).zip(join_all(clients).await) {
        check(&primary, client, acknowledged.unwrap());
    }
    assert_eq!(proxy.db().unknown_outcomes_total, 0);
}

/// While everybody writes, and at no particular moment of any write.
async fn until_more_were_served(proxy: &Proxy, requests: u64) {
    let before = proxy.db().requests_total;
    proxy.until(|db| db.requests_total >= before + requests).await;
}

/// The commit is done and nobody has confirmed it: what the client gets is what the lost server had said before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_committed_and_not_answered_is_answered_by_what_was_held() {
    for sends in ALL {
        let (mut primary, standby, proxy) = pair();
        let client = proxy.connect().await.unwrap();
        client.simple_query("create table t (a int)").await.unwrap();
        client.simple_query("set synchronous_commit to 'remote_apply'").await.unwrap();
        standby.sql("select pg_wal_replay_pause()");
        let insert = "insert into t select n from generate_series(1, 3) n returning a";
        let write = tokio::spawn(async move {
            assert_eq!(run(&client, sends, insert).await, 3);
            client
        });
        until_the_standby_has_what_waits_for_it(&primary, &standby).await;
        primary.kill();
        standby.sql("select pg_wal_replay_resume()");
        take_over(&standby);
        move_to(&proxy, &standby, 2);
        let client = write.await.unwrap();
        assert_eq!(value(&client, "select count(*) from t").await, "3", "{sends:?}");
        assert_eq!(proxy.db().settled_commits_total, 1, "{sends:?}");
    }
}

/// The other way round: the commit died with the primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_lost_with_the_primary_is_done_again_and_once() {
    for sends in ALL {
        let (mut primary, standby, proxy) = pair();
        let client = proxy.connect().await.unwrap();
        client.simple_query("create table t (a int)").await.unwrap();
        let receiver = primary.sql("select pid from pg_stat_replication").parse().unwrap();
        signal("-STOP", receiver);
        let write = tokio::spawn(async move {
            assert_eq!(run(&client, sends, "insert into t values (1)").await, 1);
            client
        });
        until_it_waits_for_the_standby(&primary).await;
        primary.kill();
        take_over(&standby);
        move_to(&proxy, &standby, 2);
        let client = write.await.unwrap();
        assert_eq!(value(&client, "select count(*) from t").await, "1", "{sends:?}");
        assert_eq!((proxy.db().settled_commits_total, proxy.db().replays_total), (0, 1), "{sends:?}");
    }
}

/// Its own node says that it is committed, and so it is, there alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_no_standby_has_is_not_acknowledged_because_its_own_node_knows_it() {
    is_lost_with_its_node_and_done_again(Cut::ByTheNode("pg_terminate_backend")).await;
}

/// To PostgreSQL a cancelled query that only waits for its standby is one that has succeeded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_no_standby_has_is_not_acknowledged_because_its_wait_is_cancelled() {
    is_lost_with_its_node_and_done_again(Cut::ByTheNode("pg_cancel_backend")).await;
}

/// PostgreSQL warns of that, but not those who hear no warnings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_no_standby_has_is_not_acknowledged_to_a_client_that_cancels_and_hears_no_warning() {
    is_lost_with_its_node_and_done_again(Cut::ByADeafClient).await;
}

/// Who ends the wait for the standby.
#[derive(Clone, Copy)]
enum Cut {
    ByTheNode(&'static str),
    ByADeafClient,
}

/// A write of which nobody but its node knows, and that node ends after the `cut` of whoever waits for the standby.
async fn is_lost_with_its_node_and_done_again(cut: Cut) {
    let (mut primary, standby, proxy) = pair();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    if matches!(cut, Cut::ByADeafClient) {
        client.simple_query("set client_min_messages to error").await.unwrap();
    }
    let token = client.cancel_token();
    let receiver = primary.sql("select pid from pg_stat_replication").parse().unwrap();
    signal("-STOP", receiver);
    let write = tokio::spawn(async move {
        client.simple_query("insert into t values (1)").await.unwrap();
        client
    });
    until_it_waits_for_the_standby(&primary).await;
    let waiting = "select pid from pg_stat_activity where wait_event = 'SyncRep'";
    let first = primary.sql(waiting);
    match cut {
        Cut::ByTheNode(function) => drop(primary.sql(&format!("select {function}({first})"))),
        Cut::ByADeafClient => token.cancel_query(NoTls).await.unwrap(),
    }
    // Somebody else waits for the standby now, or nobody does, because it was acknowledged.
    within("somebody else waits for the standby", async {
        while !write.is_finished() && ["", &first].contains(&primary.sql(waiting).as_str()) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    primary.kill();
    take_over(&standby);
    move_to(&proxy, &standby, 2);
    let client = write.await.unwrap();
    assert_eq!(value(&client, "select count(*) from t").await, "1");
}

/// Of several statements in one Query nobody can say which of them was committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_commits_and_is_cancelled_by_a_client_that_hears_no_warning_is_of_unknown_outcome() {
    let (primary, _standby, proxy) = pair();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    client.simple_query("set client_min_messages to error").await.unwrap();
    let token = client.cancel_token();
    let receiver = primary.sql("select pid from pg_stat_replication").parse().unwrap();
    signal("-STOP", receiver);
    let write =
        tokio::spawn(async move { sqlstate(&client, "begin; insert into t values (1); commit").await });
    until_it_waits_for_the_standby(&primary).await;
    token.cancel_query(NoTls).await.unwrap();
    let outcome = write.await.unwrap();
    signal("-CONT", receiver);
    assert_eq!(outcome, "08007");
}

/// More than the proxy holds, so the client has most of them before the commit.
const MANY_ROWS: &str =
    "insert into t select n, repeat('x', 1000) from generate_series(1, 5000) n returning *";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_committed_is_answered_though_most_of_its_rows_were_given_away() {
    let (mut primary, standby, proxy) = pair();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int, b text)").await.unwrap();
    client.simple_query("set synchronous_commit to 'remote_apply'").await.unwrap();
    standby.sql("select pg_wal_replay_pause()");
    let write = tokio::spawn(async move { (client.query(MANY_ROWS, &[]).await.unwrap().len(), client) });
    until_the_standby_has_what_waits_for_it(&primary, &standby).await;
    primary.kill();
    standby.sql("select pg_wal_replay_resume()");
    take_over(&standby);
    move_to(&proxy, &standby, 2);
    let (rows, client) = write.await.unwrap();
    assert_eq!(rows, 5000);
    assert_eq!(value(&client, "select count(*) from t").await, "5000");
    assert_eq!(proxy.db().settled_commits_total, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_lost_after_its_rows_were_given_away_fails_with_40001() {
    let (mut primary, standby, proxy) = pair();
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int, b text)").await.unwrap();
    let receiver = primary.sql("select pid from pg_stat_replication").parse().unwrap();
    signal("-STOP", receiver);
    let write = tokio::spawn(async move { (sqlstate(&client, MANY_ROWS).await, client) });
    until_it_waits_for_the_standby(&primary).await;
    primary.kill();
    take_over(&standby);
    move_to(&proxy, &standby, 2);
    let (outcome, client) = write.await.unwrap();
    assert_eq!(outcome, "40001");
    assert_eq!(value(&client, "select count(*) from t").await, "0");
}

/// Otherwise it would take down one connection after the other, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_ends_its_own_connection_each_time_fails_with_40001() {
    let (_cluster, proxy) = running();
    let client = proxy.connect().await.unwrap();
    assert_eq!(sqlstate(&client, "select pg_terminate_backend(pg_backend_pid())").await, "40001");
    assert_eq!(value(&client, "select 1").await, "1");
    assert_eq!(proxy.db().replays_total, 8);
}

/// Another proxy serves the same database. Gives it, and a client of it.
async fn beside(primary: &Cluster) -> (Proxy, Client) {
    let proxy = start(of(primary));
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table beside (a int)").await.unwrap();
    (proxy, client)
}

/// As the supervisor sees it, before anybody else is told of the new primary.
fn promotion(promoted: &Cluster) -> Promotion {
    let timeline = promoted.sql("select left(pg_walfile_name(pg_current_wal_lsn()), 8)");
    let first_xid = promoted.sql("select pg_snapshot_xmax(pg_current_snapshot())");
    Promotion { timeline: u32::from_str_radix(&timeline, 16).unwrap(), first_xid: first_xid.parse().unwrap() }
}

/// Tells a proxy, which is one of two, that `cluster` is the primary of the second epoch, and what is known of that.
fn move_one_of_two(proxy: &Proxy, cluster: &Cluster, promotion: Option<Promotion>) {
    let promotions = promotion.map(|promotion| (2, promotion)).into_iter().collect();
    let database = Database { epoch: 2, is_shared: true, promotions, ..of(cluster) };
    proxy.handle.configure(config(2, database)).unwrap();
}

/// A write that `standby` has and nobody has heard of, of a proxy that is one of two. How it ends.
async fn committed_beside_another(is_promotion_known: bool) -> (u64, Proxy, String) {
    let (mut primary, standby, proxy) = pair();
    let (other, beside) = beside(&primary).await;
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    client.simple_query("set synchronous_commit to 'remote_apply'").await.unwrap();
    standby.sql("select pg_wal_replay_pause()");
    let write = tokio::spawn(async move { outcome(&client, "insert into t values (1)").await });
    until_the_standby_has_what_waits_for_it(&primary, &standby).await;
    primary.kill();
    standby.sql("select pg_wal_replay_resume()");
    take_over(&standby);
    let promotion = promotion(&standby);
    move_one_of_two(&other, &standby, Some(promotion));
    for a in 0..20 {
        beside.simple_query(&format!("insert into beside values ({a})")).await.unwrap();
    }
    move_one_of_two(&proxy, &standby, is_promotion_known.then_some(promotion));
    let ended = write.await.unwrap();
    let count = standby.sql("select count(*) from t").parse().unwrap();
    (count, proxy, ended)
}

/// `done`, or the SQLSTATE.
async fn outcome(client: &Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Ok(_) => "done".to_owned(),
        Err(error) => error.code().unwrap_or_else(|| panic!("{sql}: {error:?}")).code().to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_another_proxy_a_write_that_was_committed_is_answered() {
    let (count, proxy, ended) = committed_beside_another(true).await;
    assert_eq!((count, ended.as_str()), (1, "done"));
    assert_eq!(proxy.db().settled_commits_total, 1);
}

/// As without a supervisor, or when it was killed between the promotion and writing that down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_another_proxy_a_write_stays_unknown_where_the_promotion_is() {
    let (count, proxy, ended) = committed_beside_another(false).await;
    assert_eq!((count, ended.as_str()), (1, "08007"));
    assert_eq!(proxy.db().unknown_outcomes_total, 1);
}

/// The new primary has given its id to a client of the other proxy, whose transaction it knows as committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_another_proxy_a_write_that_was_lost_is_done_again_though_its_id_was_given_again() {
    let (mut primary, standby, proxy) = pair();
    let (other, beside) = beside(&primary).await;
    let client = proxy.connect().await.unwrap();
    client.simple_query("create table t (a int)").await.unwrap();
    let receiver = primary.sql("select pid from pg_stat_replication").parse().unwrap();
    signal("-STOP", receiver);
    // So many ids are lost with it, and the other proxy's connections do not take them all.
    for _ in 0..40 {
        primary.sql("begin; select pg_current_xact_id(); rollback");
    }
    let write = tokio::spawn(async move {
        client.simple_query("insert into t values (1)").await.unwrap();
        client
    });
    until_it_waits_for_the_standby(&primary).await;
    let xid = primary.sql("select backend_xid from pg_stat_activity where wait_event = 'SyncRep'");
    primary.kill();
    take_over(&standby);
    let promotion = promotion(&standby);
    move_one_of_two(&other, &standby, Some(promotion));
    let is_given = format!("select pg_snapshot_xmax(pg_current_snapshot()) > '{xid}'::xid8");
    within("the id is given again", async {
        while standby.sql(&is_given) == "f" {
            beside.simple_query("insert into beside values (1)").await.unwrap();
        }
    })
    .await;
    assert_eq!(standby.sql(&format!("select pg_xact_status('{xid}'::xid8)")), "committed", "{promotion:?}");
    move_one_of_two(&proxy, &standby, Some(promotion));
    let client = write.await.unwrap();
    assert_eq!(value(&client, "select count(*) from t").await, "1");
    let db = proxy.db();
    assert_eq!((db.settled_commits_total, db.replays_total, db.unknown_outcomes_total), (0, 1, 0));
}

/// They say how far it is, to somebody who watches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_notices_of_a_write_come_while_it_runs_however_many_there_are() {
    const MANY: usize = 1_000;
    let (_cluster, proxy) = running();
    let holder = proxy.connect().await.unwrap();
    holder
        .batch_execute(
            "create table t (a int);
             create function noisy() returns int language plpgsql as $$ begin
                 for n in 1..1000 loop raise notice '%', repeat('x', 1000); end loop;
                 perform pg_advisory_xact_lock(7);
                 return 1;
             end $$",
        )
        .await
        .unwrap();
    holder.simple_query("select pg_advisory_lock(7)").await.unwrap();
    let mut raw = Raw::connect(&proxy).await;
    let insert: [ToSay<'_>; 4] =
        [(b'P', b"\0insert into t select noisy()\0\0\0"), (b'B', &[0; 8]), (b'E', &[0; 5]), (b'S', b"")];
    raw.say_at_once(&insert).await;
    let mut notices = 0;
    within("most of the notices", async {
        // Up to the limit they are held.
        while notices < MANY - 100 {
            notices += usize::from(raw.read().await.0 == b'N');
        }
    })
    .await;
    holder.simple_query("select pg_advisory_unlock(7)").await.unwrap();
    let rest = raw.answer().await;
    assert_eq!(notices + rest.matches('N').count(), MANY);
    assert!(rest.ends_with("NCZI"), "{rest}");
}

/// The id of its transaction is asked for in the block of the client's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_an_error_of_the_proxys_question_has_made_a_rollback_is_answered_by_that_error() {
    const SYNC: ToSay<'_> = (b'S', b"");
    const RUN: [ToSay<'_>; 3] = [(b'B', &[0; 8]), (b'E', &[0; 5]), SYNC];
    let cluster = Cluster::create();
    let proxy = start(Database { pool_size: 1, ..of(&cluster) });
    let mut raw = Raw::connect(&proxy).await;
    let begun: [(ToSay<'_>, &str); 2] =
        [((b'Q', b"begin\0"), "CZT"), ((b'Q', b"insert into t values (1)\0"), "CZT")];
    raw.say_at_once(&[(b'Q', b"create table t (a int)\0"), (b'P', b"end\0commit\0\0\0"), SYNC]).await;
    for expected in ["CZI", "1ZI"] {
        assert_eq!(raw.answer().await, expected);
    }
    // Unseen in a function, it takes the question away, which then fails for certain.
    let forget: ToSay<'_> = (b'Q', b"do $$ begin execute 'deallocate all'; end $$\0");
    let commits: [(&[ToSay<'_>], &[&str]); 4] = [
        (&[(b'Q', b"commit\0")], &["EZI"]),
        (&[&[(b'P', &b"\0commit\0\0\0"[..])], &RUN[..]].concat(), &["EZE"]),
        (&[&[(b'P', &b"\0commit\0\0\0"[..]), SYNC], &RUN[..]].concat(), &["EZE", "EZE"]),
        (&[(b'B', b"\0end\0\0\0\0\0\0\0"), (b'E', &[0; 5]), SYNC], &["EZE"]),
    ];
    let rows = "select count(*) from t";
    for (committed, (commit, answers)) in commits.into_iter().enumerate() {
        for is_forgotten in [false, true] {
            for (request, expected) in begun {
                raw.say_at_once(&[request]).await;
                assert_eq!(raw.answer().await, expected);
            }
            if !is_forgotten {
                raw.say_at_once(&[(b'Q', b"commit\0")]).await;
                assert_eq!(raw.answer().await, "CZI", "it is asked anew");
                continue;
            }
            raw.say_at_once(&[forget]).await;
            assert_eq!(raw.answer().await, "CZT");
            raw.say_at_once(commit).await;
            for expected in answers {
                let answer = raw.whole_answer().await;
                assert_eq!(answer[0].0, b'E', "{answer:?}");
                let tags: String = answer.iter().map(|(tag, _)| *tag as char).collect();
                assert_eq!(tags + &(answer[answer.len() - 1].1[0] as char).to_string(), *expected);
            }
            raw.say_at_once(&[(b'Q', b"rollback\0")]).await;
            raw.answer().await;
        }
        assert_eq!(cluster.sql(rows), (committed + 1).to_string());
    }
}

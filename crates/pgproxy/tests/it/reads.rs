//! Reads of an app that knows nothing of replicas, and what it must not notice of them.

use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use pgproxy::{Database, DatabaseStatus, Node, NodeState, Role, Upstream};
use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::proxy::{Proxy, of, sqlstate, start, value, within};
use crate::wire::Raw;

/// The app's table, and a function by which a statement says where it runs. PostgreSQL's own would be asked of the
/// primary.
pub const SCHEMA: &str = "create table t (id int primary key, a int not null default 0); insert into t values (1); \
     create function standby() returns bool stable language sql as 'select pg_is_in_recovery()';";
pub const WHERE: &str = "select standby() from t where id = 1";

pub const REPLICA: &str = "db.2";
pub const OTHER: &str = "db.3";

pub fn node(cluster: &Cluster, role: Role) -> Node {
    Node { upstream: Upstream::Unix(cluster.socket()), zone: None, role }
}

pub fn with_replica(primary: &Cluster, replica: &Cluster) -> Database {
    let mut database = of(primary);
    database.nodes.insert(REPLICA.to_owned(), node(replica, Role::ReadReplica));
    database
}

/// A primary and a read replica behind a proxy that knows both.
pub async fn split() -> (Cluster, Cluster, Proxy) {
    split_with(|_| {}).await
}

/// The same, and the replica counts as two. So each is asked behind every read how far it has come.
pub async fn split_in_two() -> (Cluster, Cluster, Proxy) {
    split_with(|database| {
        let node = database.nodes[REPLICA].clone();
        database.nodes.insert(OTHER.to_owned(), node);
    })
    .await
}

pub async fn split_with(change: impl FnOnce(&mut Database)) -> (Cluster, Cluster, Proxy) {
    let primary = Cluster::create();
    let replica = primary.standby();
    let mut database = with_replica(&primary, &replica);
    // So that a busy machine decides nothing: a replica that follows is waited for.
    (database.read_wait_ms, database.max_replica_lag_ms) = (30_000, 3_600_000);
    change(&mut database);
    let proxy = start(database);
    let client = proxy.connect().await.unwrap();
    client.simple_query(SCHEMA).await.unwrap();
    until_reads_land(&client).await;
    (primary, replica, proxy)
}

/// Until the proxy has read what the names stand for, and the replica has everything.
pub async fn until_reads_land(client: &Client) {
    within("reads land on a replica", async {
        while value(client, WHERE).await != "t" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// On replicas.
pub fn reads(proxy: &Proxy) -> u64 {
    let nodes = proxy.db().nodes;
    let replicas = nodes.values().filter(|node| node.role == Role::ReadReplica);
    replicas.map(|node| node.statements_total["read"]).sum()
}

fn repaired(proxy: &Proxy) -> u64 {
    proxy.db().nodes[REPLICA].repaired_total
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_to_the_replica_by_every_protocol_and_everything_else_to_the_primary() {
    let (_primary, _replica, proxy) = split().await;
    let client = proxy.connect().await.unwrap();
    client
        .simple_query(
            "create function unsure() returns bool volatile language sql as 'select pg_is_in_recovery()'",
        )
        .await
        .unwrap();
    client.simple_query("create sequence s").await.unwrap();
    until_reads_land(&client).await;

    assert_eq!(value(&client, "with x as (select 1) select standby() from x, t").await, "t");
    assert!(client.query_one(WHERE, &[]).await.unwrap().get::<_, bool>(0));
    let prepared = client.prepare("select standby() from t where id = $1").await.unwrap();
    for _ in 0..3 {
        assert!(client.query_one(&prepared, &[&1]).await.unwrap().get::<_, bool>(0));
    }
    for (statement, answer) in [
        ("insert into t values (2) returning standby()", "f"),
        ("update t set a = 1 where id = 2 returning standby()", "f"),
        ("select standby() from t for update", "f"),
        ("select standby() from t for share", "f"),
        ("with x as (delete from t where id = 2 returning *) select standby() from x", "f"),
        ("select unsure()", "f"),
        ("select pg_is_in_recovery()", "f"),
        ("select standby(), nextval('s')", "f"),
        ("select standby(), pg_advisory_xact_lock(1)", "f"),
        ("/* switchback: primary */ select standby() from t", "f"),
        ("/* switchback: replica */ select unsure()", "t"),
        ("select standby() from t limit 1; select 2", "t"),
    ] {
        assert_eq!(value(&client, statement).await, answer, "{statement}");
    }
    let stream = client.copy_out("copy (select standby() from t) to stdout").await.unwrap();
    pin_mut!(stream);
    assert_eq!(stream.next().await.unwrap().unwrap(), "t\n");
    assert_eq!(repaired(&proxy), 0);
}

/// An app keeps its connections for long, and a proxy that was replaced with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_a_draining_proxy_still_reads_on_replicas() {
    let (_primary, _replica, proxy) = split().await;
    let client = proxy.connect().await.unwrap();
    let draining = proxy.handle.drain(Duration::from_secs(60));
    let using = async {
        within("it drains", async {
            while !proxy.handle.status().draining {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        // What was proven before the drain does not prove that this is there.
        client.simple_query("insert into t values (2)").await.unwrap();
        let before = reads(&proxy);
        until_reads_land(&client).await;
        assert!(reads(&proxy) > before);
        drop(client);
    };
    tokio::join!(draining, using);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_where_it_began_and_only_one_that_reads_is_on_a_replica() {
    let (_primary, _replica, proxy) = split_in_two().await;
    let client = proxy.connect().await.unwrap();
    for (begin, answer) in [
        ("begin", "f"),
        ("begin isolation level repeatable read", "f"),
        ("begin read only, isolation level serializable", "f"),
        ("begin read only", "t"),
        ("start transaction isolation level repeatable read, read only", "t"),
    ] {
        client.simple_query(begin).await.unwrap();
        for _ in 0..2 {
            assert_eq!(value(&client, WHERE).await, answer, "{begin}");
        }
        client.simple_query("commit").await.unwrap();
    }
    // A cursor, a savepoint and a setting of the transaction belong to it.
    client.simple_query("begin read only").await.unwrap();
    client.simple_query("set local work_mem to '8MB'").await.unwrap();
    client.simple_query("declare c cursor for select standby() from t").await.unwrap();
    client.simple_query("savepoint a").await.unwrap();
    assert_eq!(value(&client, "fetch 1 from c").await, "t");
    assert_eq!(sqlstate(&client, "select 1/0").await, "22012");
    assert_eq!(sqlstate(&client, WHERE).await, "25P02");
    client.simple_query("rollback to a").await.unwrap();
    assert_eq!(value(&client, WHERE).await, "t");
    client.simple_query("commit").await.unwrap();
    assert_eq!(proxy.db().statements_total["opaque"], 0);
}

/// What the replica must not be asked moves the whole transaction, and the client does not hear of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reading_transaction_moves_to_the_primary_when_it_asks_for_what_only_that_can_say() {
    let (_primary, _replica, proxy) = split_in_two().await;
    let client = proxy.connect().await.unwrap();
    for statement in ["select pg_is_in_recovery()", "select pg_advisory_xact_lock(5), standby()"] {
        client.simple_query("begin read only").await.unwrap();
        assert_eq!(value(&client, "select count(*) from t").await, "1");
        client.simple_query(statement).await.unwrap();
        assert_eq!(value(&client, WHERE).await, "f", "{statement}");
        assert_eq!(sqlstate(&client, "insert into t values (7)").await, "25006");
        client.simple_query("rollback").await.unwrap();
    }
    until_reads_land(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_with_state_of_its_own_is_served_by_the_primary() {
    let (_primary, _replica, proxy) = split().await;
    for statement in [
        "create temp table mine (a int)",
        "select pg_advisory_lock(1)",
        "declare c cursor with hold for select 1",
        "prepare p as select 1",
        "listen news",
        "set role app",
        "set switchback.reads to 'primary'",
        "set default_transaction_isolation to 'serializable'",
        "select set_config('switchback.reads', 'primary', false)",
    ] {
        let client = proxy.connect().await.unwrap();
        client.simple_query(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        for _ in 0..3 {
            assert_eq!(value(&client, WHERE).await, "f", "{statement}");
        }
    }
    let client = proxy.connect().await.unwrap();
    client.simple_query("set work_mem to '9MB'").await.unwrap();
    assert_eq!(value(&client, "select current_setting('work_mem') || standby() from t").await, "9MBtrue");
    client.simple_query("set switchback.reads to 'primary'").await.unwrap();
    assert_eq!(value(&client, WHERE).await, "f");
    client.simple_query("reset switchback.reads").await.unwrap();
    assert_eq!(value(&client, WHERE).await, "t");
    let url = format!("{}?options=-c%20switchback.reads%3Dprimary", proxy.url());
    assert_eq!(value(&proxy.connect_with(&url).await.unwrap(), WHERE).await, "f");
}

/// Its volatility is declared wrongly, which PostgreSQL does not see either.
#[tokio::test]
async fn a_write_that_looks_like_a_read_is_run_on_the_primary_and_remembered() {
    let (_primary, _replica, proxy) = split().await;
    let client = proxy.connect().await.unwrap();
    client
        .simple_query(
            "create function writes(n int) returns int volatile language sql \
                 as 'insert into t values (n) returning id'; \
             create function lies(n int) returns int stable language sql as 'select writes(n)'",
        )
        .await
        .unwrap();
    until_reads_land(&client).await;
    // Until the catalog has it, it is unknown, and for the primary.
    let mut n = 10_000;
    within("an answer is repaired", async {
        while repaired(&proxy) == 0 {
            n += 1;
            assert_eq!(value(&client, &format!("select lies({n})")).await, n.to_string());
        }
    })
    .await;
    assert_eq!(value(&client, "select lies(99)").await, "99");
    assert_eq!(repaired(&proxy), 1, "it is judged by its text, whatever its values");
    let prepared = client.prepare("select lies($1)").await.unwrap();
    for expected in 1..=2 {
        assert_eq!(
            client.query_one(&prepared, &[&(200 + expected)]).await.unwrap().get::<_, i32>(0),
            200 + expected
        );
        assert_eq!(repaired(&proxy), 2);
    }
    assert_eq!(value(&client, "select count(*) from t").await, (n - 10_000 + 4).to_string());
}

#[tokio::test]
async fn the_messages_up_to_a_sync_run_at_one_place() {
    let (_primary, _replica, proxy) = split_in_two().await;
    let mut raw = Raw::connect(&proxy).await;
    let statement = |sql: &str| [b"\0", sql.as_bytes(), b"\0\0\0"].concat();
    let mut place = async |statements: &[&str]| {
        for sql in statements {
            raw.say(b'P', &statement(sql)).await;
            raw.say(b'B', &[0; 8]).await;
            raw.say(b'E', &[0; 5]).await;
        }
        raw.say(b'S', b"").await;
        let answer = raw.whole_answer().await;
        let rows = answer.iter().filter(|(tag, _)| *tag == b'D');
        rows.map(|(_, row)| char::from(row[row.len() - 1])).collect::<String>()
    };
    assert_eq!(place(&[WHERE, WHERE]).await, "tt");
    assert_eq!(place(&[WHERE, "update t set a = 5 returning standby()", WHERE]).await, "fff");
    assert_eq!(place(&[WHERE]).await, "t");
    assert_eq!(place(&["begin read only", WHERE]).await, "t");
    assert_eq!(place(&[WHERE, "commit"]).await, "t");

    // Many requests at once, of which each is placed for itself.
    for sql in [WHERE, "update t set a = 6 returning standby()", WHERE, WHERE] {
        raw.say(b'Q', &[sql.as_bytes(), b"\0"].concat()).await;
    }
    for _ in 0..4 {
        assert_eq!(raw.answer().await, "TDCZI");
    }
    // Closing comes before the statement that decides.
    raw.say(b'Q', &[WHERE.as_bytes(), b"\0"].concat()).await;
    raw.say(b'C', b"Snone\0").await;
    raw.say(b'P', &statement("update t set a = 7 returning standby()")).await;
    raw.say(b'B', &[0; 8]).await;
    raw.say(b'E', &[0; 5]).await;
    raw.say(b'S', b"").await;
    assert_eq!((raw.answer().await.as_str(), raw.answer().await.as_str()), ("TDCZI", "312DCZI"));
    // A request that comes in pieces, and one whose beginning wants an answer before its end.
    raw.say(b'P', &statement(WHERE)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    raw.say(b'B', &[0; 8]).await;
    raw.say(b'E', &[0; 5]).await;
    raw.say(b'S', b"").await;
    assert_eq!(raw.answer().await, "12DCZI");
    raw.say(b'P', &statement(WHERE)).await;
    raw.say(b'H', b"").await;
    assert_eq!(raw.read().await.0, b'1');
    raw.say(b'S', b"").await;
    assert_eq!(raw.answer().await, "ZI");
}

/// What replicas could take over is to be known before there are any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_replicas_reads_are_told_from_writes_while_somebody_watches() {
    let primary = Cluster::create();
    let proxy = start(of(&primary));
    let client = proxy.connect().await.unwrap();
    // A function, of which words alone do not tell whether it writes.
    let read = "select sum(n) from generate_series(1, 9) n";
    within("it is known for a read", async {
        let reads = || proxy.handle.watch_load()["db"].primary.requests_total.get("read").copied();
        while reads().unwrap_or(0) == 0 {
            assert_eq!(value(&client, read).await, "45");
        }
    })
    .await;
}

const FAR: &str = "db.3";

/// A primary, a replica in the proxy's zone, and [`FAR`] in another one.
async fn in_two_zones(pool_size: u32) -> (Cluster, [Cluster; 2], Proxy) {
    let primary = Cluster::create();
    let (near, far) = (primary.standby(), primary.standby());
    let mut database = Database { zone: Some("a".to_owned()), ..with_replica(&primary, &near) };
    database.nodes.get_mut(REPLICA).unwrap().zone = Some("a".to_owned());
    database
        .nodes
        .insert(FAR.to_owned(), Node { zone: Some("b".to_owned()), ..node(&far, Role::ReadReplica) });
    (database.pool_size, database.read_wait_ms) = (pool_size, 30_000);
    let proxy = start(database);
    let client = proxy.connect().await.unwrap();
    client.simple_query(SCHEMA).await.unwrap();
    until_reads_land(&client).await;
    let serves = |db: &DatabaseStatus, node: &str| db.nodes[node].state == NodeState::Serving;
    proxy.until(|db| serves(db, REPLICA) && serves(db, FAR)).await;
    (primary, [near, far], proxy)
}

/// An open transaction keeps its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_of_the_proxys_zone_comes_first_while_it_has_a_connection_left() {
    let (_primary, _replicas, proxy) = in_two_zones(1).await;
    let read_far = || proxy.db().nodes[FAR].statements_total["read"];
    let before = read_far();
    // Who has read nothing yet can be served by both.
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());

    one.simple_query("begin read only").await.unwrap();
    assert_eq!(value(&one, WHERE).await, "t");
    assert_eq!(read_far(), before);
    assert_eq!(value(&other, WHERE).await, "t");
    assert_eq!(read_far(), before + 1);
    one.simple_query("commit").await.unwrap();
    assert_eq!(value(&one, WHERE).await, "t");
    assert_eq!(read_far(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_elsewhere_takes_reads_when_that_of_the_proxys_zone_has_more_than_twice_as_many() {
    let (_primary, _replicas, proxy) = in_two_zones(10).await;
    let in_use = || {
        let of = |node: &str| {
            let node = &proxy.db().nodes[node];
            node.servers - node.servers_idle
        };
        (of(REPLICA), of(FAR))
    };
    let mut clients = Vec::new();
    for expected in [(1, 0), (2, 0), (2, 1), (3, 1), (4, 1), (4, 2)] {
        let client = proxy.connect().await.unwrap();
        client.simple_query("begin read only").await.unwrap();
        assert_eq!(value(&client, WHERE).await, "t");
        clients.push(client);
        assert_eq!(in_use(), expected);
    }
}
